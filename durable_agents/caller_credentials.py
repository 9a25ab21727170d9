"""Remember how a request was authenticated, so that its user can be authenticated again later."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, parse_cookie
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.module_loading import import_string

from durable_agents.actors import User

if TYPE_CHECKING:
    from rest_framework.request import Request

_SALT = "durable_agents.credentials"
_KEPT = ("REMOTE_ADDR", "REMOTE_USER", "SERVER_NAME", "SERVER_PORT")


@dataclass(frozen=True, kw_only=True)
class Credential:
    """The user of a request, and what authenticated the request: a session, a token, or the project's own method."""

    user_id: str
    secret: str
    """A value derived from the user's password hash. It changes with the password."""
    authenticator: str = ""
    """The REST framework class that authenticated the user; empty if the request cannot be authenticated again."""
    path: str = "/"
    meta: Mapping[str, str] = field(default_factory=dict)
    """The headers, under their names in ``HttpRequest.META``."""
    session_class: str = ""
    session_key: str | None = None

    @classmethod
    def of_user(cls, user: User) -> Credential:
        """Return a credential that is valid while the user is active and keeps the same password."""
        return cls(user_id=str(user.pk), secret=_secret_of(user))

    @classmethod
    def of(cls, request: Request) -> Credential:
        """Return the credential of an authenticated REST framework request. The request's user must be saved in the
        database.

        Some requests cannot be authenticated again, for example because a nonce was used up, or because the project's
        own middleware authenticated the user. In that case, return the credential that ``of_user`` returns.
        """
        kept = {name: value for name, value in request.META.items() if name.startswith("HTTP_") or name in _KEPT}
        session = getattr(request._request, "session", None)
        repeatable = replace(
            cls.of_user(request.user),
            authenticator=_path_of(request.successful_authenticator),
            path=request.path,
            meta={name: value for name, value in kept.items() if isinstance(value, str)},
            session_class=_path_of(session),
            session_key=getattr(session, "session_key", None),
        )
        return repeatable if repeatable.user_now() else cls.of_user(request.user)

    def user_now(self) -> User | None:
        """Authenticate again. Return the reloaded user, or None if the credential is no longer valid."""
        if self.authenticator:
            user = self._authenticated()
        else:
            user = get_user_model()._default_manager.filter(pk=self.user_id).first()
            if user is not None and not constant_time_compare(_secret_of(user), self.secret):
                return None
        if user is None or str(user.pk) != self.user_id or not getattr(user, "is_active", True):
            return None
        return user

    def _authenticated(self) -> User | None:
        from rest_framework.exceptions import APIException  # noqa: PLC0415 - only for requests to the REST API
        from rest_framework.request import Request  # noqa: PLC0415

        try:
            authenticator = import_string(self.authenticator)()
        except (ImportError, TypeError):
            # A deploy has removed the authenticator's class, or has changed its constructor so that it needs arguments.
            return None
        try:
            user = Request(self._request(), authenticators=[authenticator]).user
        except (APIException, PermissionDenied):
            return None
        return user if isinstance(user, get_user_model()) else None

    def _request(self) -> HttpRequest:
        """Build a GET request without a body. Such a request triggers no action, and needs no CSRF token."""
        request = HttpRequest()
        request.method, request.path = "GET", self.path
        request.META = {**self.meta, "REQUEST_METHOD": "GET"}
        request.COOKIES = parse_cookie(self.meta.get("HTTP_COOKIE", ""))
        if self.session_class:
            request.session = import_string(self.session_class)(self.session_key)
        request.user = user_of_session(getattr(request, "session", None)) or AnonymousUser()
        return request

    def sealed(self, key: str) -> str:
        """Return the credential encrypted, to be stored in the database. ``key`` must be 256 random bits that are used
        for nothing else.

        To decrypt it, one needs the encrypted text, the key and SECRET_KEY.
        """
        data = json.dumps(asdict(self)).encode()
        body = _xor(data, _stream(key, len(data)))
        return f"{_mac(key, body)}{body.hex()}"

    @classmethod
    def unsealed(cls, sealed: str, key: str) -> Credential | None:
        """Decrypt a credential. Return None if the key does not fit."""
        mac, body = sealed[:64], bytes.fromhex(sealed[64:])
        if not constant_time_compare(mac, _mac(key, body)):
            return None
        return cls(**json.loads(_xor(body, _stream(key, len(body)))))


def _path_of(thing: object) -> str:
    """Return the dotted path of an object's class, or an empty string for None."""
    return "" if thing is None else f"{type(thing).__module__}.{type(thing).__qualname__}"


def _secret_of(user: object) -> str:
    return str(user.get_session_auth_hash()) if hasattr(user, "get_session_auth_hash") else ""


def user_of_session(session: SessionBase | None) -> User | None:
    """Return the user that Django's authentication middleware would set for this session, or None.

    Django's own ``get_user`` is not used, because it changes sessions: it ends a session after a password change, and
    gives a new key to a session that was signed with an old SECRET_KEY.
    """
    if session is None or SESSION_KEY not in session or BACKEND_SESSION_KEY not in session:
        return None
    user = load_backend(session[BACKEND_SESSION_KEY]).get_user(session[SESSION_KEY])
    if user is None or not hasattr(user, "get_session_auth_hash"):
        return user
    good = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    given = session.get(HASH_SESSION_KEY) or ""
    return user if any(constant_time_compare(given, one) for one in good) else None


def _derived(key: str, use: str) -> bytes:
    return bytes(salted_hmac(f"{_SALT}.{use}", key, algorithm="sha256").digest())


def _stream(key: str, length: int) -> bytes:
    """Return ``length`` bytes derived from the key with SHAKE-256, for use as a one-time pad. Never use a key twice."""
    return hashlib.shake_256(_derived(key, "stream")).digest(length)


def _mac(key: str, body: bytes) -> str:
    return hmac.new(_derived(key, "mac"), body, "sha256").hexdigest()


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")

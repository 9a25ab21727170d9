"""Policies: decide who may see and do what; every edge asks the policy on every access.

A project names its own class in ``DURABLE_AGENTS["POLICY"]``; the default gives each user their own threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Protocol
from uuid import UUID

from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from durable_agents.actors import Actor, User
from durable_agents.agents import Agent, registry
from durable_agents.conf import config, user_of_headers
from durable_agents.credentials import Credential
from durable_agents.exceptions import (
    AgentNotFoundError,
    AttachmentNotFoundError,
    PermissionDeniedError,
    ThreadNotFoundError,
    ToolCallNotFoundError,
)
from durable_agents.models import Attachment, Thread, ThreadQuerySet, ToolCall, ToolCallStatus
from durable_agents.parts import attachment_id
from durable_agents.strictjson import is_storable, is_uuid
from durable_agents.tool_call_permissions import is_left_to


class Asker(Protocol):
    """The caller, as policies get it: a request, or a websocket's user, session and headers."""

    @property
    def user(self) -> User:
        """Who asks; anonymous callers are somebody whose ``is_authenticated`` is false."""

    @property
    def session(self) -> SessionBase | None:
        """Their session, where the project has sessions."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the request or handshake."""


class OwnerPolicy:
    """Signed-in users, superusers included, reach their own threads only."""

    def filter(self, queryset: ThreadQuerySet, request: Asker) -> ThreadQuerySet:
        """Return the threads that exist for this caller; an id outside answers as one that does not exist."""
        if not request.user.is_authenticated:
            return queryset.none()
        return queryset.filter(owner=request.user)

    def allows(
        self,
        request: Asker,
        action: str,
        *,
        agent: Agent | None = None,
        thread: Thread | None = None,
        tool_call: ToolCall | None = None,
    ) -> bool:
        """Whether the caller may do ``action``: create, view, send, stop, resume, edit, fork, delete,
        add_tool_result, approve or export."""
        return bool(request.user.is_authenticated)

    def owner_and_scope(self, request: Asker) -> tuple[User | None, str]:
        """Return owner and scope of a thread that this caller creates."""
        return request.user, ""

    def context(self, request: Asker) -> dict[str, object]:
        """Return the trusted context of a thread that this caller creates."""
        return {}


@cache
def policy() -> OwnerPolicy:
    """Return the project's policy."""
    instance: OwnerPolicy = import_string(config().policy)()
    return instance


def may_connect(request: Asker) -> bool:
    """Whether the policy shows this caller anything at all; it is asked again about each agent and thread."""
    agents = registry.public()
    return bool(public_agents(request)) if agents else bool(request.user.is_authenticated)


class SignIn:
    """How the user of a long-lived connection is signed in. The connection may outlive a session by days, so call
    ``user_now`` regularly.

    All methods are synchronous, the constructor included: they read the database.
    """

    def __init__(self, request: Asker, credential: Credential | None = None) -> None:
        """Remember how the request's user is signed in: by ``credential``, or else by the request's session or
        header.
        """
        self._credential = credential
        self._request = request
        self._user = request.user
        self._session_key = getattr(getattr(request, "session", None), "session_key", None)
        self._session = self._stored_session()
        self._is_by_headers = self._is_named_by_headers()

    @property
    def is_by_session(self) -> bool:
        """Whether the user is that of the request's session, whose cookie a browser sends unasked."""
        return self._credential is None and self._session[1] == str(self._user.pk)

    def user_now(self) -> User | None:
        """Return the user, read anew, or None if they are locked out or deleted, or their sign-in is no longer valid: a
        session that has ended or belongs to another user, a password that was changed, a token that was deleted.
        """
        if self._credential is not None:
            return self._credential.user_now()
        if self._stored_session() != self._session or self._is_named_by_headers() != self._is_by_headers:
            return None
        if not isinstance(self._user, get_user_model()):
            return self._user  # anonymous, or known to the project's own authentication only
        user = get_user_model()._default_manager.filter(pk=self._user.pk).first()
        if user is None or not user.is_active:
            return None
        return user if self._is_by_headers or _secret(user) == _secret(self._user) else None

    def _stored_session(self) -> tuple[bool, object]:
        """Whether the session exists, and whose it is. A signed cookie exists as long as it is valid."""
        if self._request.session is None or not self._session_key:
            return False, None
        # Not type(): the session of a websocket is a lazy object, which has the class of the one that it wraps.
        session = self._request.session.__class__(self._session_key)
        user_id = session.get(SESSION_KEY)  # reads it: a store forgets the key of a session that is not there
        return session.session_key == self._session_key, user_id

    def _is_named_by_headers(self) -> bool:
        is_named_by_session = self._session[1] == str(self._user.pk)
        return not is_named_by_session and bool(user_of_headers(self._request.headers) == self._user)


def _secret(user: User) -> object:
    """Return a value that changes with the password: Django signs out every session with another one."""
    return user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else None


def public_agents(request: Asker, action: str = "view") -> list[Agent]:
    """Return the public agents with which the caller may do this, by name."""
    return [agent for agent in registry.public() if policy().allows(request, action, agent=agent)]


def public_agent(request: Asker, name: str, action: str) -> Agent:
    """Return the public agent of this name, to do ``action`` with. Raises AgentNotFoundError and
    PermissionDeniedError.
    """
    agent = registry.get(name)
    if not agent.public:
        raise AgentNotFoundError(name)
    if not policy().allows(request, action, agent=agent):
        raise PermissionDeniedError(f"You may not {action} threads of agent {name!r}.")
    return agent


def public_threads(request: Asker) -> ThreadQuerySet:
    """Return the threads that exist for this caller outside: those the policy shows, of public agents they may view."""
    shown = policy().filter(Thread.objects.all(), request)
    return shown.filter(agent__in=[agent.name for agent in public_agents(request)])


def public_thread(request: Asker, thread_id: str | UUID, action: str) -> Thread:
    """Return the thread with this id, or with this ``client_id`` of the caller, if the caller may do ``action`` to it.

    A UUID is always a primary key, never a ``client_id``. Pass one wherever the thread is already known: a string could
    also match a thread of the caller whose ``client_id`` is that id, so that a caller who has lost access to the thread
    would still pass the check.

    Raises ThreadNotFoundError if no such thread exists for the caller, its agent is internal or they may not view it,
    and PermissionDeniedError if they may view it but not do ``action``.
    """
    threads = public_threads(request)
    is_key = isinstance(thread_id, UUID) or is_uuid(thread_id)
    thread = threads.filter(pk=thread_id).first() if is_key else None
    if thread is None and isinstance(thread_id, str) and is_storable(thread_id):
        named = threads.filter(client_id=thread_id)
        if named.exists():  # else the policy is not asked: that may begin a session
            owner, scope = owner_and_scope(request)
            thread = named.filter(owner=owner, scope=scope).first()
    if thread is None:
        raise ThreadNotFoundError(thread_id)
    agent = registry.find(thread.agent)
    if not policy().allows(request, "view", agent=agent, thread=thread):
        raise ThreadNotFoundError(thread_id)
    if not policy().allows(request, action, agent=agent, thread=thread):
        raise PermissionDeniedError(f"You may not {action} thread {thread_id}.")
    return thread


def public_tool_call(
    request: Asker, thread_id: str | UUID, tool_call_id: str, action: str, *, left_to: str | None = None
) -> ToolCall:
    """Return the call of this id, with its thread, to do ``action`` to: add_tool_result or approve.

    ``left_to`` says who may: ``owner`` (and staff), ``staff``, ``other`` than who asked, users with a permission, users
    whom a function of the tool allows, or ``server``, which is no caller of the API; None means as the tool declares.
    Raises what ``public_thread`` raises, ToolCallNotFoundError, and PermissionDeniedError.
    """
    thread = public_thread(request, thread_id, "view")
    rows = ToolCall.objects.filter(thread=thread, tool_call_id=tool_call_id)
    call = rows.first() if is_storable(tool_call_id) else None
    if call is None:
        raise ToolCallNotFoundError(tool_call_id)
    call.thread = thread
    if not _is_allowed(request, call, action, left_to=left_to):
        raise PermissionDeniedError(f"You may not perform {action!r} on tool call {tool_call_id!r}.")
    return call


def can_decide(request: Asker, call: ToolCall) -> bool:
    """Whether a call waits for a decision that the caller may make."""
    return call.status == ToolCallStatus.APPROVAL_REQUESTED and _is_allowed(request, call, "approve")


def _is_allowed(request: Asker, call: ToolCall, action: str, *, left_to: str | None = None) -> bool:
    """Return whether the policy allows the action, and ``left_to``, or else the tool's option, includes the caller."""
    option = "answered_by" if action == "add_tool_result" else "approved_by"
    who = left_to or getattr(call, option)
    agent, thread = registry.find(call.thread.agent), call.thread
    is_allowed = policy().allows(request, action, agent=agent, thread=thread, tool_call=call)
    if not is_allowed or who == "server":
        return False
    if who not in {"owner", "staff"}:
        return is_left_to(_user_row(request.user), who, call, option=option)
    if getattr(request.user, "is_staff", False):
        return True
    if who != "owner":
        return False
    if thread.owner_id is not None:
        return bool(request.user.pk == thread.owner_id)
    # A thread without an owner belongs to those who would create it in its scope.
    owner, scope = owner_and_scope(request)
    return owner is None and bool(scope == thread.scope)


def public_attachment(request: Asker, key: str) -> Attachment:
    """Return the attachment of this id, to view: one that the caller has uploaded and not sent, or one of a thread that
    they may view. Raises AttachmentNotFoundError.
    """
    # Called for an unknown id, too: it may begin a session, which would reveal that the id exists.
    uploader = owner_and_scope(request) if public_agents(request) else None
    row = Attachment.objects.filter(pk=key).first() if is_uuid(key) else None
    if row is None:
        raise AttachmentNotFoundError(key)
    if row.thread_id is None:
        if uploader is None or (getattr(uploader[0], "pk", None), uploader[1]) != (row.owner_id, row.scope):
            raise AttachmentNotFoundError(key)
        return row
    try:
        public_thread(request, row.thread_id, "view")
    except (ThreadNotFoundError, PermissionDeniedError):
        raise AttachmentNotFoundError(key) from None
    return row


def owner_and_scope(request: Asker) -> tuple[User | None, str]:
    """Return the owner and the scope for what the caller creates. The owner is None if there is none, as for Django's
    anonymous user.
    """
    owner, scope = policy().owner_and_scope(request)
    return None if getattr(owner, "pk", None) is None else owner, scope


def sender(request: Asker, parts: object) -> tuple[User | None, str] | None:
    """Return whose uploads these parts of the caller's message may name, or None if they name none, because asking the
    policy may begin a session.
    """
    has_uploads = isinstance(parts, list) and any(attachment_id(part) for part in parts)
    return owner_and_scope(request) if has_uploads else None


def actor(request: Asker, *, via: str, thread: Thread | None = None) -> Actor:
    """Return the caller as the actor that is recorded. Callers without a row of the user model, and callers who act on
    a thread without an owner, are known by their scope.
    """
    user = _user_row(request.user)
    needs_scope = user is None or (thread is not None and thread.owner_id is None)
    return Actor(user=user, scope=owner_and_scope(request)[1] if needs_scope else None, via=via)


def _user_row(user: User) -> User | None:
    """Return the row of a user; stateless tokens stand for one that has to be read."""
    if isinstance(user, get_user_model()) or not getattr(user, "is_authenticated", False):
        return user if isinstance(user, get_user_model()) else None
    try:
        return get_user_model()._default_manager.filter(pk=user.pk).first()
    except (AttributeError, TypeError, ValueError):
        return None


@receiver(setting_changed)
def _clear_cache(*, setting: str, **_: object) -> None:
    if setting == "DURABLE_AGENTS":
        policy.cache_clear()

"""Policies decide what each caller may see and do. Every interface asks the project's policy on every access.

A project sets its own class in ``DURABLE_AGENTS["POLICY"]``. The default policy lets users access their own threads.
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
from durable_agents.caller_credentials import Credential
from durable_agents.conf import config, user_of_headers
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
    """The caller as policies see it: a request, or an object with a websocket's user, session and headers."""

    @property
    def user(self) -> User:
        """The user. For anonymous callers, ``is_authenticated`` is false."""

    @property
    def session(self) -> SessionBase | None:
        """The session, or None if there is none."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the request or handshake."""


class OwnerPolicy:
    """Lets signed-in users, including superusers, access only their own threads."""

    def filter(self, queryset: ThreadQuerySet, request: Asker) -> ThreadQuerySet:
        """Return the threads that this caller may know about. All others appear not to exist."""
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
        """Return whether the caller may perform ``action``: create, view, send, stop, resume, edit, fork, delete,
        add_tool_result, approve or export.
        """
        return bool(request.user.is_authenticated)

    def owner_and_scope(self, request: Asker) -> tuple[User | None, str]:
        """Return the owner and the scope of a thread that this caller creates."""
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
    """Return whether the policy lets this caller see any agent. The policy decides again on each agent and thread."""
    agents = registry.public()
    return bool(public_agents(request)) if agents else bool(request.user.is_authenticated)


class SignIn:
    """How the user of a long-lived connection was authenticated. The connection may outlive the user's session by days,
    so call ``user_now`` regularly.

    All methods, including the constructor, are synchronous, because they read the database.
    """

    def __init__(self, request: Asker, credential: Credential | None = None) -> None:
        """Record how the request's user was authenticated: by ``credential`` if it is given, otherwise by the request's
        session or header.
        """
        self._credential = credential
        self._request = request
        self._user = request.user
        self._session_key = getattr(getattr(request, "session", None), "session_key", None)
        self._session = self._stored_session()
        self._is_by_headers = self._is_named_by_headers()

    @property
    def is_by_session(self) -> bool:
        """Whether the user was authenticated by the session. Browsers send the session's cookie with every request."""
        return self._credential is None and self._session[1] == str(self._user.pk)

    def user_now(self) -> User | None:
        """Return the user, reloaded from the database, or None if the user may not continue.

        The user may not continue if the account is inactive or deleted, the session has ended or belongs to another
        user, the password was changed, or the token was deleted.
        """
        if self._credential is not None:
            return self._credential.user_now()
        if self._stored_session() != self._session or self._is_named_by_headers() != self._is_by_headers:
            return None
        if not isinstance(self._user, get_user_model()):
            # An anonymous user and the user of a stateless token have no row to reload.
            return self._user
        user = get_user_model()._default_manager.filter(pk=self._user.pk).first()
        if user is None or not user.is_active:
            return None
        return user if self._is_by_headers or _secret(user) == _secret(self._user) else None

    def _stored_session(self) -> tuple[bool, object]:
        """Return whether the session is stored, and the id of its user. A session in a signed cookie counts as stored
        as long as the cookie is valid.
        """
        if self._request.session is None or not self._session_key:
            return False, None
        # A websocket's session is wrapped in a lazy object. ``__class__`` returns the class of the wrapped session.
        session = self._request.session.__class__(self._session_key)
        # This loads the session. If the session is not stored, loading it removes its key.
        user_id = session.get(SESSION_KEY)
        return session.session_key == self._session_key, user_id

    def _is_named_by_headers(self) -> bool:
        is_named_by_session = self._session[1] == str(self._user.pk)
        return not is_named_by_session and bool(user_of_headers(self._request.headers) == self._user)


def _secret(user: User) -> object:
    """Return a value that changes with the password. Django ends sessions that were started with an earlier value."""
    return user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else None


def public_agents(request: Asker, action: str = "view") -> list[Agent]:
    """Return the public agents that the caller may use for ``action``, sorted by name."""
    return [agent for agent in registry.public() if policy().allows(request, action, agent=agent)]


def public_agent(request: Asker, name: str, action: str) -> Agent:
    """Return the public agent of this name, if the caller may perform ``action`` with it. Raises AgentNotFoundError and
    PermissionDeniedError.
    """
    agent = registry.find(name)
    if agent is None or not agent.public:  # callers must not learn that an internal agent exists
        raise AgentNotFoundError(name, public=True)
    if not policy().allows(request, action, agent=agent):
        raise PermissionDeniedError(f"You may not {action} threads of agent {name!r}.")
    return agent


def public_threads(request: Asker) -> ThreadQuerySet:
    """Return the threads that the policy lets this caller see. Their agents are public and visible to the caller."""
    shown = policy().filter(Thread.objects.all(), request)
    return shown.filter(agent__in=[name for agent in public_agents(request) for name in agent.names])


def public_thread(request: Asker, thread_id: str | UUID, action: str) -> Thread:
    """If the caller may perform ``action`` on a thread, return the thread. ``thread_id`` is the thread's id, or the
    ``client_id`` of one of the caller's own threads.

    A ``UUID`` object matches only the primary key. To check access to a loaded thread, pass its primary key as a
    ``UUID``. A string would be unsafe: callers can create a thread with any ``client_id``, even the id of another
    user's thread.

    Raises ThreadNotFoundError if the caller can see no such thread, the agent is not public, or the caller may not view
    the thread. Raises PermissionDeniedError if the caller may view the thread but not perform ``action``.
    """
    threads = public_threads(request)
    is_key = isinstance(thread_id, UUID) or is_uuid(thread_id)
    thread = threads.filter(pk=thread_id).first() if is_key else None
    if thread is None and isinstance(thread_id, str) and is_storable(thread_id):
        named = threads.filter(client_id=thread_id)
        if named.exists():
            # The policy may create a session here. So ask the policy only if there is a thread with this ``client_id``.
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
    """If the caller may perform ``action``, return the tool call of this id, with its thread. ``action`` is
    ``add_tool_result`` or ``approve``.

    ``left_to`` says who may perform the action: ``owner`` (and staff), ``staff``, ``other`` (any user but the one who
    asked for the call), the name of a permission, ``function`` (the tool's function decides) or ``server`` (nobody may
    do it over the API). None means the tool's own option. Raises the errors of ``public_thread``, and
    ToolCallNotFoundError.
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
    """Return whether the call needs an approval and the caller may approve or refuse it."""
    return call.status == ToolCallStatus.APPROVAL_REQUESTED and _is_allowed(request, call, "approve")


def _is_allowed(request: Asker, call: ToolCall, action: str, *, left_to: str | None = None) -> bool:
    """Return whether the policy and ``left_to`` both allow this. If ``left_to`` is None, the tool's option is used."""
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
    # A thread without an owner belongs to every anonymous caller with the same scope.
    owner, scope = owner_and_scope(request)
    return owner is None and bool(scope == thread.scope)


def public_attachment(request: Asker, key: str) -> Attachment:
    """If the caller may view the attachment of this id, return it; otherwise raise AttachmentNotFoundError. Only the
    uploader may view an attachment that was not sent yet. A sent attachment can be viewed by everybody who may view its
    thread.
    """
    # This call may create a session. Make the call for unknown ids, too: a session cookie must not reveal that the id
    # exists.
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
    """Return the owner and the scope of threads and attachments that the caller creates. The owner is None for a user
    without a primary key, such as Django's anonymous user.
    """
    owner, scope = policy().owner_and_scope(request)
    return None if getattr(owner, "pk", None) is None else owner, scope


def sender(request: Asker, parts: object) -> tuple[User | None, str] | None:
    """Return the owner and the scope of the uploads that this caller may send, or None if ``parts`` contains no upload.

    Without an upload, the policy is not called, because it may create a session.
    """
    has_uploads = isinstance(parts, list) and any(attachment_id(part) for part in parts)
    return owner_and_scope(request) if has_uploads else None


def actor(request: Asker, *, via: str, thread: Thread | None = None) -> Actor:
    """Return the caller as the actor for the audit log. The actor has a scope if the caller is not a stored user, or
    acts on a thread without an owner.
    """
    user = _user_row(request.user)
    needs_scope = user is None or (thread is not None and thread.owner_id is None)
    return Actor(user=user, scope=owner_and_scope(request)[1] if needs_scope else None, via=via)


def _user_row(user: User) -> User | None:
    """Return the stored user for this user, or None. The user of a stateless token is loaded by its primary key."""
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

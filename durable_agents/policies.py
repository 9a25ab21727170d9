"""Who may see and do what: the one authority that every edge asks on every access.

A project names its own class in ``DURABLE_AGENTS["POLICY"]``; the default gives each user their own threads.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from django.contrib.auth import SESSION_KEY, get_user_model
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from durable_agents.agents import registry
from durable_agents.conf import config, user_of_headers
from durable_agents.exceptions import (
    AgentNotFoundError,
    AttachmentNotFoundError,
    PermissionDeniedError,
    ThreadNotFoundError,
    ToolCallNotFoundError,
)
from durable_agents.models import Attachment, Thread, ThreadQuerySet, ToolCall
from durable_agents.parts import attachment_id
from durable_agents.strictjson import is_storable, is_uuid

if TYPE_CHECKING:
    from durable_agents.agents import Agent


class Asker(Protocol):
    """What a policy is shown: a request, or a websocket's user, session and headers."""

    @property
    def user(self) -> Any:
        """Who asks; anonymous callers are somebody whose ``is_authenticated`` is false."""

    @property
    def session(self) -> Any:
        """Their session, where the project has sessions."""

    @property
    def headers(self) -> Any:
        """The headers of the request or handshake."""


class OwnerPolicy:
    """Signed-in users reach their own threads and nobody else's; superusers too."""

    def filter(self, queryset: ThreadQuerySet, request: Asker) -> ThreadQuerySet:
        """The threads that exist for this caller; an id outside answers as one that does not exist."""
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
        """Whether the caller may do ``action``: create, view, send, stop, resume, edit, fork, delete, answer,
        approve or export."""
        return bool(request.user.is_authenticated)

    def owner_and_scope(self, request: Asker) -> tuple[Any, str]:
        """Owner and scope of a thread that this caller creates."""
        return request.user, ""

    def context(self, request: Asker) -> dict[str, Any]:
        """Trusted context of a thread that this caller creates."""
        return {}


@cache
def policy() -> OwnerPolicy:
    """The project's policy."""
    made: OwnerPolicy = import_string(config().policy)()
    return made


def may_come(request: Asker) -> bool:
    """Whether there is anything to be seen for this caller: the policy is asked again about each agent and thread."""
    agents = registry.public()
    return bool(public_agents(request)) if agents else bool(request.user.is_authenticated)


class SignIn:
    """How somebody has come whose connection goes on, which may outlive a session by days: to be asked now and then.

    Synchronous, also when it is made: it reads what is stored.
    """

    def __init__(self, request: Asker) -> None:
        self._request = request
        self._user = request.user
        self._session_key = getattr(getattr(request, "session", None), "session_key", None)
        self._session = self._stored_session()
        self._is_by_headers = self._is_named_by_headers()

    def user_now(self) -> Any | None:
        """The user, read anew; None where they are locked out or deleted, or what they came with is no good any more:
        a session that has ended or is somebody else's, a password that was changed, a token that was deleted."""
        if self._stored_session() != self._session or self._is_named_by_headers() != self._is_by_headers:
            return None
        if not isinstance(self._user, get_user_model()):
            return self._user  # anonymous, or known to the project's own authentication only
        user = get_user_model()._default_manager.filter(pk=self._user.pk).first()
        if user is None or not user.is_active:
            return None
        return user if self._is_by_headers or _secret(user) == _secret(self._user) else None

    def _stored_session(self) -> tuple[bool, Any]:
        """Whether the session is there, and whose it is. A signed cookie is there as long as it is good."""
        if not self._session_key:
            return False, None
        session = self._request.session.__class__(self._session_key)
        whose = session.get(SESSION_KEY)  # reads it: a store forgets the key of a session that is not there
        return session.session_key == self._session_key, whose

    def _is_named_by_headers(self) -> bool:
        is_named_by_session = self._session[1] == str(self._user.pk)
        return not is_named_by_session and bool(user_of_headers(self._request.headers) == self._user)


def _secret(user: Any) -> Any:
    """What changes with the password: Django signs everybody out whose session says another one."""
    return user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else None


def public_agents(request: Asker, action: str = "view") -> list[Agent]:
    """The public agents with which the caller may do this, by name."""
    return [agent for agent in registry.public() if policy().allows(request, action, agent=agent)]


def public_agent(request: Asker, name: str, action: str) -> Agent:
    """The public agent of this name, to do ``action`` with. Raises AgentNotFoundError and PermissionDeniedError."""
    agent = registry.get(name)
    if not agent.public:
        raise AgentNotFoundError(name)
    if not policy().allows(request, action, agent=agent):
        raise PermissionDeniedError(f"You may not {action} threads of agent {name!r}.")
    return agent


def public_threads(request: Asker) -> ThreadQuerySet:
    """The threads that exist for this caller outside: those the policy shows, of public agents they may view."""
    shown = policy().filter(Thread.objects.all(), request)
    return shown.filter(agent__in=[agent.name for agent in public_agents(request)])


def public_thread(request: Asker, thread_id: str, action: str) -> Thread:
    """The thread of this id, or of this ``client_id`` of the caller, to do ``action`` to.

    Raises ThreadNotFoundError, for foreign ones, those of internal agents and what the caller may not even view, and
    PermissionDeniedError.
    """
    threads = public_threads(request)
    thread = threads.filter(pk=thread_id).first() if is_uuid(thread_id) else None
    thread = thread or _by_client_id(request, threads, thread_id)
    if thread is None:
        raise ThreadNotFoundError(thread_id)
    agent = registry.find(thread.agent)
    if not policy().allows(request, "view", agent=agent, thread=thread):
        raise ThreadNotFoundError(thread_id)
    if not policy().allows(request, action, agent=agent, thread=thread):
        raise PermissionDeniedError(f"You may not {action} thread {thread_id}.")
    return thread


def public_tool_call(
    request: Asker, thread_id: str, tool_call_id: str, action: str, *, left_to: str | None = None
) -> ToolCall:
    """The call of this id, with its thread, to do ``action`` to: answer or approve.

    ``left_to`` says who may: ``owner`` (and staff), ``staff``, or ``server``, nobody outside; None: whom the call's
    tool names. Raises what ``public_thread`` raises, ToolCallNotFoundError, and PermissionDeniedError.
    """
    thread = public_thread(request, thread_id, "view")
    found = is_storable(tool_call_id) and ToolCall.objects.filter(thread=thread, tool_call_id=tool_call_id).first()
    if not found:
        raise ToolCallNotFoundError(tool_call_id)
    call: ToolCall = found
    call.thread = thread
    who = left_to or (call.answered_by if action == "answer" else call.approved_by)
    agent = registry.find(thread.agent)
    is_allowed = policy().allows(request, action, agent=agent, thread=thread, tool_call=call)
    if not (is_allowed and _is_one_of(request, who, thread)):
        raise PermissionDeniedError(f"You may not {action} tool call {tool_call_id!r}.")
    return call


def public_attachment(request: Asker, key: str) -> Attachment:
    """The attachment of this id, to view: what the caller has uploaded and not sent, or what a thread has that they may
    view. Raises AttachmentNotFoundError."""
    # Asked for an id of nothing too: it may begin a session, by which the answer would tell that there is something.
    whose = owner_and_scope(request) if public_agents(request) else None
    row = Attachment.objects.filter(pk=key).first() if is_uuid(key) else None
    if row is None or not _may_view(request, row, whose=whose):
        raise AttachmentNotFoundError(key)
    return row


def _may_view(request: Asker, row: Attachment, *, whose: tuple[Any, str] | None) -> bool:
    if row.thread_id is None:
        return whose is not None and (getattr(whose[0], "pk", None), whose[1]) == (row.owner_id, row.scope)
    try:
        thread = public_thread(request, str(row.thread_id), "view")
    except (ThreadNotFoundError, PermissionDeniedError):
        return False
    return thread.pk == row.thread_id  # a caller may have given this id to a thread of theirs


def owner_and_scope(request: Asker) -> tuple[Any, str]:
    """Owner, None for nobody, and scope of what the caller makes. Django's anonymous user owns nothing."""
    owner, scope = policy().owner_and_scope(request)
    return None if getattr(owner, "pk", None) is None else owner, scope


def sender(request: Asker, parts: Any) -> tuple[Any, str] | None:
    """Whose uploads these parts of a message of the caller's may name; None where they name none: to be asked may begin
    a session."""
    names_some = isinstance(parts, list) and any(attachment_id(part) for part in parts)
    return owner_and_scope(request) if names_some else None


def decider(request: Asker, thread: Thread) -> Any:
    """Who decides, as it is kept with a call: the user; None where the thread is nobody's, and so left to a scope."""
    is_named = thread.owner_id is not None or getattr(request.user, "is_staff", False)
    return request.user if is_named else None


def _is_one_of(request: Asker, who: str, thread: Thread) -> bool:
    """Whether the caller is among those to whom something about the thread is left."""
    if who == "server":
        return False
    if getattr(request.user, "is_staff", False):
        return True
    return who == "owner" and _is_owner(request, thread)


def _is_owner(request: Asker, thread: Thread) -> bool:
    """Whether the thread is the caller's; one without an owner is of those who would create it in its scope."""
    if thread.owner_id is not None:
        return bool(request.user.pk == thread.owner_id)
    owner, scope = owner_and_scope(request)
    return owner is None and bool(scope == thread.scope)


def _by_client_id(request: Asker, threads: ThreadQuerySet, client_id: str) -> Thread | None:
    """Only where there is one is the policy asked whose new threads would be: that may begin a session."""
    found = threads.filter(client_id=client_id)
    if not is_storable(client_id) or not found.exists():
        return None
    owner, scope = owner_and_scope(request)
    return found.filter(owner=owner, scope=scope).first()


def _forget(*, setting: str, **_: object) -> None:
    if setting == "DURABLE_AGENTS":
        policy.cache_clear()


setting_changed.connect(_forget)

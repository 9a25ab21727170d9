"""Policies decide what each caller may see and do. Every access over the API asks the project's policy.

Set your own class in ``DURABLE_AGENTS["POLICY"]``. The default policy lets users access only their own threads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Protocol
from uuid import UUID

from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore
from django.core.signals import setting_changed
from django.db.models import Q, Value
from django.dispatch import receiver
from django.utils import timezone
from django.utils.module_loading import import_string

from durable_agents.actors import Actor, Person, User, person_of
from durable_agents.agents import Agent, RemovedAgent, registry
from durable_agents.caller_credentials import Credential
from durable_agents.conf import config, user_of_headers
from durable_agents.exceptions import (
    AgentNotFoundError,
    AgentRemovedError,
    AttachmentNotFoundError,
    InvalidJSONObjectError,
    PermissionDeniedError,
    ThreadNotFoundError,
    ToolCallNotFoundError,
)
from durable_agents.logs import log_error
from durable_agents.metadata_and_context import json_object
from durable_agents.models import Attachment, Thread, ThreadQuerySet, ToolCall, ToolCallStatus
from durable_agents.parts import attachment_id
from durable_agents.strictjson import JSON, is_storable, is_uuid
from durable_agents.tool_call_permissions import may_set_time, meets_all, meets_condition

ALLOWED_WITHOUT_AGENT = frozenset({"view", "stop", "export", "delete"})
"""The actions on a thread that do not need its agent. They are possible after the agent has been removed."""


class Asker(Protocol):
    """The caller as policies see it: an HTTP request, or an object with a websocket's user, session and headers."""

    @property
    def user(self) -> User:
        """The user. ``is_authenticated`` is false for anonymous callers."""

    @property
    def session(self) -> SessionBase | None:
        """The session, or None."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the request or of the websocket handshake."""


class OwnerPolicy:
    """Users can access only their own threads. This also applies to superusers."""

    def filter(self, queryset: ThreadQuerySet, request: Asker) -> ThreadQuerySet:
        """Return the threads that this caller may know of. All other threads are hidden from the caller."""
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
        """Return whether the caller may perform ``action``.

        If the agent has been removed from the code, ``agent`` is a stand-in with the same name. The actions are:
        create, view, send, stop, resume, edit, fork, delete, add_tool_result, approve or export.
        """
        return bool(request.user.is_authenticated)

    def owner_and_scope(self, request: Asker) -> tuple[User | None, str]:
        """Return the owner and the scope for threads that this caller creates."""
        return request.user, ""

    def context(self, request: Asker) -> dict[str, object]:
        """Return the trusted context for threads that this caller creates."""
        return {}

    def person(self, request: Asker, user: User, *, thread: Thread) -> Person | None:
        """Return what the caller may see of a user, or None if the caller may see nothing.

        The user has sent a message in the thread, has answered a tool call, or has decided about a tool call. By
        default, callers who may view the thread see the user's id and name.
        """
        return person_of(user)


@cache
def policy() -> OwnerPolicy:
    """Return the project's policy."""
    instance: OwnerPolicy = import_string(config().policy)()
    return instance


def may_connect(request: Asker) -> bool:
    """Return whether this caller may open a connection. The policy still checks every later access.

    The caller must be allowed to see at least one public agent. In a project without public agents, the caller must be
    signed in.
    """
    agents = registry.public()
    return bool(public_agents(request)) if agents else bool(request.user.is_authenticated)


class SignIn:
    """How the user of a long-lived connection was authenticated.

    A connection can last days longer than the user's session. Call ``user_now`` regularly to check that the user is
    still valid. All methods read the database, so call them from sync code.
    """

    def __init__(self, request: Asker, credential: Credential | None = None) -> None:
        """Remember how the user was authenticated.

        ``credential`` is None if the session or a header has authenticated the user.
        """
        self._credential = credential
        self._request = request
        self._user = request.user
        session: SessionBase | None = getattr(request, "session", None)
        self._session_key = session.session_key if session is not None else None
        # Remember the session as it is now. ``user_now`` later compares it with the stored session.
        self._session = self._content_of(session) if session is not None and self._session_key else (False, None)
        self._is_by_headers = self._is_named_by_headers()

    @property
    def is_by_session(self) -> bool:
        """Whether the session authenticated the user. Browsers send the session's cookie with every request."""
        return self._credential is None and self._session[1] == str(self._user.pk)

    def user_now(self) -> User | None:
        """Return the reloaded user, or None if the user may not continue.

        None means one of these: the account was deactivated or deleted, the session has ended or belongs to another
        user, the password was changed, or the token was deleted.
        """
        if self._credential is not None:
            return self._credential.user_now()
        if self._stored_session() != self._session or self._is_named_by_headers() != self._is_by_headers:
            return None
        if not isinstance(self._user, get_user_model()):
            # An anonymous user, or the user of a stateless token, has no row to reload.
            return self._user
        return self.user_if_same(self._session, get_user_model()._default_manager.filter(pk=self._user.pk).first())

    def user_if_same(self, session: tuple[bool, object], user: User | None) -> User | None:
        """Return ``user`` if the user may continue, otherwise None.

        ``session`` is a result of ``_stored_session``. Read both arguments from the database right before this call.
        """
        if session != self._session or user is None or not user.is_active:
            return None
        return user if self._is_by_headers or _secret(user) == _secret(self._user) else None

    def _stored_session(self) -> tuple[bool, object]:
        """Return a pair: whether the session still exists, and the id of the session's user.

        A session that is stored in a signed cookie exists as long as the cookie is valid.
        """
        if self._request.session is None or not self._session_key:
            return False, None
        # A websocket's session is a lazy object. ``__class__`` returns the class of the real session.
        return self._content_of(self._request.session.__class__(self._session_key))

    def _content_of(self, session: SessionBase) -> tuple[bool, object]:
        # ``get`` loads the session if necessary. If the session no longer exists, its ``session_key`` is then None.
        user_id = session.get(SESSION_KEY)
        return session.session_key == self._session_key, user_id

    def _is_named_by_headers(self) -> bool:
        is_named_by_session = self._session[1] == str(self._user.pk)
        return not is_named_by_session and bool(user_of_headers(self._request.headers) == self._user)


def users_now(sign_ins: Sequence[SignIn]) -> list[User | None]:
    """Return the result of ``user_now()`` for each sign-in.

    Users who were authenticated by sessions are loaded together. Sessions in the database are loaded together, too. All
    other users are authenticated one by one.
    """
    by_session = [one for one in sign_ins if one.is_by_session and isinstance(one._user, get_user_model())]
    users = get_user_model()._default_manager.in_bulk({one._user.pk for one in by_session}) if by_session else {}
    stored: dict[SignIn, tuple[bool, object]] = {}
    for store in {one._request.session.__class__ for one in by_session}:
        of_store = [one for one in by_session if one._request.session.__class__ is store]
        # With Django's own ``load``, one query can read all sessions. A project's ``load`` may have its own rules for
        # which sessions are valid, so it is called for each session.
        if issubclass(store, SessionStore) and store.load.__module__.startswith("django.contrib.sessions."):
            keys = {one._session_key for one in of_store}
            rows = store.get_model_class().objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
            found = {row.session_key: (True, store().decode(row.session_data).get(SESSION_KEY)) for row in rows}
            stored |= {one: found.get(one._session_key, (False, None)) for one in of_store}
        else:
            stored |= {one: one._stored_session() for one in of_store}
    return [
        one.user_if_same(stored[one], users.get(one._user.pk)) if one in stored else one.user_now() for one in sign_ins
    ]


def visible_threads(
    asked: Sequence[tuple[Asker, Collection[UUID]]], *, defer: Sequence[str] = ()
) -> list[frozenset[UUID]]:
    """Return which of these threads each caller may view. This takes two queries, in addition to those of the policy.

    The fields in ``defer`` are loaded only if a policy uses them.
    """
    shown = [
        public_threads(request).filter(pk__in=ids).order_by().annotate(asker=Value(place)).values_list("asker", "pk")
        for place, (request, ids) in enumerate(asked)
        if ids
    ]
    pairs = list(shown[0].union(*shown[1:], all=True).order_by()) if shown else []
    threads = Thread.objects.defer(*defer).in_bulk({pk for _, pk in pairs}) if pairs else {}
    visible: list[set[UUID]] = [set() for _ in asked]
    for place, pk in pairs:
        thread = threads.get(pk)
        if thread is not None and _may_view(asked[place][0], thread):
            visible[place].add(pk)
    return [frozenset(pks) for pks in visible]


def _secret(user: User) -> object:
    """Return a value that changes with the password. Django ends all sessions that were started with an old value."""
    return user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else None


def public_agents(request: Asker, action: str = "view") -> list[Agent]:
    """Return the public agents on which the caller may perform ``action``, sorted by name."""
    return [agent for agent in registry.public() if policy().allows(request, action, agent=agent)]


def public_agent(request: Asker, name: str, action: str) -> Agent:
    """Return the public agent with this name. Raises AgentNotFoundError if there is no such agent, and
    PermissionDeniedError if the caller may not perform ``action`` on it.
    """
    agent = registry.find(name)
    if agent is None or not agent.public:  # callers must not learn that an internal agent exists
        raise AgentNotFoundError(name, public=True)
    if not policy().allows(request, action, agent=agent):
        raise PermissionDeniedError(f"You may not {action} threads of agent {name!r}.")
    return agent


def public_threads(request: Asker) -> ThreadQuerySet:
    """Return the threads that this caller may see.

    Threads of internal agents are left out, and so are threads of agents that the caller may not see. A thread of a
    removed agent is included if the agent was public, even if the policy denies the agent to the caller. Use
    ``hidden_agents`` to find the removed agents whose threads must be left out.
    """
    shown = policy().filter(Thread.objects.all(), request)
    names = [name for agent in public_agents(request) for name in agent.names]
    known = [name for agent in registry.all() for name in agent.names]
    return shown.filter(Q(agent__in=names) | (Q(agent_is_public=True) & ~Q(agent__in=known)))


def hidden_agents(request: Asker, threads: Iterable[Thread]) -> set[str]:
    """Return the names of removed agents whose threads the caller may not view.

    A removed agent is no longer in the code. Only the agents of ``threads`` are checked.
    """
    removed = {thread.agent for thread in threads if registry.find(thread.agent) is None}
    return {name for name in removed if not policy().allows(request, "view", agent=RemovedAgent(name))}


def _agent_of(thread: Thread) -> Agent:
    """Return the thread's agent, or a stand-in if the agent has been removed."""
    return registry.find(thread.agent) or RemovedAgent(thread.agent)


def _may_view(request: Asker, thread: Thread) -> bool:
    """Return whether the caller may view this thread. The thread must come from ``public_threads``."""
    if hidden_agents(request, [thread]):
        return False
    return policy().allows(request, "view", agent=_agent_of(thread), thread=thread)


def _check_agent(thread: Thread, action: str) -> None:
    """Raise AgentRemovedError if the action needs the thread's agent, but the agent has been removed."""
    if action not in ALLOWED_WITHOUT_AGENT and registry.find(thread.agent) is None:
        raise AgentRemovedError(thread.agent)


def public_thread(request: Asker, thread_id: str | UUID, action: str, *, defer: Sequence[str] = ()) -> Thread:
    """Return a thread if the caller may perform ``action`` on it.

    ``thread_id`` is the thread's id, or the ``client_id`` of the caller's own thread. To check access to a thread that
    you already have, pass its primary key as a ``UUID`` object. A string could also match a ``client_id``, and callers
    can choose the id of another user's thread as their ``client_id``.

    The fields in ``defer`` are loaded only if a policy uses them.

    Raises:

    - ThreadNotFoundError if the caller may not view the thread, or if its agent is not public.
    - PermissionDeniedError if the caller may view the thread, but not perform ``action``.
    - AgentRemovedError if ``action`` needs the thread's agent, but the agent has been removed from the code.
    """
    threads = public_threads(request).defer(*defer)
    is_key = isinstance(thread_id, UUID) or is_uuid(thread_id)
    thread = threads.filter(pk=thread_id).first() if is_key else None
    if thread is None and isinstance(thread_id, str) and is_storable(thread_id):
        named = threads.filter(client_id=thread_id)
        if named.exists():
            # Call the policy only if some thread has this ``client_id``, because the call may create a session.
            owner, scope = owner_and_scope(request)
            thread = named.filter(owner=owner, scope=scope).first()
    if thread is None:
        raise ThreadNotFoundError(thread_id)
    if not _may_view(request, thread):
        raise ThreadNotFoundError(thread_id)
    if not policy().allows(request, action, agent=_agent_of(thread), thread=thread):
        raise PermissionDeniedError(f"You may not {action} thread {thread_id}.")
    _check_agent(thread, action)
    return thread


def public_tool_call(
    request: Asker, thread_id: str | UUID, tool_call_id: str, action: str, *, left_to: str | None = None
) -> ToolCall:
    """Return a tool call, with its thread, if the caller may perform ``action``: ``add_tool_result`` or ``approve``.

    ``left_to`` names who may perform the action ("owner", "staff", ...); without it, the tool's ``approved_by`` or
    ``answered_by`` decides. The function ``may_decide`` describes the values.

    Raises ToolCallNotFoundError, PermissionDeniedError, and the errors of ``public_thread``.
    """
    thread = public_thread(request, thread_id, "view")
    rows = ToolCall.objects.filter(thread=thread, tool_call_id=tool_call_id)
    call = rows.first() if is_storable(tool_call_id) else None
    if call is None:
        raise ToolCallNotFoundError(tool_call_id)
    call.thread = thread
    if not _is_allowed(request, call, action, left_to=left_to):
        raise PermissionDeniedError(f"You may not perform {action!r} on tool call {tool_call_id!r}.")
    _check_agent(thread, action)
    return call


def can_decide(request: Asker, call: ToolCall) -> bool:
    """Return whether the call waits for an approval that this caller may give or refuse."""
    is_waiting = call.status == ToolCallStatus.APPROVAL_REQUESTED and registry.find(call.thread.agent) is not None
    return is_waiting and _is_allowed(request, call, "approve")


def check_may_set_time(request: Asker, call: ToolCall) -> None:
    """Raise PermissionDeniedError unless this member of staff may change the time limit of the tool call.

    ``may_set_time`` must allow the change. If the tool call waits for an approval, the policy must also let this person
    approve it.
    """
    is_refused = call.status == ToolCallStatus.APPROVAL_REQUESTED and not _is_allowed(request, call, "approve")
    if is_refused or not may_set_time(_user_row(request.user), call):
        raise PermissionDeniedError(f"You may not change the time of tool call {call.tool_call_id!r}.")


def _is_allowed(request: Asker, call: ToolCall, action: str, *, left_to: str | None = None) -> bool:
    """Return whether the policy and ``left_to`` both allow the caller to perform this action on the tool call.

    ``left_to`` names who may perform the action ("owner", "staff", ...); without it, the tool's ``approved_by`` or
    ``answered_by`` decides.
    """
    option = "answered_by" if action == "add_tool_result" else "approved_by"
    who = left_to or getattr(call, option)
    agent, thread = _agent_of(call.thread), call.thread
    is_allowed = policy().allows(request, action, agent=agent, thread=thread, tool_call=call)
    return bool(is_allowed) and meets_all(
        who,
        is_staff=getattr(request.user, "is_staff", False),
        owns=lambda: owns(request, thread),
        # For ``server``, ``meets_condition`` returns False, because nobody may perform the action over the API.
        meets_other=lambda condition: meets_condition(_user_row(request.user), condition, call, option=option),
    )


def owns(request: Asker, thread: Thread) -> bool:
    """Return whether the caller owns the thread."""
    if thread.owner_id is not None:
        return bool(request.user.pk == thread.owner_id)
    # A thread without an owner belongs to all anonymous callers with the same scope.
    owner, scope = owner_and_scope(request)
    return owner is None and bool(scope == thread.scope)


def denied_actions(request: Asker, thread: Thread) -> list[str]:
    """Return which of the actions send, stop, resume and edit the policy denies to the caller on this thread."""
    agent = _agent_of(thread)
    actions = ("send", "stop", "resume", "edit")
    return [action for action in actions if not policy().allows(request, action, agent=agent, thread=thread)]


def public_attachment(request: Asker, key: str) -> Attachment:
    """Return an attachment that the caller may view. Raises AttachmentNotFoundError.

    An unsent attachment can be viewed only by its uploader. A sent one can be viewed by everybody who may view its
    thread.
    """
    # Call the policy for every id, even if no attachment has this id. The policy may create a session, which sets a
    # cookie. If the policy were called only for existing ids, the cookie would reveal which ids exist.
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
    """Return the owner and the scope for threads and attachments that this caller creates. The owner is None for a user
    without a primary key, such as an anonymous user.
    """
    owner, scope = policy().owner_and_scope(request)
    return None if getattr(owner, "pk", None) is None else owner, scope


def trusted_context(request: Asker) -> dict[str, JSON]:
    """Return the trusted context for threads that this caller creates.

    Raises InvalidJSONObjectError, after logging it, if the policy returns anything but a JSON object.
    """
    try:
        return json_object("The context of the policy", policy().context(request))
    except InvalidJSONObjectError:
        log_error("the policy's context is no JSON object", action="context")
        raise


def sender(request: Asker, parts: object) -> tuple[User | None, str] | None:
    """Return the owner and the scope of this caller's uploads, or None if ``parts`` contains no upload.

    Without an upload, the policy is not called, because the call might create a session.
    """
    has_uploads = isinstance(parts, list) and any(attachment_id(part) for part in parts)
    return owner_and_scope(request) if has_uploads else None


def actor(request: Asker, *, via: str, thread: Thread | None = None) -> Actor:
    """Return the caller as an actor for the audit log. The actor's scope is set only if the user is not in the
    database, or if the thread has no owner.
    """
    user = _user_row(request.user)
    needs_scope = user is None or (thread is not None and thread.owner_id is None)
    return Actor(user=user, scope=owner_and_scope(request)[1] if needs_scope else None, via=via)


def _user_row(user: User) -> User | None:
    """Return the database row of this user, or None. The user of a stateless token is looked up by primary key."""
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

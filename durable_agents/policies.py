"""Who may see and do what: the one authority that every edge asks on every access.

A project names its own class in ``DURABLE_AGENTS["POLICY"]``; the default gives each user their own threads.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from durable_agents.agents import registry
from durable_agents.conf import config
from durable_agents.exceptions import PermissionDeniedError, ThreadNotFoundError
from durable_agents.models import Thread, ThreadQuerySet

if TYPE_CHECKING:
    from durable_agents.agents import Agent
    from durable_agents.models import ToolCall


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


def visible_threads(request: Asker) -> ThreadQuerySet:
    """The threads that the caller may see, those of public agents only in as far as the policy says so."""
    return policy().filter(Thread.objects.all(), request)


def visible_thread(request: Asker, thread_id: str) -> Thread:
    """The thread of this id, or of this ``client_id`` of the caller. ThreadNotFoundError, for foreign ones too."""
    threads = visible_threads(request)
    thread = threads.filter(pk=thread_id).first() if _is_uuid(thread_id) else None
    if thread is None:
        thread = _by_client_id(request, threads, thread_id)
    if thread is None:
        raise ThreadNotFoundError(thread_id)
    return thread


def require(request: Asker, action: str, thread: Thread) -> None:
    """Raise unless the caller may do this to the thread: not found where they may not even view it."""
    agent = registry.find(thread.agent)
    if policy().allows(request, action, agent=agent, thread=thread):
        return
    if not policy().allows(request, "view", agent=agent, thread=thread):
        raise ThreadNotFoundError(thread.pk)
    raise PermissionDeniedError(f"You may not {action} thread {thread.pk}.")


def _by_client_id(request: Asker, threads: ThreadQuerySet, client_id: str) -> Thread | None:
    if "\x00" in client_id or not request.user.is_authenticated:
        return None
    owner, scope = policy().owner_and_scope(request)
    return threads.filter(owner=owner, scope=scope, client_id=client_id).first()


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _forget(*, setting: str, **_: object) -> None:
    if setting == "DURABLE_AGENTS":
        policy.cache_clear()


setting_changed.connect(_forget)

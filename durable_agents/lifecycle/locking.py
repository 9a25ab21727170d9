"""How an arrow is drawn: one transaction that holds the thread's row, tried again where the database asks for it, its
doorbells rung after the commit."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from django.db import OperationalError, connections, router, transaction
from django.db.models.functions import Now

from durable_agents.agents import Agent, registry
from durable_agents.exceptions import ThreadNotFoundError
from durable_agents.lifecycle.running import admit
from durable_agents.lifecycle.telling import tell_status
from durable_agents.lifecycle.turns import turn
from durable_agents.logs import log
from durable_agents.models import Thread, ThreadStatus
from durable_agents.outbound import ring_browsers, ring_workers

_SAVED = [
    *("status", "rev", "stop_rev", "last_position", "last_number", "run_steps", "retry", "context"),
    *("error_code", "error_message", "cost"),
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"),
]
_ARROW_TRIES = 3

P = ParamSpec("P")
R = TypeVar("R")


def database() -> str:
    """Alias of the database that holds the threads."""
    return router.db_for_write(Thread)


def arrow(function: Callable[P, R]) -> Callable[P, R]:
    """Run again, at most three times in all, when the database refused the transaction for another one's sake.

    Only the outermost owner of the transaction may do that; inside a caller's transaction the error is theirs.
    """

    @functools.wraps(function)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(_ARROW_TRIES - 1):
            try:
                return function(*args, **kwargs)
            except OperationalError as error:
                if connections[database()].in_atomic_block or not is_passing(error):
                    raise
        return function(*args, **kwargs)

    return drawn


def is_passing(error: OperationalError) -> bool:
    """Whether another try may succeed: serialisation failure, deadlock, or SQLite's "locked"."""
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)  # psycopg 3, and 2
    return state in {"40001", "40P01"} or "locked" in str(error)


class ThreadHeldError(Exception):
    """Somebody else holds the thread's row just now: for those who have other things to do meanwhile."""


_waiting = threading.local()


@contextmanager
def without_waiting() -> Iterator[None]:
    """Inside, in this thread, arrows do not wait for a thread's row that somebody holds: they raise ThreadHeldError,
    having changed nothing. On SQLite, which locks no rows, nothing is different."""
    _waiting.is_refused = True
    try:
        yield
    finally:
        _waiting.is_refused = False


@dataclass(kw_only=True)
class Locked:
    """A thread under its lock, with the doorbells that its arrow owes."""

    thread: Thread
    now: datetime
    before: Mapping[str, Any]
    pools: set[str] = field(default_factory=set)
    steps: list[Callable[[], None]] = field(default_factory=list)
    """Tell the project's code of the steps that this arrow commits."""

    @property
    def agent(self) -> Agent | None:
        return registry.find(self.thread.agent)

    def move(self, status: ThreadStatus) -> None:
        """Change the thread's status; the change gets a rev of its own. Raises TooManyRunningError where a run
        would begin that is one too many for the owner."""
        if status.is_running and not self.thread.is_running:
            admit(self.thread, using=database())
        if self.thread.status != status:
            self.thread.status = status
            self.thread.next_rev()

    def save(self) -> None:
        """Write the thread if anything durable changed, and ring after commit."""
        using = database()
        if self.thread.rev != self.before["rev"]:
            self.thread.updated_at = self.now
            changed = [name for name, value in self.before.items() if getattr(self.thread, name) != value]
            self.thread.save(using=using, update_fields=[*changed, "updated_at"])
            ring_browsers(self.thread.pk, using=using)
        if self.pools:
            ring_workers(self.pools, using=using)

    def tell(self) -> None:
        """Tell the project's code what this arrow changed; all of it is written, so that this code may draw arrows
        itself."""
        for tell in self.steps:
            tell()
        tell_status(self, using=database())


@contextmanager
def transact(*, savepoint: bool = True) -> Iterator[None]:
    """One transaction on the database of the threads; inside a caller's a savepoint, unless it is not wanted."""
    with turn(connections[database()]), transaction.atomic(using=database(), savepoint=savepoint):
        yield


def only_row(rows: Any) -> Any:
    """The one row of a queryset, or None; unlike ``first`` it does not sort."""
    return next(iter(rows.order_by()), None)


@contextmanager
def hold_thread(thread_id: UUID, *, skip_locked: bool = False, savepoint: bool = True) -> Iterator[Locked]:
    """One transaction that holds the thread's row; what it changed is saved, and rung for, at its end.

    Raises ThreadNotFoundError where there is none, or with ``skip_locked`` where somebody else holds it just now.
    """
    using = database()
    is_refused = getattr(_waiting, "is_refused", False)
    with transact(savepoint=savepoint):
        threads = Thread.objects.using(using).filter(pk=thread_id)
        rows = threads.select_for_update(no_key=True, skip_locked=skip_locked or is_refused)
        thread = only_row(rows.annotate(db_now=Now()))
        if thread is None and is_refused and not skip_locked and threads.exists():
            raise ThreadHeldError(thread_id)
        if thread is None:
            raise ThreadNotFoundError(thread_id)
        locked = Locked(thread=thread, now=thread.db_now, before={name: getattr(thread, name) for name in _SAVED})
        yield locked
        locked.save()
        locked.tell()


def id_of(thread: Thread | UUID | str) -> UUID:
    if isinstance(thread, Thread):
        return thread.pk
    try:
        return thread if isinstance(thread, UUID) else UUID(str(thread))
    except ValueError as error:
        raise ThreadNotFoundError(thread) from error


def log_arrow(action: str, **facts: Any) -> None:
    log(logging.INFO, action, action=action, **facts)

"""Run a transition in one transaction that locks the thread's row, and send notifications after the commit. Retry the
transition after a conflict with another transaction.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from django.db import Error, connections, router, transaction
from django.db.models import Model, QuerySet

from durable_agents.agents import Agent, Code, registry
from durable_agents.database_connections import discard_after, discarding, is_passing
from durable_agents.exceptions import LeaseLostError, ThreadNotFoundError
from durable_agents.lifecycle import statements
from durable_agents.lifecycle.callback_dispatch import dispatch_status, dispatch_step
from durable_agents.lifecycle.quotas import admit
from durable_agents.lifecycle.sqlite_queue import turn
from durable_agents.logs import log
from durable_agents.models import Message, Stream, Thread, ThreadStatus, ToolCall, next_state
from durable_agents.notifications import notify_clients, notify_workers
from durable_agents.utc_times import Now, instant

_SAVED = [
    *("status", "rev", "stop_rev", "last_position", "last_number", "run_steps", "retry", "context"),
    *("error_code", "error_message", "cost", "agent_is_public"),
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"),
]
_TRANSITION_TRIES = 3
UPDATED_EVERY = timedelta(seconds=10)
"""The minimum time between two writes of ``updated_at`` during a run."""
_AT_ONCE_SECONDS = 1.0

P = ParamSpec("P")
R = TypeVar("R")
Row = TypeVar("Row")


def database() -> str:
    return router.db_for_write(Thread)


def transition(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a transition, so that it is retried after a conflict with another transaction. It runs at most three
    times.

    After any other database error, this OS thread's database connection is closed. If the caller has opened a
    transaction, there is no retry and the connection stays open: the caller has to handle the error.
    """

    @functools.wraps(function)
    def attempted(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(_TRANSITION_TRIES - 1):
            began = time.monotonic()
            try:
                return function(*args, **kwargs)
            except Error as error:
                connection = connections[database()]
                # SQLite reports a locked database either at once or after its busy timeout. In the second case, do not
                # retry: two more timeouts would take too long.
                has_waited = connection.vendor == "sqlite" and time.monotonic() - began > _AT_ONCE_SECONDS
                if connection.in_atomic_block or not is_passing(error) or has_waited:
                    discard_after(error, using=connection.alias)
                    raise
        with discarding(using=database()):
            return function(*args, **kwargs)

    return attempted


class ThreadHeldError(Exception):
    """Another transaction has locked the thread's row. Nothing was changed; call the transition again later."""


class Writes:
    """The rows that one transaction inserts and updates. By default, each row is written immediately.

    With ``together``, rows are collected, and ``flush`` writes them in as few statements as possible. Call ``flush``
    before a query that must see these rows.
    """

    def __init__(self, *, together: bool = False) -> None:
        self._together = together
        self._inserts: dict[type[Model], list[Model]] = {}
        self._updates: dict[type[Model], dict[UUID, _Update]] = {}

    def insert(self, row: Model) -> None:
        if self._together:
            self._inserts.setdefault(type(row), []).append(row)
        else:
            row.save(using=database(), force_insert=True)

    def update(self, row: Model, names: Iterable[str], *, fence: int | None = None) -> None:
        """Update these fields of a row.

        ``fence`` is the fence (fencing token) that the row must have in the database. If rows are collected, ``flush``
        checks the fence. If rows are written immediately, the fence is not checked, because the caller has locked the
        row.
        """
        if not self._together:
            row.save(using=database(), update_fields=list(names))
        elif row not in self._inserts.get(type(row), ()):
            update = self._updates.setdefault(type(row), {}).setdefault(row.pk, _Update(row=row, fence=fence))
            update.names.update(names)

    def flush(self, *, for_query_of: type[Model] | None = None) -> None:
        """Write all collected rows. If no row of the model ``for_query_of`` has been collected, write nothing.

        Raises LeaseLostError if the fence of an updated row has changed.
        """
        if for_query_of is not None and not (self._inserts.get(for_query_of) or self._updates.get(for_query_of)):
            return
        updates, inserts = self._updates, self._inserts
        self._updates, self._inserts = {}, {}
        changes: list[statements.Statement] = []
        expected: list[tuple[type[Model], int]] = []
        # Write updates before inserts: the old model call must be closed before the new one is inserted, because the
        # database allows one open model call per thread.
        for model, of_model in sorted(updates.items(), key=lambda item: item[0].__name__):
            for fenced in (True, False):
                # Write in the order of primary keys, as every statement that locks several rows does. This prevents
                # deadlocks.
                group = [item for _, item in sorted(of_model.items()) if (item.fence is not None) == fenced]
                if not group:
                    continue
                names = set().union(*(item.names for item in group))
                fences = [item.fence or 0 for item in group] if fenced else None
                rows = [item.row for item in group]
                changes.append(statements.change(rows, names, fences=fences, using=database()))
                expected.append((model, len(rows)))
        left: list[type[Model]] = []
        for model in sorted(inserts, key=lambda model: model.__name__):
            insertion = statements.insertion(inserts[model], using=database())
            if insertion is None:
                left.append(model)
            else:
                changes.append(insertion)
        counts = statements.execute_all(changes, using=database())
        # ``counts`` has the number of rows that each statement has written. The UPDATE statements come first. Only
        # their numbers are compared.
        for (model, number), count in zip(expected, counts, strict=False):
            if count != number:
                raise LeaseLostError(f"{number - count} of {number} rows of {model.__name__}")
        for model in left:
            model._base_manager.using(database()).bulk_create(inserts[model])


@dataclass(kw_only=True)
class _Update:
    row: Model
    fence: int | None
    names: set[str] = field(default_factory=set)


@dataclass(kw_only=True)
class HandOver:
    """How many new rows a worker may keep for itself. When a transaction of the worker makes a row due, the same
    transaction can lease the row to the worker, without a separate claim.
    """

    holder: str
    code: Code
    pools: Collection[str]
    """Those of the worker's pools that have no limit."""
    streams: int
    tools: int
    """The number of free slots that are left for tool calls. ``streams`` is the number for model calls."""
    offered: tuple[int, int] = (0, 0)
    """The values of ``streams`` and ``tools`` at the beginning, before any slot was used."""
    calls: list[UUID] = field(default_factory=list)
    """The ids of the tool calls that the worker takes over. After a rollback, the ids are still in this list."""
    on_call: Callable[[UUID], object] = lambda _: None
    """A function that is called with the id of each tool call that the worker takes over, before the commit."""

    def takes_stream(self, stream: Stream) -> bool:
        """Return whether this worker may run the new model call. If so, use up one free slot."""
        takes = self.streams > 0 and stream.pool in self.pools and stream.agent in self.code
        self.streams -= takes
        return takes

    def takes_call(self, call: ToolCall, agent: str) -> bool:
        """Return whether this worker may run the new tool call. If so, use up one free slot."""
        takes = self.tools > 0 and call.pool in self.pools and call.name_in_code in self.code.get(agent, ())
        self.tools -= takes
        if takes:
            self.calls.append(call.pk)
            self.on_call(call.pk)
        return takes


@dataclass(frozen=True, kw_only=True)
class Position:
    """The position of the current answer in its thread. ``decide`` uses it instead of a query."""

    message_id: UUID
    position: int
    number: int
    """The number of the attempt that was committed last."""
    made_calls: bool
    """Whether the step that was committed last made tool calls."""


@dataclass(kw_only=True)
class Locked:
    """A thread whose row is locked, with the data and the unsaved changes of the transition that holds the lock."""

    thread: Thread
    now: datetime
    before: Mapping[str, object]
    pools: set[str] = field(default_factory=set)
    committed_steps: list[Stream] = field(default_factory=list)
    """The model calls that this transition commits."""
    writes: Writes = field(default_factory=Writes)
    hand_over: HandOver | None = None
    handed: list[Stream | ToolCall] = field(default_factory=list)
    """The new rows that are due and that this transition has leased to its own worker."""
    position: Position | None = None
    last: Message | None = None
    """The last message of the thread, if this transition has just added it and the model has to answer it."""
    open_calls: list[ToolCall] | None = None
    """The thread's tool calls that had no outcome when the transaction began, and the tool calls made since then. The
    value is None if the tool calls were not read.
    """
    new_calls: list[ToolCall] = field(default_factory=list)
    """The tool calls made by the step that this transition commits."""
    queued: Sequence[Message] | None = None
    """The thread's queued messages when the transaction began, in order. The value is None if they were not read."""
    has_no_open_stream: bool = False
    """True if this transition knows that the thread has no pending or running model call. A thread has at most one."""

    @property
    def agent(self) -> Agent | None:
        return registry.find(self.thread.agent)

    def set_status(self, status: ThreadStatus) -> None:
        """Change the thread's status and increment its revision number.

        Raises TooManyRunningError if this starts a run and the owner already has the maximum number of running threads.
        """
        if status.is_running and not self.thread.is_running:
            admit(self.thread, using=database())
        if self.thread.status != status:
            self.thread.status = next_state(self.thread.status, status)
            self.thread.next_rev()

    @property
    def previous_status(self) -> str:
        return str(self.before["status"])

    @property
    def has_changed(self) -> bool:
        """Whether this transition has incremented the thread's revision number (``rev``). ``save`` saves the thread
        only in this case, so every change must call ``next_rev``.
        """
        return bool(self.thread.rev != self.before["rev"])

    def save(self) -> None:
        """Save the thread if it has changed. Notify clients and workers after the commit."""
        using = database()
        if self.has_changed:
            if self.agent is not None:
                self.thread.agent_is_public = self.agent.public
            changed = [name for name, value in self.before.items() if getattr(self.thread, name) != value]
            # Do not set ``updated_at`` in every step of a run. Several indexes contain this column, and each change
            # adds an entry to each of these indexes.
            goes_on = self.thread.is_running and ThreadStatus(self.previous_status).is_running
            if not goes_on or instant(self.now) - instant(self.thread.updated_at) >= UPDATED_EVERY:
                self.thread.updated_at = self.now
                changed.append("updated_at")
            self.writes.update(self.thread, changed)
            notify_clients(self.thread.pk, using=using)
        if self.pools:
            notify_workers(self.pools, using=using)

    def finish(self) -> None:
        """Write everything, then call the project's callbacks."""
        self.save()
        self.writes.flush()
        self.dispatch_callbacks()

    def dispatch_callbacks(self) -> None:
        """Call the project's callbacks for the changes of this transition. The caller has already written all rows,
        because callbacks may call other transitions.
        """
        for stream in self.committed_steps:
            dispatch_step(self.thread, stream, using=database())
        dispatch_status(self.thread, previous_status=self.previous_status, using=database())


class _ToolTransaction(transaction.Atomic):
    """The transaction in which an atomic tool runs."""

    def __init__(self, using: str, call_id: UUID) -> None:
        super().__init__(using, savepoint=True, durable=False)
        self.call_id = call_id


@contextmanager
def transact(*, savepoint: bool = True, atomic_tool_call: UUID | None = None) -> Iterator[None]:
    """Open a transaction on the threads' database. If a transaction is already open, open a savepoint in it, unless
    ``savepoint`` is False.

    If an atomic tool runs in this transaction, the argument ``atomic_tool_call`` is the id of its tool call. The tool's
    code may call transitions, for example to stop its own thread. These transitions get the id from the function
    ``atomic_tool_call()``.
    """
    using = database()
    block = (
        transaction.atomic(using=using, savepoint=savepoint)
        if atomic_tool_call is None
        else _ToolTransaction(using, atomic_tool_call)
    )
    with turn(connections[using]), block:
        yield


def atomic_tool_call() -> UUID | None:
    """Return the id of the atomic tool call whose function runs in this transaction, or None. Transitions that the
    function calls must not end this tool call.
    """
    # Django keeps the open ``atomic`` blocks of a connection in this list.
    blocks = connections[database()].atomic_blocks
    return next((block.call_id for block in reversed(blocks) if isinstance(block, _ToolTransaction)), None)


def only_row(rows: QuerySet[Any, Row]) -> Row | None:
    """Return the only row of a queryset, or None. Unlike ``first``, this adds no ORDER BY."""
    return next(iter(rows.order_by()), None)


@contextmanager
def hold_thread(
    thread_id: UUID, *, skip_locked: bool = False, nowait: bool = False, together: bool = False
) -> Iterator[Locked]:
    """Lock a thread's row in a transaction. When the block ends, save the changes. After the commit, notify clients and
    workers.

    Raises ThreadNotFoundError if there is no such thread. If another transaction has locked the row, the default is to
    wait:

    - ``skip_locked`` raises ThreadNotFoundError instead.
    - ``nowait`` raises ThreadHeldError instead.

    SQLite has no row locks and always waits. With ``together``, rows in ``Locked.writes`` are collected and written
    when the block ends.
    """
    using = database()
    with transact():
        threads = Thread.objects.using(using).filter(pk=thread_id)
        rows = threads.select_for_update(no_key=True, skip_locked=skip_locked or nowait)
        thread = only_row(rows.annotate(db_now=Now()))
        # Do not use PostgreSQL's NOWAIT: its error would abort the caller's transaction.
        if thread is None and nowait and threads.exists():
            raise ThreadHeldError(thread_id)
        if thread is None:
            raise ThreadNotFoundError(thread_id)
        locked = locked_thread(thread, now=vars(thread)["db_now"], writes=Writes(together=together))
        yield locked
        locked.finish()


@contextmanager
def hold_new_thread(thread: Thread) -> Iterator[Locked]:
    """Do what ``hold_thread`` does for a thread that this transaction has just inserted.

    No other transaction can see the thread yet, so nothing is locked or read.
    """
    before = {name: getattr(thread, name) for name in _SAVED}
    writes = Writes(together=True)
    locked = Locked(
        thread=thread, now=thread.created_at, before=before, writes=writes, open_calls=[], has_no_open_stream=True
    )
    yield locked
    locked.finish()


def locked_thread(
    thread: Thread, *, now: datetime, writes: Writes | None = None, hand_over: HandOver | None = None
) -> Locked:
    """Return the ``Locked`` object of a thread whose row is already locked. ``now`` is the database's time."""
    before = {name: getattr(thread, name) for name in _SAVED}
    return Locked(thread=thread, now=now, before=before, writes=writes or Writes(), hand_over=hand_over)


def id_of(thread: Thread | UUID | str) -> UUID:
    if isinstance(thread, Thread):
        return thread.pk
    try:
        return thread if isinstance(thread, UUID) else UUID(str(thread))
    except ValueError as error:
        raise ThreadNotFoundError(thread) from error


def log_transition(action: str, **fields: object) -> None:
    log(logging.INFO, action, action=action, error=None, **fields)

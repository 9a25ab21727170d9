"""Run the transitions of many threads in one transaction: a worker commits whatever has gathered while its last
transaction ran. One that fails, fails alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import Error, connections

from durable_agents.agents import registry
from durable_agents.databases import is_outage
from durable_agents.exceptions import LeaseLostError, ThreadNotFoundError
from durable_agents.lifecycle import statements
from durable_agents.lifecycle.claims import Claim
from durable_agents.lifecycle.statements import Placed
from durable_agents.lifecycle.steps import StepOutcome, add_step, log_commit
from durable_agents.lifecycle.tool_calls import CallResult, add_outcome, log_finish
from durable_agents.lifecycle.transaction import (
    HandOver,
    Locked,
    Position,
    ThreadHeldError,
    Writes,
    database,
    locked_thread,
    log_transition,
    transact,
    transition,
)
from durable_agents.models import Message, Stream, Thread, ToolCall
from durable_agents.strictjson import as_jsonb


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The end of a held row: the step of an attempt, or the outcome of a tool call."""

    claim: Claim
    outcome: StepOutcome | CallResult

    @property
    def needs_open_calls(self) -> bool:
        """Whether the thread's open calls decide what follows."""
        return self.due_calls == 0

    @property
    def may_complete(self) -> bool:
        """Whether the thread may be completed, unless messages are queued."""
        return isinstance(self.outcome, StepOutcome) and not (self.outcome.calls or self.outcome.goes_on)

    @property
    def due_calls(self) -> int:
        """How many tool calls of the step a worker can claim at once."""
        return 0 if isinstance(self.outcome, CallResult) else sum(call.is_due for call in self.outcome.calls)


@dataclass(frozen=True, kw_only=True)
class Handed:
    """A row that was made due and that the worker holds already."""

    claim: Claim
    row: Stream | ToolCall
    thread: Thread


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What became of an ending."""

    error: Exception | None = None
    """Why nothing was written: LeaseLostError, ThreadNotFoundError, ThreadHeldError or what else it raised."""
    handed: Sequence[Handed] = ()
    row: Stream | ToolCall | None = None
    """The row that ended, as it was written."""
    new_calls: Sequence[ToolCall] = ()
    """The calls that the step made."""
    revs: tuple[int, int] = (0, 0)
    """The thread's rev before the transaction and after it."""


def has_callbacks_inside(claim: Claim) -> bool:
    """Whether the project's code runs inside the transaction that ends this row, and may take long."""
    agent = registry.find(claim.agent)
    return agent is not None and (agent.on_commit_step is not None or agent.on_status_change is not None)


def end_together(endings: Sequence[Ending], *, hand_over: HandOver | None = None) -> list[Ended]:
    """Write the ends of these rows, and advance their threads: in one transaction or, if that fails, in one for each.
    Returns what became of each, in order. Raises the error of a database that does not answer; if that begins among
    single transactions, what was not written has a ThreadHeldError.

    ``hand_over`` is what the worker takes over of what becomes due.
    """
    try:
        return _end_in_one(endings, hand_over)
    except Exception as error:
        if isinstance(error, Error) and is_outage(error):
            raise
        if len(endings) == 1:
            return [Ended(error=error)]
    results: list[Ended] = []
    for ending in endings:
        try:
            results += _end_in_one([ending], hand_over)
        except Exception as error:
            # An outage that is raised here would lose what became of the others: the row is tried again later.
            is_down = isinstance(error, Error) and is_outage(error)
            results.append(Ended(error=ThreadHeldError(ending.claim.thread_id) if is_down else error))
    return results


@transition
def _end_in_one(endings: Sequence[Ending], hand_over: HandOver | None) -> list[Ended]:
    # Counted down on a copy: a transaction that is rolled back takes nothing over.
    left = None if hand_over is None else replace(hand_over)
    with transact():
        ids, writes = sorted({ending.claim.thread_id for ending in endings}), Writes(together=True)
        threads = {
            thread.pk: locked_thread(thread, now=now, writes=writes, hand_over=left)
            for thread, now in statements.lock_threads(ids, using=database())
        }
        rows = _load(endings, threads)
        results = [_end(ending, threads.get(ending.claim.thread_id), rows) for ending in endings]
        for locked in threads.values():
            locked.save()
        for locked in threads.values():
            locked.writes.flush()  # they share it: the first call writes everything
            locked.dispatch_callbacks()
        _add_owners([handed for result in results for handed in result.handed])
        _read_as_stored([row for result in results for row in (result.row, *result.new_calls)])
    if hand_over is not None and left is not None:
        hand_over.streams, hand_over.tools = left.streams, left.tools
    for ending, result in zip(endings, results, strict=True):
        if result.error is None:
            (log_commit if isinstance(ending.outcome, StepOutcome) else log_finish)(ending.claim)
        for handed in result.handed:
            item = handed.claim
            log_transition("claim", thread=item.thread_id, fence=1, attempt=item.attempt, **{item.kind: item.row_id})
    return results


def _add_owners(rows: Sequence[Handed]) -> None:
    """Load the owners of the threads, which tools and functions of agents get: they run where no query may be made."""
    owners = {handed.thread.owner_id for handed in rows} - {None}
    if owners:
        # Not the default manager, which may leave rows out.
        found = get_user_model()._base_manager.using(database()).in_bulk(owners)
        for handed in rows:
            handed.thread.owner = found.get(handed.thread.owner_id)
    for handed in rows:
        handed.row.thread = handed.thread


def _read_as_stored(rows: Sequence[Stream | ToolCall | None]) -> None:
    """Give the rows that were written the values that a query would return. A model's next request is made of them, and
    a later one of those in the database: if their texts differed, a provider would not find its cached prompt.
    """
    if connections[database()].vendor != "postgresql":
        return
    for row in rows:
        if isinstance(row, Stream):
            row.parts = as_jsonb(row.parts)
        elif isinstance(row, ToolCall):
            row.arguments, row.result = as_jsonb(row.arguments), as_jsonb(row.result)


def _load(endings: Sequence[Ending], threads: Mapping[UUID, Locked]) -> dict[UUID, Placed[Stream] | Placed[ToolCall]]:
    """Return the attempts that end, and all open calls of threads whose calls decide what follows, by their ids."""
    using = database()
    present = [ending for ending in endings if ending.claim.thread_id in threads]
    streams = [ending.claim.row_id for ending in present if ending.claim.kind == "stream"]
    asking = sorted({ending.claim.thread_id for ending in present if ending.needs_open_calls})
    calls = statements.open_calls(asking, using=using) if asking else []
    for thread_id in asking:
        threads[thread_id].open_calls = [call.row for call in calls if call.row.thread_id == thread_id]
    for call in calls:
        call.row.thread = threads[call.row.thread_id].thread
    completing = {ending.claim.thread_id for ending in present if ending.may_complete}
    if completing:
        queued = list(Message.objects.using(using).queued().filter(thread__in=completing))
        for thread_id in completing:
            threads[thread_id].queued = [message for message in queued if message.thread_id == thread_id]
    attempts = statements.held_streams(streams, using=using) if streams else []
    return {placed.row.pk: placed for placed in attempts} | {placed.row.pk: placed for placed in calls}


def _end(ending: Ending, locked: Locked | None, rows: Mapping[UUID, Placed[Stream] | Placed[ToolCall]]) -> Ended:
    claim = ending.claim
    if locked is None:
        exists = Thread.objects.using(database()).filter(pk=claim.thread_id).exists()
        return Ended(error=(ThreadHeldError if exists else ThreadNotFoundError)(claim.thread_id))
    placed = rows.get(claim.row_id)
    if placed is None or placed.row.fence != claim.fence or not placed.is_held:
        return Ended(error=LeaseLostError(f"{claim.kind} {claim.row_id} (fence {claim.fence})"))
    row, outcome, rev_before = placed.row, ending.outcome, locked.thread.rev
    locked.position = Position(
        message_id=row.answer_id if isinstance(row, Stream) else row.message_id,
        position=placed.position,
        number=placed.number,
        made_calls=isinstance(outcome, CallResult) or bool(outcome.calls),
    )
    if isinstance(row, Stream) and isinstance(outcome, StepOutcome):
        add_step(locked, row, outcome)
    elif isinstance(row, ToolCall) and isinstance(outcome, CallResult):
        add_outcome(locked, row, outcome)
    else:
        raise TypeError(f"A {claim.kind} does not end with a {type(outcome).__name__}.")
    # Taken off the lock: the next ending of the same thread must not report them again.
    handed, locked.handed = locked.handed, []
    new_calls, locked.new_calls = locked.new_calls, []
    return Ended(
        row=row,
        new_calls=new_calls,
        revs=(rev_before, locked.thread.rev),
        handed=[
            Handed(
                claim=Claim(
                    kind="stream" if isinstance(item, Stream) else "tool",
                    row_id=item.pk,
                    thread_id=locked.thread.pk,
                    fence=item.fence,
                    attempt=item.attempt,
                    crashes=item.crashes,
                    agent=locked.thread.agent,
                ),
                row=item,
                thread=copy(locked.thread),
            )
            for item in handed
        ],
    )

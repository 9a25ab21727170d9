"""Commit finished model calls and tool calls of many threads in one transaction.

While a worker commits some calls, other calls finish. The worker's next transaction commits these other calls together.
If one call cannot be committed, the others are still committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import Error, connections

from durable_agents.agents import registry
from durable_agents.database_connections import is_blocked, is_outage
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
    """A finished model call or tool call that is not committed yet."""

    claim: Claim
    outcome: StepOutcome | CallResult

    @property
    def needs_open_calls(self) -> bool:
        """Whether the thread's unfinished tool calls must be read to decide what the thread does next."""
        return not self.due_tools

    @property
    def may_complete(self) -> bool:
        """Whether this step may end the run. If so, queued messages must be read, because one of them may start the
        next run.
        """
        return isinstance(self.outcome, StepOutcome) and not (self.outcome.calls or self.outcome.goes_on)

    @property
    def due_tools(self) -> list[tuple[str, str]]:
        """The agent and tool names of the new tool calls that a worker can claim as soon as they are stored."""
        calls = () if isinstance(self.outcome, CallResult) else self.outcome.calls
        return [(self.claim.agent, call.tool_name) for call in calls if call.is_due]


@dataclass(frozen=True, kw_only=True)
class Handed:
    """A new row that this transaction has leased to its own worker, so that no separate claim is needed."""

    claim: Claim
    row: Stream | ToolCall
    thread: Thread


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The result of committing one finished model call or tool call."""

    error: Exception | None = None
    """Why nothing was written: LeaseLostError, ThreadNotFoundError, ThreadHeldError or any other error of the
    transition.
    """
    handed: Sequence[Handed] = ()
    row: Stream | ToolCall | None = None
    """The finished row, as it was written."""
    new_calls: Sequence[ToolCall] = ()
    """The tool calls that the step made."""
    revs: tuple[int, int] = (0, 0)
    """The thread's revision counter (``rev``) before and after this row was finished."""


def has_callbacks_inside(claim: Claim) -> bool:
    """Return whether the transaction that commits this row calls the project's own code, which may take long."""
    agent = registry.find(claim.agent)
    return agent is not None and (agent.on_commit_step is not None or agent.on_status_change is not None)


def end_together(endings: Sequence[Ending], *, hand_over: HandOver | None = None) -> list[Ended]:
    """Commit these finished calls, and decide what their threads do next. Return one result for each call, in the same
    order.

    All calls are committed in one transaction. If a thread is locked or a lease is lost, the other calls are still
    committed. If the transaction fails for another reason, each call gets a transaction of its own. ``hand_over``
    limits which new rows the worker may keep for itself.

    This function locks the threads, but other workers claim rows without this lock. Therefore, the statement that
    writes a finished row compares the row's fence (fencing token) once more.

    Raises the database error if the database does not answer. In the separate transactions, nothing is raised: a call
    that could not be written has an error as its result. It is a ThreadHeldError if the database did not answer, or if
    another transaction has blocked a row for too long. The caller can then safely commit the call again, even if the
    first commit succeeded without a confirmation.
    """
    try:
        return _end_in_one(endings, hand_over)
    except Exception as error:
        blocked = isinstance(error, Error) and is_blocked(error)
        if isinstance(error, Error) and is_outage(error) and not blocked:
            raise
        if len(endings) == 1:
            return [Ended(error=ThreadHeldError(endings[0].claim.thread_id) if blocked else error)]
    results: list[Ended] = []
    for ending in endings:
        try:
            results += _end_in_one([ending], hand_over)
        except Exception as error:
            # Raising here would lose the results of the other rows. ThreadHeldError makes the caller try this row again
            # later.
            is_down = isinstance(error, Error) and is_outage(error)
            results.append(Ended(error=ThreadHeldError(ending.claim.thread_id) if is_down else error))
    return results


@transition
def _end_in_one(endings: Sequence[Ending], hand_over: HandOver | None) -> list[Ended]:
    # Count free slots on a copy. After a rollback, the original still has the right numbers.
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
            # All threads share one ``Writes`` object, so the first ``flush`` writes the rows of all threads.
            locked.writes.flush()
            locked.dispatch_callbacks()
        _add_people([handed for result in results for handed in result.handed])
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


def _add_people(rows: Sequence[Handed]) -> None:
    """Load the owners of the threads, and the users who caused the tool calls. Do this now: the project's code may read
    them later on the event loop, where queries are not allowed.
    """
    calls = [handed.row for handed in rows if isinstance(handed.row, ToolCall)]
    people = {handed.thread.owner_id for handed in rows} | {call.asker_id() for call in calls}
    if people := people - {None}:
        # Use the base manager, because the default manager may leave users out.
        found = get_user_model()._base_manager.using(database()).in_bulk(people)
        for handed in rows:
            handed.thread.owner = found.get(handed.thread.owner_id)
        for call in calls:
            call.asker = found.get(call.asker_id())
    for handed in rows:
        handed.row.thread = handed.thread


def _read_as_stored(rows: Sequence[Stream | ToolCall | None]) -> None:
    """Replace the JSON values of written rows by what PostgreSQL would return for them.

    The next model request is built from these rows, later requests from the database. If the JSON text differed between
    these requests, the provider could not use its prompt cache.
    """
    if connections[database()].vendor != "postgresql":
        return
    for row in rows:
        if isinstance(row, Stream):
            row.parts = as_jsonb(row.parts)
        elif isinstance(row, ToolCall):
            row.arguments, row.result = as_jsonb(row.arguments), as_jsonb(row.result)


def _load(endings: Sequence[Ending], threads: Mapping[UUID, Locked]) -> dict[UUID, Placed[Stream] | Placed[ToolCall]]:
    """Load the rows of these endings, and the unfinished tool calls of their threads. Return all rows by row id.

    Also set ``open_calls`` and ``queued`` of each thread for which they are needed to decide what it does next.
    """
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
    # Take the new rows out of ``locked``. Otherwise, the result of the thread's next finished call would contain them
    # too.
    handed, locked.handed = locked.handed, []
    for item in handed:
        if isinstance(item, ToolCall):
            # Set ``asker_pk`` here. Usually, the queryset method ``with_asker_pk`` sets it, but this new row does not
            # come from a query.
            vars(item)["asker_pk"] = locked.thread.owner_id if placed.sender_id is None else placed.sender_id
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

"""The heart: what a running thread does next, decided from its rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db.models import Q, Subquery

from durable_agents.exceptions import ErrorKind, safe_message
from durable_agents.lifecycle.locking import Locked, database
from durable_agents.lifecycle.moves import (
    MAY_HAVE_RUN,
    add_stream,
    last_message,
    new_answer,
    next_position,
    settle,
    streams_of,
)
from durable_agents.models import Message, Role, Stream, ThreadStatus, ToolCall, ToolCallStatus, ToolKind

SUPERSEDED = "The user went on without waiting for this."


def begin_run(locked: Locked) -> None:
    """A thread at rest runs, with nothing left of the run before; what it does is decided next."""
    thread = locked.thread
    thread.run_steps = 0
    thread.error_code = thread.error_message = ""
    thread.retry = None
    locked.move(ThreadStatus.STREAMING)


def advance(locked: Locked, *, resumed: bool = False) -> None:
    """Decide from rows what the running thread does next; under its lock only, and any number of times.

    A stream is open: nothing. Calls are awaited: wait for them; but where only people, browsers or services are awaited
    and the user has spoken since, go on without them. A user message is unanswered: begin an answer. The last step made
    calls (or the run is resumed): the next step of the same message. A message is queued: its turn. Otherwise:
    completed.
    """
    if not locked.thread.is_running or _has_open_stream(locked):
        return
    running = list(ToolCall.objects.using(database()).open().filter(thread=locked.thread))
    awaited = [call for call in running if call.passed_at is None]
    if awaited and (any(call.waits_for_worker for call in awaited) or not _user_spoke(locked, awaited)):
        locked.move(ThreadStatus.AWAITING_TOOL_RESULTS)
        return
    if awaited:
        _pass_over(locked, awaited)
    decide(locked, resumed=resumed, is_waited_for=len(running) > len(awaited))


def _user_spoke(locked: Locked, awaited: Sequence[ToolCall]) -> bool:
    """Whether a user has spoken after the answer whose calls are awaited; a late result may have come after that."""
    messages = Message.objects.using(database()).filter(thread=locked.thread)
    asked_in = messages.filter(pk__in={call.message_id for call in awaited}).order_by("-position").values("position")
    spoken = messages.filter(role=Role.USER, superseded_at=None, position__gt=Subquery(asked_in[:1]))
    return bool(spoken.exists())


def _pass_over(locked: Locked, awaited: Sequence[ToolCall]) -> None:
    """Go on without what is awaited: whoever was asked is not asked any more; what a service was told to do goes on,
    and its result comes later."""
    for call in awaited:  # no worker claims such a call: the thread's lock is enough
        if call.kind == ToolKind.DEFERRED and call.status == ToolCallStatus.PENDING:
            call.passed_at, call.rev = locked.now, locked.thread.next_rev()
            call.save(using=database(), update_fields=["passed_at", "rev"])
        elif call.status == ToolCallStatus.UNKNOWN:
            settle(locked, call, ToolCallStatus.UNKNOWN, code="superseded", error=MAY_HAVE_RUN)
        else:
            settle(locked, call, ToolCallStatus.CANCELLED, code="superseded", error=SUPERSEDED)


def _has_open_stream(locked: Locked) -> bool:
    """While calls are awaited there is none; else the rows say it."""
    if locked.thread.status == ThreadStatus.AWAITING_TOOL_RESULTS:
        return False
    return bool(streams_of(locked).open().exists())


def decide(locked: Locked, *, resumed: bool = False, is_waited_for: bool = False) -> None:
    """The same for a thread in which no call is awaited; ``is_waited_for`` says whether late results are to come."""
    last = last_message(locked)
    if last is not None and last.asks:
        _begin_step(locked, new_answer(locked, last).pk)
    elif last is not None and (resumed or _last_step_made_calls(last)):
        _begin_step(locked, last.pk)
    else:
        _finish_run(locked, is_waited_for=is_waited_for)


def _last_step_made_calls(message: Message) -> bool:
    steps = Stream.objects.using(database()).in_transcript().filter(message=message)
    last = steps.order_by("-number").values("pk")[:1]
    return bool(ToolCall.objects.using(database()).filter(stream=Subquery(last)).exists())


def _begin_step(locked: Locked, message_id: UUID) -> None:
    """One more pending stream, unless the run has used up its steps; where ``configure`` has a say in their number,
    the worker looks at that before the call."""
    agent = locked.agent
    if agent is not None and agent.configure is None and locked.thread.run_steps >= agent.max_steps:
        fail_run(locked, ErrorKind.MAX_STEPS)
        return
    add_stream(locked, message_id)
    locked.move(ThreadStatus.STREAMING)


def _finish_run(locked: Locked, *, is_waited_for: bool) -> None:
    """The next queued message starts a run of its own; without one the thread is completed, or waits on."""
    thread = locked.thread
    held_back = Q() if thread.stop_rev is None else Q(rev__gt=thread.stop_rev)
    queued = Message.objects.using(database()).queued().filter(held_back, thread=thread).first()
    if queued is None:
        locked.move(ThreadStatus.AWAITING_TOOL_RESULTS if is_waited_for else ThreadStatus.COMPLETED)
        return
    queued.position, queued.rev, queued.queued_at = next_position(thread), thread.next_rev(), None
    queued.save(using=database(), update_fields=["position", "rev", "queued_at"])
    thread.run_steps = 0
    _begin_step(locked, new_answer(locked, queued).pk)


def fail_run(locked: Locked, kind: str) -> None:
    locked.thread.error_code, locked.thread.error_message = str(kind)[:64], safe_message(kind)
    locked.thread.retry = None
    locked.move(ThreadStatus.FAILED)

"""The heart of the state machine: decide what a running thread does next, from the thread's rows alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import Subquery

from durable_agents.exceptions import ErrorKind, safe_message
from durable_agents.lifecycle.rows import (
    MAY_HAVE_RUN,
    add_stream,
    last_message,
    new_answer,
    next_position,
    settle,
    streams_of,
)
from durable_agents.lifecycle.transaction import Locked, database
from durable_agents.logs import log
from durable_agents.models import Message, Role, Stream, ThreadStatus, ToolCall, ToolCallStatus, ToolKind

SUPERSEDED = "The user went on without waiting for this."


def begin_run(locked: Locked) -> None:
    """Reset the state of the previous run and mark a thread at rest as running. Call ``advance`` or ``decide``
    afterwards.
    """
    thread = locked.thread
    thread.run_steps = 0
    thread.error_code = thread.error_message = ""
    thread.retry = None
    locked.set_status(ThreadStatus.STREAMING)


def advance(locked: Locked, *, resumed: bool = False) -> None:
    """Decide from the thread's rows what a running thread does next. Call this function under the thread's lock. A
    second call changes nothing.

    If a stream is open, do nothing. If tool calls are awaited, wait for them. But if all of them wait for a person, a
    browser or a service, and the user has sent a message since, go on without these calls. If a user message is
    unanswered, begin an answer. If the last step made calls, or if the run is resumed, begin the next step of the same
    message. If a message is queued, start its run. Otherwise, complete the thread, unless late results are still
    expected.
    """
    if not locked.thread.is_running:
        return
    # A thread that awaits tool calls never has an open stream, so no query is needed.
    if locked.thread.status != ThreadStatus.AWAITING_TOOL_RESULTS and not locked.has_no_open_stream:
        locked.writes.flush(for_query_of=Stream)
        if streams_of(locked).open().exists():
            return
    if locked.open_calls is None:
        locked.writes.flush(for_query_of=ToolCall)
        open_calls = list(ToolCall.objects.using(database()).open().filter(thread=locked.thread))
    else:
        open_calls = [call for call in locked.open_calls if call.finished_at is None]
    awaited = [call for call in open_calls if call.passed_at is None]
    if awaited and (any(call.waits_for_worker for call in awaited) or not _user_spoke(locked, awaited)):
        locked.set_status(ThreadStatus.AWAITING_TOOL_RESULTS)
        return
    # Go on without these calls. Questions to people and browsers are cancelled. Deferred calls keep running, and their
    # results arrive later. No worker claims any of these calls, so the thread's lock is enough.
    for call in awaited:
        if call.kind == ToolKind.DEFERRED and call.status == ToolCallStatus.PENDING:
            call.passed_at, call.rev = locked.now, locked.thread.next_rev()
            locked.writes.update(call, ["passed_at", "rev"])
        elif call.status == ToolCallStatus.UNKNOWN:
            settle(locked, call, ToolCallStatus.UNKNOWN, code="superseded", error=MAY_HAVE_RUN)
        else:
            settle(locked, call, ToolCallStatus.CANCELLED, code="superseded", error=SUPERSEDED)
    decide(locked, resumed=resumed, is_waited_for=len(open_calls) > len(awaited))


def _user_spoke(locked: Locked, awaited: Sequence[ToolCall]) -> bool:
    """Return whether a user message follows the answer that made the awaited calls. That message need not be the last
    one, because a late result may have been added since.
    """
    locked.writes.flush(for_query_of=Message)
    messages = Message.objects.using(database()).filter(thread=locked.thread)
    asked_in = messages.filter(pk__in={call.message_id for call in awaited}).order_by("-position").values("position")
    later_messages = messages.filter(role=Role.USER, superseded_at=None, position__gt=Subquery(asked_in[:1]))
    return bool(later_messages.exists())


def decide(locked: Locked, *, resumed: bool = False, is_waited_for: bool = False) -> None:
    """Do what ``advance`` does, for a thread that awaits no tool call. ``is_waited_for`` says whether late results are
    still expected.
    """
    at = locked.position
    if at is not None and at.position == locked.thread.last_position and at.number == locked.thread.last_number:
        # The answer is the last message, and its last step is the newest attempt, so no query is needed.
        if resumed or at.made_calls:
            _begin_step(locked, at.message_id)
        else:
            _finish_run(locked, is_waited_for=is_waited_for)
        return
    last = locked.last or last_message(locked)
    if last is not None and last.asks:
        _begin_step(locked, new_answer(locked, last).pk)
        return
    goes_on = resumed
    if last is not None and not resumed:
        steps = Stream.objects.using(database()).in_transcript().filter(message=last).order_by("-number")
        goes_on = ToolCall.objects.using(database()).filter(stream=Subquery(steps.values("pk")[:1])).exists()
    if last is not None and goes_on:
        _begin_step(locked, last.pk)
    else:
        _finish_run(locked, is_waited_for=is_waited_for)


def _begin_step(locked: Locked, message_id: UUID) -> None:
    """Add a pending stream for the next step. If the run has used up its steps, fail the run. If the agent has a
    ``configure`` function, which can change the limit, the worker checks the limit before the model call instead.
    """
    agent = locked.agent
    if agent is not None and agent.configure is None and locked.thread.run_steps >= agent.max_steps:
        fail_run(locked, ErrorKind.MAX_STEPS)
        return
    add_stream(locked, message_id)
    locked.set_status(ThreadStatus.STREAMING)


def _finish_run(locked: Locked, *, is_waited_for: bool) -> None:
    """Start a run for the next queued message. If no message is queued, complete the thread, or keep waiting for late
    results.
    """
    thread = locked.thread
    if locked.queued is None:
        locked.writes.flush(for_query_of=Message)
        messages = list(Message.objects.using(database()).queued().filter(thread=thread))
    else:
        messages = [message for message in locked.queued if message.position is None]
    # Messages that were queued before a stop start no run until the thread is resumed.
    stop_rev = -1 if thread.stop_rev is None else thread.stop_rev
    queued = next((message for message in messages if message.rev > stop_rev), None)
    if queued is None:
        locked.set_status(ThreadStatus.AWAITING_TOOL_RESULTS if is_waited_for else ThreadStatus.COMPLETED)
        return
    queued.position, queued.rev, queued.queued_at = next_position(thread), thread.next_rev(), None
    locked.writes.update(queued, ["position", "rev", "queued_at"])
    thread.run_steps = 0
    _begin_step(locked, new_answer(locked, queued).pk)


def fail_run(locked: Locked, kind: str) -> None:
    """Fail the thread with an error of this kind. A warning is logged after the commit."""
    thread_id = locked.thread.pk
    transaction.on_commit(lambda: _warn_of_failed_run(thread_id, str(kind)), using=database(), robust=True)
    locked.thread.error_code, locked.thread.error_message = str(kind)[:64], safe_message(kind)
    locked.thread.retry = None
    locked.set_status(ThreadStatus.FAILED)


def _warn_of_failed_run(thread_id: UUID, kind: str) -> None:
    log(
        logging.WARNING,
        "a run failed: the page of its thread in the admin shows the error",
        action="run_failed",
        thread=thread_id,
        kind=kind,
    )

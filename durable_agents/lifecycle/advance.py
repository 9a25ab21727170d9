"""Decide what a running thread does next: call the model, wait for tool calls, or end the run. The decision depends
on the thread's rows in the database, on the agent's ``max_steps``, and on who is allowed to answer tool calls.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import Subquery

from durable_agents.actors import Actor
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
from durable_agents.models import Message, Role, Stream, ThreadStatus, ToolCall, ToolCallStatus
from durable_agents.tool_call_permissions import may_answer
from durable_agents.utc_times import instant

SUPERSEDED = "The user went on without waiting for this."


def begin_run(locked: Locked) -> None:
    """Mark a thread that is not running as running, and clear the error and the step count of its last run.

    The caller then calls ``advance`` or ``decide``.
    """
    thread = locked.thread
    thread.run_steps = 0
    thread.error_code = thread.error_message = ""
    thread.retry = None
    locked.set_status(ThreadStatus.STREAMING)


def advance(locked: Locked, *, resumed: bool = False) -> None:
    """Decide what a running thread does next, and write the decision to the database. The caller holds the thread's
    lock. If this function is called twice, the second call changes nothing.

    The first rule that applies is used:

    - A model call is pending or running: do nothing.
    - The last step made tool calls, and some have no outcome: wait for them. There is one exception. If none of them
      needs a worker, and somebody has sent a message since the step, the run continues without waiting for their
      results.
    - A user's message or a late result has no answer: begin an answer.
    - The last step made tool calls, or the run is resumed: begin the next step of the same answer.
    - A message is queued: start a run for it.
    - The run has continued without waiting for a tool call's result, and the tool call still has no outcome: wait for
      the outcome.
    - Otherwise: complete the thread.
    """
    if not locked.thread.is_running:
        return
    # If the thread awaits tool calls, no model call can be pending or running. In that case, no query is needed.
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
    if any(call.waits_for_worker for call in awaited):
        locked.set_status(ThreadStatus.AWAITING_TOOL_RESULTS)
        return
    # ``passed`` has the calls whose results the run did not wait for. If a worker or an external service still executes
    # a call, leave the call alone. Its result is added later.
    passed = [call for call in open_calls if call.passed_at is not None]
    asked = [*awaited, *(call for call in passed if not (call.waits_for_worker or call.waits_for_service))]
    said = _said_since(locked, asked) if asked else {}
    if any(not said[call.pk] for call in awaited):
        locked.set_status(ThreadStatus.AWAITING_TOOL_RESULTS)
        return
    # Nobody has answered the calls in ``asked``. If somebody has sent messages instead, the run continues without
    # waiting for the calls' results:
    # - A call that a sender of these messages could have answered is cancelled.
    # - All other calls, and calls that wait for an external service, stay open. Their outcomes are added later.
    # No worker can claim any of these calls, so the thread's lock protects them.
    for call in asked:
        if not call.waits_for_service and any(_may_answer(locked, message, call) for message in said[call.pk]):
            status = ToolCallStatus.UNKNOWN if call.status == ToolCallStatus.UNKNOWN else ToolCallStatus.CANCELLED
            error = MAY_HAVE_RUN if status == ToolCallStatus.UNKNOWN else SUPERSEDED
            settle(locked, call, status, code="superseded", error=error)
        elif call.passed_at is None:
            call.passed_at, call.rev = locked.now, locked.thread.next_rev()
            locked.writes.update(call, ["passed_at", "rev"])
    decide(locked, resumed=resumed, is_waited_for=any(call.finished_at is None for call in open_calls))


def _said_since(locked: Locked, calls: Sequence[ToolCall]) -> Mapping[UUID, Sequence[Message]]:
    """Return the user messages that were sent after each call. The keys of the dict are the calls' primary keys.

    A message was sent after a call if it follows the assistant message that contains the call. If the run has already
    continued without waiting for the call's result, only messages since then (``passed_at``) are returned.
    """
    locked.writes.flush(for_query_of=Message)
    messages = Message.objects.using(database()).filter(thread=locked.thread)
    answers = messages.filter(pk__in={call.message_id for call in calls})
    first = Subquery(answers.order_by("position").values("position")[:1])
    users = messages.filter(role=Role.USER, superseded_at=None, position__gt=first).select_related("sender")
    said = list(users)
    positions = {row.pk: row.position or 0 for row in answers.only("position")} if said else {}
    return {
        call.pk: [
            message
            for message in said
            if (message.position or 0) > positions[call.message_id]
            and (call.passed_at is None or instant(message.created_at) > instant(call.passed_at))
        ]
        for call in calls
    }


def _may_answer(locked: Locked, message: Message, call: ToolCall) -> bool:
    """Return whether the sender of a message is allowed to answer this call.

    If the thread has no owner, a message without a sender comes from an anonymous visitor. If the thread has an owner,
    such a message comes from the project's own code, which is allowed to answer every call.
    """
    call.thread = locked.thread
    is_person = message.sender is not None or locked.thread.owner_id is None
    return may_answer(Actor(user=message.sender, scope=locked.thread.scope, is_person=is_person), call)


def decide(locked: Locked, *, resumed: bool = False, is_waited_for: bool = False) -> None:
    """Decide what a running thread does next if it does not have to wait for tool calls: begin an answer, begin the
    next step of an answer, or end the run.

    ``is_waited_for`` says that some tool calls still have no outcome. At the end of the run, the thread then waits for
    their outcomes instead of completing.
    """
    at = locked.position
    if at is not None and at.position == locked.thread.last_position and at.number == locked.thread.last_number:
        # The transition has just committed the thread's newest step, and no message follows. No query is needed.
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
    """Add a pending model call for the next step, or fail the run if it has reached ``max_steps``.

    If the agent has a ``configure`` function, the limit is not checked here, because ``configure`` can change
    ``max_steps``. Instead, the worker checks the limit before it calls the model.
    """
    agent = locked.agent
    if agent is not None and agent.configure is None and locked.thread.run_steps >= agent.max_steps:
        fail_run(locked, ErrorKind.MAX_STEPS)
        return
    add_stream(locked, message_id)
    locked.set_status(ThreadStatus.STREAMING)


def _finish_run(locked: Locked, *, is_waited_for: bool) -> None:
    """Start a run for the next queued message. If no message is queued, complete the thread.

    ``is_waited_for`` says that some tool calls still have no outcome. If no message is queued, the thread then waits
    for their outcomes instead of completing.
    """
    thread = locked.thread
    if locked.queued is None:
        locked.writes.flush(for_query_of=Message)
        messages = list(Message.objects.using(database()).queued().filter(thread=thread))
    else:
        messages = [message for message in locked.queued if message.position is None]
    # After a stop, messages that were queued before the stop start no run. They wait until the thread is resumed.
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
    """Fail the thread with this kind of error, and log a warning after the commit."""
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

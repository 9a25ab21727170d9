"""Call the project's callbacks and send its signals for a transition. ``on_commit_step`` and ``on_status_change`` are
called inside the transaction, all others after the commit. If no callback or signal receiver is registered, no query is
made.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypedDict

from durable_agents import callbacks
from durable_agents.agents import Agent, registry
from durable_agents.exceptions import ErrorKind
from durable_agents.models import Message, Role, Stream, Thread, ThreadStatus, ToolCall

_NEEDS_HANDLING = frozenset(
    {
        ErrorKind.CONTEXT_WINDOW_EXCEEDED,
        ErrorKind.INSUFFICIENT_CREDITS,
        ErrorKind.INVALID_REQUEST,
        ErrorKind.AUTH,
        ErrorKind.CONTENT_POLICY,
    }
)
"""Errors that a retry alone does not fix."""


def dispatch_status(thread: Thread, *, previous_status: str, using: str) -> None:
    """Call the callbacks for a changed thread status. The caller has already saved the thread."""
    status = str(thread.status)
    if status == previous_status:
        return
    agent = registry.find(thread.agent)
    if agent is not None and agent.on_status_change is not None:
        callbacks.call_inside(
            "on_status_change",
            agent.on_status_change,
            using=using,
            thread_id=thread.pk,
            status=status,
            previous_status=previous_status,
        )
    callbacks.send_after_commit(
        "thread_status_changed",
        Thread,
        using=using,
        thread_id=thread.pk,
        status=status,
        previous_status=previous_status,
    )
    if status == ThreadStatus.FAILED:
        _dispatch_error(thread, agent, using=using)
    if not thread.is_running:
        dispatch_answer(thread, previous_status=previous_status, using=using)


def _dispatch_error(thread: Thread, agent: Agent | None, *, using: str) -> None:
    if agent is None or agent.on_error is None:
        return
    stream = Stream.objects.using(using).filter(thread=thread).order_by("-number").first()
    kind = thread.error_code
    callbacks.call_after_commit(
        "on_error",
        agent.on_error,
        using=using,
        thread_id=thread.pk,
        stream_id=stream.pk if stream else None,
        error=(stream.error_detail if stream else "") or thread.error_message,
        kind=kind,
        retryable=kind in set(ErrorKind) and ErrorKind(kind).retryable,
        attempt=stream.attempt if stream else 1,
        max_attempts=agent.max_attempts,
        requires_explicit_handling=kind in _NEEDS_HANDLING,
    )


def dispatch_step(thread: Thread, stream: Stream, *, using: str) -> None:
    """Call the callbacks for a committed step. The caller has already saved the step and its thread."""
    agent = registry.find(thread.agent)
    if agent is not None and agent.on_commit_step is not None:
        callbacks.call_inside(
            "on_commit_step", agent.on_commit_step, using=using, thread_id=thread.pk, stream_id=stream.pk
        )
    callbacks.send_after_commit(
        "step_finished", Stream, using=using, thread_id=thread.pk, stream_id=stream.pk, usage=usage_of(stream)
    )


class AttemptUsage(TypedDict):
    """The token counts and the ``cost`` of one model call. The cost is in US dollars, or None if it is unknown."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    total_tokens: int
    cost: Decimal | None


def usage_of(stream: Stream) -> AttemptUsage:
    """Return the usage of one model call as callbacks and signal receivers get it."""
    return {
        "input_tokens": stream.input_tokens,
        "output_tokens": stream.output_tokens,
        "cached_input_tokens": stream.cached_input_tokens,
        "total_tokens": stream.input_tokens + stream.output_tokens,
        "cost": stream.cost,
    }


def dispatch_message(message: Message, *, using: str) -> None:
    """Send the signal for a new user or system message. ``dispatch_answer`` sends the signal for assistant messages."""
    if message.role != Role.ASSISTANT:
        _send_message_committed(message, using=using)


def dispatch_answer(thread: Thread, *, previous_status: str, using: str) -> None:
    """Send the signal for the thread's last answer. Send nothing if the answer is empty, or if the thread was not
    running before this transition.
    """
    was_running = ThreadStatus(previous_status).is_running
    if not was_running or not callbacks.message_committed.has_listeners(Message):
        return
    answers = Message.objects.using(using).filter(thread=thread, role=Role.ASSISTANT, superseded_at=None)
    answer = answers.filter(position__isnull=False).order_by("-position").first()
    if answer is not None and Stream.objects.using(using).in_transcript().filter(message=answer).exists():
        _send_message_committed(answer, using=using)


def _send_message_committed(message: Message, *, using: str) -> None:
    callbacks.send_after_commit(
        "message_committed", Message, using=using, thread_id=message.thread_id, message_id=message.pk
    )


def dispatch_call(call: ToolCall, *, using: str) -> None:
    """Send the signal for a tool call that has just got its outcome."""
    callbacks.send_after_commit(
        "tool_call_finished",
        ToolCall,
        using=using,
        thread_id=call.thread_id,
        tool_call_id=call.tool_call_id,
        status=str(call.status),
    )

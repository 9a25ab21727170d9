"""Hides which arrow is which moment for the project's callbacks and signals. Where nobody listens it costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durable_agents import moments
from durable_agents.exceptions import ErrorKind
from durable_agents.models import Message, Role, Stream, Thread, ThreadStatus, ToolCall

if TYPE_CHECKING:
    from durable_agents.lifecycle.locking import Locked

_RUNNING = frozenset({ThreadStatus.STREAMING, ThreadStatus.AWAITING_TOOL_RESULTS})
_NEEDS_HANDLING = frozenset(
    {
        ErrorKind.CONTEXT_WINDOW_EXCEEDED,
        ErrorKind.INSUFFICIENT_CREDITS,
        ErrorKind.INVALID_REQUEST,
        ErrorKind.AUTH,
        ErrorKind.CONTENT_POLICY,
    }
)
"""What stays as it is until somebody changes something: another try alone does not help."""


def tell_status(locked: Locked, *, using: str) -> None:
    """At the end of an arrow, its thread being saved: the status is another one than before."""
    thread = locked.thread
    before, after = str(locked.before["status"]), str(thread.status)
    if before == after:
        return
    facts: dict[str, Any] = {"thread_id": thread.pk, "status": after, "previous_status": before}
    agent = locked.agent
    if agent is not None and agent.on_status_change is not None:
        moments.call_inside("on_status_change", agent.on_status_change, using=using, **facts)
    moments.send_after_commit("thread_status_changed", Thread, using=using, **facts)
    if after == ThreadStatus.FAILED:
        _tell_error(locked, using=using)
    if after not in _RUNNING:
        tell_answer(locked, using=using)


def _tell_error(locked: Locked, *, using: str) -> None:
    agent, thread = locked.agent, locked.thread
    if agent is None or agent.on_error is None:
        return
    stream = Stream.objects.using(using).filter(thread=thread).order_by("-number").first()
    kind = thread.error_code
    moments.call_after_commit(
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


def tell_step(locked: Locked, stream: Stream, *, using: str) -> None:
    """A step was committed; its thread is saved, too."""
    agent, thread_id = locked.agent, locked.thread.pk
    if agent is not None and agent.on_commit_step is not None:
        moments.call_inside(
            "on_commit_step", agent.on_commit_step, using=using, thread_id=thread_id, stream_id=stream.pk
        )
    moments.send_after_commit(
        "step_finished", Stream, using=using, thread_id=thread_id, stream_id=stream.pk, usage=usage_of(stream)
    )


def usage_of(stream: Stream) -> dict[str, Any]:
    """Tokens, and the price in US dollars (a Decimal, or None), of one attempt."""
    return {
        "input_tokens": stream.input_tokens,
        "output_tokens": stream.output_tokens,
        "cached_input_tokens": stream.cached_input_tokens,
        "total_tokens": stream.input_tokens + stream.output_tokens,
        "cost": stream.cost,
    }


def tell_message(message: Message, *, using: str) -> None:
    """A message was stored whole, which answers are not: they are told of when they end."""
    if message.role != Role.ASSISTANT:
        facts = {"thread_id": message.thread_id, "message_id": message.pk}
        moments.send_after_commit("message_committed", Message, using=using, **facts)


def tell_answer(locked: Locked, *, using: str) -> None:
    """The run that is on ends its answer; one that says nothing is none."""
    if locked.before["status"] not in _RUNNING or not moments.message_committed.has_listeners(Message):
        return
    answers = Message.objects.using(using).filter(thread=locked.thread, role=Role.ASSISTANT, superseded_at=None)
    answer = answers.filter(position__isnull=False).order_by("-position").first()
    if answer is not None and Stream.objects.using(using).in_transcript().filter(message=answer).exists():
        facts = {"thread_id": answer.thread_id, "message_id": answer.pk}
        moments.send_after_commit("message_committed", Message, using=using, **facts)


def tell_call(call: ToolCall, *, using: str) -> None:
    """A call has its outcome."""
    moments.send_after_commit(
        "tool_call_finished",
        ToolCall,
        using=using,
        thread_id=call.thread_id,
        tool_call_id=call.tool_call_id,
        status=str(call.status),
    )

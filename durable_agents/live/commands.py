"""Commands of the websocket: one handler for each frame that changes something.

A handler checks the policy, calls one function of ``lifecycle``, and returns the fields of the ``ok`` frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from uuid import UUID

from durable_agents import lifecycle, throttles
from durable_agents.actors import Actor
from durable_agents.exceptions import ApprovalExpiredError, ToolCallNotPendingError, ToolChangedError
from durable_agents.lifecycle import NewFiles
from durable_agents.live.asgi_scope import SocketAsker
from durable_agents.live.frames import (
    AddToolError,
    AddToolResult,
    Approve,
    ClientCommand,
    Edit,
    MessageCommand,
    Regenerate,
    Reject,
    Resume,
    Send,
    Stop,
    ToolCallCommand,
)
from durable_agents.models import Message, Thread, ToolCall
from durable_agents.parts import Part
from durable_agents.policies import actor, public_thread, public_tool_call, sender
from durable_agents.reading import PersonalView
from durable_agents.transcript import ui_message

ThreadName = str | UUID
"""The id of a command's thread. If the websocket follows the thread, this is the primary key. Otherwise, it is the id
that the client sent.
"""
CommandResult = Mapping[str, object]
RunWithFiles = Callable[[list[Part] | None, NewFiles, Actor], CommandResult]
STARTS_RUN = frozenset({"send", "resume", "edit", "regenerate"})
"""Commands that start a run or send a message to a running thread. The rate ``sends`` in the setting ``THROTTLES``
limits these commands.
"""


def run_command(frame: ClientCommand, asker: SocketAsker, thread_name: ThreadName) -> tuple[UUID, CommandResult]:
    """Run a command. Return the primary key of its thread and the fields of the ``ok`` frame.

    If a client repeats a command with the same idempotency key, the command does not run again. The same fields are
    returned.

    The function is synchronous. It raises ThrottledError, PermissionDeniedError, ThreadNotFoundError, and the errors of
    the ``lifecycle`` function that it calls.
    """
    if frame.type in STARTS_RUN:
        throttles.count("sends", asker)
    return HANDLERS[frame.type](frame, asker, thread_name)


def send(frame: Send, asker: SocketAsker, thread_name: ThreadName) -> tuple[UUID, CommandResult]:
    """Send a user message."""
    thread = public_thread(asker, thread_name, "send")

    def run(parts: list[Part] | None, new_files: NewFiles, by: Actor) -> CommandResult:
        message, _ = lifecycle.get_or_create_message(
            thread.pk,
            frame.prompt,
            parts=parts,
            client_id=frame.client_id,
            metadata=frame.metadata,
            sender=sender(asker, parts),
            new_files=new_files,
            by=by,
        )
        return _message_result(message, asker, thread)

    return _run_with_files(frame, asker, thread, run)


def edit(frame: Edit, asker: SocketAsker, thread_name: ThreadName) -> tuple[UUID, CommandResult]:
    """Replace a user message, and mark all later messages as superseded."""
    thread = public_thread(asker, thread_name, "edit")

    def run(parts: list[Part] | None, new_files: NewFiles, by: Actor) -> CommandResult:
        message = lifecycle.edit_message_with_files(
            thread.pk,
            frame.message,
            parts,
            prompt=frame.prompt,
            metadata=frame.metadata,
            sender=sender(asker, parts),
            new_files=new_files,
            by=by,
        )
        return _message_result(message, asker, thread)

    return _run_with_files(frame, asker, thread, run)


def stop(frame: Stop, asker: SocketAsker, thread_name: ThreadName) -> tuple[UUID, CommandResult]:
    """Stop a run."""
    thread = public_thread(asker, thread_name, "stop")
    return _run_once(frame, asker, thread, lambda by: {"status": lifecycle.stop_thread(thread.pk, by=by).status})


def resume(frame: Resume, asker: SocketAsker, thread_name: ThreadName) -> tuple[UUID, CommandResult]:
    """Continue a thread that is not running: retry its stopped or failed run, or send a new message."""
    thread = public_thread(asker, thread_name, "resume")

    def run(by: Actor) -> CommandResult:
        return {"status": lifecycle.resume_thread(thread.pk, frame.prompt, by=by).status}

    return _run_once(frame, asker, thread, run)


def regenerate(frame: Regenerate, asker: SocketAsker, thread_name: ThreadName) -> tuple[UUID, CommandResult]:
    """Regenerate the last answer, or the answer that ``message`` names."""
    thread = public_thread(asker, thread_name, "edit")

    def run(by: Actor) -> CommandResult:
        return _message_result(lifecycle.regenerate(thread.pk, frame.message, by=by), asker, thread)

    return _run_once(frame, asker, thread, run)


def add_tool_result(frame: AddToolResult, asker: SocketAsker, thread_name: ThreadName) -> tuple[UUID, CommandResult]:
    """Store the result of a tool call that a person or the browser answers. The tool is a deferred tool or a client
    tool.
    """
    call = public_tool_call(asker, thread_name, frame.tool_call_id, "add_tool_result")

    def run(by: Actor) -> CommandResult:
        return _call_result(lifecycle.add_tool_result(call.thread, call.tool_call_id, frame.result, by=by))

    return _run_once(frame, asker, call.thread, run)


def add_tool_error(frame: AddToolError, asker: SocketAsker, thread_name: ThreadName) -> tuple[UUID, CommandResult]:
    """Store the error of a tool call that a person or the browser answers. The tool is a deferred tool or a client
    tool.
    """
    call = public_tool_call(asker, thread_name, frame.tool_call_id, "add_tool_result")

    def run(by: Actor) -> CommandResult:
        return _call_result(lifecycle.add_tool_error(call.thread, call.tool_call_id, frame.error, by=by))

    return _run_once(frame, asker, call.thread, run)


def approve(frame: Approve, asker: SocketAsker, thread_name: ThreadName) -> tuple[UUID, CommandResult]:
    """Approve a tool call, so that it runs. If ``frame.approved`` is false, refuse the call instead."""
    if not frame.approved:
        return reject(frame, asker, thread_name)
    call = public_tool_call(asker, thread_name, frame.tool_call_id, "approve")

    def run(by: Actor) -> CommandResult:
        decided = lifecycle.approve_tool_call(
            call.thread, call.tool_call_id, by=by, arguments=frame.arguments, reason=frame.reason or ""
        )
        return _call_result(decided)

    return _decide(frame, asker, call.thread, run)


def reject(frame: Approve | Reject, asker: SocketAsker, thread_name: ThreadName) -> tuple[UUID, CommandResult]:
    """Refuse a tool call that needs approval."""
    call = public_tool_call(asker, thread_name, frame.tool_call_id, "approve")

    def run(by: Actor) -> CommandResult:
        return _call_result(
            lifecycle.reject_tool_call(call.thread, call.tool_call_id, by=by, reason=frame.reason or "")
        )

    return _decide(frame, asker, call.thread, run)


HANDLERS: Mapping[str, Callable[..., tuple[UUID, CommandResult]]] = {
    "send": send,
    "stop": stop,
    "resume": resume,
    "edit": edit,
    "regenerate": regenerate,
    "tool_result": add_tool_result,
    "tool_error": add_tool_error,
    "approve": approve,
    "reject": reject,
}
"""The handler of each command frame, by the type of the frame."""


def _run_once(
    frame: ClientCommand, asker: SocketAsker, thread: Thread, run: Callable[[Actor], CommandResult]
) -> tuple[UUID, CommandResult]:
    by = actor(asker, via="websocket", thread=thread)
    result = lifecycle.run_command(
        thread.pk, frame.key, lambda: run(by), command=frame.type, content=frame.content, by=by
    )
    return thread.pk, result


def _run_with_files(
    frame: MessageCommand,
    asker: SocketAsker,
    thread: Thread,
    run: RunWithFiles,
) -> tuple[UUID, CommandResult]:
    # Store the files before the command's transaction begins. The transaction locks the thread's row, so it must be
    # short.
    with lifecycle.store_files(frame.parts) as ([parts], new_files):
        return _run_once(frame, asker, thread, lambda by: run(parts, new_files, by))


def _decide(
    frame: ToolCallCommand, asker: SocketAsker, thread: Thread, run: Callable[[Actor], CommandResult]
) -> tuple[UUID, CommandResult]:
    try:
        return _run_once(frame, asker, thread, run)
    except (ApprovalExpiredError, ToolChangedError):
        # The tool call is now expired or failed. If the frame has an idempotency key, the command ran in a transaction,
        # and this error has rolled back the new status. To store the status, run the command again outside a
        # transaction.
        with suppress(ApprovalExpiredError, ToolChangedError, ToolCallNotPendingError):
            run(actor(asker, via="websocket", thread=thread))
        raise


def _message_result(message: Message, asker: SocketAsker, thread: Thread) -> CommandResult:
    return {"message": ui_message(message, message.parts, show_person=PersonalView(asker, thread).person)}


def _call_result(call: ToolCall) -> CommandResult:
    return {"tool_call_id": call.tool_call_id, "status": str(call.status)}

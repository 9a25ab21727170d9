"""Convert threads, tool calls and agents to the JSON that the API returns.

A TypedDict describes each JSON object. The type checker compares the TypedDict with the function that builds the
object, and the OpenAPI schema is generated from the TypedDict. No object contains a thread's owner, scope or trusted
context.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias, TypedDict, cast

from django.db.models import Prefetch, prefetch_related_objects
from django.utils.translation import gettext

from durable_agents import attachment_storage
from durable_agents.actors import Person, ShowPerson, username_of
from durable_agents.agents import Agent, registry
from durable_agents.models import (
    Attachment,
    Role,
    Stream,
    StreamState,
    Thread,
    ThreadStatus,
    ToolCall,
    ToolCallStatus,
    ToolKind,
)
from durable_agents.reading import ReadOnlyJSON, UsageByModel, read_only
from durable_agents.utc_times import to_iso, to_iso_or_none

JSONValue: TypeAlias = Any
JSONObject: TypeAlias = dict[str, JSONValue]


class ErrorJSON(TypedDict):
    """The body of every error response."""

    code: str
    detail: str


class AgentToolJSON(TypedDict):
    """A tool that an agent may call."""

    name: str
    description: str
    kind: ToolKind
    needs_approval: bool


class AgentJSON(TypedDict):
    """An agent that the caller may talk to."""

    name: str
    description: str
    tools: list[AgentToolJSON]


class RetryJSON(TypedDict):
    """The next attempt, for which the thread waits after a failed attempt."""

    scope: str
    attempt: int
    max_attempts: int
    next_retry_at: str
    error: str
    kind: str
    retryable: bool


class RunErrorJSON(TypedDict):
    """The error that made the run of a thread fail. ``code`` identifies the kind of error."""

    code: str
    message: str


class UsageJSON(TypedDict):
    """Token counts and their cost. ``cost`` is a decimal string in US dollars, or null if no price is known."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    total_tokens: int
    cost: str | None


class ModelUsageJSON(UsageJSON):
    """The usage of all attempts that called one model. ``usage_estimated`` is true if the token count of
    at least one attempt is an estimate.
    """

    model: str
    attempts: int
    usage_estimated: bool


class AttemptJSON(TypedDict):
    """One attempt at a model call, whether it succeeded or not. ``message`` is the id of the attempt's answer.
    ``attempt`` counts the attempts at the same step, from 1. ``model`` is empty until the model is known.
    """

    id: str
    number: int
    message: str | None
    attempt: int
    state: StreamState
    model: str
    finish_reason: str
    error_code: str
    usage: UsageJSON
    usage_estimated: bool
    created_at: str
    started_at: str | None
    finished_at: str | None


class ThreadUsageJSON(UsageJSON):
    """The usage of a thread in total, by model, and by attempt. The most expensive model comes first. The attempts are
    one page of a list, oldest first.
    """

    models: list[ModelUsageJSON]
    attempts: list[AttemptJSON]
    next: str | None
    previous: str | None


class ExportJSON(TypedDict):
    """Everything in a thread that belongs to its user. The documentation of ``export_thread`` describes the fields."""

    format: str
    version: int
    thread: JSONObject
    messages: list[JSONObject]
    streams: list[JSONObject]
    tool_calls: list[JSONObject]
    attachments: list[JSONObject]


class TicketJSON(TypedDict):
    """A ticket for one websocket. The client sends the ticket in its first frame:
    ``{"type": "hello", "ticket": ...}``. ``expires_in`` is in seconds.
    """

    ticket: str
    expires_in: int


class AttachmentJSON(TypedDict):
    """An uploaded file. A message part refers to the file by this ``url``. ``size`` is in bytes."""

    id: str
    url: str
    mediaType: str
    filename: str
    size: int


class ActiveStreamJSON(TypedDict):
    """The current attempt at a model call. The attempt is in progress or waits to start."""

    id: str
    number: int


class ThreadJSON(TypedDict):
    """A conversation. If the thread can only be read and deleted, ``read_only`` says why; otherwise, it is null."""

    id: str
    client_id: str | None
    agent: str
    title: str
    status: ThreadStatus
    rev: int
    created_at: str
    updated_at: str
    archived: bool
    metadata: JSONObject
    retry: RetryJSON | None
    error: RunErrorJSON | None
    read_only: ReadOnlyJSON | None
    usage: UsageJSON
    active_stream: ActiveStreamJSON | None
    is_running: bool


class MessageJSON(TypedDict):
    """A message. ``parts`` are AI SDK UI message parts. ``position`` is null while the message is queued."""

    id: str
    client_id: str | None
    role: Role
    parts: list[JSONObject]
    metadata: JSONObject
    sender: Person | None
    position: int | None
    created_at: str


class OpenStreamJSON(TypedDict):
    """An unfinished attempt (stream). The message with the id ``message`` includes the attempt's content so far.
    ``seq`` is the number of the last included delta, or -1 if none is included.
    """

    id: str
    number: int
    seq: int
    message: str


class ApprovalJSON(TypedDict):
    """The approval of a tool call, pending or decided. ``can_decide`` says whether the caller may decide it."""

    requested_at: str
    decided_at: str | None
    decided_by: str | None
    reason: str
    can_decide: bool


class ToolCallJSON(TypedDict):
    """A tool call that the model made."""

    tool_call_id: str
    tool_name: str
    kind: ToolKind
    arguments: JSONValue
    approved_arguments: JSONValue
    status: ToolCallStatus
    result: JSONValue
    error: str | None
    progress: JSONValue
    attempt: int
    max_attempts: int
    expires_at: str | None
    created_at: str
    approval: ApprovalJSON | None
    answered_by_user: Person | None


def agent_json(agent: Agent) -> AgentJSON:
    """Return an agent as JSON, with its tools in the order in which the agent declares them."""
    tools: list[AgentToolJSON] = [
        {
            "name": tool.name,
            "description": str(tool.description),
            "kind": ToolKind(tool.kind),
            "needs_approval": bool(getattr(tool, "needs_approval", False)),
        }
        for tool in agent.tools.values()
    ]
    return {"name": agent.name, "description": str(agent.description), "tools": tools}


def threads_json(threads: Iterable[Thread]) -> list[ThreadJSON]:
    """Return threads as JSON, each with its current attempt. This takes one query for any number of threads."""
    rows = list(threads)
    open_streams = Stream.objects.open().only("thread_id", "number")
    prefetch_related_objects(rows, Prefetch("streams", queryset=open_streams, to_attr="open_streams"))
    return [_thread_json(row) for row in rows]


def _thread_json(thread: Thread) -> ThreadJSON:
    reason = read_only(thread)
    open_streams: list[Stream] = thread.open_streams  # type: ignore[attr-defined]  # prefetched by ``threads_json``
    return {
        "id": str(thread.pk),
        "client_id": thread.client_id,
        "agent": registry.names_of(thread.agent)[0],
        "title": thread.title,
        "status": ThreadStatus(thread.status),
        "rev": thread.rev,
        "created_at": to_iso(thread.created_at),
        "updated_at": to_iso(thread.updated_at),
        "archived": thread.archived,
        "metadata": thread.metadata,
        "retry": cast("RetryJSON | None", thread.retry),
        "error": {"code": thread.error_code, "message": gettext(thread.error_message)} if thread.error_code else None,
        "read_only": reason and {"code": reason["code"], "message": gettext(reason["message"])},
        "usage": usage_json(thread),
        "active_stream": {"id": str(open_streams[0].pk), "number": open_streams[0].number} if open_streams else None,
        "is_running": thread.is_running,
    }


def usage_json(used: Thread | Stream | UsageByModel) -> UsageJSON:
    """Return the token counts and the cost of a thread, an attempt or a model."""
    return {
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "cached_input_tokens": used.cached_input_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
        # The cost is a string, because clients that parse JSON numbers as floats would round it.
        "cost": None if used.cost is None else format(used.cost, "f"),
    }


def model_usage_json(used: UsageByModel) -> ModelUsageJSON:
    """Return the usage of all attempts that called one model."""
    return {
        **usage_json(used),
        "model": used.model,
        "attempts": used.attempts,
        "usage_estimated": used.usage_estimated,
    }


def attempt_json(stream: Stream) -> AttemptJSON:
    """Return an attempt as JSON. Load the attempt with ``select_related("message")`` to avoid a query."""
    return {
        "id": str(stream.pk),
        "number": stream.number,
        "message": stream.message.shown_id if stream.message else None,
        "attempt": stream.attempt,
        "state": StreamState(stream.state),
        "model": stream.model,
        "finish_reason": stream.finish_reason,
        "error_code": stream.error_code,
        "usage": usage_json(stream),
        "usage_estimated": stream.usage_estimated,
        "created_at": to_iso(stream.created_at),
        "started_at": to_iso_or_none(stream.started_at),
        "finished_at": to_iso_or_none(stream.finished_at),
    }


def tool_call_json(call: ToolCall, *, can_decide: bool, show_person: ShowPerson) -> ToolCallJSON:
    """Return a tool call as JSON. ``show_person`` says what is shown of the users who answered the call or decided
    about it. Load the call with ``select_related("answered_by_user", "approval_decided_by")`` to avoid queries.
    """
    answered_by, decided_by = call.answered_by_user, call.approval_decided_by
    decider = None if decided_by is None else show_person(decided_by)
    approval: ApprovalJSON | None = None
    if call.approval_requested_at is not None:
        approval = {
            "requested_at": to_iso(call.approval_requested_at),
            "decided_at": to_iso_or_none(call.approval_decided_at),
            "decided_by": None if decider is None else username_of(decided_by, decider),
            "reason": call.approval_reason,
            "can_decide": can_decide,
        }
    return {
        "tool_call_id": call.tool_call_id,
        "tool_name": call.tool_name,
        "kind": ToolKind(call.kind),
        "arguments": call.arguments,
        "approved_arguments": call.approved_arguments,
        "status": ToolCallStatus(call.status),
        "result": call.result,
        "error": call.error or None,
        "progress": call.progress,
        "attempt": call.attempt,
        "max_attempts": call.max_attempts,
        "expires_at": to_iso_or_none(call.expires_at),
        "created_at": to_iso(call.created_at),
        "approval": approval,
        "answered_by_user": None if answered_by is None else show_person(answered_by),
    }


def attachment_json(row: Attachment) -> AttachmentJSON:
    """Return an attachment as JSON, for the response to its upload."""
    return {
        "id": str(row.pk),
        "url": attachment_storage.url_of(row.pk),
        "mediaType": row.media_type,
        "filename": row.filename,
        "size": row.size,
    }

"""Hides how rows look from outside: the JSON of threads, tool calls and agents.

Each shape is a TypedDict, which the type checker holds against the function that fills it and from which the OpenAPI
schema is made. Owner, scope and trusted context have no place in any of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypedDict, cast

from django.db.models import Prefetch, prefetch_related_objects

from durable_agents.agents import Agent, Tool
from durable_agents.models import Stream, Thread, ToolCall


class ErrorJSON(TypedDict):
    """Every answer that is an error."""

    code: str
    detail: str


class AgentToolJSON(TypedDict):
    """A tool that an agent may call."""

    name: str
    description: str
    kind: str
    needs_approval: bool


class AgentJSON(TypedDict):
    """An agent that one may talk to."""

    name: str
    description: str
    tools: list[AgentToolJSON]


class RetryJSON(TypedDict):
    """The attempt that a thread waits for."""

    scope: str
    attempt: int
    max_attempts: int
    next_retry_at: str
    error: str
    kind: str
    retryable: bool


class RunErrorJSON(TypedDict):
    """Why a thread failed; ``code`` is the kind of error."""

    code: str
    message: str


class UsageJSON(TypedDict):
    """What a thread has used; ``cost`` is a decimal in US dollars, null where no price is known."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    total_tokens: int
    cost: str | None


class ActiveStreamJSON(TypedDict):
    """The attempt that is due or under way."""

    id: str
    number: int


class ThreadJSON(TypedDict):
    """A conversation."""

    id: str
    client_id: str | None
    agent: str
    title: str
    status: str
    rev: int
    created_at: str
    updated_at: str
    archived: bool
    metadata: dict[str, Any]
    retry: RetryJSON | None
    error: RunErrorJSON | None
    usage: UsageJSON
    active_stream: ActiveStreamJSON | None
    is_running: bool


class MessageJSON(TypedDict):
    """A message; ``parts`` are AI SDK UI message parts, ``position`` is null while it is queued."""

    id: str
    client_id: str | None
    role: str
    parts: list[dict[str, Any]]
    metadata: dict[str, Any]
    position: int | None
    created_at: str


class OpenStreamJSON(TypedDict):
    """The stream that is folded into its message: ``seq`` is the last delta included, -1 if none is."""

    id: str
    number: int
    seq: int
    message: str


class ApprovalJSON(TypedDict):
    """The decision that a tool call waits or waited for."""

    requested_at: str
    decided_at: str | None
    decided_by: str | None
    reason: str


class ToolCallJSON(TypedDict):
    """A call of a tool by the model."""

    tool_call_id: str
    tool_name: str
    kind: str
    arguments: Any
    approved_arguments: Any
    status: str
    result: Any
    error: str | None
    progress: Any
    attempt: int
    max_attempts: int
    expires_at: str | None
    created_at: str
    approval: ApprovalJSON | None


def agent_json(agent: Agent) -> AgentJSON:
    """An agent with its tools, in the order of their declaration."""
    tools = [_tool_json(tool) for tool in agent.tools.values()]
    return {"name": agent.name, "description": agent.description, "tools": tools}


def _tool_json(tool: Tool) -> AgentToolJSON:
    return {
        "name": tool.name,
        "description": tool.description,
        "kind": tool.kind,
        "needs_approval": bool(getattr(tool, "needs_approval", False)),
    }


def threads_json(threads: Iterable[Thread]) -> list[ThreadJSON]:
    """Threads with their open streams. One query, however many."""
    rows = list(threads)
    open_streams = Stream.objects.open().only("thread_id", "number")
    prefetch_related_objects(rows, Prefetch("streams", queryset=open_streams, to_attr="open_streams"))
    return [_thread_json(row) for row in rows]


def _thread_json(thread: Thread) -> ThreadJSON:
    return {
        "id": str(thread.pk),
        "client_id": thread.client_id,
        "agent": thread.agent,
        "title": thread.title,
        "status": str(thread.status),
        "rev": thread.rev,
        "created_at": thread.created_at.isoformat(),
        "updated_at": thread.updated_at.isoformat(),
        "archived": thread.archived,
        "metadata": thread.metadata,
        "retry": cast("RetryJSON | None", thread.retry),
        "error": _run_error_json(thread),
        "usage": _usage_json(thread),
        "active_stream": _active_stream_json(thread),
        "is_running": thread.is_running,
    }


def _run_error_json(thread: Thread) -> RunErrorJSON | None:
    return {"code": thread.error_code, "message": thread.error_message} if thread.error_code else None


def _usage_json(thread: Thread) -> UsageJSON:
    return {
        "input_tokens": thread.input_tokens,
        "output_tokens": thread.output_tokens,
        "cached_input_tokens": thread.cached_input_tokens,
        "total_tokens": thread.input_tokens + thread.output_tokens,
        "cost": None if thread.cost is None else format(thread.cost, "f"),
    }


def _active_stream_json(thread: Thread) -> ActiveStreamJSON | None:
    found: list[Stream] = thread.open_streams  # type: ignore[attr-defined]
    return {"id": str(found[0].pk), "number": found[0].number} if found else None


def tool_call_json(call: ToolCall) -> ToolCallJSON:
    """A tool call; who decided about it is fetched unless the query brought it along."""
    return {
        "tool_call_id": call.tool_call_id,
        "tool_name": call.tool_name,
        "kind": str(call.kind),
        "arguments": call.arguments,
        "approved_arguments": call.approved_arguments,
        "status": str(call.status),
        "result": call.result,
        "error": call.error or None,
        "progress": call.progress,
        "attempt": call.attempt,
        "max_attempts": call.max_attempts,
        "expires_at": _moment(call.expires_at),
        "created_at": call.created_at.isoformat(),
        "approval": _approval_json(call),
    }


def _approval_json(call: ToolCall) -> ApprovalJSON | None:
    if call.approval_requested_at is None:
        return None
    decided_by = call.approval_decided_by
    return {
        "requested_at": call.approval_requested_at.isoformat(),
        "decided_at": _moment(call.approval_decided_at),
        "decided_by": decided_by.get_username() if decided_by else None,
        "reason": call.approval_reason,
    }


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None

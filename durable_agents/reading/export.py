"""Hides the format of an exported thread: what belongs to the person, complete, without what belongs to the server.

Format 1 never changes; a field may be added. Owner, scope and trusted context, leases, and details of errors that are
meant for the admin stay out, as everywhere outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from durable_agents import files
from durable_agents.models import Attachment, Message, Stream, Thread, ToolCall, Usage
from durable_agents.transcript import get_thread, ui_messages

FORMAT, VERSION = "durable_agents.thread", 1
_ROWS_AT_ONCE = 200

JSON = dict[str, Any]


def export_thread(thread: Thread | UUID | str, *, include_system: bool = True) -> JSON:
    """Everything of a thread that belongs to its person, as a dict that ``json.dumps`` takes.

    ``thread`` has its facts and usage; ``messages`` all of them in order, with parts, also queued ones, those that were
    edited or regenerated away (``superseded_at``) and, with ``include_system``, those of the role system, which the
    REST API shows to nobody; ``streams`` each attempt at a step with model, outcome and usage; ``tool_calls`` each call
    with arguments, outcome and approval; ``attachments`` the files that messages carry, each with the ``url`` to
    download it from. Streams and calls name their message. Times are ISO 8601, costs decimal
    strings in US dollars.

    Rows are read a few hundred at a time. Of a running thread it is what is committed. Raises ThreadNotFoundError.
    """
    row = get_thread(thread.pk if isinstance(thread, Thread) else thread)
    streams = Stream.objects.filter(thread=row).defer("parts", "text", "error_detail").order_by("number")
    calls = ToolCall.objects.filter(thread=row).select_related("approval_decided_by").order_by("created_at", "rev")
    return {
        "format": FORMAT,
        "version": VERSION,
        "thread": _thread(row),
        "messages": list(_messages(row, include_system=include_system)),
        "streams": [_stream(stream) for stream in streams.iterator(chunk_size=_ROWS_AT_ONCE)],
        "tool_calls": [_call(call) for call in calls.iterator(chunk_size=_ROWS_AT_ONCE)],
        "attachments": [_attachment(file) for file in Attachment.objects.filter(thread=row).order_by("created_at")],
    }


def _thread(row: Thread) -> JSON:
    return {
        "id": str(row.pk),
        "client_id": row.client_id,
        "agent": row.agent,
        "title": row.title,
        "status": str(row.status),
        "archived": row.archived,
        "metadata": row.metadata,
        "error": {"code": row.error_code, "message": row.error_message} if row.error_code else None,
        "retry": row.retry,
        "usage": _usage(row),
        "forked_from": _id(row.forked_from_id),
        "created_at": row.created_at.isoformat(),
        "updated_at": row.updated_at.isoformat(),
    }


def _messages(row: Thread, *, include_system: bool) -> Iterator[JSON]:
    every = Message.objects.filter(thread=row)
    rows = (every if include_system else every.for_clients()).iterator(chunk_size=_ROWS_AT_ONCE)
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        for message, shown in zip(some, ui_messages(some), strict=True):
            yield _message(message, shown["parts"])


def _message(message: Message, parts: list[Any]) -> JSON:
    return {
        "id": str(message.pk),
        "client_id": message.client_id,
        "role": str(message.role),
        "parts": parts,
        "metadata": message.metadata,
        "position": message.position,
        "parent": _id(message.parent_id),
        "created_at": message.created_at.isoformat(),
        "queued_at": _moment(message.queued_at),
        "superseded_at": _moment(message.superseded_at),
    }


def _stream(stream: Stream) -> JSON:
    return {
        "id": str(stream.pk),
        "message": _id(stream.message_id),
        "number": stream.number,
        "attempt": stream.attempt,
        "state": str(stream.state),
        "model": stream.model,
        "finish_reason": stream.finish_reason,
        "error_code": stream.error_code,
        "usage": _usage(stream) | {"estimated": stream.usage_estimated},
        "created_at": stream.created_at.isoformat(),
        "started_at": _moment(stream.started_at),
        "finished_at": _moment(stream.finished_at),
    }


def _call(call: ToolCall) -> JSON:
    return {
        "tool_call_id": call.tool_call_id,
        "message": str(call.message_id),
        "stream": str(call.stream_id),
        "tool_name": call.tool_name,
        "kind": str(call.kind),
        "arguments": call.arguments,
        "approved_arguments": call.approved_arguments,
        "status": str(call.status),
        "result": call.result,
        "progress": call.progress,
        "error": {"code": call.error_code, "message": call.error} if call.error or call.error_code else None,
        "attempt": call.attempt,
        "max_attempts": call.max_attempts,
        "approval": _approval(call),
        "created_at": call.created_at.isoformat(),
        "expires_at": _moment(call.expires_at),
        "finished_at": _moment(call.finished_at),
    }


def _approval(call: ToolCall) -> JSON | None:
    """Who was asked about the call, or decided about it unasked; None where nobody was."""
    if call.approval_requested_at is None and call.approval_decided_at is None:
        return None
    decided_by = call.approval_decided_by
    return {
        "requested_at": _moment(call.approval_requested_at),
        "decided_at": _moment(call.approval_decided_at),
        "decided_by": decided_by.get_username() if decided_by else None,
        "reason": call.approval_reason,
    }


def _attachment(row: Attachment) -> JSON:
    return {
        "id": str(row.pk),
        "url": files.url_of(row.pk),
        "media_type": row.media_type,
        "filename": row.filename,
        "size": row.size,
        "created_at": row.created_at.isoformat(),
    }


def _usage(row: Thread | Usage) -> JSON:
    return {
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cached_input_tokens": row.cached_input_tokens,
        "cache_write_tokens": row.cache_write_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "cost": None if row.cost is None else format(row.cost, "f"),
    }


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _id(key: UUID | None) -> str | None:
    return str(key) if key else None

"""Export a thread as JSON, with everything that belongs to its user and nothing that belongs to the server.

Version 1 of the format never changes, except that fields may be added. Like every public response, an export omits the
owner, the scope, the trusted context, the leases, and the error details that are meant for the admin.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any
from uuid import UUID

from durable_agents import attachment_storage
from durable_agents.actors import ShowPerson, person_of, username_of
from durable_agents.models import Attachment, Message, Stream, Thread, ToolCall, Usage
from durable_agents.reading.read_only_reason import read_only
from durable_agents.transcript import get_thread, ui_messages
from durable_agents.utc_times import to_iso, to_iso_or_none

FORMAT, VERSION = "durable_agents.thread", 1
_ROWS_AT_ONCE = 200

JSON = dict[str, Any]


def export_thread(thread: Thread | UUID | str, *, include_system: bool = True) -> JSON:
    """Return everything in a thread that belongs to its user, as a dict that ``json.dumps`` accepts.

    The dict has these keys:

    - ``thread``: the thread's own fields and its usage.
    - ``messages``: all messages in order, with their parts. Queued messages are included, and so are messages that an
      edit or a regeneration replaced (``superseded_at``). Messages of the role system, which the REST API never shows,
      are included only with ``include_system``.
    - ``streams``: each attempt at a step, with its model, outcome and usage.
    - ``tool_calls``: each call with its arguments, outcome and approval.
    - ``attachments``: the files in the messages, each with the ``url`` to download it from.

    Each stream and each call has the id of its message. Times are ISO 8601; costs are decimal strings in US dollars.

    Rows are read a few hundred at a time. For a running thread, only committed content is exported. Raises
    ThreadNotFoundError.
    """
    return exported(get_thread(thread), include_system=include_system)


def exported(row: Thread, *, include_system: bool, show_person: ShowPerson = person_of) -> JSON:
    """Return the export of a thread. ``show_person`` returns what the export shows of a user."""
    streams = Stream.objects.filter(thread=row).defer("parts", "text", "error_detail").order_by("number")
    calls = ToolCall.objects.filter(thread=row).select_related("approval_decided_by").order_by("created_at", "rev")
    return {
        "format": FORMAT,
        "version": VERSION,
        "thread": exported_thread(row),
        "messages": list(exported_messages(row, include_system=include_system, show_person=show_person)),
        "streams": [exported_stream(stream) for stream in streams.iterator(chunk_size=_ROWS_AT_ONCE)],
        "tool_calls": [
            exported_call(call, show_person=show_person) for call in calls.iterator(chunk_size=_ROWS_AT_ONCE)
        ],
        "attachments": [
            {
                "id": str(file.pk),
                "url": attachment_storage.url_of(file.pk),
                "media_type": file.media_type,
                "filename": file.filename,
                "size": file.size,
                "created_at": to_iso(file.created_at),
            }
            for file in Attachment.objects.filter(thread=row).order_by("created_at")
        ],
    }


def exported_thread(row: Thread) -> JSON:
    """Return the thread's own fields."""
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
        "read_only": read_only(row),
        "usage": _usage(row),
        "forked_from": _id(row.forked_from_id),
        "created_at": to_iso(row.created_at),
        "updated_at": to_iso(row.updated_at),
    }


def exported_messages(row: Thread, *, include_system: bool, show_person: ShowPerson) -> Iterator[JSON]:
    """Yield the messages of a thread with their parts."""
    every = Message.objects.filter(thread=row).select_related("sender")
    rows = (every if include_system else every.for_clients()).iterator(chunk_size=_ROWS_AT_ONCE)
    # Read one batch at a time, because the steps and tool calls of a single answer may take megabytes.
    while batch := list(islice(rows, _ROWS_AT_ONCE)):
        for message, shown in zip(batch, ui_messages(batch, show_person=show_person), strict=True):
            yield {
                "id": str(message.pk),
                "client_id": message.client_id,
                "role": str(message.role),
                "parts": shown["parts"],
                "metadata": message.metadata,
                "sender": shown["sender"],
                "position": message.position,
                "parent": _id(message.parent_id),
                "created_at": to_iso(message.created_at),
                "queued_at": to_iso_or_none(message.queued_at),
                "superseded_at": to_iso_or_none(message.superseded_at),
            }


def exported_stream(stream: Stream) -> JSON:
    """Return an attempt without its content; the exported message has the content."""
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
        "created_at": to_iso(stream.created_at),
        "started_at": to_iso_or_none(stream.started_at),
        "finished_at": to_iso_or_none(stream.finished_at),
    }


def exported_call(call: ToolCall, *, show_person: ShowPerson) -> JSON:
    """Return a tool call with its outcome and, if one was needed, its approval."""
    approval = None
    if call.approval_requested_at is not None or call.approval_decided_at is not None:
        decided_by = call.approval_decided_by
        decider = None if decided_by is None else show_person(decided_by)
        approval = {
            "requested_at": to_iso_or_none(call.approval_requested_at),
            "decided_at": to_iso_or_none(call.approval_decided_at),
            "decided_by": decider and username_of(decided_by, decider),
            "reason": call.approval_reason,
        }
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
        "approval": approval,
        "created_at": to_iso(call.created_at),
        "expires_at": to_iso_or_none(call.expires_at),
        "finished_at": to_iso_or_none(call.finished_at),
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


def _id(key: UUID | None) -> str | None:
    return str(key) if key else None

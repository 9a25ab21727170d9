"""Put the contents of attached files into the model request, up to a maximum total size.

The worker reads the files from the project's own storage. It fetches no URL, and sends no URL to a provider.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from durable_agents import attachment_storage
from durable_agents.conf import config
from durable_agents.engine.runtime import Runtime
from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm import Turn
from durable_agents.models import Attachment
from durable_agents.parts import Part, attachment_id, file_part


async def with_contents(runtime: Runtime, turns: Sequence[Turn], attachments: Mapping[UUID, Attachment]) -> list[Turn]:
    """Return the turns with the contents of their attachments.

    If an attachment was deleted, or if newer files leave no room for it, the model gets a note in its place. Raises a
    retryable ModelError if the storage fails.
    """
    if not any(attachment_id(part) for turn in turns for part in turn.parts):
        return list(turns)
    try:
        return await runtime.in_thread(_filled, turns, attachments)
    except Exception as error:
        detail = f"The storage of attachments failed: {type(error).__name__}: {error}"
        raise ModelError(ErrorKind.NETWORK, detail, retryable=True) from error


def _filled(turns: Sequence[Turn], attachments: Mapping[UUID, Attachment]) -> list[Turn]:
    """Insert the contents of files, beginning with the newest file.

    The total is at most twice the size limit for one file, because providers refuse larger requests.
    """
    room = 2 * config().max_attachment_bytes
    filled = []
    for turn in reversed(turns):
        parts = []
        for part in reversed(turn.parts):
            key = attachment_id(part)
            row = attachments.get(key) if key else None
            parts.append(_part(part, row, room=room) if key else part)
            room -= row.size if row else 0
        filled.append(replace(turn, parts=parts[::-1]))
    return filled[::-1]


def _part(part: Part, row: Attachment | None, *, room: int) -> Part:
    """Return the part with the content of its file, or a text part that says why the file is missing."""
    name = part.get("filename", "a file")
    if row is not None and row.size > room:
        return {"type": "text", "text": f"[{name}: left out here, because newer files fill the request.]"}
    data = attachment_storage.read(row) if row is not None else None
    if row is None or data is None:
        return {"type": "text", "text": f"[{name}: not there any more.]"}
    url = f"data:{row.media_type};base64,{base64.b64encode(data).decode()}"
    return file_part(row.media_type, url, row.filename)

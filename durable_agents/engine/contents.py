"""Hides how the model comes to see the files of a history: read by the worker, within the request, and so many bytes in
all. No provider is told of a URL, and nothing is fetched but from the project's own storage."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

from durable_agents import files
from durable_agents.conf import config
from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm import Turn
from durable_agents.models import Attachment
from durable_agents.parts import Part, attachment_id, file_part

if TYPE_CHECKING:
    from durable_agents.engine.worker import Engine


async def with_contents(engine: Engine, turns: Sequence[Turn], attachments: Mapping[UUID, Attachment]) -> list[Turn]:
    """The turns with their attachments within them; a note to the model in the place of each that is gone, or too old
    to be shown again. Raises ModelError, to be tried again, where the storage does not answer."""
    if not any(attachment_id(part) for turn in turns for part in turn.parts):
        return list(turns)
    try:
        shown: list[Turn] = await engine.in_thread(_filled, turns, attachments)
    except Exception as error:
        detail = f"The storage of attachments failed: {type(error).__name__}: {error}"
        raise ModelError(ErrorKind.NETWORK, detail, retryable=True) from error
    return shown


def _filled(turns: Sequence[Turn], attachments: Mapping[UUID, Attachment]) -> list[Turn]:
    """The newest files first, while there is room: at twice what one may have, providers refuse larger requests."""
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
    """The part with its file within it, or a note."""
    name = part.get("filename", "a file")
    if row is not None and row.size > room:
        return {"type": "text", "text": f"[{name}: left out here, because newer files fill the request.]"}
    data = files.read(row) if row is not None else None
    if row is None or data is None:
        return {"type": "text", "text": f"[{name}: not there any more.]"}
    url = f"data:{row.media_type};base64,{base64.b64encode(data).decode()}"
    return file_part(row.media_type, url, row.filename)

"""Convert the parts of a user's message, including files, to the content that a provider reads."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from durable_agents.llm.types import Block
from durable_agents.media_types import is_text
from durable_agents.parts import Part, file_base64, is_embedded, text_of

_AUDIO_FORMATS = {"mpeg": "mp3", "x-mp3": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}
_SEEN_BY_CLAUDE = re.compile(r"image/(png|jpeg|gif|webp)|application/pdf")


def user_content(parts: Sequence[Part], *, model: str) -> str | list[Block]:
    """Return the content of a user's message. It is a text or, if there are files, a list of text and file blocks."""
    if not any(part["type"] == "file" for part in parts):
        return text_of(parts)
    blocks = [file_block(part, model=model) if part["type"] == "file" else text_block(part["text"]) for part in parts]
    # A message with only files contains an empty text block, which Anthropic refuses.
    return [block for block in blocks if block != text_block("")]


def file_block(part: Part, *, model: str) -> Block:
    """Return a file as a content block in litellm's format. A text file becomes a text block.

    If the provider does not support the file, or if the file is not embedded in the part, return a note to the model
    instead. A file that is not embedded is not fetched, and its URL is not sent.
    """
    media_type: str = part["mediaType"]
    kind, _, subtype = media_type.partition("/")
    title = f"{part['filename']}:\n" if "filename" in part else ""
    if not is_embedded(part):
        return text_block(f"{title}[A file that is not shown to you.]")
    if is_text(media_type):
        return text_block(title + base64.b64decode(file_base64(part)).decode("utf-8", "replace"))
    if "claude" in model and not _SEEN_BY_CLAUDE.fullmatch(media_type):
        return text_block(f"{title}[A file of type {media_type}, which cannot be shown to you.]")
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": part["url"]}}
    if kind == "audio":
        audio = {"data": file_base64(part), "format": _AUDIO_FORMATS.get(subtype, subtype)}
        return {"type": "input_audio", "input_audio": audio}
    return {"type": "file", "file": {"file_data": part["url"], "filename": part.get("filename", "attachment")}}


def text_block(text: str) -> Block:
    """Return the text as a text block."""
    return {"type": "text", "text": text}

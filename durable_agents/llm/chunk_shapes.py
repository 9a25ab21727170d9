"""Read the fields of streamed chunks. The form of the chunks differs between servers.

A chunk is a dict or an object of a client library.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping

from durable_agents.llm.finish_reasons import Ending, ending_of, is_word, normalized
from durable_agents.llm.types import Block
from durable_agents.parts import parse_arguments

NO_INDEX = -1
"""The index of a tool call if the server sent no index."""

REASONING = ("reasoning", "reasoning_content")
"""Names of the fields that contain reasoning. litellm reads the first field for OpenRouter, and the second field for
other providers.
"""

_ORDINARY = frozenset({Ending.STOP, Ending.TOOL_CALLS, None})
_PIECES = ("text", "thinking", "signature", "partial_json")
"""Names of fields in Anthropic's content blocks. The values of these fields arrive in pieces."""


class ContentBlocks:
    """The content of an answer in Anthropic's format, collected from the events of the answer."""

    def __init__(self) -> None:
        self._starts: dict[int, dict[str, object]] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}

    def take(self, event: Mapping[str, object]) -> None:
        """Add an event that begins or continues a block."""
        index, started = event.get("index") or 0, event.get("content_block")
        if not isinstance(index, int):
            return
        if event["type"] == "content_block_start" and isinstance(started, Mapping):
            self._starts.setdefault(index, {}).update(started)
        for name in _PIECES:
            if isinstance(piece := get(event.get("delta"), name), str):
                self._pieces.setdefault((index, name), []).append(piece)

    def whole(self) -> list[Block]:
        """Return all blocks in the form that is sent back to the provider."""
        indexes = sorted({*self._starts, *(index for index, _ in self._pieces)})
        blocks = {index: dict(self._starts.get(index, {})) for index in indexes}
        for (index, name), pieces in self._pieces.items():
            blocks[index][name] = "".join([str(blocks[index].get(name) or ""), *pieces])
        for block in blocks.values():
            if "partial_json" in block:
                block["input"] = parse_arguments(str(block.pop("partial_json"))) or {}
        return list(blocks.values())


def told_word(word: str, native: object) -> str:
    """Return the more exact of two finish reasons of one answer.

    ``word`` is the server's own finish reason. ``native`` is the finish reason of the model's provider, which
    OpenRouter sometimes sends, too. If ``word`` is ``stop`` but ``native`` says that the answer is incomplete, return
    ``native``.
    """
    if normalized(word) != Ending.STOP or not is_word(native):
        return word
    return word if ending_of(native) in _ORDINARY else native


def repaired_call(call: object) -> object:
    """Add missing fields to the delta of a tool call, and return the delta.

    Some servers omit the index or the function. Others send an id or arguments that are not strings.
    """
    index = get(call, "index")
    if not isinstance(index, int) or index < 0:
        put(call, "index", int(index) if isinstance(index, str) and index.isdecimal() else NO_INDEX)
    if get(call, "function") is None:
        empty: object = {"name": None, "arguments": ""}
        if not isinstance(call, dict):
            types = importlib.import_module("openai.types.chat.chat_completion_chunk")
            empty = types.ChoiceDeltaToolCallFunction(name=None, arguments="")
        put(call, "function", empty)
    call_id = get(call, "id")
    if not isinstance(call_id, str | None):
        put(call, "id", str(call_id))
    function = get(call, "function")
    arguments = get(function, "arguments")
    if not isinstance(arguments, str):
        put(function, "arguments", "" if arguments is None else json.dumps(arguments, ensure_ascii=False))
    return call


def texts(content: object) -> str | None:
    """Return the text of a message's content, which is a string or a list of blocks.

    Return None if the message has no content.
    """
    if content is None or isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else [content]
    return "".join((texts(block) or "") if isinstance(block, str | list) else block_text(block) for block in blocks)


def block_text(block: object) -> str:
    """Return the text of a text block. Return an empty string for any other block.

    Servers use several type names for text blocks: ``output_text``, ``text_delta``, ``TEXT``.
    """
    kind = str(get(block, "type") or "text").lower()
    if not ("text" in kind or kind == "refusal") or is_thought(block):
        return ""
    found = (get(block, name) for name in ("text", "refusal", "content", "value"))
    return texts(next((text for text in found if isinstance(text, str | list | dict) and text), None)) or ""


def thoughts_of(content: object) -> str:
    """Return the text of the reasoning blocks in a message's content.

    Mistral's blocks have the type ``thinking`` and contain a list of texts. Other providers use the type ``reasoning``.
    """
    if content is None or isinstance(content, str):
        return ""
    thoughts = ""
    for block in content if isinstance(content, list) else [content]:
        if isinstance(block, list):
            thoughts += thoughts_of(block)
        elif is_thought(block):
            found = (get(block, name) for name in ("thinking", "reasoning", "text", "summary", "content"))
            thoughts += texts(next((text for text in found if text), "")) or ""
    return thoughts


def is_thought(block: object) -> bool:
    """Return whether the block contains reasoning."""
    kind = str(get(block, "type")).lower()
    return "thinking" in kind or "reasoning" in kind


def get(item: object, name: str) -> object:
    """Return a field of a dict or an object; None if the field is missing."""
    return item.get(name) if isinstance(item, dict) else getattr(item, name, None)


def items(item: object, name: str) -> list[object]:
    """Return a field that is a list; an empty list if the field is missing or is not a list."""
    found = get(item, name)
    return found if isinstance(found, list) else []


def put(item: object, name: str, value: object) -> None:
    """Set a field of a dict or an object."""
    if isinstance(item, dict):
        item[name] = value
    else:
        setattr(item, name, value)

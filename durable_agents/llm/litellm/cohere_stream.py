"""Make litellm read the server-sent events of Cohere's API version 2.

litellm parses every line as JSON, although some lines are not JSON. It also looks for most values in the wrong places.
Format: docs.cohere.com/reference/chat-stream.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from durable_agents.llm.chunk_shapes import get, texts

Event = dict[str, object]


@runtime_checkable
class Source(Protocol):
    """litellm's iterator over Cohere's events."""

    chunk_parser: Callable[[Event], Event]
    convert_str_chunk_to_generic_chunk: Callable[[str | bytes], Event]


def repair_source(source: Source) -> None:
    """Make litellm parse Cohere's lines and events with the functions of this module."""
    source.chunk_parser = chunk_of
    # Look up ``source.chunk_parser`` for each line, because ``Wire`` replaces it later. The parameter must be named
    # ``chunk``, because litellm passes the line as a keyword argument.
    source.convert_str_chunk_to_generic_chunk = lambda chunk: source.chunk_parser(event_of(chunk))


def event_of(line: str | bytes) -> Event:
    """Return the event in a line. A blank line, ``[DONE]`` and a line with only an event's name give an empty event."""
    text = line.decode() if isinstance(line, bytes) else line
    data = text.removeprefix("data:").strip()
    if not data or data == "[DONE]" or data.startswith("event:"):
        return {}
    return dict(json.loads(data))


def chunk_of(chunk: Event) -> Event:
    """Return the event in the form that litellm uses for the chunks of all providers."""
    kind, delta, index = chunk.get("type"), chunk.get("delta"), chunk.get("index") or 0
    made: Event = {"text": "", "tool_use": None, "is_finished": False, "finish_reason": "", "usage": None}
    made["index"] = index
    message = get(delta, "message")
    if kind in {"content-start", "content-delta"}:
        made["text"] = texts(get(message, "content")) or ""
    elif kind in {"tool-call-start", "tool-call-delta"}:
        call = get(message, "tool_calls")
        function = get(call, "function")
        given = function if isinstance(function, dict) else {}
        function = {"name": None, "arguments": "", **given}
        made["tool_use"] = {"id": get(call, "id"), "type": "function", "function": function, "index": index}
    elif kind == "message-end":
        made |= {"is_finished": True, "finish_reason": "stop"}
        counted = get(get(delta, "usage"), "tokens")
        if isinstance(counted, dict) and counted:
            read, written = int(counted.get("input_tokens") or 0), int(counted.get("output_tokens") or 0)
            made["usage"] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return made

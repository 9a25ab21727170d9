"""Anthropic's messages format: build the body of a request, and read the events of a streamed answer.

Format: docs.anthropic.com/en/api/messages and .../messages-streaming. For the same history, this module and litellm
build the same request. Therefore, a chat thread can switch between direct calls and litellm.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from durable_agents.llm.call_deltas import CallDelta
from durable_agents.llm.chunk_shapes import ContentBlocks
from durable_agents.llm.chunks_to_events import AnswerEvents
from durable_agents.llm.direct.prices import Tokens, priced
from durable_agents.llm.finish_reasons import is_word
from durable_agents.llm.model_catalog import listed
from durable_agents.llm.types import (
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    ReasoningHidden,
    ReasoningSigned,
    TextDelta,
)
from durable_agents.parts import parse_arguments

PATH = "/v1/messages"
VERSION = "2023-06-01"
"""Value of the header ``anthropic-version``, which every request must have."""
DEFAULT_MAX_TOKENS = 4096
"""The ``max_tokens`` for a model that is not in litellm's list. For a call with a thinking budget, ``max_tokens`` is
the budget plus this value.
"""
BUDGETS = {"low": 1024, "medium": 2048, "high": 4096}
"""The thinking budget in tokens for each ``reasoning_effort``, for models that take a budget."""
_HOSTED = ("web_search_",)
"""Prefixes of tool types. Anthropic runs tools of these types on its own servers, and requires no extra HTTP header."""

APIObject: TypeAlias = dict[str, Any]
"""A JSON object of a request, in the format of Anthropic's API."""


def is_hosted(tool: Mapping[str, Any]) -> bool:
    """Return whether Anthropic runs the tool itself. The definition of such a tool is sent unchanged."""
    return str(tool.get("type")).startswith(_HOSTED)


def body(
    model: str,
    name: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> APIObject:
    """Return the body of a request.

    ``model`` is the model's full name in litellm's list; ``name`` is the name that the provider uses.
    """
    later = [message for message in messages if message["role"] != "system"]
    turns: list[APIObject] = []
    # Anthropic requires that the roles ``user`` and ``assistant`` alternate. Therefore, join successive messages of the
    # same role. A tool result counts as a user message.
    for message in later:
        role = "assistant" if message["role"] == "assistant" else "user"
        blocks = [*(_model_blocks(message) if role == "assistant" else _user_blocks(message))]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    made: APIObject = {"model": name, "messages": turns, "stream": True}
    if system := [_text(message["content"]) for message in messages if message["role"] == "system"]:
        made["system"] = system
    if tools:
        made["tools"] = [dict(tool) if is_hosted(tool) else _tool(tool["function"]) for tool in tools]
    elif any(message.get("tool_calls") for message in later):  # Anthropic refuses tool calls if ``tools`` is missing
        made["tools"] = [_tool(_NO_TOOL)]
    return made | _settings(model, settings)


_NO_TOOL = {
    "name": "dummy_tool",
    "description": "This is a dummy tool call",
    "parameters": {"type": "object", "properties": {}},
}


def _settings(model: str, given: Mapping[str, Any]) -> APIObject:
    """Return the settings in Anthropic's form.

    Anthropic requires ``max_tokens``. The default is the thinking budget plus ``DEFAULT_MAX_TOKENS``. Without a budget,
    the default is the model's limit.
    """
    made = {name: given[name] for name in ("temperature", "top_p", "top_k", "max_tokens") if name in given}
    if stop := given.get("stop"):
        made["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    effort = given.get("reasoning_effort")
    if "thinking" in given:
        made["thinking"] = given["thinking"]
    elif effort is not None and thinks_adaptively(model):
        made |= {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": effort}}
    elif effort is not None:
        made["thinking"] = {"type": "enabled", "budget_tokens": BUDGETS[effort]}
    if (choice := _tool_choice(given)) is not None:
        made["tool_choice"] = choice
    if "max_tokens" not in made:
        budget = made.get("thinking", {}).get("budget_tokens")
        limits = (listed(model).get(name) for name in ("max_output_tokens", "max_tokens"))
        limit = next((limit for limit in limits if isinstance(limit, int) and limit), DEFAULT_MAX_TOKENS)
        made["max_tokens"] = DEFAULT_MAX_TOKENS + budget if budget else limit
    return made


def thinks_adaptively(model: str) -> bool:
    """Return whether the model decides for itself how much to think."""
    return bool(listed(model).get("supports_adaptive_thinking"))


def _tool_choice(given: Mapping[str, Any]) -> APIObject | None:
    choice, parallel = given.get("tool_choice"), given.get("parallel_tool_calls")
    made: APIObject | None = None
    if isinstance(choice, str):
        made = {"type": {"required": "any"}.get(choice, choice)}
    elif choice is not None:
        made = {"type": "tool", "name": choice["function"]["name"]}
    if parallel is not None and choice != "none":
        made = {**(made or {"type": "auto"}), "disable_parallel_tool_use": not parallel}
    return made


def _tool(function: Mapping[str, Any]) -> APIObject:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    made = {"name": function["name"], "input_schema": schema, "type": "custom"}
    return made | ({"description": function["description"]} if function.get("description") is not None else {})


def _user_blocks(message: Mapping[str, Any]) -> Iterator[APIObject]:
    content = message["content"]
    if message["role"] == "tool":
        yield {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": content}
        return
    parts: Sequence[Mapping[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for part in parts:
        if part["type"] == "text":
            yield _text(part["text"])
            continue
        url = part["image_url"]["url"] if part["type"] == "image_url" else part["file"]["file_data"]
        head, _, data = url.partition(";base64,")
        media_type = head.removeprefix("data:")
        kind = "image" if media_type.startswith("image/") else "document"
        yield {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}}


def _model_blocks(message: Mapping[str, Any]) -> Iterator[APIObject]:
    content = message.get("content")
    yield from map(dict, message.get("thinking_blocks") or ())
    if isinstance(content, str) and content:
        yield _text(content)
    elif content:
        yield from (dict(block) for block in content if block.get("type") != "text" or block["text"])
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = parse_arguments(function["arguments"]) or {}
        yield {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


EMPTY = "[System: Empty message content sanitised to satisfy protocol]"
"""The text that replaces an empty or blank text, which Anthropic refuses. litellm uses the same words."""


def _text(text: str) -> APIObject:
    return {"type": "text", "text": text if text.strip() else EMPTY}


class MessagesReader:
    """Reads the events of one answer."""

    def __init__(self, request: ModelRequest) -> None:
        self.word = ""
        """The stop reason as the provider sent it; empty if the provider has not sent one yet."""
        self.is_done = False
        self._answer = AnswerEvents(request)
        self._model = request.model
        self._usage: APIObject = {}
        self._content = ContentBlocks()
        self._signatures: dict[int, str] = {}
        self._inputs: dict[int, str] = {}
        """Arguments that arrived complete at the start of a tool call, by the call's index. If pieces of the arguments
        follow, the complete arguments are dropped.
        """

    def events(self, event: Mapping[str, Any]) -> list[ModelEvent]:
        """Return the model events for one of the provider's events."""
        kind = event.get("type")
        if kind == "content_block_delta":
            self._content.take(event)
            return self._of_delta(event.get("index") or 0, event.get("delta") or {})
        if kind == "content_block_start":
            self._content.take(event)
            return self._of_start(event.get("index") or 0, event.get("content_block") or {})
        if kind == "content_block_stop":
            index = event.get("index") or 0
            if arguments := self._inputs.pop(index, ""):
                return self._answer.of([], [CallDelta(index=index, arguments=arguments)])
            if signature := self._signatures.pop(index, ""):
                return self._answer.of([ReasoningSigned(metadata={"anthropic": {"signature": signature}})])
        elif kind == "message_start":
            self._count((event.get("message") or {}).get("usage"))
        elif kind == "message_delta":
            self._count(event.get("usage"))
            if is_word(word := (event.get("delta") or {}).get("stop_reason")):
                self.word = str(word)
        elif kind == "message_stop":
            self.is_done = True
        return []

    def end(self) -> list[ModelEvent]:
        """Return the last events of the answer. Raise ModelError if the answer is not complete."""
        usage = self._usage
        read, created = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
        tokens = Tokens(
            input=(usage.get("input_tokens") or 0) + read + created,
            output=usage.get("output_tokens") or 0,
            cached=read,
            cache_write=created,
            cache_write_1h=(usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0,
        )
        counted = priced(self._model, tokens) if usage else None
        return self._answer.end(self.word, usage=counted, content=self._content.whole())

    def _of_delta(self, index: int, delta: Mapping[str, Any]) -> list[ModelEvent]:
        kind = delta.get("type")
        if kind == "text_delta" and delta.get("text"):
            return self._answer.of_text(delta["text"])
        if kind == "thinking_delta" and delta.get("thinking"):
            return self._answer.of([ReasoningDelta(text=delta["thinking"])])
        if kind == "input_json_delta" and delta.get("partial_json"):
            self._inputs.pop(index, None)
            return self._answer.of([], [CallDelta(index=index, arguments=delta["partial_json"])])
        if kind == "signature_delta":
            self._signatures[index] = self._signatures.get(index, "") + (delta.get("signature") or "")
        return []

    def _of_start(self, index: int, block: Mapping[str, Any]) -> list[ModelEvent]:
        kind = block.get("type")
        if kind in {"tool_use", "server_tool_use"}:
            if block.get("input"):
                self._inputs[index] = json.dumps(block["input"], ensure_ascii=False)
            call = CallDelta(index=index, call_id=block.get("id") or "", name=block.get("name") or "")
            return self._answer.of([], [call])
        if kind == "redacted_thinking":
            return self._answer.of([ReasoningHidden(metadata={"anthropic": {"redactedData": block.get("data", "")}})])
        if block.get("signature"):
            self._signatures[index] = block["signature"]
        if kind == "text" and block.get("text"):
            return self._answer.of([TextDelta(text=block["text"])])
        if kind == "thinking" and block.get("thinking"):
            return self._answer.of([ReasoningDelta(text=block["thinking"])])
        return []

    def _count(self, usage: Any) -> None:
        """Update the token counts. A smaller count does not replace a larger one.

        The provider sends counts at the start of the answer, and some of them again at the end.
        """
        for name, value in (usage or {}).items():
            known = self._usage.get(name)
            if value is not None and not (isinstance(known, int) and isinstance(value, int) and value < known):
                self._usage[name] = value

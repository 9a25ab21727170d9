"""OpenAI's chat-completions format: build the body of a request, and read the chunks of a streamed answer.

Format: platform.openai.com/docs/api-reference/chat. ``chunk_shapes`` handles the deviations of other servers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from durable_agents.llm.call_deltas import CallDelta
from durable_agents.llm.chunk_shapes import repaired_call, texts, thoughts_of, told_word
from durable_agents.llm.chunks_to_events import AnswerEvents
from durable_agents.llm.direct.prices import Tokens, priced
from durable_agents.llm.direct.providers import Provider
from durable_agents.llm.finish_reasons import is_word
from durable_agents.llm.types import ModelEvent, ModelRequest, ReasoningDelta, TextDelta

PATH = "/chat/completions"


def body(
    provider: Provider, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the body of a request, without the settings."""
    # In a message with tool calls, the text can be None. Some servers refuse null. Leave out every field that is None.
    full = [{name: value for name, value in message.items() if value is not None} for message in messages]
    made = {"model": model, "messages": full, "stream": True, **_plain(provider.body)}
    if tools:
        made["tools"] = [_without(tool, provider.refused_schema_keys) for tool in tools]
    return made


def _plain(value: Any) -> Any:
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, Mapping) else value


def _without(schema: Any, names: frozenset[str]) -> Any:
    """Return the schema, with these keys removed at every depth."""
    if not names:
        return schema
    if isinstance(schema, Mapping):
        return {name: _without(value, names) for name, value in schema.items() if name not in names}
    return [_without(value, names) for value in schema] if isinstance(schema, list) else schema


class ChatReader:
    """Reads the chunks of one answer."""

    def __init__(self, request: ModelRequest) -> None:
        self.word = ""
        """The finish reason as the provider sent it; empty if the provider has not sent one yet."""
        self.is_done = False
        """Always False. In this format, ``[DONE]`` marks the end of the stream, and ``EventStream`` recognises it."""
        self._answer = AnswerEvents(request)
        self._model = request.model
        self._usage: Mapping[str, Any] | None = None

    def events(self, chunk: Mapping[str, Any]) -> list[ModelEvent]:
        """Return the events of one chunk."""
        if usage := chunk.get("usage"):
            self._usage = usage
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return []
        if is_word(word := choice.get("finish_reason")):
            self.word = told_word(str(word), choice.get("native_finish_reason"))
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return []
        content = delta.get("content")
        if content and isinstance(content, str) and (len(delta) == 1 or (len(delta) == 2 and "role" in delta)):
            return self._answer.of_text(content)  # a shortcut, because most chunks contain only text
        said = self._said(delta)
        listed, only = delta.get("tool_calls"), delta.get("function_call")
        calls = [_call_delta(call) for call in listed if call] if isinstance(listed, list) else []
        if isinstance(only, dict):  # an older field of the format, for a single tool call
            calls.append(_call_delta({"index": 0, "function": only}))
        return self._answer.of(said, calls) if said or calls else []

    def end(self) -> list[ModelEvent]:
        """Return the last events of the answer. Raise ModelError if the answer is not complete."""
        if self._usage is None:
            return self._answer.end(self.word, usage=None)
        usage = self._usage
        inputs = usage.get("prompt_tokens_details") or {}
        outputs = usage.get("completion_tokens_details") or {}
        read, written = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        reasoning = outputs.get("reasoning_tokens") or 0
        if reasoning and usage.get("total_tokens") == read + written + reasoning:
            written += reasoning  # xAI does not include reasoning tokens in the output tokens
        tokens = Tokens(
            input=read,
            output=written,
            # DeepSeek has its own field for the cached tokens.
            cached=inputs.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0,
            cache_write=inputs.get("cache_write_tokens") or usage.get("cache_creation_input_tokens") or 0,
            reasoning=reasoning,
        )
        return self._answer.end(self.word, usage=priced(self._model, tokens))

    def _said(self, delta: Mapping[str, Any]) -> list[ModelEvent]:
        content, refusal = delta.get("content"), texts(delta.get("refusal"))
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if not isinstance(reasoning, str) or not isinstance(content, str | None):
            reasoning = thoughts_of(content) or thoughts_of(reasoning) or texts(reasoning)
        text = texts(content)
        if refusal:
            self._answer.refused, text = True, (text or "") + refusal
        said: list[ModelEvent] = [ReasoningDelta(text=reasoning)] if reasoning else []
        return [*said, TextDelta(text=text)] if text else said


def _call_delta(given: object) -> CallDelta:
    call: Any = repaired_call(given)
    function = call["function"]
    return CallDelta(
        index=call["index"],
        call_id=call.get("id") or "",
        name=(function.get("name") or "").strip(),
        arguments=function["arguments"],
    )

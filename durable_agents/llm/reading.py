"""Hides what litellm makes of an answer: its chunks become events, and a cut answer never passes for a whole one.

litellm's ``stream_chunk_builder`` loses calls without ids and merges calls that share an index, so calls are put
together here. A stream that ends without a finish reason of its provider's was cut, whatever litellm reports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm.calls import (
    CallArguments,
    CallStarted,
    Finished,
    ModelEvent,
    ModelUsage,
    ReasoningDelta,
    ReasoningHidden,
    ReasoningSigned,
    TextDelta,
    TextSigned,
)
from durable_agents.llm.loading import cost_of, library

_SAYS_SOMETHING = (TextDelta, CallStarted)
_FINISH_REASONS = frozenset({"stop", "length", "content_filter", "tool_calls"})
"""What is told apart; any other word of a provider's is an ordinary end."""


@dataclass
class Calls:
    """Numbers the calls of one step: by the provider's index, where a new id at a known index is a new call."""

    number_at: dict[Any, int] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    def events(self, delta: Any) -> list[ModelEvent]:
        function = delta.function
        at = delta.index if delta.index is not None else 0
        found: list[ModelEvent] = []
        if self._is_new(at, delta.id or "", function.name or ""):
            self.number_at[at] = len(self.ids)
            self.ids.append(delta.id or "")
            found.append(
                CallStarted(index=self.number_at[at], provider_call_id=delta.id or "", tool_name=function.name or "")
            )
        if function.arguments:
            found.append(CallArguments(index=self.number_at[at], text=function.arguments))
        return found

    def _is_new(self, at: Any, call_id: str, name: str) -> bool:
        if at not in self.number_at:
            return True
        return bool(call_id and name and call_id != self.ids[self.number_at[at]])


@dataclass
class Reading:
    """What has been read of one response."""

    usage: Any = None
    empty: bool = True
    google_ended: bool = True
    """False while an answer of Google's goes on, in every chunk of which litellm sees a finish reason."""

    def watch(self, response: Any) -> None:
        """Before the first chunk: look at Google's own finish reasons. Calls of others are left as they are."""
        make_call = getattr(response, "make_call", None)
        if make_call is None:
            return

        async def watched(**options: Any) -> Any:
            source = await make_call(**options)
            if "gemini" in type(source).__module__:
                self.google_ended = False
                source.chunk_parser = partial(self._parse_google, source.chunk_parser)
            return source

        response.make_call = watched

    def _parse_google(self, parse: Callable[..., Any], chunk: dict[str, Any]) -> Any:
        ended = any(candidate.get("finishReason") for candidate in chunk.get("candidates") or ())
        self.google_ended = self.google_ended or ended or "promptFeedback" in chunk
        return parse(chunk=chunk)

    def events(self, chunk: Any, calls: Calls) -> list[ModelEvent]:
        self.usage = getattr(chunk, "usage", None) or self.usage
        if not chunk.choices:
            return []
        delta = chunk.choices[0].delta
        found: list[ModelEvent] = []
        if reasoning := getattr(delta, "reasoning_content", None):
            found.append(ReasoningDelta(text=reasoning))
        found += _anthropic_signatures(delta)
        if delta.content:
            found.append(TextDelta(text=delta.content))
        found += _google_signatures(delta)
        for call in delta.tool_calls or []:
            found += calls.events(call)
        self.empty = self.empty and not any(isinstance(event, _SAYS_SOMETHING) for event in found)
        return found

    def finish(self, response: Any, *, model: str) -> Finished:
        """The end of a whole answer. Raises where the stream was cut or said nothing."""
        received = getattr(response, "received_finish_reason", None)
        reason = received or getattr(response, "intermittent_finish_reason", None)
        if reason is None or not self.google_ended:
            raise ModelError(ErrorKind.NETWORK, "The stream ended without a finish reason: it was cut.", retryable=True)
        if self.empty and reason == "content_filter":
            raise ModelError(ErrorKind.CONTENT_POLICY, "The model declined to answer.", retryable=False)
        if self.empty:
            raise ModelError(
                ErrorKind.PROVIDER_5XX, "The model answered with neither text nor a tool call.", retryable=True
            )
        told = reason if reason in _FINISH_REASONS else "stop"
        return Finished(finish_reason=told, usage=_usage(self._reported(response), model=model), model=model)

    def _reported(self, response: Any) -> Any:
        """The usage that came over the wire; None where none did. litellm keeps it with its chunks; where it came in
        several (Anthropic), litellm adds them up; where it did not come, litellm counts, and does not say so."""
        chunks = getattr(response, "chunks", None)
        if not chunks:
            return self.usage
        told = [chunk for chunk in chunks if getattr(chunk, "usage", None) is not None]
        if len(told) > 1:
            return library().stream_chunk_builder(told).usage
        return told[0].usage if told else None


def _anthropic_signatures(delta: Any) -> list[ModelEvent]:
    """litellm gives a signature with the whole of its block, and thoughts that the provider hides as they come."""
    if _thought_signatures(delta):
        return []
    found: list[ModelEvent] = []
    for block in getattr(delta, "thinking_blocks", None) or []:
        if block["type"] == "redacted_thinking":
            found.append(ReasoningHidden(metadata={"anthropic": {"redactedData": block["data"]}}))
        elif block.get("signature"):
            found.append(ReasoningSigned(metadata={"anthropic": {"signature": block["signature"]}}))
    return found


def _google_signatures(delta: Any) -> list[ModelEvent]:
    """Google signs calls too; those signatures are in the ids that litellm gives to the calls."""
    signatures = _thought_signatures(delta)
    if not signatures or delta.tool_calls:
        return []
    return [TextSigned(metadata={"google": {"thoughtSignature": signatures[-1]}})]


def _thought_signatures(delta: Any) -> list[str]:
    return (getattr(delta, "provider_specific_fields", None) or {}).get("thought_signatures") or []


def _usage(usage: Any, *, model: str) -> ModelUsage | None:
    if usage is None:
        return None
    inputs = getattr(usage, "prompt_tokens_details", None)
    outputs = getattr(usage, "completion_tokens_details", None)
    return ModelUsage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cached_input_tokens=getattr(inputs, "cached_tokens", None) or 0,
        cache_write_tokens=getattr(usage, "cache_creation_input_tokens", None) or 0,
        reasoning_tokens=getattr(outputs, "reasoning_tokens", None) or 0,
        cost=cost_of(model=model, usage_object=usage),
    )

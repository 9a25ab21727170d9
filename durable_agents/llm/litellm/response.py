"""Read one response from litellm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from durable_agents.llm.chunks_to_events import AnswerEvents
from durable_agents.llm.litellm.deltas import Chunk, call_deltas, thoughts_and_text
from durable_agents.llm.litellm.loading import cost_of, library
from durable_agents.llm.litellm.raw_chunks import Stream, Wire
from durable_agents.llm.types import ModelEvent, ModelRequest, ModelUsage


class Usage(Protocol):
    """The token counts in litellm's form. Some providers do not send the detailed counts."""

    prompt_tokens: int | None
    completion_tokens: int | None


class Response(Stream, Protocol):
    """litellm's response: an iterable of chunks, which must be closed."""

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    async def aclose(self) -> None: ...


class Reading:
    """Reads the response to one request."""

    def __init__(self, request: ModelRequest) -> None:
        self.request = request
        self.response: Response | None = None
        self.usage: Usage | None = None
        """The usage in the latest chunk that reported one."""
        self.wire = Wire()
        self.answer = AnswerEvents(request)

    def events(self, chunk: Chunk) -> list[ModelEvent]:
        """Return the events of one litellm chunk."""
        self.usage = getattr(chunk, "usage", None) or self.usage
        if not chunk.choices:
            return []
        delta = chunk.choices[0].delta
        return self.answer.of(thoughts_and_text(delta), call_deltas(delta))

    def end(self) -> list[ModelEvent]:
        """Return the last events of a complete answer.

        Raises ModelError if the answer was cut off, or if it is empty without a known reason.
        """
        self.answer.refused = self.wire.refused
        word: str | None = self.wire.word
        if not word and not self.wire.has_ends:
            # Use the reason that litellm received from the provider, not a reason that litellm made up.
            word = getattr(self.response, "received_finish_reason", None)
            word = word or getattr(self.response, "intermittent_finish_reason", None)
        usage = self._reported_usage()
        counted = None if usage is None else model_usage(usage, model=self.request.model)
        return self.answer.end(word, usage=counted, content=self.wire.content.whole())

    def _reported_usage(self) -> Usage | None:
        """Return the usage that the provider sent, or None.

        If the provider sends no usage, litellm counts the tokens itself, and its count looks like one from the
        provider. Therefore, read the usage from ``response.chunks``, where litellm keeps the provider's chunks.
        """
        chunks = getattr(self.response, "chunks", None)
        if not chunks:
            return self.usage
        reporting = [chunk for chunk in chunks if getattr(chunk, "usage", None) is not None]
        if len(reporting) > 1:
            # Anthropic reports the request's tokens and the answer's tokens in different chunks. litellm adds them up.
            reporting = [library().stream_chunk_builder(reporting)]
        usage: Usage | None = reporting[0].usage if reporting else None
        return usage


def model_usage(usage: Usage, *, model: str) -> ModelUsage:
    """Return the usage that litellm parsed, with the price in US dollars."""
    inputs = getattr(usage, "prompt_tokens_details", None)
    outputs = getattr(usage, "completion_tokens_details", None)
    return ModelUsage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cached_input_tokens=getattr(inputs, "cached_tokens", None) or 0,
        cache_write_tokens=getattr(usage, "cache_creation_input_tokens", None) or 0,
        reasoning_tokens=getattr(outputs, "reasoning_tokens", None) or 0,
        cost=cost_of(model, usage_object=usage),
    )

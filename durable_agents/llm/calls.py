"""Hides what model libraries call things: one model call as this package sees it, and what it needs of a library."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One model call: messages and tools in the OpenAI format, settings as litellm takes them."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    agent: str = ""
    """Name of the agent that asks."""


@dataclass(frozen=True, kw_only=True)
class ModelUsage:
    """Token counts and the price in US dollars of one model call, as far as they are known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal | None = None
    estimated: bool = False
    """Counted here, because the provider did not say or the attempt did not come to its end."""


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, kw_only=True)
class ReasoningDelta:
    """More of the model's reasoning."""

    text: str


@dataclass(frozen=True, kw_only=True)
class ReasoningSigned:
    """The reasoning so far is a whole; its provider wants ``metadata`` back with it.

    ``metadata`` is what the AI SDK calls providerMetadata: ``{"anthropic": {"signature": ...}}``.
    """

    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReasoningHidden:
    """Reasoning without a text, which its provider wants back: ``{"anthropic": {"redactedData": ...}}``."""

    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TextSigned:
    """The provider wants ``{"google": {"thoughtSignature": ...}}`` back with the text, which may go on."""

    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CallStarted:
    """The model begins call number ``index`` of this step."""

    index: int
    provider_call_id: str
    tool_name: str


@dataclass(frozen=True, kw_only=True)
class CallArguments:
    """More raw text of the arguments of call number ``index``."""

    index: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The stream came to its proper end."""

    finish_reason: str
    usage: ModelUsage | None
    """None where the provider did not say."""
    model: str


ModelEvent = (
    TextDelta | ReasoningDelta | ReasoningSigned | ReasoningHidden | TextSigned | CallStarted | CallArguments | Finished
)


class ModelDoor(Protocol):
    """What the engine needs of a model library; ``DURABLE_AGENTS["MODEL_DOOR"]`` may name another one."""

    def prepare(self) -> None:
        """Load what is slow to load. Called once per process, before the first call."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Make the call. The last event is Finished; raises ModelError otherwise."""

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """What a call with this much of an answer has probably used. May block: call it in a thread."""

    def continues(self, model: str, settings: Mapping[str, Any] = MappingProxyType({})) -> bool:
        """Whether the model, called with these settings, goes on with an answer of its own that ends the history.

        Where that is not known: no. Never raises and asks nobody.
        """

    async def aclose(self) -> None:
        """Close connections; the event loop that the calls were made on is about to end."""


def provider_of(model: str) -> str:
    """The provider's name, where the model's begins with it: ``anthropic`` of ``anthropic/claude-sonnet-4-5``."""
    return model.partition("/")[0]

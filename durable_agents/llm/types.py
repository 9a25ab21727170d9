"""Types of a model call: its request, its events and its usage, and the interface that a model library must provide."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Literal, Protocol, Required, TypeAlias, TypedDict

Block: TypeAlias = Mapping[str, object]
"""A block of a content: a text, a file, or what a vendor returned and wants back, in the vendor's own format."""


class FunctionCall(TypedDict):
    """Name and arguments of a call; the arguments are the text of a JSON object."""

    name: str
    arguments: str


class MessageCall(TypedDict):
    """A tool call within an assistant message."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class Message(TypedDict, total=False):
    """A message in the OpenAI format. A project's ``transform_messages`` may add fields that are not listed here."""

    role: Required[str]
    content: str | Sequence[Block] | None
    tool_calls: Sequence[MessageCall]
    tool_call_id: str
    thinking_blocks: Sequence[Block]
    """This field and the next two are where litellm looks for what a vendor wants back with its own message."""
    provider_specific_fields: Mapping[str, object]
    reasoning_content: str
    prefix: bool
    """Whether the model should continue this message, its own (DeepSeek, Mistral)."""


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One model call: messages and tools in the OpenAI format, settings as litellm takes them."""

    model: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, object]] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    agent: str = ""
    """Name of the agent that makes the call."""
    may_be_silent: bool = False
    """Whether an answer without text is acceptable: the model's tools have just run."""


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
    """Counted here, because the provider did not report usage or the attempt was cut short."""


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
    """The reasoning so far is complete; its provider wants ``metadata`` back with it.

    ``metadata`` is what the AI SDK calls providerMetadata: ``{"anthropic": {"signature": ...}}``.
    """

    metadata: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class ReasoningHidden:
    """Reasoning without a text, which its provider wants back: ``{"anthropic": {"redactedData": ...}}``."""

    metadata: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class TextSigned:
    """The provider wants ``{"google": {"thoughtSignature": ...}}`` back with the text, which may continue."""

    metadata: Mapping[str, object]


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
    """The stream ended properly."""

    finish_reason: str
    """``stop``, ``tool_calls``, ``length``, ``content_filter``, ``pause`` (the provider wants the answer back, and
    continues it) or ``other`` (an unknown word).
    """
    usage: ModelUsage | None
    """None if the provider reported none."""
    model: str


ModelEvent = (
    TextDelta | ReasoningDelta | ReasoningSigned | ReasoningHidden | TextSigned | CallStarted | CallArguments | Finished
)


class ModelDoor(Protocol):
    """The interface that the engine needs from a model library; ``DURABLE_AGENTS["MODEL_DOOR"]`` may name another
    one.
    """

    def prepare(self) -> None:
        """Load what is slow to load. Called once per process, before the first call."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Make the call. The last event is Finished; raises ModelError otherwise."""

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """Return the estimated usage of a call with this much of an answer, fast and without a request.

        An estimate that takes longer than a second is discarded: nothing is counted then.
        """

    def continues(self, model: str, settings: Mapping[str, object] = MappingProxyType({})) -> bool:
        """Whether the model, called with these settings, continues its own answer if the history ends with one.

        False if that is not known. Never raises and makes no request.
        """

    async def aclose(self) -> None:
        """Close connections; the event loop that the calls were made on is about to end."""


def provider_of(model: str) -> str:
    """Return the provider's name, where the model's begins with it: ``anthropic`` of
    ``anthropic/claude-sonnet-4-5``.
    """
    return model.partition("/")[0]


TOLD_TO_CONTINUE = frozenset({"deepseek", "mistral", "codestral"})
"""Providers that continue a message only if it is marked so (``prefix``); Claude always does."""

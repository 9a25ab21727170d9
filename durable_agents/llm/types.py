"""Types of a model call: its request, its events and its usage, and the interface that a model library must provide."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Literal, Protocol, Required, TypeAlias, TypedDict

LATE_OUTCOME = re.compile(r"\[The call of [\w-]+ that was still open ")
"""Matches the beginning of a message with the late outcome of a tool call."""
Block: TypeAlias = Mapping[str, object]
"""A block of a message's content: a text, a file, or a vendor's own data that must be sent back to the vendor."""


class FunctionCall(TypedDict):
    """The name of a tool and the arguments of a tool call. The arguments are the text of a JSON object."""

    name: str
    arguments: str


class MessageCall(TypedDict):
    """A tool call within an assistant message."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class Message(TypedDict, total=False):
    """A message in the OpenAI format. A project's ``transform_messages`` can add fields that are not listed here."""

    role: Required[str]
    content: str | Sequence[Block] | None
    tool_calls: Sequence[MessageCall]
    tool_call_id: str
    thinking_blocks: Sequence[Block]
    """A vendor's own data, which litellm sends back to the vendor with the message. ``provider_specific_fields`` and
    ``reasoning_content`` also contain a vendor's own data.
    """
    provider_specific_fields: Mapping[str, object]
    reasoning_content: str
    prefix: bool
    """Whether the model should continue this assistant message instead of starting a new one (DeepSeek, Mistral)."""


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One model call. Messages and tools are in the OpenAI format; settings are in litellm's format."""

    model: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, object]] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    agent: str = ""
    """The name of the agent that makes the call."""
    may_be_silent: bool = False
    """Whether an answer without text and tool calls is valid. It is valid if the model has already answered or called a
    tool since the user's last message.
    """

    @property
    def ends_with_late_outcome(self) -> bool:
        """Whether the last message is the late outcome of a tool call.

        A late outcome is a result or an error that arrives after the run has already made its next model call. The
        message has the role ``user``, but no user has written it.
        """
        last = self.messages[-1] if self.messages else {"role": ""}
        content = last.get("content")
        return last["role"] == "user" and isinstance(content, str) and LATE_OUTCOME.match(content) is not None


@dataclass(frozen=True, kw_only=True)
class ModelUsage:
    """The token counts and the price in US dollars of one model call. An unknown count is 0, and an unknown price is
    None.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal | None = None
    estimated: bool = False
    """Whether the usage is an estimate, because the provider did not report it or the attempt was cut short."""


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """A piece of the answer's text."""

    text: str


@dataclass(frozen=True, kw_only=True)
class ReasoningDelta:
    """A piece of the model's reasoning."""

    text: str


@dataclass(frozen=True, kw_only=True)
class ReasoningSigned:
    """A signature of the reasoning so far. The reasoning is now complete.

    ``metadata`` must be sent back to the provider with the reasoning. ``metadata`` has the form of the AI SDK's
    ``providerMetadata``: ``{"anthropic": {"signature": ...}}``.
    """

    metadata: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class ReasoningHidden:
    """Reasoning without readable text.

    ``metadata`` must be sent back to the provider. An example: ``{"anthropic": {"redactedData": ...}}``.
    """

    metadata: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class TextSigned:
    """A signature of the text so far. More text may follow.

    ``metadata`` must be sent back to the provider with the text. An example: ``{"google": {"thoughtSignature": ...}}``.
    """

    metadata: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class CallStarted:
    """The beginning of a tool call. ``index`` is the number of the tool call within the answer, from 0."""

    index: int
    provider_call_id: str
    tool_name: str


@dataclass(frozen=True, kw_only=True)
class CallArguments:
    """A piece of the arguments of tool call number ``index``, as raw text."""

    index: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The end of a complete answer."""

    finish_reason: str
    """One of ``stop``, ``tool_calls``, ``length``, ``content_filter``, ``pause`` and ``other``. After ``pause``, the
    provider continues the answer when the answer is sent back. ``other`` stands for an unknown finish reason.
    """
    usage: ModelUsage | None
    """The usage that the provider reported, or None."""
    model: str


ModelEvent = (
    TextDelta | ReasoningDelta | ReasoningSigned | ReasoningHidden | TextSigned | CallStarted | CallArguments | Finished
)


class ModelDoor(Protocol):
    """The interface through which the engine calls models.

    ``DURABLE_AGENTS["MODEL_DOOR"]`` names the class that implements the interface.
    """

    def prepare(self) -> None:
        """Load modules and data that are slow to load. Called once per process, before the first model call."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Make the call and yield its events. The last event is Finished. Raise ModelError if the call fails."""

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """Return the estimated usage of a call. ``answered`` is the text of the answer so far.

        The method must be fast and must not make a request. An estimate that takes longer than a second is discarded,
        and no usage is counted.
        """

    def continues(self, model: str, settings: Mapping[str, object] = MappingProxyType({})) -> bool:
        """Return whether the model, with these settings, can continue a partial answer in the last message.

        Return False if the model's ability is not known. The method must not raise an error or make a request.
        """

    async def aclose(self) -> None:
        """Close the connections. Called on the event loop that made the calls, before the loop ends."""


def provider_of(model: str) -> str:
    """Return the provider's name at the beginning of a model's name: ``anthropic`` for ``anthropic/claude-sonnet-4-5``.

    A name without a slash is returned unchanged.
    """
    return model.partition("/")[0]


MANY_MESSAGES = 500
"""A history with more messages than this counts as long. Workers read, convert and encode a long history in a separate
OS thread, so that this work does not delay other runs.
"""

TOLD_TO_CONTINUE = frozenset({"deepseek", "mistral", "codestral"})
"""Providers that continue a partial answer only if the message with the partial answer has the field ``prefix``. Claude
does not need this field.
"""

"""Turn the deltas of litellm's chunks into events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from durable_agents.llm.call_deltas import CallDelta
from durable_agents.llm.chunk_shapes import NO_INDEX
from durable_agents.llm.types import ModelEvent, ReasoningDelta, ReasoningHidden, ReasoningSigned, TextDelta, TextSigned


class Function(Protocol):
    """Name and arguments of a call, or a piece of them."""

    name: str | None
    arguments: str | None


class Call(Protocol):
    """A delta of a call."""

    index: int | None
    id: str | None
    function: Function


class Delta(Protocol):
    """What every delta of litellm's has; the fields of some providers may be missing."""

    content: str | None
    tool_calls: Sequence[Call] | None


class Choice(Protocol):
    """One of the answers; only one is ever asked for."""

    delta: Delta


class Chunk(Protocol):
    """A chunk of an answer."""

    choices: Sequence[Choice]


def thoughts_and_text(delta: Delta) -> list[ModelEvent]:
    """Return reasoning, text and their signatures."""
    events: list[ModelEvent] = []
    google = (getattr(delta, "provider_specific_fields", None) or {}).get("thought_signatures")
    if reasoning := getattr(delta, "reasoning_content", None):
        events.append(ReasoningDelta(text=reasoning))
    # Anthropic's: litellm gives a signature with the whole of its block, and redacted thoughts as they come.
    for block in () if google else getattr(delta, "thinking_blocks", None) or ():
        if block["type"] == "redacted_thinking":
            events.append(ReasoningHidden(metadata={"anthropic": {"redactedData": block["data"]}}))
        elif block.get("signature"):
            events.append(ReasoningSigned(metadata={"anthropic": {"signature": block["signature"]}}))
    if delta.content:
        events.append(TextDelta(text=delta.content))
    # Google's signature of a text: those of tool calls are in the ids of the calls, where litellm puts them.
    if google and not delta.tool_calls:
        events.append(TextSigned(metadata={"google": {"thoughtSignature": google[-1]}}))
    return events


def call_deltas(delta: Delta) -> list[CallDelta]:
    """Return the deltas of calls; ``function_call`` is the older form of OpenAI's format, for one call."""
    deltas = [
        CallDelta(
            index=NO_INDEX if call.index is None else call.index,
            call_id=call.id or "",
            name=(call.function.name or "").strip(),
            arguments=call.function.arguments or "",
        )
        for call in delta.tool_calls or []
    ]
    only: Function | None = getattr(delta, "function_call", None)
    if only:
        deltas.append(CallDelta(index=0, name=(only.name or "").strip(), arguments=only.arguments or ""))
    return deltas

"""Turn the deltas in litellm's chunks into this package's events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from durable_agents.llm.call_deltas import CallDelta
from durable_agents.llm.chunk_shapes import NO_INDEX
from durable_agents.llm.types import ModelEvent, ReasoningDelta, ReasoningHidden, ReasoningSigned, TextDelta, TextSigned


class Function(Protocol):
    """The name and arguments of a tool call, or pieces of them."""

    name: str | None
    arguments: str | None


class Call(Protocol):
    """A delta of a tool call."""

    index: int | None
    id: str | None
    function: Function


class Delta(Protocol):
    """The fields that every delta from litellm has. Some providers send more fields."""

    content: str | None
    tool_calls: Sequence[Call] | None


class Choice(Protocol):
    """One of several alternative answers. Only the first is used."""

    delta: Delta


class Chunk(Protocol):
    """A chunk of an answer from litellm."""

    choices: Sequence[Choice]


def thoughts_and_text(delta: Delta) -> list[ModelEvent]:
    """Return the events for the delta's reasoning and text, and for the signatures of both."""
    events: list[ModelEvent] = []
    google = (getattr(delta, "provider_specific_fields", None) or {}).get("thought_signatures")
    if reasoning := getattr(delta, "reasoning_content", None):
        events.append(ReasoningDelta(text=reasoning))
    # A block from Anthropic has a signature only when its reasoning is complete. Redacted reasoning arrives complete,
    # in a single block.
    for block in () if google else getattr(delta, "thinking_blocks", None) or ():
        if block["type"] == "redacted_thinking":
            events.append(ReasoningHidden(metadata={"anthropic": {"redactedData": block["data"]}}))
        elif block.get("signature"):
            events.append(ReasoningSigned(metadata={"anthropic": {"signature": block["signature"]}}))
    if delta.content:
        events.append(TextDelta(text=delta.content))
    # A signature from Google belongs either to the text or to a tool call. litellm stores the signature of a tool call
    # in the call's id. Therefore, ignore the signatures here if the delta has tool calls.
    if google and not delta.tool_calls:
        events.append(TextSigned(metadata={"google": {"thoughtSignature": google[-1]}}))
    return events


def call_deltas(delta: Delta) -> list[CallDelta]:
    """Return the deltas of tool calls.

    They are in ``tool_calls`` or in ``function_call``, an older field of OpenAI's format for a single tool call.
    """
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

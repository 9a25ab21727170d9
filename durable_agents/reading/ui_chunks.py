"""Convert a step to UI message chunks. The deltas of a step and the committed step result in the same chunks.

A *place* says how much of a step a client has received. It counts content, not deltas, because deltas are deleted when
the step is committed. After the commit, the client continues from the committed parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from durable_agents.models import ToolCall
from durable_agents.parts import Chunk, Part

_WITHIN_A_PART = ("-delta", "-end")
_NAMED_BY_PLACE = ("text-", "reasoning-")


class Place(NamedTuple):
    """A place within a step. ``part`` is the number of parts that have begun. ``offset`` says how much of the last of
    these parts was sent: the beginning counts 1, each character counts 1, and the end counts 1.
    """

    part: int = 0
    offset: int = 0


BEGINNING = Place()

PlacedChunk = tuple[Place, Chunk]


def placed(chunks: Iterable[Chunk], *, number: int, at: Place = BEGINNING) -> Iterator[PlacedChunk]:
    """Yield each chunk of stream ``number`` together with the place after the chunk. ``at`` is the place before the
    first chunk.

    The ids of text and reasoning chunks are made only from the stream's number and the place. If a chunk is sent again,
    it therefore has the same id.
    """
    for chunk in chunks:
        kind = chunk["type"]
        field = _text_field(chunk)
        size = len(chunk[field]) if field else 1
        at = Place(at.part, at.offset + size) if kind.endswith(_WITHIN_A_PART) else Place(at.part + 1, 1)
        named = {"id": f"{kind.partition('-')[0]}-{number}-{at.part}"} if kind.startswith(_NAMED_BY_PLACE) else {}
        yield at, chunk | named


def unsent(chunks: Iterable[PlacedChunk], seen: Place) -> Iterator[PlacedChunk]:
    """Yield the chunks after the place ``seen``. If a part of a text was already sent, yield only the rest."""
    for place, chunk in chunks:
        if place <= seen:
            continue
        field = _text_field(chunk) if place.part == seen.part else ""
        yield place, chunk | {field: chunk[field][seen.offset - place.offset :]} if field else chunk


def _text_field(chunk: Chunk) -> str:
    return "delta" if "delta" in chunk else "inputTextDelta" if "inputTextDelta" in chunk else ""


def step_chunks(parts: Iterable[Part]) -> Iterator[Chunk]:
    """Yield the chunks of a whole step: first the chunks of its parts, then the chunks with the arguments of its tool
    calls.
    """
    parts = list(parts)
    for part in parts:
        kind = part["type"]
        if kind == "step-start":
            yield {"type": "start-step"}
        elif kind in {"text", "reasoning"}:
            yield {"type": f"{kind}-start"}
            if part["text"]:
                yield {"type": f"{kind}-delta", "delta": part["text"]}
            signed = {"providerMetadata": part["providerMetadata"]} if "providerMetadata" in part else {}
            yield {"type": f"{kind}-end", **signed}
        elif "toolCallId" in part:
            yield {"type": "tool-input-start", **_call_fields(part)}
        else:
            # For file, source and data parts, the chunk has the same form as the part.
            yield dict(part)
    # The arguments come last, as in the deltas of a step. In the deltas, the arguments are complete only at the end.
    for part in parts:
        if "toolCallId" in part:
            yield {"type": "tool-input-available", **_call_fields(part), "input": part.get("input")}


def _call_fields(part: Part) -> Chunk:
    return {"toolCallId": part["toolCallId"], "toolName": part["type"].removeprefix("tool-")}


def call_chunks(call: ToolCall, *, knows_7: bool) -> Iterator[Chunk]:
    """Yield the chunks for the current state of a tool call: the request for approval, the decision, and the progress
    or outcome. Chunks that do not apply are left out.

    Only version 7 of the AI SDK has a chunk for a decision. Older clients get the request for approval while it is open
    and after a rejection. They do not get the request after an approval.
    """
    part = call.outcome().part()
    decided = dict(part.get("approval", {}))
    approval_id = decided.pop("id", None)
    if approval_id is not None and (knows_7 or not decided.get("approved")):
        yield {"type": "tool-approval-request", "toolCallId": call.tool_call_id, "approvalId": approval_id}
    if decided and knows_7:
        yield {"type": "tool-approval-response", "approvalId": approval_id, **decided}
    chunk = _state_chunk(call, part)
    if chunk is not None:
        yield chunk


def _state_chunk(call: ToolCall, part: Part) -> Chunk | None:
    address = {"toolCallId": call.tool_call_id}
    match part["state"]:
        case "output-available":
            preliminary = {"preliminary": True} if "preliminary" in part else {}
            return {"type": "tool-output-available", **address, "output": part["output"], **preliminary}
        case "output-error":
            return {"type": "tool-output-error", **address, "errorText": part["errorText"]}
        case "output-denied":
            return {"type": "tool-output-denied", **address}
        case "approval-requested":
            return None
    if call.decision_reason is not None and call.passed_at is None:
        # The tool call is approved, but a client may still show the request for approval. This chunk makes the client
        # show a running tool call. Without this chunk, a client that sends decisions automatically would send the same
        # decision again and again.
        return {"type": "tool-input-available", **_call_fields(part), "input": part["input"]}
    return None

"""What a provider may put on the wire, line by line: for the answers that no well-behaved server would give."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from demo_project.model_server import EVENT_HEADERS, Body, write_body, write_chunk, write_head
from tests.servers.model import Answer, ModelUnderTest

DONE = "data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True)
class Wire:
    """Raw pieces of a streamed body, and how it ends: `whole`, `torn` (the connection is reset) or `hanging`."""

    pieces: tuple[str, ...]
    ending: str = "whole"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An error with a body of the provider's own."""

    status: int
    error: Body
    headers: dict[str, str] = field(default_factory=dict)


class WireServer(ModelUnderTest):
    """A scripted model server that also sends raw pieces, at whatever path it is asked."""

    async def route(self, request: tuple[str, str, Body], writer: asyncio.StreamWriter) -> None:
        """Answer every POST, so that providers other than OpenAI are served too."""
        await self.complete(request[2], writer)

    async def _send(self, answer: Answer | Wire | Refusal, request: Body, writer: asyncio.StreamWriter) -> None:
        match answer:
            case Wire():
                await send_wire(answer, writer)
            case Refusal():
                headers = {"Content-Type": "application/json", **answer.headers}
                body = json.dumps({"error": answer.error}).encode()
                await write_body(writer, body, headers, status=answer.status)
            case _:
                await super()._send(answer, request, writer)


async def send_wire(wire: Wire, writer: asyncio.StreamWriter) -> None:
    """Send the pieces, and end as told."""
    await write_head(writer, 200, EVENT_HEADERS)
    for piece in wire.pieces:
        await write_chunk(writer, piece)
    if wire.ending == "hanging":
        await asyncio.sleep(60)
    if wire.ending == "torn":
        await asyncio.sleep(0.02)  # else the reset overtakes what was sent
        writer.transport.abort()
    else:
        await write_chunk(writer, "")


def event(delta: Body, *, reason: str | None = None, **facts: Any) -> str:
    """Return one chunk of an OpenAI stream as it travels."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "x"}
    return f"data: {json.dumps({**head, 'choices': [choice], **facts})}\n\n"


def says(*texts: str) -> tuple[str, ...]:
    """Return the chunks of some text."""
    return tuple(event({"content": text}) for text in texts)


def call(index: int | None = 0, **facts: Any) -> str:
    """Return a chunk of a tool call: `id` and `name` where it begins, `arguments` in pieces."""
    function = {key: facts[key] for key in ("name", "arguments") if key in facts}
    delta: Body = {"function": function, "type": "function"}
    delta |= {} if index is None else {"index": index}
    delta |= {"id": facts["id"]} if "id" in facts else {}
    return event({"tool_calls": [delta]})


def stop(reason: str = "stop") -> str:
    """Return the chunk that ends an answer."""
    return event({}, reason=reason)


def whole(*pieces: str, reason: str = "stop") -> Wire:
    """Return an answer with its proper end."""
    return Wire(pieces=(*pieces, stop(reason), DONE))


def anthropic_event(kind: str, **facts: Any) -> str:
    """Return one event of an Anthropic stream as it travels."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **facts})}\n\n"

"""What a provider may put on the wire, line by line: for the answers that no well-behaved server would give."""

import asyncio
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

from demo_project.model_server import EVENT_HEADERS, Body, write_body, write_chunk, write_head
from tests.servers.model import Answer, ModelUnderTest

DONE = "data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True)
class Wire:
    """Raw pieces of a streamed body, a pause before each, and how it ends: `whole`, `torn` (the connection is reset) or
    `hanging`."""

    pieces: tuple[str | bytes, ...]
    pause_seconds: float = 0
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
        if wire.pause_seconds:
            await asyncio.sleep(wire.pause_seconds)
        if isinstance(piece, bytes):
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        else:
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


@dataclass(frozen=True, kw_only=True)
class Block:
    """A content block of an Anthropic answer: how it begins, and what comes piece by piece."""

    start: Body
    deltas: tuple[Body, ...] = ()

    def events(self, index: int) -> tuple[str, ...]:
        """Return its events as they travel."""
        deltas = [anthropic_event("content_block_delta", index=index, delta=delta) for delta in self.deltas]
        start = anthropic_event("content_block_start", index=index, content_block=self.start)
        return (start, *deltas, anthropic_event("content_block_stop", index=index))


def text_block(*texts: str) -> Block:
    """Return a block of text."""
    return Block(
        start={"type": "text", "text": ""}, deltas=tuple({"type": "text_delta", "text": text} for text in texts)
    )


def thinking_block(*texts: str, signature: str) -> Block:
    """Return a block of thoughts, signed at its end."""
    deltas: list[Body] = [{"type": "thinking_delta", "thinking": text} for text in texts]
    deltas.append({"type": "signature_delta", "signature": signature})
    return Block(start={"type": "thinking", "thinking": "", "signature": ""}, deltas=tuple(deltas))


def hidden_block(data: str) -> Block:
    """Return a block of thoughts that the provider redacts."""
    return Block(start={"type": "redacted_thinking", "data": data})


def call_block(*pieces: str, call_id: str, name: str) -> Block:
    """Return a block that calls a tool; like the real provider, it begins with an empty piece of arguments."""
    start = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    deltas = tuple({"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces))
    return Block(start=start, deltas=deltas)


ANTHROPIC_USAGE = {"input_tokens": 5, "output_tokens": 1}


def anthropic_opening(**usage: int) -> str:
    """Return the first event of an Anthropic answer."""
    message = {"id": "m", "role": "assistant", "content": [], "usage": {**ANTHROPIC_USAGE, **usage}}
    return anthropic_event("message_start", message=message)


def anthropic_ending(reason: str = "end_turn", **usage: int) -> tuple[str, ...]:
    """Return the last events of an Anthropic answer."""
    ended = anthropic_event("message_delta", delta={"stop_reason": reason}, usage={**ANTHROPIC_USAGE, **usage})
    return (ended, anthropic_event("message_stop"))


def anthropic(*blocks: Block, reason: str = "end_turn") -> Wire:
    """Return a whole answer in Anthropic's format."""
    events = [event for index, block in enumerate(blocks) for event in block.events(index)]
    return Wire(pieces=(anthropic_opening(), *events, *anthropic_ending(reason)))


def gemini_event(*parts: Body, reason: str = "", **facts: Any) -> str:
    """Return one chunk of a Gemini stream as it travels."""
    candidate: Body = {"index": 0, "content": {"role": "model", "parts": list(parts)}}
    candidate |= {"finishReason": reason} if reason else {}
    return f"data: {json.dumps({'candidates': [candidate], 'modelVersion': 'gemini-x', **facts})}\n\n"


GEMINI_USAGE = {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8}


def gemini(*chunks: tuple[Body, ...], reason: str = "STOP") -> Wire:
    """Return a whole answer in Gemini's format: the parts of each chunk."""
    return Wire(
        pieces=(
            *(gemini_event(*parts) for parts in chunks),
            gemini_event({"text": ""}, reason=reason, usageMetadata=GEMINI_USAGE),
        )
    )


def bedrock_event(kind: str, **facts: Any) -> bytes:
    """Return one event of Bedrock's Converse stream in AWS's binary framing: lengths, headers, payload, checksums."""
    return _aws_message({":event-type": kind, ":message-type": "event"}, facts)


def bedrock_exception(kind: str, message: str) -> bytes:
    """Return an error within such a stream."""
    return _aws_message({":exception-type": kind, ":message-type": "exception"}, {"message": message})


def _aws_message(names: dict[str, str], facts: Body) -> bytes:
    payload = json.dumps(facts).encode()
    names = {**names, ":content-type": "application/json"}
    headers = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in names.items()
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack("!I", zlib.crc32(message))


def bedrock(*deltas: Body, reason: str = "end_turn", start: Body | None = None) -> Wire:
    """Return a whole answer of Bedrock's with one block of these deltas."""
    opening = [bedrock_event("contentBlockStart", start=start, contentBlockIndex=0)] if start else []
    usage = {"inputTokens": 5, "outputTokens": 3, "totalTokens": 8}
    return Wire(
        pieces=(
            bedrock_event("messageStart", role="assistant"),
            *opening,
            *(bedrock_event("contentBlockDelta", delta=delta, contentBlockIndex=0) for delta in deltas),
            bedrock_event("contentBlockStop", contentBlockIndex=0),
            bedrock_event("messageStop", stopReason=reason),
            bedrock_event("metadata", usage=usage, metrics={"latencyMs": 1}),
        )
    )

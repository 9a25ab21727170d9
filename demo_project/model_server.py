"""Serve OpenAI's chat completions over HTTP, streamed or whole.

A function turns a request's JSON body into a `Reply`, and the server sends the reply. OpenAI's API reference describes
requests, chunks and errors under "Chat completions".
"""

import asyncio
import contextlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import responses
from typing import Any

MAX_BODY_BYTES = 10_000_000

EVENT_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "Transfer-Encoding": "chunked"}

Body = dict[str, Any]
Headers = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One tool call of a reply."""

    name: str
    arguments: Body


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The model's answer: reasoning, then text, then tool calls. One token is sent every `delay_seconds`."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    delay_seconds: float = 0.02


class RequestError(Exception):
    """The request cannot be answered. The client gets a JSON error with this HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def tokens(text: str) -> list[str]:
    """Split `text` into words, each with the white space before it. Joined together, the words are `text` again."""
    return re.findall(r"\s*\S+|\s+$", text)


def deltas(reply: Reply) -> Iterator[Body]:
    """Yield the `delta` of each chunk of `reply`, in order."""
    yield {"role": "assistant", "content": ""}
    for token in tokens(reply.reasoning):
        yield {"reasoning_content": token}
    for token in tokens(reply.text):
        yield {"content": token}
    for index, call in enumerate(reply.calls):
        yield from call_deltas(index, call)


def call_deltas(index: int, call: Call) -> Iterator[Body]:
    """Yield the deltas of one tool call: first its id and name, then its arguments in pieces."""
    opening = {"id": new_id("call"), "type": "function", "function": {"name": call.name, "arguments": ""}}
    yield {"tool_calls": [{"index": index, **opening}]}
    for piece in re.findall(r".{1,8}", json.dumps(call.arguments)):
        yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def finish_reason(reply: Reply) -> str:
    """Return the reason why the model stopped, in OpenAI's terms."""
    return "tool_calls" if reply.calls else "stop"


def usage(request: Body, reply: Reply) -> dict[str, int]:
    """Return the token counts of a request and its reply; each word counts as one token."""
    prompt = len(json.dumps(request.get("messages", [])).split())
    completion = sum(1 for _ in deltas(reply)) - 1
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def new_id(prefix: str) -> str:
    """Return a fresh id that begins with `prefix`."""
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


async def chunks(request: Body, reply: Reply) -> AsyncIterator[Body]:
    """Yield the chunks of a streamed answer, with a pause of `reply.delay_seconds` after each token. The last chunk
    contains the token usage if the request asks for it.
    """
    head = {
        "id": new_id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": request.get("model", ""),
    }
    for delta in deltas(reply):
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        await asyncio.sleep(reply.delay_seconds)
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason(reply)}]}
    if (request.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": usage(request, reply)}


def completion(request: Body, reply: Reply) -> Body:
    """Return `reply` as the body of an answer that is not streamed."""
    message: Body = {"role": "assistant", "content": reply.text or None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.calls:
        message["tool_calls"] = [whole_call(call) for call in reply.calls]
    return {
        "id": new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.get("model", ""),
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason(reply)}],
        "usage": usage(request, reply),
    }


def whole_call(call: Call) -> Body:
    """Return a tool call as it appears in a message that is not streamed."""
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    return {"id": new_id("call"), "type": "function", "function": function}


class ModelServer:
    """An HTTP server that answers `/v1/chat/completions` with the function `answer`. Each connection carries one
    request.
    """

    def __init__(self, answer: Callable[[Body], Reply], *, model: str = "scripted") -> None:
        self.answer = answer
        self.model = model

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Listen on `host` and `port` (0 for a free one). Return the server, which the caller must close."""
        return await asyncio.start_server(self.handle, host, port)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the only request of a connection. Stop if the client disconnects."""
        # A cancellation is not an error: it happens when the server closes.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                await while_connected(reader, self.route(await read_request(reader), writer))
            except RequestError as error:
                body = {"error": {"message": str(error), "type": "invalid_request_error", "code": error.status}}
                await write_json(writer, body, status=error.status)
            finally:
                writer.close()
                await writer.wait_closed()

    async def route(self, request: tuple[str, str, Body], writer: asyncio.StreamWriter) -> None:
        """Send the answer for the method and path of `request`. Raises `RequestError` if the path or its method is
        unknown.
        """
        method, path, body = request
        if (method, path) == ("GET", "/v1/models"):
            await write_json(writer, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        elif (method, path) == ("POST", "/v1/chat/completions"):
            await self.complete(body, writer)
        else:
            raise RequestError(HTTPStatus.NOT_FOUND, f"{method} {path} is not served here.")

    async def complete(self, request: Body, writer: asyncio.StreamWriter) -> None:
        """Send the answer to a chat completion request."""
        await send(self.answer(request), request, writer)


async def while_connected(reader: asyncio.StreamReader, answering: Coroutine[Any, Any, None]) -> None:
    """Run `answering` to its end. If the client disconnects first, cancel it and raise `ConnectionAbortedError`."""
    answer, gone = asyncio.ensure_future(answering), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ConnectionAbortedError("The client has gone.")
        await answer
    finally:
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def send(reply: Reply, request: Body, writer: asyncio.StreamWriter) -> None:
    """Send `reply`, as a stream if the request asks for one."""
    if request.get("stream"):
        await write_events(writer, chunks(request, reply))
    else:
        await write_json(writer, completion(request, reply))


async def read_request(reader: asyncio.StreamReader) -> tuple[str, str, Body]:
    """Return the method, path and JSON body of the next request. Raises `RequestError` if the request is invalid."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        length = int(headers.get("content-length", "0"))
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, "This is not an HTTP request.") from error
    if length > MAX_BODY_BYTES:
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is over {MAX_BODY_BYTES} bytes.")
    return method, target.partition("?")[0], parse_body(await reader.readexactly(length))


def parse_body(raw: bytes) -> Body:
    """Return the JSON object in `raw`, or an empty dict if `raw` is empty. Raises `RequestError` for anything else."""
    try:
        body = json.loads(raw or b"{}")
    except ValueError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, "The body is not JSON.") from error
    if not isinstance(body, dict):
        raise RequestError(HTTPStatus.BAD_REQUEST, "The body is not a JSON object.")
    return body


async def write_head(writer: asyncio.StreamWriter, status: int, headers: Headers) -> None:
    """Send the status line and `headers` of an answer, with `Connection: close`."""
    lines = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    await writer.drain()


async def write_body(writer: asyncio.StreamWriter, data: bytes, headers: Headers, *, status: int = 200) -> None:
    """Send an answer that is not streamed."""
    await write_head(writer, status, {**headers, "Content-Length": str(len(data))})
    writer.write(data)
    await writer.drain()


async def write_json(writer: asyncio.StreamWriter, body: Body, *, status: int = 200) -> None:
    """Send `body` as a JSON answer that is not streamed."""
    await write_body(writer, json.dumps(body).encode(), {"Content-Type": "application/json"}, status=status)


async def write_events(writer: asyncio.StreamWriter, events: AsyncIterator[Body]) -> None:
    """Send each of `events` as a server-sent event as soon as it arrives, and finally `[DONE]`.

    The body has chunked encoding, so that a client can tell a complete answer from one that broke off.
    """
    await write_head(writer, HTTPStatus.OK, EVENT_HEADERS)
    async for event in events:
        await write_chunk(writer, f"data: {json.dumps(event)}\n\n")
    await write_chunk(writer, "data: [DONE]\n\n")
    await write_chunk(writer, "")


async def write_chunk(writer: asyncio.StreamWriter, text: str) -> None:
    """Send one HTTP chunk; an empty chunk ends the body. Raises `ConnectionError` if the client has disconnected."""
    data = text.encode()
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()

"""Serve scripted answers over HTTP. The server runs on localhost and uses OpenAI's format for chat completions.

Requests can come from this process and from other processes:

- For a request from this process, the answer is chosen before the request is sent. The request's path contains a key,
  by which the server finds the answer.
- Requests from other processes use the path ``/v1`` and get the next answer of the script.

OpenAI's API reference describes the format under "Chat completions".
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import warnings
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self, TypeAlias
from uuid import uuid4

from asgiref.sync import async_to_sync

from durable_agents.exceptions import ErrorKind
from durable_agents.llm import Finished, LiteLLMDoor, ModelEvent, ModelRequest
from durable_agents.testing.pieces import (
    Call,
    End,
    Failure,
    Piece,
    Silence,
    Text,
    Thought,
    call_test_function,
    pieces_of,
    sendable_over_http,
    usage_of,
    words_of,
)

SILENCE_SECONDS = 0.3
"""Timeout of litellm's request if the scripted answer hangs. A short timeout keeps tests fast."""
JSON = {"Content-Type": "application/json"}
JSONBody: TypeAlias = dict[str, Any]
"""The JSON body of a client's request, after parsing."""

_REFUSALS = {
    ErrorKind.RATE_LIMITED: (429, "rate_limit_exceeded"),
    ErrorKind.PROVIDER_5XX: (503, "server_error"),
    ErrorKind.CONTEXT_WINDOW_EXCEEDED: (400, "context_length_exceeded"),
    ErrorKind.INSUFFICIENT_CREDITS: (429, "insufficient_quota"),
    ErrorKind.INVALID_REQUEST: (400, "invalid_value"),
    ErrorKind.AUTH: (401, "invalid_api_key"),
    ErrorKind.CONTENT_POLICY: (400, "content_policy_violation"),
}
"""The HTTP status and OpenAI's code for each kind of error. For any other kind of error, the server resets the
connection.
"""
_WORDS = {
    ErrorKind.CONTEXT_WINDOW_EXCEEDED: "This model's maximum context length is 8192 tokens. ",
    ErrorKind.INSUFFICIENT_CREDITS: "You exceeded your current quota (insufficient_quota). ",
    ErrorKind.CONTENT_POLICY: "invalid_request_error, content_policy_violation. ",
}
"""Phrases for error messages, by kind of error. litellm recognises these kinds by the phrase in the message."""


class ModelServer:
    """A context manager that runs a server on a free local port, with an OS thread for each request."""

    def __init__(self, take: Callable[[ModelRequest], object], *, seconds_per_word: float = 0) -> None:
        self._take = take
        self.seconds_per_word = seconds_per_word
        self._held: dict[str, list[Piece]] = {}
        self._quiet = warnings.catch_warnings()
        self.closing = threading.Event()

    def __enter__(self) -> Self:
        # In projects that turn warnings into errors, litellm's warnings would make its calls fail.
        self._quiet.__enter__()
        warnings.filterwarnings("ignore", module=r"litellm|openai|pydantic|aiohttp")
        handler = type("Handler", (_Handler,), {"model": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        # The test process must be able to exit while a request hangs.
        self._http.daemon_threads = True
        # Poll every 0.02 s for the shutdown. The default of half a second would slow down every test.
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._quiet.__exit__(None, None, None)

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    async def stream(self, request: ModelRequest, pieces: list[Piece]) -> AsyncGenerator[ModelEvent]:
        """Send a request through litellm to this server, which answers with these pieces. Yield the events of the
        answer.
        """
        key = uuid4().hex
        self._held[key] = pieces
        base = self.url.removesuffix("/v1") + f"/{key}/v1"
        hurry = {"timeout": SILENCE_SECONDS} if any(isinstance(piece, Silence) for piece in pieces) else {}
        # Leave out ``base_url``. Otherwise, litellm would use it instead of ``api_base``, and call a real server.
        kept = {name: value for name, value in request.settings.items() if name != "base_url"}
        settings = {**kept, **hurry, "api_base": base, "api_key": "scripted"}
        # litellm chooses the format by the provider in the model's name. This server uses OpenAI's format.
        is_openai = request.model.startswith("openai/")
        model = request.model if is_openai else f"openai/{request.model.rpartition('/')[2]}"
        own_request = replace(request, model=model, settings=settings)
        try:
            async with aclosing(LiteLLMDoor().stream(own_request)) as events:
                async for event in events:
                    yield replace(event, model=request.model) if isinstance(event, Finished) else event
        finally:
            self._held.pop(key, None)

    def pieces_for(self, path: str, body: JSONBody) -> list[Piece]:
        """Return the pieces of the answer whose key is in the path. Without a key, take the script's next answer."""
        held = self._held.get(path.strip("/").partition("/")[0])
        if held is not None:
            return held
        answer = self._take(_request_of(body))
        while callable(answer):
            answer = async_to_sync(call_test_function)(answer, _request_of(body), host=None)
        return sendable_over_http(pieces_of(answer))


def _request_of(body: JSONBody) -> ModelRequest:
    rest = {name: value for name, value in body.items() if name not in {"model", "messages", "tools"}}
    tools = body.get("tools") or ()
    return ModelRequest(model=body.get("model", ""), messages=body.get("messages", []), tools=tools, settings=rest)


class _Handler(BaseHTTPRequestHandler):
    """Handles HTTP requests. Each connection has only one request."""

    model: ClassVar[ModelServer]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Do not log requests."""

    def do_POST(self) -> None:
        """Stream the answer to a chat completion request."""
        self.close_connection = True
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            pieces = self.model.pieces_for(self.path, body)
        except Exception as error:
            self._refuse(400, "scripted", f"{type(error).__name__}: {error}")
            return
        with suppress(ConnectionError):
            self._answer(body, pieces)

    def _answer(self, body: JSONBody, pieces: Sequence[Piece]) -> None:
        first = pieces[0] if pieces else None
        if isinstance(first, Failure) and first.kind in _REFUSALS:
            status, code = _REFUSALS[first.kind]
            wish = first.retry_after_seconds
            headers = {} if wish is None else {"Retry-After": f"{wish:g}"}
            self._refuse(status, code, _WORDS.get(first.kind, "") + first.detail, **headers)
            return
        self._head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        for chunk in _chunks(_request_of(body), pieces):
            if isinstance(chunk, Silence):
                self.model.closing.wait()
            if isinstance(chunk, Silence | Failure):
                # Reset the connection. If the stream ended normally, litellm would treat the answer as complete.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            self._chunk(f"data: {json.dumps(chunk)}\n\n")
            if self.model.seconds_per_word and _has_word(chunk):
                self.model.closing.wait(self.model.seconds_per_word)
        self._chunk("data: [DONE]\n\n")
        self._chunk("")

    def _refuse(self, status: int, code: str, message: str, **headers: str) -> None:
        data = json.dumps({"error": {"message": message, "type": code, "code": code}}).encode()
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        self._head(status, {**JSON, "Content-Length": str(len(data)), **more})
        self.wfile.write(data)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def _has_word(chunk: Mapping[str, Any]) -> bool:
    return any({"content", "reasoning_content"} & choice["delta"].keys() for choice in chunk["choices"])


def _chunks(request: ModelRequest, pieces: Sequence[Piece]) -> Iterator[dict[str, object] | Silence | Failure]:
    """Yield the chunks of an answer. A ``Silence`` or ``Failure`` is yielded unchanged, and ends the answer."""
    head = {"id": f"chatcmpl-{uuid4().hex}", "object": "chat.completion.chunk", "created": 0, "model": request.model}
    end, text, calls = End("", None), "", 0
    for piece in pieces:
        if isinstance(piece, Silence | Failure):
            yield piece
            return
        if isinstance(piece, End):
            end = piece
            continue
        for delta in _deltas(piece, calls):
            yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        text += piece.text if isinstance(piece, Text) else ""
        calls += isinstance(piece, Call)
    reason = end.reason or ("tool_calls" if calls else "stop")
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    usage = end.usage or usage_of(request, text)
    total = usage.input_tokens + usage.output_tokens
    tokens = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens, "total_tokens": total}
    yield {**head, "choices": [], "usage": tokens}


def _deltas(piece: Piece, number: int) -> Iterator[Mapping[str, object]]:
    if isinstance(piece, Text):
        yield from ({"content": word} for word in words_of(piece.text))
    elif isinstance(piece, Thought):
        yield from ({"reasoning_content": word} for word in words_of(piece.text))
    elif isinstance(piece, Call):
        opening = {"name": piece.tool_name, "arguments": ""}
        call_id = piece.provider_call_id or f"call_{uuid4().hex}"
        yield {"tool_calls": [{"index": number, "id": call_id, "type": "function", "function": opening}]}
        yield {"tool_calls": [{"index": number, "function": {"arguments": piece.raw}}]}

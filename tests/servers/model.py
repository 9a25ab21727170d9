"""A model server for tests: real HTTP, answers from a script, faults on request, and a journal of what was asked.

with ModelUnderTest(Status(503), Reply(text="Hello.")) as server:
    ...  # openai/anything with api_base=server.url
assert len(server.requests) == 2
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from demo_project.model_server import (
    EVENT_HEADERS,
    Body,
    Call,
    ModelServer,
    Reply,
    chunks,
    send,
    write_body,
    write_chunk,
    write_events,
    write_head,
)

__all__ = ["Call", "Cut", "Garbage", "Hold", "ModelUnderTest", "Reply", "Stall", "Status"]


@dataclass(frozen=True, kw_only=True)
class Status:
    """The request is refused with this HTTP status."""

    status: int
    message: str = "Scripted failure."
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The answer ends after `after` chunks: cleanly, as if it were whole, or with the connection torn down."""

    reply: Reply
    after: int
    clean: bool = False


@dataclass(frozen=True, kw_only=True)
class Stall:
    """The answer stops after `after` chunks for `seconds`, and then goes on."""

    reply: Reply
    after: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Hold:
    """The answer stops after `after` chunks until `gate` is set, and then goes on."""

    reply: Reply
    after: int
    gate: threading.Event


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """The answer is a page of HTML with status 200."""

    text: str = "<html><body>Maintenance</body></html>"


Answer = Reply | Status | Cut | Stall | Hold | Garbage
Script = Answer | Callable[[Body], Answer]


@dataclass
class Exchange:
    """One request of the journal: its body, when it came, and how its connection ended (None: still open)."""

    body: Body
    received_at: float
    ended: str | None = None


class ModelUnderTest(ModelServer):
    """A context manager: a model server in a thread of its own, on a free port of loopback.

    The n-th request gets the n-th answer of the script; the last answer is repeated. An answer may be a function of
    the request's body. `answer_with` replaces the script and starts it again.
    """

    def __init__(self, *script: Script, port: int = 0) -> None:
        super().__init__(lambda request: Reply(text="Hello."))
        self.script: tuple[Script, ...] = script or (Reply(text="Hello."),)
        self.journal: list[Exchange] = []
        self.port = port
        self._next = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self.serve("127.0.0.1", self.port), self._loop).result(5)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def url(self) -> str:
        """The base URL to give to a client."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[Body]:
        """The bodies of the requests so far, in order."""
        return [exchange.body for exchange in self.journal]

    def wait_for_end(self, number: int, *, seconds: float = 5) -> str | None:
        """Return how the exchange `number` of the journal ended, waiting for that up to `seconds`."""
        deadline = time.monotonic() + seconds
        while self.journal[number].ended is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.journal[number].ended

    def answer_with(self, *script: Script) -> None:
        """Use `script` from the next request on."""
        self.script, self._next = script, 0

    async def complete(self, request: Body, writer: asyncio.StreamWriter) -> None:
        """Note the request, and answer it as the script says."""
        exchange = Exchange(body=request, received_at=time.time())
        self.journal.append(exchange)
        answer = self._take(request)
        try:
            await self._send(answer, request, writer)
        except (ConnectionError, asyncio.CancelledError):
            exchange.ended = "client left"
            raise
        exchange.ended = "answered"

    def _take(self, request: Body) -> Answer:
        entry = self.script[min(self._next, len(self.script) - 1)]
        self._next += 1
        return entry(request) if callable(entry) else entry

    async def _send(self, answer: Answer, request: Body, writer: asyncio.StreamWriter) -> None:
        match answer:
            case Reply():
                await send(answer, request, writer)
            case Status():
                body = {"error": {"message": answer.message, "type": "scripted", "code": answer.status}}
                headers = {"Content-Type": "application/json", **answer.headers}
                await write_body(writer, json.dumps(body).encode(), headers, status=answer.status)
            case Garbage():
                await write_body(writer, answer.text.encode(), {"Content-Type": "text/html"})
            case Stall():
                await write_events(writer, stalled(chunks(request, answer.reply), answer))
            case Hold():
                await write_events(writer, held(chunks(request, answer.reply), answer))
            case Cut():
                await send_cut(answer, request, writer)

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def stalled(events: AsyncIterator[Body], stall: Stall) -> AsyncIterator[Body]:
    """Yield `events`, with the pause of `stall` among them."""
    count = 0
    async for event in events:
        if count == stall.after:
            await asyncio.sleep(stall.seconds)
        count += 1
        yield event


async def held(events: AsyncIterator[Body], hold: Hold) -> AsyncIterator[Body]:
    """Yield `events`, those after the first few once the gate of `hold` is set."""
    count = 0
    async for event in events:
        while count >= hold.after and not hold.gate.is_set():  # noqa: ASYNC110 - the gate is another thread's
            await asyncio.sleep(0.01)
        count += 1
        yield event


async def send_cut(cut: Cut, request: Body, writer: asyncio.StreamWriter) -> None:
    """Send the beginning of an answer, and end it as `cut` says."""
    await write_head(writer, 200, EVENT_HEADERS)
    count = 0
    async for event in chunks(request, cut.reply):
        if count == cut.after:
            break
        count += 1
        await write_chunk(writer, f"data: {json.dumps(event)}\n\n")
    if cut.clean:
        await write_chunk(writer, "")
    else:
        writer.transport.abort()

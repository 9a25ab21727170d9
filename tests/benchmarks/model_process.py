"""The model of the benchmarks, in a process of its own: `python -m tests.benchmarks.model_process`.

It speaks OpenAI's chat completions, keeps connections open and costs little. A request says itself how it is to be
answered: the first user message holds a plan, which `Plan` writes and reads. It prints its port and ends with its
standard input. `GET /journal` returns when each request came and when its answer ended, on the machine's monotonic
clock; `DELETE /journal` empties it.
"""

import asyncio
import functools
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, cast

PLAN = re.compile(rb"plan:([\w-]+):(\d+):(\d+):(\d+):(\w+):([01]):([\w/.-]*)")
LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
TOOL_MESSAGES = (b'"role":"tool"', b'"role": "tool"')
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ID_DIGITS = 12
ID = b"@" * ID_DIGITS
"""Stands in prepared answers where the number of the answer comes; as long, so that chunk sizes hold."""
TIME = b"#" * len("1796008494.1234")
"""Stands in prepared answers where the time comes at which a token is written."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one thread is to do: so many steps with a tool call, then a final answer."""

    key: str
    steps: int
    tokens: int = 5
    """Tokens of text in each answer, at least one."""
    token_ms: int = 0
    """Time between two tokens; 0 sends the whole answer at once."""
    tool: str = "add"
    """`add` adds two numbers, `note` writes a line into the file `path`."""
    is_clocked: bool = False
    """Whether each token is the time at which it is written, by `time.time()`, and the first one comes at once."""
    path: str = ""

    def __str__(self) -> str:
        """Return the user message."""
        numbers = f"{self.steps}:{self.tokens}:{self.token_ms}"
        return f"plan:{self.key}:{numbers}:{self.tool}:{int(self.is_clocked)}:{self.path}"

    @classmethod
    def find(cls, body: bytes) -> Self:
        """Return the plan in the body of a request."""
        found = PLAN.search(body)
        if found is None:
            raise ValueError("no plan in the request")
        key, steps, tokens, token_ms, tool, is_clocked, path = (group.decode() for group in found.groups())
        return cls(
            key=key,
            steps=int(steps),
            tokens=int(tokens),
            token_ms=int(token_ms),
            tool=tool,
            is_clocked=is_clocked == "1",
            path=path,
        )

    def arguments(self, step: int) -> dict[str, Any]:
        """Return the arguments of the tool call of a step."""
        if self.tool == "note":
            return {"path": self.path, "text": f"{self.key}:{step}"}
        return {"a": step, "b": 1}


@dataclass(kw_only=True)
class Exchange:
    """One request: of which thread, after how many tool results, when it came, when its answer had been written."""

    key: str
    step: int
    received_at: float
    ended_at: float | None = None


@dataclass
class Journal:
    """The requests since the journal was emptied, and how many there were ever."""

    exchanges: list[Exchange] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


def events(plan: Plan, step: int) -> Iterator[dict[str, Any]]:
    """Yield the choices of the chunks of an answer, one for each token."""
    yield {"delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    for number in range(plan.tokens):
        token = TIME.decode() if plan.is_clocked else f"token{number:02}"
        yield {"delta": {"content": f"{token} "}, "finish_reason": None}
    if step >= plan.steps:
        yield {"delta": {}, "finish_reason": "stop"}
        return
    function = {"name": plan.tool, "arguments": ""}
    call = {"index": 0, "id": f"call_{ID.decode()}", "type": "function", "function": function}
    yield {"delta": {"tool_calls": [call]}, "finish_reason": None}
    arguments = {"arguments": json.dumps(plan.arguments(step))}
    yield {"delta": {"tool_calls": [{"index": 0, "function": arguments}]}, "finish_reason": None}
    yield {"delta": {}, "finish_reason": "tool_calls"}


def chunk(data: bytes) -> bytes:
    """Return a server-sent event as one chunk of the transfer encoding."""
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def filled(data: bytes, number: bytes) -> bytes:
    """Return prepared chunks with the number of the answer and the time."""
    return data.replace(ID, number).replace(TIME, b"%.4f" % time.time())


@functools.lru_cache(maxsize=20_000)
def prepared(plan: Plan, step: int) -> tuple[bytes, ...]:
    """Return the chunks of an answer; the first has the head, each further one a token, the last the end too."""
    head = {"id": f"chatcmpl-{ID.decode()}", "object": "chat.completion.chunk", "created": 1, "model": "test"}
    choices = [{**head, "choices": [{"index": 0, **event}]} for event in events(plan, step)]
    counts = {"prompt_tokens": 10, "completion_tokens": plan.tokens, "total_tokens": 10 + plan.tokens}
    usage = {**head, "choices": [], "usage": counts}
    whole = [chunk(json.dumps(item).encode()) for item in [*choices, usage]]
    first, tokens, rest = whole[0], whole[1 : 1 + plan.tokens], whole[1 + plan.tokens :]
    last = b"".join([tokens[-1], *rest, chunk(b"[DONE]"), b"0\r\n\r\n"])
    return (HEAD + first, *tokens[:-1], last)


class Connection(asyncio.Protocol):
    """One connection of a client: requests one after the other."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.buffer = b""
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Stop the answer: its reader has gone."""
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer a request as soon as it is whole."""
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = LENGTH.search(head)
        needed = int(length[1]) if length else 0
        if len(rest) < needed:
            return
        self.buffer = rest[needed:]
        self.answer(head, rest[:needed])

    def answer(self, head: bytes, body: bytes) -> None:
        """Answer a request for a completion or for the journal."""
        if head.startswith(b"POST"):
            self.complete(body)
        elif head.startswith(b"GET"):
            self.reply(json.dumps([asdict(exchange) for exchange in self.journal.exchanges]).encode())
        else:
            self.journal.exchanges = []
            self.reply(b"[]")

    def reply(self, body: bytes) -> None:
        """Send a JSON document."""
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    def complete(self, body: bytes) -> None:
        """Begin an answer."""
        plan, step = Plan.find(body), sum(body.count(text) for text in TOOL_MESSAGES)
        exchange = Exchange(key=plan.key, step=step, received_at=time.monotonic())
        self.journal.exchanges.append(exchange)
        number = b"%0*d" % (ID_DIGITS, next(self.journal.numbers))
        shape = plan if plan.tool == "note" else replace(plan, key="")
        chunks = prepared(shape, step)
        if plan.token_ms == 0:
            self.end(filled(b"".join(chunks), number), exchange)
        else:
            self.transport.write(filled(chunks[0], number))
            pause = plan.token_ms / 1000
            self.send_slowly(iter(chunks[1:]), number, exchange, wait=0 if plan.is_clocked else pause, pause=pause)

    def send_slowly(
        self, chunks: Iterator[bytes], number: bytes, exchange: Exchange, *, wait: float, pause: float
    ) -> None:
        """Send the first token after a wait and each further one when it is due, by a clock that does not drift."""
        loop = asyncio.get_running_loop()

        def send(due: float) -> None:
            data = filled(next(chunks), number)
            if data.endswith(b"0\r\n\r\n"):
                self.end(data, exchange)
                return
            self.transport.write(data)
            self.timer = loop.call_at(due + pause, send, due + pause)

        start = loop.time() + wait
        self.timer = loop.call_at(start, send, start)

    def end(self, data: bytes, exchange: Exchange) -> None:
        """Send the last of an answer, and note when."""
        self.transport.write(data)
        exchange.ended_at = time.monotonic()


async def main() -> None:
    """Serve until standard input ends."""
    loop, journal = asyncio.get_running_loop(), Journal()
    server = await loop.create_server(lambda: Connection(journal), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())

"""Websocket clients in a process of their own: `python -m tests.benchmarks.socket_clients`.

It reads JSON from its standard input, one object a line, and answers each with a line. `{"open": [target, ...]}` opens
a socket for each target and answers when all are subscribed. `{"tokens": 250, "seconds": 30}` waits until each socket
has so many tokens, at most so many seconds, and answers with what each has seen. `{"tell": frame}` sends a frame from
the first socket. `{"pester": target, "sockets": 40}` opens sockets that subscribe twice a second and read nothing,
until the end; the answer comes at once. It ends with its standard input.
"""

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp

from tests.benchmarks.model_process import TIME

SUBPROTOCOL = "durable-agents.v1"
HEARTBEAT_SECONDS = 25
OPEN_AT_ONCE = 20
"""More would wait in the server's backlog."""
CONNECT_SECONDS = 60
"""How long a client tries to connect to a server that is too busy to accept."""
WIDTH = len(TIME)
"""Characters of a token, without the space that follows."""
IGNORE_ALL = sys.maxsize
"""Stands for the number of the last delta while further ones do not count: after a step, or before a snapshot."""

Frame = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a client connects, as whom, and the thread that it follows."""

    url: str
    cookie: str
    thread: str


@dataclass(kw_only=True)
class Seen:
    """What a client has received since it subscribed."""

    text: str = ""
    lags: list[float] = field(default_factory=list)
    """Seconds from the time that each token names to its arrival."""
    first_at: float | None = None
    """When the first token came, by `time.time()`."""
    by_delta: int = 0
    """Tokens that came in a `delta` frame."""
    frames: int = 0
    is_open: bool = True
    snapshot_seconds: float = 0
    """How long it took to connect and to get the first snapshot."""

    def note_tokens(self, arrived_at: float, *, by_delta: bool) -> None:
        """Note the tokens of the text that were not there before."""
        new = range(len(self.lags) * (WIDTH + 1), len(self.text) - WIDTH + 1, WIDTH + 1)
        self.lags += [arrived_at - float(self.text[start : start + WIDTH]) for start in new]
        self.by_delta += len(new) if by_delta else 0
        if new and self.first_at is None:
            self.first_at = arrived_at


class Client:
    """One socket that follows one thread with a single answer of a single step."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.seen = Seen()
        self.stream = ""
        self.seq = -1
        """The number of the last delta of `stream` that is in the text."""

    async def open(self, session: aiohttp.ClientSession) -> None:
        """Connect and subscribe; go on to read once the snapshot has come."""
        began = time.monotonic()
        self.wire = await self.connect(session)
        await self.tell(type="hello", version=1)
        await self.subscribe()
        while (frame := await self.wire.receive_json())["type"] != "snapshot":
            if frame["type"] in {"error", "closing"}:
                raise RuntimeError(f"a client cannot subscribe: {frame}")
        self.seen.snapshot_seconds = time.monotonic() - began
        self.reading = asyncio.get_running_loop().create_task(self.read())

    async def connect(self, session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        """Return a socket; try again for a while if the server does not accept, as pages do."""
        ends = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                return await session.ws_connect(
                    f"{self.target.url}/ws/agents/",
                    protocols=[SUBPROTOCOL],
                    headers={"Cookie": self.target.cookie, "Origin": self.target.url},
                    max_msg_size=0,
                )
            except aiohttp.ClientError:
                if time.monotonic() > ends:
                    raise
                await asyncio.sleep(1)

    async def tell(self, **frame: Any) -> None:
        """Send a frame."""
        await self.wire.send_str(json.dumps(frame))

    async def subscribe(self) -> None:
        """Ask for a snapshot."""
        await self.tell(type="subscribe", id=1, thread=self.target.thread)

    async def read(self) -> None:
        """Receive frames until the server closes the socket."""
        async for message in self.wire:
            arrived_at = time.time()
            frame = json.loads(message.data)
            self.seen.frames += 1
            if not self.apply(frame):
                await self.subscribe()
            self.seen.note_tokens(arrived_at, by_delta=frame["type"] == "delta")
        self.seen.is_open = False

    def apply(self, frame: Frame) -> bool:
        """Bring the text up to date. Return False if deltas are missing before this one."""
        match frame["type"]:
            case "delta":
                return self.apply_delta(frame)
            case "step":
                self.seen.text, self.stream, self.seq = text_of(frame["parts"]), frame["stream"], IGNORE_ALL
            case "snapshot":
                answers = [message for message in frame["messages"] if message["role"] == "assistant"]
                self.seen.text = "".join(text_of(message["parts"]) for message in answers)
                for stream in frame["streams"]:
                    self.stream, self.seq = stream["stream"], stream["seq"]
            case "message" if frame["message"]["role"] == "assistant":
                # The message of an open answer has no parts yet, and its deltas may have come before.
                self.seen.text = text_of(frame["message"]["parts"]) or self.seen.text
            case "stream":
                self.seen.text = ""
        return True

    def apply_delta(self, frame: Frame) -> bool:
        """Append the text of a delta that directly follows the last one. Return False if others are missing."""
        if frame["stream"] != self.stream:
            self.stream, self.seq = frame["stream"], -1
        if frame["seq"] > self.seq + 1:
            self.seq = IGNORE_ALL
            return False
        if frame["seq"] == self.seq + 1:
            self.seq += 1
            self.seen.text += "".join(chunk["delta"] for chunk in frame["chunks"] if chunk["type"] == "text-delta")
        return True


def text_of(parts: Iterable[Frame]) -> str:
    """Return the text of the parts of a message."""
    return "".join(part["text"] for part in parts if part["type"] == "text")


async def open_all(session: aiohttp.ClientSession, targets: Iterable[Target], *, at_once: int) -> list[Client]:
    """Return a subscribed client for each target. So many connect at the same time."""
    clients, slots = [Client(target) for target in targets], asyncio.Semaphore(at_once)

    async def open_one(client: Client) -> None:
        async with slots:
            await client.open(session)

    await asyncio.gather(*map(open_one, clients))
    return clients


async def pester(session: aiohttp.ClientSession, target: Target) -> None:
    """Subscribe to a thread twice a second, and read nothing. Open another socket if one is closed."""
    while True:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            client = Client(target)
            client.wire = await client.connect(session)
            await client.tell(type="hello", version=1)
            while not client.wire.closed:
                async with asyncio.timeout(5):
                    await client.subscribe()
                await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)


async def ping(clients: Sequence[Client]) -> None:
    """Send a ping from each client at every heartbeat, never from all at the same time."""
    for number in itertools.cycle(range(100)):
        for client in clients[number::100]:
            if client.seen.is_open:
                await client.tell(type="ping")
        await asyncio.sleep(HEARTBEAT_SECONDS / 100)


async def report(clients: Sequence[Client], *, tokens: int, seconds: float) -> list[dict[str, Any]]:
    """Wait until each client has so many tokens, at most so many seconds; return what each has seen."""
    ends = time.monotonic() + seconds
    # An event would cost something for every token.
    while any(len(client.seen.lags) < tokens for client in clients) and time.monotonic() < ends:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    for client in clients:
        if client.reading.done():
            client.reading.result()  # raises what has ended the reading
    return [asdict(client.seen) for client in clients]


async def main() -> None:
    """Do what each line of standard input asks for."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    pestering: list[asyncio.Task[None]] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        pinging = loop.create_task(ping(clients))
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order = json.loads(line)
            if "open" in order:
                targets = [Target(**target) for target in order["open"]]
                clients += await open_all(session, targets, at_once=order["at_once"])
                answer: Any = len(clients)
            elif "tell" in order:
                answer = await clients[0].tell(**order["tell"])
            elif "pester" in order:
                pests = [pester(session, Target(**order["pester"])) for _ in range(order["sockets"])]
                pestering += [loop.create_task(pest) for pest in pests]
                answer = len(pestering)
            else:
                answer = await report(clients, **order)
            print(json.dumps(answer), flush=True)
        for task in (pinging, *pestering):
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main())

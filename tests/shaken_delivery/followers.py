"""Websocket clients that follow threads, leave them, and come back with their cursors."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Iterable, Iterator
from typing import Any

import aiohttp

from tests.streaming.client import Client

SUBPROTOCOL = "durable-agents.v1"
ANSWER_SECONDS = 30
CONNECT_SECONDS = 60
HEARTBEAT_SECONDS = 25
NOT_ABOUT_A_THREAD = {"welcome", "pong", "ok"}


class Follower:
    """A browser with one websocket, which may follow several threads, and what it shows of each."""

    def __init__(self, *, name: str, cookie: str, urls: Iterator[str], problems: list[str]) -> None:
        self.name = name
        self._cookie = cookie
        self._urls = urls
        self._problems = problems
        """What no client should ever receive."""
        self.shown: dict[str, Client] = {}
        """What this client knows of threads, those that it has left included."""
        self.followed: set[str] = set()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._asked = 0
        self._reading: asyncio.Task[None] | None = None
        self.is_lost = False
        """Whether the server has closed the connection."""

    async def connect(self, session: aiohttp.ClientSession) -> None:
        """Open a websocket to the next web process."""
        self._session = session
        self._wire = await self._open(next(self._urls))
        self.is_lost = False
        self._reading = asyncio.get_running_loop().create_task(self._read(self._wire))
        await self._tell(type="hello", version=1)

    async def _open(self, url: str) -> aiohttp.ClientWebSocketResponse:
        """Return a websocket. Try again if a busy server does not accept in time, as pages do."""
        headers = {"Cookie": self._cookie, "Origin": url}
        ends = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                return await self._session.ws_connect(
                    f"{url}/ws/agents/", protocols=[SUBPROTOCOL], headers=headers, max_msg_size=0
                )
            except aiohttp.ClientError:
                if time.monotonic() > ends:
                    raise
                await asyncio.sleep(1)

    async def subscribe(self, thread: str, *, by_cursor: bool) -> None:
        """Follow a thread, anew or from where this client has left it."""
        cursor = self.shown[thread].cursor if by_cursor and thread in self.shown else None
        asked = {} if cursor is None else {"cursor": vars(cursor)}
        self.shown.setdefault(thread, Client())
        self.followed.add(thread)
        await self._ask(type="subscribe", thread=thread, **asked)

    async def unsubscribe(self, thread: str) -> None:
        """Follow a thread no longer."""
        await self._ask(type="unsubscribe", thread=thread)
        self.followed.discard(thread)

    async def reconnect(self) -> None:
        """Lose the connection, and go on over another one, which may be to another process."""
        await self.leave()
        await self.connect(self._session)
        for thread in sorted(self.followed):
            await self.subscribe(thread, by_cursor=True)

    async def leave(self) -> None:
        """Drop the connection. Frames that have not been read are lost."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
            transport = self._wire._writer.transport
            if transport is not None:
                transport.abort()
            await self._wire.close()

    async def ping(self) -> None:
        """Say that this client is there."""
        await self._tell(type="ping")

    async def _tell(self, **frame: Any) -> None:
        await self._wire.send_str(json.dumps(frame))

    async def _ask(self, **frame: Any) -> None:
        self._asked += 1
        number = self._asked
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            await self._tell(id=number, **frame)
            heard = await asyncio.wait_for(answer, ANSWER_SECONDS)
        except (ConnectionError, TimeoutError) as error:
            self._problems.append(f"{self.name}: no answer to {frame['type']}: {type(error).__name__}")
            return
        if heard["type"] == "error":
            self._problems.append(f"{self.name}: {frame['type']} was answered with {heard}")

    async def _read(self, wire: aiohttp.ClientWebSocketResponse) -> None:
        async for message in wire:
            frame = json.loads(message.data)
            try:
                self._take(frame)
            except Exception as error:
                self._problems.append(f"{self.name}: {type(error).__name__} {error} at {str(frame)[:300]}")
        self.is_lost = True
        self._problems.append(f"{self.name}: the server has closed the socket: {wire.close_code}")

    def _take(self, frame: dict[str, Any]) -> None:
        answer = self._answers.pop(frame["id"], None) if "id" in frame else None
        if frame["type"] in {"error", "closing"}:
            if answer is None:
                self._problems.append(f"{self.name}: {frame}")
        elif frame["type"] not in NOT_ABOUT_A_THREAD:
            assert frame["thread"] in self.followed, "no frame comes of a thread that is not followed"
            self.shown[frame["thread"]].take([frame])
        if answer is not None and not answer.done():
            answer.set_result(frame)


class Operations:
    """Operations of many followers, drawn by chance."""

    def __init__(self, followers: Iterable[Follower], threads: Iterable[str], *, seed: int) -> None:
        self.followers = list(followers)
        self.counts = dict.fromkeys(("subscribe", "unsubscribe", "reconnect"), 0)
        self._threads = list(threads)
        self._seed = seed
        self._round = 0

    async def run(self, count: int) -> None:
        """Make so many operations, each follower one after the other."""
        self._round += 1
        left = iter(range(count))
        await asyncio.gather(*(self._some(one, number, left) for number, one in enumerate(self.followers)))

    async def _some(self, follower: Follower, number: int, left: Iterator[int]) -> None:
        chance = random.Random(f"{self._seed} {self._round} {number}")
        for _ in left:
            thread = chance.choice(self._threads)
            if follower.is_lost:  # the server has closed the socket, which is a problem that is noted
                await follower.reconnect()
            kind = "reconnect" if follower.followed and chance.random() < 0.25 else "subscribe"
            if kind == "subscribe" and len(follower.followed) > 2:
                thread, kind = chance.choice(sorted(follower.followed)), "unsubscribe"
            if kind == "reconnect":
                await follower.reconnect()
            elif kind == "unsubscribe":
                await follower.unsubscribe(thread)
            else:
                # A client that follows a thread already gets frames until the answer, so its cursor would be old.
                by_cursor = thread not in follower.followed and chance.random() < 0.5
                await follower.subscribe(thread, by_cursor=by_cursor)
            self.counts[kind] += 1
            await asyncio.sleep(chance.random() * 0.05)

    async def ping(self) -> None:
        """Send a ping from each follower at every heartbeat."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            for follower in self.followers:
                with contextlib.suppress(ConnectionError, RuntimeError):
                    await follower.ping()

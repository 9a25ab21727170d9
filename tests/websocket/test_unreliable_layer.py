"""Over a channel layer that loses, doubles and reorders messages, and connections that break, the store in the browser
ends with what the database has.

All runs: `PROOF=full python -m pytest -n 0 -m slow tests/websocket/test_unreliable_layer.py`; without PROOF, a tenth.
"""

import asyncio
import json
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from durable_agents import create_thread, notifications
from durable_agents.models import Delta, Thread
from tests.lifecycle.histories import History
from tests.lifecycle.stage import Declare
from tests.streaming.truth import truth
from tests.websocket.sockets import MEMORY, ORIGIN, SUBPROTOCOL, Socket, act, send_here

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # for all runs
    pytest.mark.skipif(shutil.which("node") is None, reason="needs Node"),
]

RUNS = 200
MOVES = 30
PATIENCE_SECONDS = 30
LOST = 1006
SCRIPT = Path(__file__).resolve().parents[1] / "js" / "follow-thread.mjs"


class UnreliableLayer:
    """Loses, doubles and delays a fifth of the messages each."""

    def __init__(self, chance: random.Random, counts: Counter[str]) -> None:
        self._chance = chance
        self._counts = counts
        self._late: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, group: str, message: dict[str, Any]) -> None:
        """Send the message, or do not. A delayed message may come after later ones."""
        fate = self._chance.choice(["lost", "doubled", "late", "sent", "sent"])
        self._counts[fate] += 1
        if fate == "late":
            self._late.append((group, message))
        for _ in range({"sent": 1, "doubled": 2}.get(fate, 0)):
            send_here(group, message)
        if self._late and self._chance.random() < 0.3:
            send_here(*self._late.pop(self._chance.randrange(len(self._late))))


class Browser:
    """The JavaScript store in a process of its own; this object is its network."""

    def __init__(self, process: asyncio.subprocess.Process, cookie: str) -> None:
        self._process = process
        self._headers = {"origin": ORIGIN, "cookie": cookie}
        self._shown: asyncio.Future[dict[str, Any]] | None = None
        self._changed = asyncio.Event()
        self._open: dict[int, Socket] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def tell(self, **message: Any) -> None:
        """Send a message to the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def run(self) -> None:
        """Connect its websockets to the server, and answer those who ask what it shows."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            number = message.get("socket")
            if "shown" in message and self._shown is not None:
                self._shown.set_result(message["shown"])
            elif "changed" in message:
                self._changed.set()
            elif "opened" in message:
                self._tasks[number] = asyncio.create_task(self._serve(number))
            elif "text" in message and number in self._open:
                await self._open[number].tell(message["text"])
            elif "closed" in message:
                await self._hang_up(number)

    async def _serve(self, number: int) -> None:
        socket = await Socket(headers=self._headers, subprotocols=[SUBPROTOCOL]).open()
        self._open[number] = socket
        self.tell(socket=number, opened=True)
        while True:
            event = await socket.hear_event(seconds=3600)
            if event["type"] == "websocket.close":
                del self._open[number]
                self.tell(socket=number, code=event["code"])
                return
            self.tell(socket=number, text=event["text"])

    async def _hang_up(self, number: int) -> None:
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if number in self._open:
            await self._open.pop(number).leave()

    async def cut(self) -> int:
        """Break the connection; what is on its way is lost. Return how many there were."""
        numbers = list(self._open)
        for number in numbers:
            await self._hang_up(number)
            self.tell(socket=number, code=LOST)
        return len(numbers)

    async def show(self) -> dict[str, Any]:
        """Return what the store shows."""
        self._changed.clear()
        self._shown = asyncio.get_running_loop().create_future()
        self.tell(show=True)
        return await self._shown

    async def show_until(self, expected: dict[str, Any]) -> dict[str, Any]:
        """Return what the store shows once it is this, or after some time."""
        shown: dict[str, Any] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (shown := await self.show()) != expected:
                    await self._changed.wait()
        return shown

    async def leave(self) -> None:
        """Close the store's client and its websockets."""
        self.tell(leave=True)
        for number in list(self._tasks):
            await self._hang_up(number)


@asynccontextmanager
async def browser(cookie: str) -> AsyncIterator[Browser]:
    """Run a browser."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("node", SCRIPT, stdin=pipe, stdout=pipe, limit=2**24)
    made = Browser(process, cookie)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await task


def publish_deltas(thread: Thread, published: set[int]) -> None:
    """Publish the stored deltas that were not published yet, as a worker does."""
    for row in Delta.objects.filter(stream__thread=thread).exclude(pk__in=published).select_related("stream"):
        published.add(row.pk)
        facts = {"thread": str(thread.pk), "stream": str(row.stream_id), "message": row.stream.answer.shown_id}
        frame = {"type": "delta", **facts, "seq": row.seq, "chunks": row.chunks}
        notifications.publish(thread.pk, {"type": "thread.delta", "frame": frame})


def stored(thread: Thread) -> dict[str, Any]:
    """Return what a browser has to show."""
    thread.refresh_from_db()
    messages = json.loads(json.dumps(truth(thread)))
    return {"messages": messages, "status": thread.status, "rev": thread.rev}


@pytest.fixture
def unreliable(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[UnreliableLayer], None]:
    """Return a function that makes this layer carry the hints. What is lost is found within a quarter of a second."""
    settings.CHANNEL_LAYERS = MEMORY
    for module in (notifications, notifications.clients):
        monkeypatch.setattr(module, "layer_crosses_processes", lambda: True)
    monkeypatch.setattr("durable_agents.live.socket_checks.HEAL_SECONDS", 0.25)
    return lambda layer: monkeypatch.setattr(notifications.clients, "_publisher", layer)


async def test_whatever_happens_to_hints_and_connections_the_store_ends_as_the_database(
    rounds: Callable[[int], int],
    prove: Callable[[str], None],
    declare: Declare,
    user: Any,
    cookie: str,
    unreliable: Callable[[UnreliableLayer], None],
) -> None:
    """In random histories with failed steps, stops, calls and retries."""
    counts: Counter[str] = Counter()
    async with browser(cookie) as page:
        for seed in range(rounds(RUNS)):
            chance = random.Random(seed)
            unreliable(UnreliableLayer(chance, counts))
            agent = await act(declare, f"tested{seed or ''}", max_steps=6, public=True)
            thread = await act(create_thread, agent, owner=user, prompt="Hi")
            history = History(thread, seed=seed)
            history.worker.agents = (agent.name,)
            published: set[int] = set()
            page.tell(follow=str(thread.pk))
            for _ in range(MOVES):
                await act(history.go_on)
                await act(publish_deltas, thread, published)
                if chance.random() < 0.1:
                    counts["reconnections"] += await page.cut()
            await act(history.come_to_rest)
            expected = await act(stored, thread)
            shown = await page.show_until(expected)
            assert shown == expected, f"seed {seed}"
            await page.leave()
    facts = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
    prove(f"{rounds(RUNS)} runs ended as the database: {facts}")
    assert set(counts) == {"doubled", "late", "lost", "reconnections", "sent"}

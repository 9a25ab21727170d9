"""Send hints to browsers in a separate OS thread, so that requests and workers do not wait for the channel layer.

Each process has one sender, with a limited number of queued hints and connections. Queued hints to the same group are
sent in one message. A hint that cannot be sent is dropped, because web processes also poll the rows every few seconds.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from durable_agents.live_delivery_counts import Event, delivery_counts
from durable_agents.logs import Repeated

Message = dict[str, Any]

LANES = 4
"""The number of queues, each with a connection of its own. Hints to the same group are sent in order. Hints to
different groups can be sent concurrently.
"""
LANE_SIZE = 1000
SEND_SECONDS = 1.0
"""The time limit for sending one message over the channel layer."""
STALE_SECONDS = 5.0
"""Hints that are older than this are dropped, because web processes have polled the rows by then."""
EXIT_SECONDS = 1.0
"""The maximum time that an exiting process waits until its last hints are sent."""


@dataclass(frozen=True, kw_only=True)
class Hint:
    """A message for one group of the channel layer."""

    group: str
    message: Message
    made_at: float = field(default_factory=time.monotonic)


class Lane:
    """A queue of hints that are sent one after the other."""

    def __init__(self) -> None:
        self.hints: deque[Hint] = deque()
        self.is_sending = False
        self._arrived = asyncio.Event()

    def wake(self) -> None:
        """Tell ``next`` that a hint was added. Call this method on the sender's event loop."""
        self._arrived.set()

    async def next(self) -> list[Hint]:
        """Wait until there is a hint. Then remove the oldest hint, and all other hints to its group, from the queue.
        Return these hints in order.
        """
        hints: list[Hint] = []
        while not hints:
            if not self.hints:
                self.is_sending = False
                self._arrived.clear()
                await self._arrived.wait()
            self.is_sending = True
            # Other OS threads change the queue at the same time: they add hints and, if the queue is full, drop the
            # oldest. ``popleft`` might therefore find the queue empty.
            with contextlib.suppress(IndexError):
                for _ in range(len(self.hints)):
                    hints.append(self.hints.popleft())  # noqa: PERF401 - an error must not lose what was taken
        self.hints.extendleft(reversed([hint for hint in hints if hint.group != hints[0].group]))
        return [hint for hint in hints if hint.group == hints[0].group]

    async def send_all(self, trouble: Repeated) -> None:
        """Send the hints as they are added, in an endless loop. Hints that cannot be sent are logged and dropped."""
        while True:
            hints = await self.next()
            oldest = time.monotonic() - STALE_SECONDS
            fresh = [hint for hint in hints if hint.made_at >= oldest]
            problem: BaseException | str = "the channel layer is too slow" if len(fresh) < len(hints) else ""
            try:
                await _send(fresh)
            except (Exception, asyncio.CancelledError) as error:  # the channel layer can raise CancelledError
                problem, fresh = error, []
            if len(fresh) < len(hints):
                delivery_counts().add(Event.HINT_NOT_SENT, len(hints) - len(fresh))
                trouble.note(problem)
            else:
                trouble.tell()


async def _send(hints: Sequence[Hint]) -> None:
    """Send hints of one group over the project's channel layer, if there is one. Raises the errors of the layer, and
    TimeoutError if the layer is too slow.
    """
    from channels.layers import get_channel_layer  # noqa: PLC0415 - workers may do without

    layer = get_channel_layer()
    if layer is not None and hints:
        async with asyncio.timeout(SEND_SECONDS):
            await layer.group_send(hints[0].group, {"type": "threads.news", "news": [hint.message for hint in hints]})


class ClientSender:
    """A sender of hints, with an event loop in a daemon OS thread. The OS thread starts with the first hint."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset the sender. This method is also called in a forked child, because OS threads and connections of the
        parent do not work in the child.
        """
        self._lock = threading.Lock()
        self._lanes = [Lane() for _ in range(LANES)]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dropped = Repeated("browsers were not notified", action="ring_browsers")

    def put(self, group: str, message: Message) -> None:
        """Queue a message to be sent soon. This method can be called from any OS thread and never waits. If the queue
        is full, the oldest message in the queue is dropped.
        """
        lane = self._lanes[hash(group) % LANES]
        with self._lock:
            if self._loop is None:
                # Do not start the OS thread at import. qcluster forks after its imports, and a forked child does not
                # inherit OS threads.
                self._loop = asyncio.new_event_loop()
                run = threading.Thread(target=self._run, args=(self._loop,), name="durable_agents hints", daemon=True)
                run.start()
            loop = self._loop
            is_full = len(lane.hints) >= LANE_SIZE
            if is_full:
                lane.hints.popleft()
            lane.hints.append(Hint(group=group, message=message))
        if is_full:
            delivery_counts().add(Event.HINT_NOT_SENT)
            self._dropped.note("too many hints wait")
        loop.call_soon_threadsafe(lane.wake)

    def settle(self, seconds: float) -> None:
        """Wait until all hints are sent or dropped, for at most this many seconds."""
        deadline = time.monotonic() + seconds
        while any(lane.hints or lane.is_sending for lane in self._lanes) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        # Use one task for each queue. With one task for each hint, a hundred concurrent answers would need more
        # connections than redis-py's connection pool has.
        loop.run_until_complete(asyncio.wait([loop.create_task(lane.send_all(self._dropped)) for lane in self._lanes]))


_sender = ClientSender()


def sender() -> ClientSender:
    """Return the sender of this process."""
    return _sender


def flush_notifications(seconds: float) -> None:
    """Wait until this process has sent or dropped all its hints, for at most this many seconds."""
    _sender.settle(seconds)


os.register_at_fork(after_in_child=_sender.reset)
atexit.register(flush_notifications, EXIT_SECONDS)

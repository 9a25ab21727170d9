"""Receive notifications from the channel layer about the threads that the clients of one event loop follow.

One channel joins the groups of all followed threads. A group serves many threads, so the channel also receives
notifications about other threads.

Only one coroutine reads, and it has its own layer object. ``channels_redis`` lets only one coroutine at a time read
from channels with the same prefix. Several readers would block each other.

A channel can lose its groups without an error: memberships expire after a day, and Redis may be restarted or flushed. A
connection can also fail in only one direction. To detect such failures, the receiver regularly sends a test message (a
probe) to itself. If one probe is lost, the receiver joins all groups again. If two probes in a row are lost, it
replaces the layer object.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID, uuid4

from durable_agents import notifications
from durable_agents.delta_writer import Frame
from durable_agents.live.listener_protocol import Listener
from durable_agents.logs import Repeated, log_error

ANSWER_SECONDS = 1.0
"""Timeout of one request to the channel layer."""
PAUSE_SECONDS = 1.0
"""Delay before another attempt after a failure."""
PROBE_SECONDS = 5.0
PROBES_TO_LOSE = 2


class Receiver:
    """Receives notifications on one channel, for all followed threads of an event loop.

    The channel opens when the first thread is followed. It closes shortly after the last thread is no longer followed.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._task: asyncio.Task[None] | None = None
        self._layer: Any = None
        self._channel = ""
        self._probe_group = f"durable_agents.hub.{uuid4().hex}"
        self._probe_is_joined = False
        self._hears = False
        """Whether any message has arrived since the last probe (test message) was sent."""
        self._joined: set[str] = set()
        # A dict, not a set, because it keeps the insertion order: the oldest request is handled first.
        self._to_join: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._arrivals: dict[str, asyncio.Future[None]] = {}
        self._fails = False
        self._trouble = Repeated("the channel layer does not answer", action="watch", level=logging.ERROR)

    async def follow(self, thread_id: UUID) -> None:
        """Start to report changes of this thread.

        Wait up to one second until the channel has joined the thread's group. If the last request to the layer failed,
        do not wait. The channel then joins the group when the layer works again.
        """
        group = notifications.group_of(thread_id)
        if group in self._joined:
            return
        self._to_join[group] = None
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        if not self._fails:
            arrival = self._arrivals.setdefault(group, asyncio.get_running_loop().create_future())
            await asyncio.wait([arrival], timeout=ANSWER_SECONDS)

    async def _run(self) -> None:
        while self._listener.followed:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    self._layer = notifications.layer_to_receive_from()
                    self._channel = await self._layer.new_channel()
            except Exception as error:
                await self._failed(error)
            else:
                await self._serve()
            await notifications.close_layer(self._layer)

    async def _serve(self) -> None:
        """Receive messages until no thread is followed, or until ``PROBES_TO_LOSE`` probes in a row are lost.

        A probe is a test message that the receiver sends to itself.
        """
        self._begin_anew()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._receive()), loop.create_task(self._keep_memberships())]
        try:
            await self._probe()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=ANSWER_SECONDS)

    def _begin_anew(self) -> None:
        """Forget which groups were joined. The channel then joins the groups of all followed threads again."""
        self._probe_is_joined = False
        self._joined.clear()
        self._to_join = dict.fromkeys(map(notifications.group_of, self._listener.followed))
        self._changed.set()

    async def _probe(self) -> None:
        lost = 0
        while self._listener.followed and lost < PROBES_TO_LOSE:
            self._hears = False
            has_sent = await self._sends_probe()
            await asyncio.sleep(PROBE_SECONDS)
            if self._hears:
                lost = 0
                continue
            # Count a probe as lost only if it was sent.
            lost += has_sent
            self._begin_anew()

    async def _sends_probe(self) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                # Join this group only once. The probe must find out whether the channel has lost the group, and joining
                # again would restore it.
                if not self._probe_is_joined:
                    await self._layer.group_add(self._probe_group, self._channel)
                    self._probe_is_joined = True
                await self._layer.group_send(self._probe_group, {"type": "hub.probe"})
        except Exception as error:
            self._note(error)
            return False
        return True

    async def _keep_memberships(self) -> None:
        """Join the groups in ``_to_join`` one at a time, in an endless loop. Parallel requests would need many
        connections.
        """
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                while self._to_join:
                    await self._join_next()
                self._trouble.tell()
            except Exception as error:
                self._changed.set()
                await self._failed(error)

    async def _join_next(self) -> None:
        group = next(iter(self._to_join))
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._layer.group_add(group, self._channel)
        self._to_join.pop(group, None)
        self._joined.add(group)
        self._fails = False
        if (arrival := self._arrivals.pop(group, None)) is not None and not arrival.done():
            arrival.set_result(None)

    def _note(self, error: Exception) -> None:
        """Log that the layer does not answer. Raise CancelledError if the current task has been cancelled.

        When a task is cancelled within a method of channels_redis, an assertion there can fail and replace the
        CancelledError. Without this check, the loops of this class would then go on for ever.
        """
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from error
        self._trouble.note(error)

    async def _failed(self, error: Exception) -> None:
        self._note(error)
        self._fails = True
        for arrival in self._arrivals.values():
            if not arrival.done():
                # The layer fails, so ``follow`` must not wait any longer.
                arrival.set_result(None)
        self._arrivals.clear()
        await asyncio.sleep(PAUSE_SECONDS)

    async def _receive(self) -> None:
        while True:
            try:
                message = await self._layer.receive(self._channel)
            except Exception as error:
                self._note(error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self._hears = True
            for news in message.get("news", ()):
                self._report(news)

    def _report(self, news: Frame) -> None:
        try:
            if news["type"] == "thread.changed":
                self._listener.on_change(UUID(news["thread"]))
            elif news["type"] == "thread.delta":
                self._listener.on_delta(UUID(news["frame"]["thread"]), news["frame"])
        except Exception:
            log_error("a hint could not be passed on", action="watch")

"""Receive the hints of the channel layer for all followed threads of one event loop, on one channel.

The channel is a member of the group of every followed thread. ``channels_redis`` lets only one coroutine read at a time
for all channels with the same prefix, so that a second reader with a prefix of its own would starve the others: here
there is one, on a layer object that nobody else reads from.

Memberships end silently: when they are a day old, when Redis restarts or is flushed, when a connection half breaks.
Therefore a probe goes through a group of the receiver's own every few seconds. When one probe is lost, all memberships
are renewed; when two are lost, the layer object is replaced.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID, uuid4

from durable_agents import notifications
from durable_agents.live.listener import Listener
from durable_agents.logs import Repeated, log_error

ANSWER_SECONDS = 1.0
"""How long the channel layer may take for one request."""
PAUSE_SECONDS = 1.0
"""Wait between two tries of what has failed."""
PROBE_SECONDS = 5.0
PROBES_TO_LOSE = 2


class Receiver:
    """One channel for all threads of an event loop; it is open while there are any, and a little longer."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._task: asyncio.Task[None] | None = None
        self._layer: Any = None
        self._channel = ""
        self._probe_group = f"durable_agents.hub.{uuid4().hex}"
        self._probe_is_joined = False
        self._hears = False
        """Whether any message has come since the last probe was sent."""
        self._joined: set[UUID] = set()
        # Dicts keep the order, so that no thread waits for ever while others are handled.
        self._to_join: dict[UUID, None] = {}
        self._to_leave: dict[UUID, None] = {}
        self._changed = asyncio.Event()
        self._arrivals: dict[UUID, asyncio.Future[None]] = {}
        self._fails = False
        self._trouble = Repeated("the channel layer does not answer", action="watch", level=logging.ERROR)

    # ------------------------------------------------------------------------------------------- called by the hub

    async def follow(self, thread_id: UUID) -> None:
        """Report this thread from now on; wait until the channel layer has joined it, or for a second.

        While the layer is known to fail, do not wait: the thread is joined when it answers again.
        """
        self._to_leave.pop(thread_id, None)
        if thread_id in self._joined:
            return
        self._to_join[thread_id] = None
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        if not self._fails:
            arrival = self._arrivals.setdefault(thread_id, asyncio.get_running_loop().create_future())
            await asyncio.wait([arrival], timeout=ANSWER_SECONDS)

    def forget(self, thread_id: UUID) -> None:
        """Stop reporting this thread."""
        self._to_join.pop(thread_id, None)
        self._arrivals.pop(thread_id, None)
        if thread_id in self._joined:
            self._to_leave[thread_id] = None
            self._changed.set()

    # ---------------------------------------------------------------------------------------------------- the channel

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
        """Receive until no thread is followed any more, or too many probes in succession are lost."""
        self._to_leave.clear()
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
        """Drop all memberships of the channel, and join every wanted group again."""
        self._probe_is_joined = False
        self._joined.clear()
        self._to_join = dict.fromkeys(self._listener.followed)
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
            lost += has_sent  # a probe that was not sent is no evidence about this channel
            self._begin_anew()

    async def _sends_probe(self) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if not self._probe_is_joined:  # only once: the probes verify that memberships last
                    await self._layer.group_add(self._probe_group, self._channel)
                    self._probe_is_joined = True
                await self._layer.group_send(self._probe_group, {"type": "hub.probe"})
        except Exception as error:
            self._trouble.note(error)
            return False
        return True

    # ---------------------------------------------------------------------------------------------------- memberships

    async def _keep_memberships(self) -> None:
        """Join and leave groups, one after the other, so that many browsers at once need no more connections than
        one.
        """
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._catch_up()
            except Exception as error:
                self._changed.set()
                await self._failed(error)

    async def _catch_up(self) -> None:
        while self._to_join or self._to_leave:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._to_join:
                    await self._join_next()
                else:
                    thread_id = next(iter(self._to_leave))
                    self._joined.discard(thread_id)  # first: one that is followed again meanwhile is joined again
                    del self._to_leave[thread_id]
                    await self._layer.group_discard(notifications.group_of(thread_id), self._channel)
            self._fails = False
        self._trouble.tell()

    async def _join_next(self) -> None:
        thread_id = next(iter(self._to_join))
        await self._layer.group_add(notifications.group_of(thread_id), self._channel)
        self._to_join.pop(thread_id, None)
        self._joined.add(thread_id)
        if thread_id not in self._listener.followed:  # the last follower has left in the meantime
            self._to_leave[thread_id] = None
        if (arrival := self._arrivals.pop(thread_id, None)) is not None and not arrival.done():
            arrival.set_result(None)

    async def _failed(self, error: Exception) -> None:
        self._trouble.note(error)
        self._fails = True
        for arrival in self._arrivals.values():
            if not arrival.done():
                arrival.set_result(None)  # no waiting for what will not come soon
        self._arrivals.clear()
        await asyncio.sleep(PAUSE_SECONDS)

    # ------------------------------------------------------------------------------------------------------- messages

    async def _receive(self) -> None:
        while True:
            try:
                message = await self._layer.receive(self._channel)
            except Exception as error:
                self._trouble.note(error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self._hears = True
            try:
                if message["type"] == "thread.changed":
                    self._listener.on_change(UUID(message["thread"]))
                elif message["type"] == "thread.delta":
                    self._listener.on_delta(UUID(message["frame"]["thread"]), message["frame"])
            except Exception:
                log_error("a hint could not be passed on", action="watch")

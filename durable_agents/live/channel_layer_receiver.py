"""Receive the hints of the channel layer for all followed threads of one event loop, on one channel.

The channel is a member of the group of every followed thread. ``channels_redis`` lets only one coroutine at a time read
for all channels with the same prefix, so several readers would starve each other. Therefore there is one reader, on a
layer object that nothing else reads from.

Group memberships can end without notice: after a day, when Redis restarts or is flushed, or when a connection breaks in
one direction. Therefore the receiver sends itself a probe through a group of its own every few seconds. When one probe
is lost, all memberships are renewed; when two are lost, the layer object is replaced.
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
"""How long to wait before trying again after a failure."""
PROBE_SECONDS = 5.0
PROBES_TO_LOSE = 2


class Receiver:
    """One channel for all followed threads of an event loop. It is opened for the first followed thread, and closed
    shortly after no thread is followed any more.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._task: asyncio.Task[None] | None = None
        self._layer: Any = None
        self._channel = ""
        self._probe_group = f"durable_agents.hub.{uuid4().hex}"
        self._probe_is_joined = False
        self._hears = False
        """Whether any message has arrived since the last probe was sent."""
        self._joined: set[UUID] = set()
        # Dicts keep the order of insertion, so that every thread gets its turn.
        self._to_join: dict[UUID, None] = {}
        self._to_leave: dict[UUID, None] = {}
        self._changed = asyncio.Event()
        self._arrivals: dict[UUID, asyncio.Future[None]] = {}
        self._fails = False
        self._trouble = Repeated("the channel layer does not answer", action="watch", level=logging.ERROR)

    # ------------------------------------------------------------------------------------------- called by the hub

    async def follow(self, thread_id: UUID) -> None:
        """Report the changes of this thread from now on. Wait until the channel has joined the thread's group, but for
        at most one second.

        While the layer is known to fail, return at once. The channel then joins the group when the layer works again.
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
        """Stop reporting the changes of this thread."""
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
        """Receive until no thread is followed any more, or ``PROBES_TO_LOSE`` probes in a row are lost."""
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
        """Forget all memberships of the channel, so that every wanted group is joined again."""
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
            lost += has_sent  # a probe that was not sent says nothing about this channel
            self._begin_anew()

    async def _sends_probe(self) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if not self._probe_is_joined:  # join only once, because the probes test whether memberships last
                    await self._layer.group_add(self._probe_group, self._channel)
                    self._probe_is_joined = True
                await self._layer.group_send(self._probe_group, {"type": "hub.probe"})
        except Exception as error:
            self._trouble.note(error)
            return False
        return True

    # ---------------------------------------------------------------------------------------------------- memberships

    async def _keep_memberships(self) -> None:
        """Join and leave groups one after the other, so that even many browsers at once need only one connection."""
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
                    self._joined.discard(thread_id)  # before the await: a thread followed again meanwhile is joined
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
                arrival.set_result(None)  # end the wait: the layer may fail for long
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

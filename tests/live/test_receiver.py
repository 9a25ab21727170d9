"""What receives notifications ends when it is cancelled, whatever the channel layer makes of that."""

import asyncio
from uuid import uuid4

import pytest

from durable_agents import notifications
from durable_agents.live.channel_layer_receiver import Receiver


class Layer:
    """A layer one of whose methods waits, and turns a cancellation into another error, as an assertion can."""

    def __init__(self, waits: str) -> None:
        self.waits = waits
        self.is_waiting = asyncio.Event()

    async def _call(self, name: str) -> str:
        if name not in {self.waits, "receive"}:
            return "specific.one!two"
        if name == self.waits:
            self.is_waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise AssertionError("the lock is held") from None
        return ""

    async def new_channel(self) -> str:
        return await self._call("new_channel")

    async def group_add(self, group: str, channel: str) -> str:
        return await self._call("group_add")

    async def group_send(self, group: str, message: object) -> str:
        return await self._call("group_send")

    async def receive(self, channel: str) -> str:
        return await self._call("receive")


class Listener:
    """Follows one thread."""

    def __init__(self) -> None:
        self.followed = {uuid4()}

    def on_change(self, thread_id: object) -> None:
        """Do nothing."""

    def on_delta(self, thread_id: object, frame: object) -> None:
        """Do nothing."""


@pytest.mark.parametrize("waits", ["new_channel", "group_add", "group_send", "receive"])
async def test_a_cancellation_that_the_layer_turns_into_another_error_ends_all_tasks(monkeypatch, waits):
    """One of them would wait for ever, and a loop that is closed waits for its tasks."""
    layer, listener = Layer(waits), Listener()
    monkeypatch.setattr(notifications, "layer_to_receive_from", lambda: layer)
    before = asyncio.all_tasks()
    receiver = Receiver(listener)
    following = asyncio.create_task(receiver.follow(*listener.followed))
    await asyncio.wait_for(layer.is_waiting.wait(), 5)
    tasks = asyncio.all_tasks() - before
    for task in tasks:
        task.cancel()
    _, left = await asyncio.wait(tasks, timeout=5)
    listener.followed.clear()
    for task in left:
        task.cancel()
    assert (left, following.done()) == (set(), True)

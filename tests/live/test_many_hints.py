"""More hints at once than the layer has connections, and a layer that is slower than what there is to say."""

import asyncio
import json
import logging
import threading
import time
from collections import deque
from uuid import UUID

import pytest

from durable_agents import create_thread, notifications
from durable_agents.models import Delta, Stream
from durable_agents.notifications.client_sender import LANE_SIZE, LANES, ClientSender, Hint, Lane
from durable_agents.notifications.clients import SHARDS
from tests.crash.talk import words
from tests.servers.model import Hold, ModelUnderTest, Reply
from tests.servers.redis import RedisUnderTest
from tests.workers import at_rest, running, until

ANSWERS = 150
"""Redis-py's pool has a hundred connections."""
ONE_PROCESS = {
    "PROCESSES": 1,
    "FLUSH_MS": 250,
    "STREAMS_PER_PROCESS": ANSWERS,
    "MAX_RUNNING_PER_OWNER": None,
    "POOLS": {"agents": {"limit": ANSWERS}, "tools": {"limit": 1}},
}


@pytest.mark.slow
def test_more_deltas_at_once_than_redis_has_connections_are_all_sent(
    worker_env: dict[str, str], own_redis: RedisUnderTest, model_server: ModelUnderTest
):
    """A hundred and fifty answers go on in the same moment, time and again."""
    gate = threading.Event()
    model_server.answer_with(lambda _: Hold(reply=Reply(text=words(120), delay_seconds=0.1), after=2, gate=gate))
    extra = {"TEST_MODEL_URL": model_server.url, "TEST_DURABLE_AGENTS": json.dumps(ONE_PROCESS)}
    with running(worker_env | own_redis.env, workers=2, **extra) as cluster:
        threads = [create_thread("talker", prompt="A story.") for _ in range(ANSWERS)]
        until(lambda: Stream.objects.held().count() == ANSWERS, seconds=60)
        until(lambda: Delta.objects.values("stream").distinct().count() == ANSWERS, seconds=60)
        gate.set()
        rested = at_rest(*threads, seconds=90)
        assert {thread.status for thread in rested} == {"completed"}
        assert "browsers were not notified" not in cluster.log


class SlowLayer:
    """A channel layer that takes its time; it notes what it was given."""

    sent: list[int] = []  # noqa: RUF012 - one list for all objects that settings make
    messages: list[str] = []  # noqa: RUF012 - as above
    hold = threading.Event()

    async def group_send(self, group: str, message: dict) -> None:
        """Wait until it is let go."""
        await asyncio.to_thread(self.hold.wait)
        self.messages.append(group)
        self.sent += [news["number"] for news in message["news"]]


@pytest.fixture
def slow_layer(settings):
    """Return the slow layer's class, which the settings name."""
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.SlowLayer"}}
    SlowLayer.sent, SlowLayer.messages = [], []
    SlowLayer.hold.clear()
    yield SlowLayer
    SlowLayer.hold.set()


def test_hints_that_do_not_fit_are_dropped_oldest_first_and_logged_once(slow_layer, caplog):
    """The queue is bounded, whoever fills it waits for nothing, and the log has one line for all that was lost."""
    sender = ClientSender()
    began = time.monotonic()
    for number in range(3 * LANE_SIZE):
        sender.put("one", {"number": number})
    assert time.monotonic() - began < 0.5
    slow_layer.hold.set()
    sender.settle(10)
    assert slow_layer.sent[-LANE_SIZE:] == list(range(2 * LANE_SIZE, 3 * LANE_SIZE))
    assert len(slow_layer.sent) <= 2 * LANE_SIZE
    [record] = [record for record in caplog.records if record.getMessage() == "browsers were not notified"]
    assert (record.levelno, record.action) == (logging.WARNING, "ring_browsers")


def test_a_layer_that_hangs_costs_a_hint_a_second_at_most_and_then_goes_on(slow_layer, caplog, monkeypatch):
    """What is too old to help anybody is not sent when the layer is back."""
    monkeypatch.setattr("durable_agents.notifications.client_sender.SEND_SECONDS", 0.05)
    monkeypatch.setattr("durable_agents.notifications.client_sender.STALE_SECONDS", 0.5)
    sender = ClientSender()
    for number in range(100):
        sender.put("one", {"number": number})
    time.sleep(0.7)
    slow_layer.hold.set()
    sender.settle(10)
    sender.put("one", {"number": 1000})
    sender.settle(10)
    assert slow_layer.sent == [1000]
    assert len(caplog.records) == 1


def test_hints_of_one_group_keep_their_order_and_those_of_others_do_not_wait(slow_layer):
    """Each lane sends one after the other."""
    slow_layer.hold.set()
    groups = [notifications.group_of(UUID(int=number)) for number in range(SHARDS)]
    sender = ClientSender()
    for number in range(200):
        sender.put(groups[number % len(groups)], {"number": number})
    sender.settle(10)
    assert sorted(slow_layer.sent) == list(range(200))
    for first in range(len(groups)):
        own = [number for number in slow_layer.sent if number % len(groups) == first]
        assert own == sorted(own)


def test_hints_that_are_queued_together_are_one_message_to_each_group(slow_layer):
    """However many threads have news: a worker stores the deltas of all its streams at the same time."""
    sender = ClientSender()
    for number in range(40 * SHARDS):
        sender.put(notifications.group_of(UUID(int=number)), {"number": number})
    slow_layer.hold.set()
    sender.settle(10)
    assert sorted(slow_layer.sent) == list(range(40 * SHARDS))
    # The first message of a queue may leave before all hints are queued.
    assert len(slow_layer.messages) <= SHARDS + LANES


class Raced(deque[Hint]):
    """A queue from which another thread drops the oldest hint right after its length was read."""

    def __len__(self) -> int:
        return super().__len__() + 1


async def test_a_hint_that_is_dropped_while_hints_are_taken_does_not_end_the_sending():
    lane = Lane()
    lane.hints = Raced(Hint(group="one", message={"number": number}) for number in range(3))
    assert [hint.message["number"] for hint in await lane.next()] == [0, 1, 2]

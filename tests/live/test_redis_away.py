"""Redis is stopped for a while and started again, in the middle of an answer."""

import time
from collections.abc import Callable

import pytest

from durable_agents.models import Delta, Thread
from tests.benchmarks.meters import RedisMeter
from tests.chat.server import Server
from tests.crash.talk import words
from tests.live.followers import Follower, members
from tests.live.wire import Wire
from tests.servers.model import ModelUnderTest, Reply
from tests.servers.redis import RedisUnderTest
from tests.workers import at_rest, until

AWAY_SECONDS = 20
LATE_SECONDS = 10
"""Without notifications, a web process looks at the rows every five seconds."""
LOOK_SECONDS = 5
STORY = words(700)


@pytest.fixture
def layer_env(layer_env: dict[str, str]) -> dict[str, str]:
    """Return the environment of processes that have only the channel layer on Redis."""
    return layer_env | {"TEST_BROKER": "orm"}


def last_stored(thread: Thread) -> int:
    """Return the number of the last delta in the database."""
    seqs = Delta.objects.filter(stream__thread=thread).order_by("-seq").values_list("seq", flat=True)
    return next(iter(seqs[:1]), -1)


def seen(socket: Wire) -> list[int]:
    """Return the numbers of the deltas that a client has received."""
    return [frame["seq"] for frame in list(socket.frames) if frame["type"] == "delta"]


def layer_messages(server: RedisUnderTest, seconds: float) -> float:
    """Return how many messages the channel layer passes on within so many seconds."""
    meter = RedisMeter(server.url)
    before = meter.read()["layer messages"]
    time.sleep(seconds)
    return meter.read()["layer messages"] - before


@pytest.mark.slow
def test_a_stream_goes_on_from_rows_while_redis_is_away_and_no_storm_of_messages_follows(
    follower: Callable[[str], Follower],
    site: Server,
    workers: None,
    model_server: ModelUnderTest,
    own_redis: RedisUnderTest,
):
    model_server.answer_with(lambda _: Reply(text=STORY, delay_seconds=0.1))
    ann = follower("ann")
    thread = ann.thread()
    with ann.wire().subscribe(thread.pk) as socket:
        ann.send(thread)
        until(lambda: len(seen(socket)) > 10, what=lambda: site.log)
        usual = layer_messages(own_redis, LOOK_SECONDS)
        assert usual

        own_redis.kill()
        time.sleep(AWAY_SECONDS - LATE_SECONDS)
        stored = last_stored(thread)
        time.sleep(LATE_SECONDS)
        assert seen(socket)[-1] >= stored > 20

        own_redis.start()
        # Also those messages count that were queued while Redis was away.
        first = layer_messages(own_redis, 0.1) + layer_messages(own_redis, LOOK_SECONDS)
        until(lambda: members(own_redis, thread) == 1, seconds=30, what=lambda: site.log)
        assert first <= 2 * usual + 10

        at_rest(thread, seconds=200)
        socket.until("thread", status="completed", seconds=30)
        seqs, [step] = seen(socket), [frame for frame in socket.frames if frame["type"] == "step"]
    assert seqs == list(range(len(seqs)))
    assert "".join(part["text"] for part in step["parts"] if part["type"] == "text") == STORY

"""A Redis that takes connections and answers nothing holds up no request, no websocket and no worker."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import redis
from django.conf import settings

from durable_agents import create_thread
from durable_agents.models import Stream, Thread
from tests.api.calls import person
from tests.chat.server import Server
from tests.crash.talk import words
from tests.live.followers import LAYERS, Follower, members
from tests.servers.model import Hold, ModelUnderTest, Reply
from tests.servers.redis import RedisUnderTest
from tests.workers import at_rest, running, until

CORE, PUBSUB = LAYERS
PLACES = [(CORE, "redis"), (CORE, "orm"), (PUBSUB, "redis")]
PAUSE_SECONDS = 15
POSTS = 5
SECONDS = 2.0
"""A second at most for hints, and time to do the work on a busy machine."""
QUEUE = f"django_q:{settings.Q_CLUSTER['name']}:q"
NOT_TOLD = ["browsers were not notified", "workers were not notified"]


@contextmanager
def stopped(server: RedisUnderTest) -> Iterator[None]:
    """The process stands still."""
    server.freeze()
    try:
        assert not server.answers()
        yield
        assert not server.answers(), "the fault has ended too early"
    finally:
        server.thaw()


@contextmanager
def paused(server: RedisUnderTest) -> Iterator[None]:
    """The server lives and serves nobody for a while, not even who would end that."""
    with redis.Redis.from_url(server.url) as client:
        client.client_pause(PAUSE_SECONDS * 1000, all=True)
    assert not server.answers()
    yield
    assert not server.answers(), "the fault has ended too early"
    until(server.answers, seconds=2 * PAUSE_SECONDS)


FAULTS: dict[str, Callable[[RedisUnderTest], Any]] = {"SIGSTOP": stopped, "CLIENT PAUSE": paused}


@pytest.fixture(params=PLACES, ids=" ".join)
def places(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return the class of the channel layer and the kind of the broker."""
    layer, broker = request.param
    return layer, broker


@pytest.fixture
def broker(places: tuple[str, str]) -> str:
    """Return the kind of the broker."""
    return places[1]


@pytest.fixture
def redis_env(places: tuple[str, str], worker_env: dict[str, str], own_redis: RedisUnderTest) -> dict[str, str]:
    """Return the environment of processes on this Redis."""
    return worker_env | own_redis.env | {"TEST_LAYER": places[0], "TEST_BROKER": places[1]}


@pytest.fixture
def ann(redis_env: dict[str, str]) -> Iterator[Follower]:
    """Return somebody who uses a running web server."""
    with ExitStack() as stack:
        site = stack.enter_context(Server(redis_env, application="tests.live.asgi:application"))
        one = Follower(site=site, user=person("ann"))
        stack.callback(one.client.close)
        yield one


def timed(function: Callable[..., Any], *arguments: Any) -> float:
    """Call it, and return how long it took."""
    began = time.monotonic()
    function(*arguments)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_post_is_answered_while_redis_hangs(ann: Follower, own_redis: RedisUnderTest, fault: str, broker: str):
    """Every one, and the log says once what was not told. With the queue on Redis the workers are told afterwards."""
    threads = [ann.thread() for _ in range(POSTS)]
    ann.send(ann.thread())  # the connections stand
    with FAULTS[fault](own_redis):
        took = [timed(ann.send, thread) for thread in threads]
        time.sleep(max(0.0, 7 - sum(took)))  # what was put off would be in the log now
        log = ann.site.log
    assert max(took) < SECONDS, took
    assert sum(took) < 2 * SECONDS, took
    assert {thread.status for thread in Thread.objects.filter(pk__in=[one.pk for one in threads])} == {"streaming"}
    assert [log.count(text) for text in NOT_TOLD] == [1, int(broker == "redis")]
    if broker == "redis":
        with redis.Redis.from_url(own_redis.url) as client:
            until(lambda: client.llen(QUEUE) >= 2, seconds=10, what="the task that was put off")


@pytest.mark.slow
def test_a_websocket_opens_and_is_told_while_redis_hangs(ann: Follower, own_redis: RedisUnderTest):
    """By looking at the rows; and live again when Redis is back."""
    thread = ann.thread()
    with ann.wire().subscribe(ann.thread().pk), stopped(own_redis):
        began = time.monotonic()
        with ann.wire() as socket:
            socket.subscribe(thread.pk)
            assert time.monotonic() - began < 2 * SECONDS
            ann.send(thread)
            socket.until("message", seconds=8)
            events = ann.events(thread)
            events.hang_up()
        assert not own_redis.answers()
    own_redis_is_back = time.monotonic()
    with ann.wire().subscribe(thread.pk) as socket:
        assert time.monotonic() - own_redis_is_back < 10
        until(lambda: members(own_redis, thread), seconds=30, what=lambda: ann.site.log)
        ann.send(thread)
        socket.until("message", seconds=4)


@pytest.mark.slow
def test_a_worker_goes_on_while_redis_hangs(
    redis_env: dict[str, str], own_redis: RedisUnderTest, model_server: ModelUnderTest
):
    """The answer is written to its end while nobody can be told of it."""
    gate = threading.Event()
    model_server.answer_with(Hold(reply=Reply(text=words(40), delay_seconds=0.05), after=2, gate=gate))
    with running(redis_env, workers=2, TEST_MODEL_URL=model_server.url) as cluster:
        thread = create_thread("talker", prompt="A story.")
        until(lambda: Stream.objects.held().exists(), what=lambda: cluster.log)
        with stopped(own_redis):
            gate.set()
            [rested] = at_rest(thread, seconds=10)
        assert rested.status == "completed"
        assert cluster.log.count("browsers were not notified") == 1

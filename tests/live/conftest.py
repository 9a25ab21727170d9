"""A web server and workers on a Redis of the test's own, and people who follow threads in every way there is."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.api.calls import person
from tests.chat.server import Server
from tests.live.followers import LAYERS, Follower
from tests.servers.model import ModelUnderTest
from tests.servers.redis import RedisUnderTest
from tests.workers import running


@pytest.fixture(params=LAYERS)
def layer_env(request: pytest.FixtureRequest, worker_env: dict[str, str], own_redis: RedisUnderTest) -> dict[str, str]:
    """Return the environment of processes that use a Redis layer, each kind in turn."""
    limits = {"MAX_STREAMS_PER_USER": 1000, "MAX_SOCKETS_PER_USER": 1000}  # all followers may be one user
    return worker_env | own_redis.env | {"TEST_LAYER": request.param, "TEST_DURABLE_AGENTS": json.dumps(limits)}


@pytest.fixture
def server_kind(request: pytest.FixtureRequest) -> str:
    """Return which web server runs: daphne, unless a test asks for another one."""
    return str(getattr(request, "param", "daphne"))


@pytest.fixture
def site(layer_env: dict[str, str], server_kind: str) -> Iterator[Server]:
    """Return a running web server."""
    with Server(layer_env, kind=server_kind, application="tests.live.asgi:application") as server:
        yield server


@pytest.fixture
def follower(site: Server) -> Iterator[Callable[[str], Follower]]:
    """Return what makes somebody with a token."""
    with ExitStack() as stack:

        def made(name: str) -> Follower:
            one = Follower(site=site, user=person(name))
            stack.callback(one.client.close)
            return one

        yield made


@pytest.fixture
def workers(layer_env: dict[str, str], model_server: ModelUnderTest) -> Iterator[None]:
    """Run a cluster of workers."""
    with running(layer_env, workers=2, TEST_MODEL_URL=model_server.url):
        yield

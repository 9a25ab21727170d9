"""Clients that do not read what they are sent: they cost a bounded amount of memory, and miss nothing if they go on."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from django.contrib.auth.models import User
from websockets.exceptions import ConnectionClosed

from durable_agents import add_message, create_thread
from durable_agents.models import Message, Thread
from tests.chat.agents import chatty
from tests.chat.server import Server
from tests.processes import database_url
from tests.websocket.real import RealSocket, connected
from tests.workers import until

TIMES = {"SLOW_READER_SECONDS": 3, "HEAL_SECONDS": 0.5}
PATIENT = {"SLOW_READER_SECONDS": 60, "HEAL_SECONDS": 0.5}


def running(request: pytest.FixtureRequest, env: dict[str, str], times: dict[str, float]) -> Iterator[Server]:
    """Yield a running server."""
    env = env | {"TEST_DATABASE_URL": database_url(), "TEST_SOCKETS": json.dumps(times)}
    with Server(env, kind=request.param, application="tests.websocket.asgi:application") as server:
        yield server


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def server(request: pytest.FixtureRequest, django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Yield a server that closes sockets of clients that do not read for three seconds, if it can notice them."""
    yield from running(request, child_env, TIMES)


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def patient(request: pytest.FixtureRequest, django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Yield a server that waits for a minute."""
    yield from running(request, child_env, PATIENT)


@pytest.fixture
def thread(user: User) -> Thread:
    """Return a new thread of an agent that the server knows."""
    return create_thread(chatty, owner=user)


def fill(thread: Thread, *, messages: int, size: int) -> None:
    """Add messages to a thread."""
    for number in range(messages):
        add_message(thread, role="user", parts=[{"type": "text", "text": f"{number} " + "x" * size}])


def memory_mb(server: Server) -> float:
    """Return how much memory the server's process takes."""
    return float(psutil.Process(server.process.pid).memory_info().rss / 2**20)


def is_open(server: Server, socket: RealSocket) -> bool:
    """Return whether the server still has the socket's connection."""
    port = socket.wire.socket.getsockname()[1]
    found = psutil.Process(server.process.pid).net_connections("tcp")
    return any(bool(one.raddr) and one.raddr.port == port for one in found)


def test_a_client_that_asks_for_large_pages_and_never_reads_costs_little_memory(server, cookie, thread):
    fill(thread, messages=10, size=100_000)
    with connected(server, cookie=cookie) as socket:
        socket.ask(type="subscribe", thread=str(thread.pk))
        socket.ask(type="older", thread=str(thread.pk), before=1_000)
        before = memory_mb(server)
        with connected(server, cookie=cookie, max_queue=1) as deaf:
            with suppress(ConnectionClosed, TimeoutError):
                for _ in range(80):
                    deaf.tell(type="older", id="r", thread=str(thread.pk), before=1_000)
            most, ends_at = before, time.monotonic() + 5
            while time.monotonic() < ends_at:
                most = max(most, memory_mb(server))
                time.sleep(0.05)
            if server.kind == "daphne":  # uvicorn waits until the client reads
                until(lambda: not is_open(server, deaf), seconds=15, what=lambda: server.log)
        assert most - before < 30, f"{most - before:.0f} MB for 80 pages of a megabyte"


def test_a_client_that_reads_late_gets_everything_once(patient, cookie, thread):
    with connected(patient, cookie=cookie, max_queue=1) as socket:
        socket.tell(type="subscribe", id="s", thread=str(thread.pk))
        seen = socket.hear_until(lambda frame: frame.get("id") == "s")[-1]["messages"]
        fill(thread, messages=100, size=50_000)
        last = Message.objects.filter(thread=thread).latest("position")
        frames = socket.hear_until(lambda frame: frame["type"] == "message" and frame["message"]["id"] == last.shown_id)
    ids = [frame["message"]["id"] for frame in frames if frame["type"] == "message"]
    stored = [message.shown_id for message in Message.objects.filter(thread=thread).order_by("position")]
    assert [message["id"] for message in seen] + ids == stored


def test_a_deaf_client_does_not_keep_others_waiting(patient, cookie, thread):
    fill(thread, messages=10, size=100_000)
    deaf_socket = connected(patient, cookie=cookie, max_queue=1)
    with deaf_socket as deaf, connected(patient, cookie=cookie) as other:
        for _ in range(30):
            deaf.tell(type="older", id="r", thread=str(thread.pk), before=1_000)
        assert other.ask(type="subscribe", thread=str(thread.pk))["type"] == "snapshot"

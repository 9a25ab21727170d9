"""Clients that do not read what they are sent: they cost a bounded amount of memory, and miss nothing if they go on."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import psutil
import pytest
from django.contrib.auth.models import User
from websockets.exceptions import ConnectionClosed

from durable_agents import add_message, create_thread, send_message
from durable_agents.delta_writer import Frame
from durable_agents.models import DeliveryReport, Message, Thread
from tests.chat.agents import chatty
from tests.chat.server import Server
from tests.lifecycle.stage import Worker
from tests.processes import database_url
from tests.websocket.real import RealSocket, connected
from tests.workers import until

TIMES = {"SLOW_READER_SECONDS": 3, "HEAL_SECONDS": 0.5, "STORE_SECONDS": 0.2}
PATIENT = {"SLOW_READER_SECONDS": 60, "HEAL_SECONDS": 0.5}
FAST_SECONDS = 300
MAX_MB = 5
STEP_DELTAS, DELTA_CHARS = 40, 10_000


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
                until(lambda: any(report.counts.get("slow_close") for report in DeliveryReport.objects.all()))
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


def stream_fast(thread: Thread, *, seconds: float) -> int:
    """Stream answers into a thread, 200 kB a second; return how many."""
    worker, answers, ends_at = Worker(agents=("chatty",)), 0, time.monotonic() + seconds
    while time.monotonic() < ends_at:
        send_message(thread, "Go on.")
        claim = worker.claim_step()
        for number in range(STEP_DELTAS):
            worker.say(claim, f"{number} ".ljust(DELTA_CHARS, "x"))
            time.sleep(0.05)
        worker.answer("Done.", claim=claim)
        answers += 1
    return answers


@pytest.mark.slow
def test_a_client_that_never_reads_a_fast_stream_costs_little_memory(patient, cookie, thread, bells, rounds):
    """Five minutes with all rounds. Another client gets everything meanwhile."""
    received: list[Frame] = []

    def read(socket: RealSocket) -> None:
        with suppress(ConnectionClosed):
            while True:
                received.append(json.loads(socket.wire.recv()))

    with ExitStack() as stack:
        other = stack.enter_context(connected(patient, cookie=cookie))
        other.ask(type="subscribe", thread=str(thread.pk))
        reading = threading.Thread(target=read, args=(other,), daemon=True)
        reading.start()
        stream_fast(thread, seconds=8)  # the process gets what it needs for any client
        deaf = stack.enter_context(connected(patient, cookie=cookie, max_queue=1))
        deaf.tell(type="subscribe", id="s", thread=str(thread.pk))
        # The operating system's buffers, and those of the client, take some megabytes.
        answers = stream_fast(thread, seconds=8)
        before = most = memory_mb(patient)
        streaming = ThreadPoolExecutor(1)
        stack.callback(streaming.shutdown)
        streamed = streaming.submit(stream_fast, thread, seconds=rounds(FAST_SECONDS))
        while not streamed.done():
            most = max(most, memory_mb(patient))
            if not is_open(patient, deaf):  # as a page would that was closed for not reading
                deaf = stack.enter_context(connected(patient, cookie=cookie, max_queue=1))
                deaf.tell(type="subscribe", id="s", thread=str(thread.pk))
            time.sleep(0.05)
        answers += streamed.result()
        rev = Thread.objects.get(pk=thread.pk).rev
        until(lambda: any(frame.get("rev") == rev for frame in list(received)))
        assert most - before < MAX_MB, f"{most - before:.1f} MB"
    reading.join(20)
    texts = [frame for frame in received if frame["type"] == "step"]
    assert len(texts) >= answers

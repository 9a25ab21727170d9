"""Responses that are not read cost the web process little memory: event streams, answers and downloads."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self
from urllib.parse import urlsplit

import psutil
import pytest

from durable_agents import add_message, create_thread
from durable_agents.live.response_backpressure import daphne_request_of
from durable_agents.models import Thread
from tests.api.calls import person
from tests.chat.agents import chatty
from tests.chat.server import Server
from tests.lifecycle.stage import Worker
from tests.live.followers import Follower
from tests.processes import database_url
from tests.workers import until

pytestmark = pytest.mark.django_db(transaction=True)
PIECE = "x" * 200_000
PIECES = 120
MAX_MB = 5
FILE_MB = 24


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def site(request: pytest.FixtureRequest, django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return a running web server, without a channel layer: it looks for news itself."""
    limits = {"MAX_ATTACHMENT_BYTES": 2 * FILE_MB * 10**6}
    env = child_env | {"TEST_DATABASE_URL": database_url(), "TEST_DURABLE_AGENTS": json.dumps(limits)}
    with Server(env, kind=request.param, application="tests.websocket.asgi:application") as server:
        yield server


@pytest.fixture
def ann(site: Server) -> Iterator[Follower]:
    """Return somebody with a token."""
    one = Follower(site=site, user=person("ann"))
    with one.client:
        yield one


class Deaf:
    """A client that has sent a request and reads nothing until it is told to."""

    def __init__(self, one: Follower, path: str) -> None:
        address = urlsplit(one.site.url)
        self.wire = socket.socket()
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.wire.settimeout(20)
        self.wire.connect((address.hostname, address.port))
        lines = [f"GET {path} HTTP/1.1", f"Host: {address.netloc}", f"Authorization: Token {one.token}", "", ""]
        self.wire.sendall("\r\n".join(lines).encode())
        assert self.wire.recv(15, socket.MSG_PEEK) == b"HTTP/1.1 200 OK"

    def read_until(self, wanted: bytes) -> bytes:
        """Read up to this text, and return all."""
        read = bytearray()
        while wanted not in read[-2 * len(PIECE) :]:
            got = self.wire.recv(65_536)
            assert got, "the response has ended"
            read += got
        return bytes(read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()


@contextmanager
def bounded(site: Server) -> Iterator[None]:
    """Assert that the process does not grow by more than ``MAX_MB`` during the block, nor in a second after it."""
    process = psutil.Process(site.process.pid)
    before = process.memory_info().rss
    most, is_over = before, threading.Event()

    def look() -> None:
        nonlocal most
        while not is_over.wait(0.02):
            most = max(most, process.memory_info().rss)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
        time.sleep(1)
    finally:
        is_over.set()
        looking.join()
    assert (most - before) / 10**6 < MAX_MB


def followed(one: Follower, path: str, make_news: Callable[[int], Any], wanted: bytes) -> None:
    """Let a client read some news, so that the process has what it needs; then let a deaf client get many, and read
    them after all.
    """
    with Deaf(one, path) as client:
        for number in range(20):
            make_news(number)
            time.sleep(0.02)
        client.read_until(b"piece 19 ")
    with Deaf(one, path) as deaf:
        # The operating system's buffers take a few megabytes, whatever the process does.
        for number in range(20, 60):
            make_news(number)
            time.sleep(0.02)
        time.sleep(1)
        with bounded(one.site):
            for number in range(60, PIECES):
                make_news(number)
        text = deaf.read_until(wanted)
    for number in range(20, PIECES):
        assert text.count(f"piece {number} ".encode()) == 1


@pytest.mark.slow
def test_an_event_stream_that_is_not_read(ann: Follower):
    thread = ann.thread()

    def say(number: int) -> None:
        add_message(thread, role="user", parts=[{"type": "text", "text": f"piece {number} {PIECE}"}])

    followed(ann, f"/agents/threads/{thread.pk}/events/", say, f"piece {PIECES - 1} ".encode())


@pytest.mark.slow
def test_an_answer_that_is_not_read(ann: Follower, bells: Any):
    thread: Thread = create_thread(chatty, owner=ann.user, prompt="A story.")
    worker = Worker(agents=("chatty",))
    claim = worker.claim_step()

    def say(number: int) -> None:
        worker.say(claim, f"piece {number} {PIECE}")

    followed(ann, f"/agents/chat/{thread.pk}/stream/", say, f"piece {PIECES - 1} ".encode())


@pytest.mark.slow
def test_a_download_that_is_not_read(ann: Follower, site: Server):
    """The connection can be used again after a download that was read."""
    data = b"0123456789" * (FILE_MB * 10**5)
    uploaded = ann.client.post("attachments/", files={"file": ("a.bin", data)}).raise_for_status().json()
    url = site.url + urlsplit(uploaded["url"]).path
    for _ in range(2):
        assert ann.client.get(url).content == data
    with bounded(site), Deaf(ann, urlsplit(url).path) as deaf:
        time.sleep(1)
        assert deaf.wire.recv(1, socket.MSG_PEEK) != b""
    until(lambda: ann.client.get("agents/").status_code == 200)


def test_the_request_is_found_behind_middleware_that_wraps_send():
    """As sentry-sdk and OpenTelemetry do."""

    class Request:
        def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: N802
            """Do nothing."""

    async def handle_reply(protocol: object, message: object) -> None:
        """Do nothing."""

    def wrapped(send: Callable[..., Any]) -> Callable[..., Any]:
        async def own_send(message: object) -> None:
            await send(message)

        return own_send

    request = Request()
    assert daphne_request_of(wrapped(wrapped(partial(handle_reply, request)))) is request
    assert daphne_request_of(wrapped(handle_reply)) is None
    assert daphne_request_of(None) is None

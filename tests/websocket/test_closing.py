"""How sockets end, seen by clients of a real daphne and uvicorn: with codes that both can send, and a frame before."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import logout
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest

from durable_agents.conf import config
from tests.chat.server import Server
from tests.processes import ROOT, database_url
from tests.websocket.protocol import CLOSE_CODES
from tests.websocket.real import RealSocket, connected
from tests.websocket.sockets import act

KINDS = ["daphne", "uvicorn"]
TIMES = {"HELLO_SECONDS": 1, "SILENT_SECONDS": 2, "HEAL_SECONDS": 0.5, "FRAMES_AT_ONCE": 20, "FRAMES_PER_SECOND": 5}
Prompt = Callable[[RealSocket], Any]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return a running server whose patience is short."""
    env = child_env | {"TEST_DATABASE_URL": database_url(), "TEST_SOCKETS": json.dumps(TIMES)}
    with Server(env, kind=request.param, application="tests.websocket.asgi:application") as running:
        yield running
        broken = ["Exception in ASGI application", "Exception inside application", "invalid close code"]
        assert [words for words in broken if words in running.log] == [], running.log


def send_too_many(socket: RealSocket) -> None:
    """Ping until the allowance is used up."""
    for _ in range(2 * TIMES["FRAMES_AT_ONCE"]):  # type: ignore[arg-type]
        socket.tell(type="ping", t=1)


ENDS: list[tuple[int, dict[str, Any], Prompt]] = [
    (4400, {}, lambda socket: socket.tell("nonsense")),
    (4400, {}, lambda socket: socket.tell(b"{}")),
    (4401, {"cookie": None}, lambda socket: socket.tell(type="hello", version=1, ticket="made-up")),
    (4401, {"cookie": None, "Authorization": "Token made-up"}, lambda _: None),
    (4403, {"origin": "https://evil.example"}, lambda _: None),
    (4406, {"subprotocols": ["durable-agents.v9"]}, lambda _: None),
    (4406, {}, lambda socket: socket.tell(type="hello", version=9)),
    (4408, {"cookie": None}, lambda _: None),
    (4410, {}, lambda _: None),
    (4413, {}, lambda socket: socket.tell(type="ping", t="x" * 300_000)),
    (4429, {}, send_too_many),
]


@pytest.mark.parametrize(("code", "options", "prompt"), ENDS)
def test_a_client_of_a_real_server_sees_the_close_code_and_why(server, cookie, agent, code, options, prompt):
    """Whatever the server is made of."""
    with connected(server, **{"cookie": cookie, **options}) as socket:
        prompt(socket)
        said, seen = socket.end()
    assert seen == code
    assert said is not None
    assert (said["type"], said["code"], bool(said["message"])) == ("closing", code, True)
    assert said.get("retryAfter") == (4 if code == 4429 else None)


def test_every_close_code_of_the_protocol_is_seen():
    """Here, so that none is left that some server cannot send."""
    assert {code for code, *_ in ENDS} == set(CLOSE_CODES)
    assert all(3000 <= code < 5000 for code in CLOSE_CODES)


def test_a_socket_with_a_frame_of_the_allowed_size_stays(server, cookie, agent):
    """The limit is the one that was promised."""
    frame = {"type": "ping", "t": ""}
    with connected(server, cookie=cookie) as socket:
        socket.tell(**frame | {"t": "x" * (config().max_frame_bytes - len(json.dumps(frame)))})
        assert socket.hear()["type"] == "pong"


def test_a_browser_of_an_unknown_version_gets_a_subprotocol_that_it_offered(server, cookie, agent):
    """Else it drops the connection before it sees why."""
    with connected(server, cookie=cookie, subprotocols=["durable-agents.v9", "other"]) as socket:
        assert socket.wire.subprotocol == "durable-agents.v9"


STOPS = {4400: "malformed", 4401: "unauthorized", 4403: "forbidden", 4406: "outdated", 4413: "too_large"}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
@pytest.mark.parametrize("code", CLOSE_CODES)
def test_the_javascript_client_stops_or_comes_back_as_the_code_asks(server, cookie, agent, code):
    """Over the socket of Node, to the same servers."""
    told = {"url": server.url, "cookie": cookie, "code": code}
    script = Path(ROOT / "tests/js/closing.mjs")
    command = ["node", "--no-warnings", "--experimental-websocket", str(script), json.dumps(told)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    end = json.loads(run.stdout)
    if code in STOPS:
        assert (end["state"], end["reason"]) == ("closed", STOPS[code])
    elif code == 4429:
        assert (end["state"], end["waitSeconds"]) == ("waiting", 4)
    else:
        assert end["state"] == "waiting"
        assert end["waitSeconds"] <= 0.5


def test_text_that_is_no_utf_8_ends_the_socket_and_nothing_else(server, cookie, agent):
    """Daphne drops the connection, uvicorn closes with 1007: neither asks us. The next socket is served."""
    with connected(server, cookie=cookie) as socket:
        socket.wire.socket.sendall(b"\x81\x82\x00\x00\x00\x00\xff\xfe")  # a text frame of two bytes, masked with zeros
        assert socket.end()[1] in {1006, 1007}
    with connected(server, cookie=cookie) as socket:
        socket.tell(type="ping")
        assert socket.hear()["type"] == "pong"


async def test_signing_out_ends_a_socket_at_once_where_no_layer_tells_other_processes(polled, connect, cookie, user):
    socket = await connect()
    await socket.tell(type="hello", version=1)
    assert (await socket.hear())["type"] == "welcome"
    request = HttpRequest()
    request.session, request.user = SessionStore(cookie.partition("=")[2]), user
    await act(logout, request)
    assert await socket.close_code() == 4401

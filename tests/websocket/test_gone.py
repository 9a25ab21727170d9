"""A client that goes away in the middle of an answer is no error of the server."""

import json
import time
from collections.abc import Iterator

import pytest

from durable_agents import create_thread
from tests.chat.agents import chatty
from tests.chat.server import Server
from tests.processes import database_url
from tests.websocket.real import connected


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def own_server(request: pytest.FixtureRequest, django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return a running server whose log is this module's alone."""
    env = child_env | {"TEST_DATABASE_URL": database_url()}
    with Server(env, kind=request.param, application="tests.websocket.asgi:application") as running:
        yield running


@pytest.mark.parametrize("leave", ["close", "abort"])
def test_a_client_that_goes_before_its_answers_leaves_no_error_in_the_log(own_server, cookie, user, leave):
    thread = str(create_thread(chatty, owner=user).pk)
    for _ in range(4):
        with connected(own_server, cookie=cookie) as socket:
            socket.ask(type="subscribe", thread=thread)
            for number in range(5):
                socket.tell(json.dumps({"type": "older", "id": f"o{number}", "thread": thread, "before": 5}))
            if leave == "abort":
                socket.wire.socket.close()
    time.sleep(1)  # for what the server may still have to say

    assert "ERROR" not in own_server.log, own_server.log
    assert "Traceback" not in own_server.log

"""The primary of PostgreSQL dies and its standby is promoted; workers and web processes go on by themselves."""

import threading

import httpx
import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from rest_framework.authtoken.models import Token

from durable_agents import create_thread
from durable_agents.models import Thread
from tests.chat.server import Server
from tests.crash.talk import are_under_way, asked, held_until, said, words
from tests.live.wire import Wire
from tests.servers.model import ModelUnderTest
from tests.servers.postgres import PostgresPair
from tests.workers import at_rest, running, until

WAITING, LATER = 12, 8
WORDS = 40
REFUSALS = {"any": "in a read-only transaction", "read-write": "OperationalError"}
"""What clients meet before the promotion: sessions on the standby that may not write, or no session."""


def post(server: Server, headers: dict[str, str], prompt: str) -> httpx.Response:
    """Create a thread with a message over REST."""
    body = {"agent": "talker", "prompt": prompt}
    return httpx.post(f"{server.url}/agents/threads/", json=body, headers=headers, timeout=60, trust_env=False)


@pytest.mark.slow
@pytest.mark.parametrize(("own_pair", "refusal"), REFUSALS.items(), ids=REFUSALS, indirect=["own_pair"])
def test_standby_promoted_every_answer_comes_without_a_restart(
    own_pair: PostgresPair, model_server: ModelUnderTest, refusal: str, prove
):
    """More than ten seconds pass between the death and the promotion, since only then workers say that they cannot go
    on."""
    gate = threading.Event()
    model_server.answer_with(lambda request: held_until(gate, words(WORDS, asked(request))))
    user = get_user_model().objects.create_user("ada")
    token = Token.objects.create(user=user).key
    headers = {"Authorization": f"Token {token}"}
    settings = {"TEST_MODEL_URL": model_server.url, "TEST_DURABLE_AGENTS": '{"PROCESSES": 2}'}
    with Server(own_pair.env) as server, running(own_pair.env, workers=2, **settings) as cluster:
        workers = set(cluster.workers)
        threads = {f"q{number}": create_thread("talker", owner=user, prompt=f"q{number}") for number in range(WAITING)}
        until(lambda: are_under_way(WAITING), seconds=90, what=lambda: cluster.log)
        with Wire(f"{server.url.replace('http', 'ws', 1)}/ws/agents/", token) as socket:
            socket.subscribe(threads["q0"].pk)
            own_pair.primary.stop("immediate")
            gate.set()
            connection.close()
            until(lambda: "this worker cannot go on" in cluster.log, seconds=90, what=lambda: cluster.log)
            answer = post(server, headers, "refused")
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert cluster.log.count(refusal) > 0
            own_pair.standby.promote()
            later = [f"later{number}" for number in range(LATER)]
            for name in later:
                sent = until(lambda: accepted(post(server, headers, name)), seconds=30, what="a 201")  # noqa: B023
                threads[name] = Thread.objects.get(pk=sent)
            at_rest(*threads.values(), seconds=120)
            socket.until("thread", status="completed", seconds=20)
        assert set(cluster.workers) == workers
        assert server.process.poll() is None
        refusals = cluster.log.count(refusal)
    for name, thread in threads.items():
        assert said(thread) == [("user", [name]), ("assistant", [words(WORDS, name)])]
    assert Thread.objects.count() == WAITING + LATER
    prove(f"{refusals} refusals; {WAITING} answers begun before and {LATER} after the promotion are complete")


def accepted(answer: httpx.Response) -> str | None:
    """Return the id of the new thread; None where the database was not available yet."""
    if answer.status_code == 503:
        return None
    answer.raise_for_status()
    return str(answer.json()["id"])

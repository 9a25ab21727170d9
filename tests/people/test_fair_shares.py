"""Over running servers, whoever sends much delays nobody else and gets no more runs than allowed."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from durable_agents.models import Thread
from tests.api.calls import person
from tests.chat.server import Server
from tests.crash.talk import asked
from tests.people.visitors import Person, at_once
from tests.servers.model import Hold, ModelUnderTest, Reply
from tests.workers import at_rest, running, until

FLOOD, SEATS = 20, 2
RUNS, CLIENTS = 3, 12


def visitors(url: str) -> tuple[Person, Person]:
    return Person(url, visitor="v1"), Person(url, visitor="v2")


def colleagues(url: str) -> tuple[Person, Person]:
    return Person(url, user=person("ann")), Person(url, user=person("bob"))


def two_teams_of_one_user(url: str) -> tuple[Person, Person]:
    eve = person("eve")
    return Person(url, user=eve, team="red"), Person(url, user=eve, team="blue")


def visitor_and_user(url: str) -> tuple[Person, Person]:
    return Person(url, visitor="v3"), Person(url, user=person("joe"))


PAIRS = [visitors, colleagues, two_teams_of_one_user, visitor_and_user]


def create(one: Person, prompt: str) -> tuple[int, dict[str, Any]]:
    """Create a thread with a message over REST; return the status and the body."""
    response = one.post("threads/", {"agent": "talker", "prompt": prompt})
    return response.status_code, response.json()


def order_of_answers(site: Server, model: ModelUnderTest, flooding: Person, waiting: Person) -> list[str]:
    """Let one person's flood wait as a whole, then send a message of the other; return the order in which the model
    was asked. The first answers are held until everything waits.
    """
    gate = threading.Event()
    model.answer_with(Hold(reply=Reply(text="Hello.", delay_seconds=0), after=1, gate=gate))
    model.journal.clear()
    with ThreadPoolExecutor(4) as threads:
        flood = list(threads.map(lambda number: create(flooding, f"flood {number}"), range(FLOOD)))
    assert {status for status, _ in flood} == {201}
    until(lambda: len(model.requests) == SEATS)
    thread = waiting.post("threads/", {"agent": "talker"}).json()["id"]
    sent = waiting.ask(type="send", thread=thread, prompt="Please.", key="k1")
    assert sent["type"] == "ok", sent
    assert Thread.objects.running().count() == FLOOD + 1
    gate.set()
    at_rest(*Thread.objects.all(), seconds=60)
    return [asked(request) for request in model.requests]


@pytest.mark.slow
def test_message_behind_a_flood_of_another_is_answered_before_most_of_the_flood(servers, model_server: ModelUnderTest):
    """Whether owner, scope or both distinguish the two people; in one test, since workers take long to start."""
    env, [site] = servers(1, POOLS={"agents": {"limit": SEATS}})
    with running(env, workers=2, TEST_MODEL_URL=model_server.url):
        for pair in PAIRS:
            order = order_of_answers(site, model_server, *pair(site.url))
            assert len(order) == FLOOD + 1
            # The held answers, then one of each in turn; the two workers claim side by side.
            assert order.index("Please.") <= SEATS + 2, (pair.__name__, order)


@pytest.mark.slow
@pytest.mark.parametrize("pair", [visitors, colleagues, visitor_and_user])
def test_runs_begun_at_once_over_two_servers_fill_the_quota_exactly(
    servers, pair: Callable[[str], tuple[Person, Person]]
):
    """Each of the two people has their own quota; what is refused leaves no thread behind."""
    _, [here, there] = servers(2, MAX_RUNNING_PER_OWNER=RUNS)
    people = pair(here.url)
    callers = [one for who in people for one in (who, who.at(there.url))]
    answers = at_once(*(partial(create, caller, "Hello.") for caller in callers * (CLIENTS // 2)))
    for number in range(len(people)):
        of_one = [answer for position, answer in enumerate(answers) if position % 4 // 2 == number]
        assert sorted(status for status, _ in of_one) == [201] * RUNS + [429] * (CLIENTS - RUNS), of_one
        assert {body["code"] for status, body in of_one if status == 429} == {"too_many_running"}
    assert Thread.objects.running().count() == Thread.objects.count() == RUNS * len(people)

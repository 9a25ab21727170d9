"""A page costs as many queries with many rows as with few."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_agents import create_thread, send_message
from tests.lifecycle.stage import calling

pytestmark = pytest.mark.django_db


def queries(api, path, *, method="GET"):
    """Return how many queries a request makes."""
    with CaptureQueriesContext(connection) as captured:
        assert api.send(method, path).status_code == 200
    return len(captured)


@pytest.fixture
def conversation(agent, me, worker):
    """Return a function that makes a thread of so many rounds."""

    def made(rounds):
        thread = create_thread(agent, owner=me)
        for _ in range(rounds):
            send_message(thread, "Question")
            worker.answer("Let me see.", calling(), calling("again"))
            worker.settle("a")
            worker.settle("b")
            worker.answer("Found.")
        return thread

    return made


@pytest.mark.parametrize("path", ["", "messages/", "messages/?streams=1", "tool-calls/"])
def test_a_long_thread_costs_what_a_short_one_does(api, conversation, path):
    """Messages, steps and calls are read in one query each."""
    short, long = conversation(1), conversation(6)
    counts = [queries(api, f"threads/{thread.pk}/{path}") for thread in (short, long)]
    assert counts[0] == counts[1] <= 7


def test_many_threads_cost_what_one_does(api, agent, me):
    """Their open streams are read together."""
    create_thread(agent, owner=me, prompt="Hi")
    few = queries(api, "threads/")
    for _ in range(5):
        create_thread(agent, owner=me, prompt="Hi")
    assert queries(api, "threads/") == few <= 4

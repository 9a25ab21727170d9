"""What each transition of a step costs in statements, pinned, and the same however long the thread is."""

import pytest
from django.conf import settings

from durable_agents import create_thread, lifecycle, send_message
from durable_agents.lifecycle import Append
from tests.lifecycle.stage import calling, spoken

pytestmark = pytest.mark.django_db


@pytest.fixture(params=[0, 2], ids=["new", "grown"])
def thread(request, agent, worker):
    """Return a thread at rest, with a history of some runs of two steps."""
    made = create_thread(agent)
    for _ in range(request.param):
        send_message(made, "Hi")
        worker.answer("", calling())
        worker.settle()
        worker.answer("Hello.")
    return made


@pytest.fixture
def costs(django_assert_num_queries):
    """Return the context that counts statements, savepoints included."""
    return django_assert_num_queries


def test_a_message_to_a_thread_at_rest(thread, costs):
    """Question, answer to be and its first attempt, and who sent it. With the ORM broker, also the queue's task."""
    with costs(8 if "orm" in settings.Q_CLUSTER else 5):
        send_message(thread, "Hi", client_id="m1")


def test_a_claim_of_one_step(thread, worker, costs):
    """One look at all pools, and three statements to win; a pool with a limit is locked and counted, too."""
    send_message(thread, "Hi")
    with costs(6):
        worker.claim_step()


def test_deltas_of_many_streams(agent, worker, costs):
    """One transaction for all of a worker's streams."""
    for _ in range(5):
        create_thread(agent, prompt="Hi")
    claims = worker.claim()
    batch = [Append(claim=claim, seq=0, chunks=spoken("Hi", first=True)) for claim in claims]
    with costs(4):
        lifecycle.append_deltas(batch)


def test_heartbeats_of_many_rows(agent, worker, costs):
    """One transaction for all that a worker holds."""
    for _ in range(5):
        create_thread(agent, prompt="Hi")
    claims = worker.claim()
    with costs(6):
        lifecycle.heartbeat(claims)


def test_a_step_without_calls(thread, worker, costs):
    """The end of a run."""
    send_message(thread, "Hi")
    claim = worker.claim_step()
    with costs(10):
        worker.answer("Hello.", claim=claim)


def test_a_step_with_two_calls(thread, worker, costs):
    """One more statement for each call."""
    send_message(thread, "Hi")
    claim = worker.claim_step()
    with costs(8):
        worker.answer("", calling(), calling(), claim=claim)


def test_an_outcome_that_others_wait_for(thread, worker, costs):
    """Nothing else becomes due."""
    send_message(thread, "Hi")
    worker.answer("", calling(), calling())
    claim = worker.claim_call()
    with costs(7):
        worker.settle(claim=claim)


def test_the_last_outcome_of_a_step(thread, worker, costs):
    """The next step becomes due."""
    send_message(thread, "Hi")
    worker.answer("", calling())
    claim = worker.claim_call()
    with costs(10):
        worker.settle(claim=claim)

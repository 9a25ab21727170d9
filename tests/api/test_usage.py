"""What a thread has used is told in all, by model and for each attempt, whatever became of it."""

from decimal import Decimal

import pytest

from durable_agents import add_message, create_thread, lifecycle, send_message, stop_thread
from durable_agents.exceptions import ErrorKind
from durable_agents.lifecycle import StepOutcome
from durable_agents.llm import ModelUsage
from durable_agents.models import Stream, StreamState
from tests.api.calls import problem
from tests.lifecycle.stage import failed, step_parts

pytestmark = pytest.mark.django_db

USAGE = {"input_tokens", "output_tokens", "cached_input_tokens", "total_tokens", "cost"}
ATTEMPT = {
    *("id", "number", "message", "attempt", "state", "model", "finish_reason", "error_code", "usage"),
    *("usage_estimated", "created_at", "started_at", "finished_at"),
}


def commit(worker, model, **usage):
    """Answer the due step with this model and usage."""
    parts = step_parts("Hello.")
    outcome = StepOutcome(parts=parts, calls=(), finish_reason="stop", model=model, usage=ModelUsage(**usage))
    lifecycle.commit_step(worker.claim_step(), outcome)


@pytest.fixture
def spent(agent, me, worker):
    """Return a thread with an answer by each of two models, a failed attempt and a stopped one."""
    thread = create_thread(agent, owner=me, prompt="Hi", client_id="spent")
    used = ModelUsage(input_tokens=7, output_tokens=1, cost=Decimal("0.001"))
    lifecycle.retry_step(worker.claim_step(), failed(ErrorKind.NETWORK, usage=used), delay_seconds=0, max_attempts=4)
    commit(worker, "openai/x", input_tokens=100, output_tokens=20, cached_input_tokens=40, cost=Decimal("0.02"))
    send_message(thread, "More")
    commit(worker, "local/y", input_tokens=50, output_tokens=30)
    send_message(thread, "Even more")
    claim = worker.claim_step()
    worker.say(claim, "Hel")
    stop_thread(thread)
    used = ModelUsage(input_tokens=60, output_tokens=2, cost=Decimal("0.01"), estimated=True)
    lifecycle.record_usage(claim, model="openai/x", usage=used)
    return thread


@pytest.mark.parametrize("path", ["threads/{}/usage/", "threads/{}/usage"])
@pytest.mark.parametrize("by", ["pk", "client_id"])
def test_the_totals_are_those_of_the_thread(api, spent, path, by):
    """In the same fields."""
    told = api.get(path.format(getattr(spent, by))).json()
    assert set(told) == USAGE | {"models", "attempts", "next", "previous"}
    usage = {name: told[name] for name in USAGE}
    assert usage == api.get(f"threads/{spent.pk}/").json()["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (217, 53, 270)
    assert Decimal(usage["cost"]) == Decimal("0.031")


def test_models_are_told_apart_with_the_dearest_first(api, spent):
    """Failed and stopped attempts are counted; one without a price has no cost."""
    dear, cheap = api.get(f"threads/{spent.pk}/usage/").json()["models"]
    assert Decimal(dear.pop("cost")) == Decimal("0.031")
    assert dear == {
        "model": "openai/x",
        "attempts": 3,
        "usage_estimated": True,
        "input_tokens": 167,
        "output_tokens": 23,
        "cached_input_tokens": 40,
        "total_tokens": 190,
    }
    assert cheap == {
        "model": "local/y",
        "attempts": 1,
        "usage_estimated": False,
        "cost": None,
        "input_tokens": 50,
        "output_tokens": 30,
        "cached_input_tokens": 0,
        "total_tokens": 80,
    }


def test_each_attempt_is_told_in_order(api, spent):
    """With what became of it and the message that it is part of."""
    told = api.get(f"threads/{spent.pk}/usage/").json()["attempts"]
    assert all(set(attempt) == ATTEMPT and set(attempt["usage"]) == USAGE for attempt in told)
    facts = ("number", "attempt", "state", "finish_reason", "error_code", "model", "usage_estimated")
    assert [tuple(attempt[name] for name in facts) for attempt in told] == [
        (1, 1, "aborted", "error", "network", "openai/x", False),
        (2, 2, "finished", "stop", "", "openai/x", False),
        (3, 1, "finished", "stop", "", "local/y", False),
        (4, 1, "aborted", "stopped", "", "openai/x", True),
    ]
    listed = {message["id"] for message in api.get(f"threads/{spent.pk}/messages/").json()["results"]}
    assert {attempt["message"] for attempt in told} <= listed
    assert told[1]["usage"]["cost"].rstrip("0") == "0.02"


def test_details_of_failures_stay_inside(api, spent):
    """Here as everywhere."""
    assert Stream.objects.exclude(error_detail="").exists()
    assert "key-123" not in api.get(f"threads/{spent.pk}/usage/").content.decode()


def test_a_thread_that_has_used_nothing(api, agent, me):
    """Messages that were added are no attempts, and neither is what nobody has begun."""
    thread = create_thread(agent, owner=me)
    add_message(thread, "user", "Hi")
    add_message(thread, "assistant", "Hello.")
    send_message(thread, "And?")
    told = api.get(f"threads/{thread.pk}/usage/").json()
    assert (told["models"], told["attempts"], told["cost"], told["total_tokens"]) == ([], [], None, 0)


def test_a_fork_has_used_nothing(api, spent):
    """What was copied has cost what it has cost in the other thread."""
    fork = api.post(f"threads/{spent.pk}/fork/").json()
    told = api.get(f"threads/{fork['id']}/usage/").json()
    assert (told["models"], told["attempts"], told["total_tokens"]) == ([], [], 0)


def test_an_attempt_that_is_under_way_is_told(api, agent, me, worker):
    """Its usage comes when it ends."""
    thread = create_thread(agent, owner=me, prompt="Hi")
    worker.claim_step()
    [attempt] = api.get(f"threads/{thread.pk}/usage/").json()["attempts"]
    assert (attempt["state"], attempt["model"], attempt["finished_at"]) == ("streaming", "", None)


def test_many_attempts_come_in_pages(api, agent, me):
    """The totals are on each of them."""
    thread = create_thread(agent, owner=me)
    Stream.objects.bulk_create(
        Stream(
            thread=thread,
            number=number,
            rev=number,
            state=StreamState.FINISHED,
            pool="agents",
            model="openai/x",
            input_tokens=1,
            started_at=thread.created_at,
        )
        for number in range(1, 121)
    )
    first = api.get(f"threads/{thread.pk}/usage/").json()
    assert [attempt["number"] for attempt in first["attempts"]] == list(range(1, 51))
    second = api.follow(first["next"]).json()
    third = api.follow(second["next"]).json()
    assert [attempt["number"] for attempt in third["attempts"]] == list(range(101, 121))
    assert (first["previous"], third["next"]) == (None, None)
    assert api.follow(third["previous"]).json() == second
    assert first["models"] == third["models"]
    assert first["models"][0]["attempts"] == 120
    assert len(api.get(f"threads/{thread.pk}/usage/", limit=1000).json()["attempts"]) == 120


def test_a_cursor_that_is_none_is_refused(api, spent):
    """As in every list."""
    assert problem(api.get(f"threads/{spent.pk}/usage/", cursor="x")) == (400, "invalid_cursor")

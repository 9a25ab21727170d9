"""The time of a tool call: it begins with the attempt, may be changed while the call is open, and ends it for sure."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from durable_agents import create_thread, lifecycle
from durable_agents.exceptions import LeaseLostError, ToolCallNotFoundError, ToolCallNotPendingError
from durable_agents.models import Thread, ToolCall
from tests.lifecycle.stage import call_of, calling, make_due, status_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(agent, worker):
    """Return a thread whose first step called a tool that has a minute."""
    made = create_thread(agent, prompt="Hi")
    worker.answer("", calling("again"))
    return made


@pytest.fixture
def call(thread):
    """Return the row of that call."""
    return ToolCall.objects.get(thread=thread)


def seconds_of(call):
    """Return how long the call still has by its row, as far as the clock has not moved on."""
    now = ToolCall.objects.annotate(now=Now()).values_list("now", flat=True).get(pk=call.pk)
    call.refresh_from_db()
    return None if call.expires_at is None else round((call.expires_at - now).total_seconds())


def end_of_time(call, *, ago=10):
    """Let the time of a call be over since some seconds."""
    ToolCall.objects.filter(pk=call.pk).update(expires_at=Now() - timedelta(seconds=ago))


def test_a_call_that_waits_for_a_worker_loses_no_time(call):
    """An hour without workers ends nothing."""
    assert (call.timeout, call.expires_at) == (timedelta(seconds=60), None)


def test_the_time_begins_with_the_attempt(call, worker):
    """By the database's clock."""
    claim = worker.claim_call()
    assert seconds_of(call) == 60
    assert 59 < lifecycle.seconds_left(claim) <= 60


def test_a_call_that_had_to_wait_for_a_slot_has_its_whole_time_from_then_on(call, worker):
    claim = worker.claim_call()
    end_of_time(call, ago=-5)
    lifecycle.restart_timeout(replace(claim, fence=claim.fence + 1))
    assert lifecycle.seconds_left(claim) <= 5, "the claim of another worker"
    lifecycle.restart_timeout(claim)
    assert 59 < lifecycle.seconds_left(claim) <= 60


def test_each_attempt_has_its_own_time(thread, call, worker):
    """A second one begins anew."""
    lifecycle.retry_tool_call(worker.claim_call(), delay_seconds=60, detail="")
    assert seconds_of(call) is None
    make_due(thread)
    worker.claim_call()
    assert seconds_of(call) == 60


def test_it_can_be_changed_before_the_attempt(thread, call, worker):
    """And begins with it all the same."""
    lifecycle.set_tool_call_timeout(thread, call.tool_call_id, 600)
    assert seconds_of(call) is None
    worker.claim_call()
    assert seconds_of(call) == 600


@pytest.mark.parametrize("seconds", [5, 7200, None])
def test_it_can_be_changed_while_the_call_runs(thread, call, worker, seconds):
    """From now on; None takes the limit away."""
    claim = worker.claim_call()
    lifecycle.set_tool_call_timeout(thread, call.tool_call_id, seconds)
    assert seconds_of(call) == seconds
    assert (lifecycle.seconds_left(claim) is None) == (seconds is None)
    assert lifecycle.overdue_calls([claim]) == set()


def test_a_change_is_news(thread, call, bells, django_capture_on_commit_callbacks):
    """Clients show the time."""
    before = Thread.objects.get(pk=thread.pk).rev
    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.set_tool_call_timeout(thread, call.tool_call_id, 5)
    assert Thread.objects.get(pk=thread.pk).rev == before + 1
    assert bells.browsers == [thread.pk]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 10**12])
def test_a_time_that_is_none_is_refused(thread, call, seconds):
    """Nothing changes."""
    with pytest.raises(ValueError, match="timeout"):
        lifecycle.set_tool_call_timeout(thread, call.tool_call_id, seconds)
    assert seconds_of(call) is None


def test_a_settled_call_has_no_time(thread, call, worker):
    """Its outcome stands."""
    worker.settle()
    with pytest.raises(ToolCallNotPendingError):
        lifecycle.set_tool_call_timeout(thread, call.tool_call_id, 5)


def test_an_unknown_call_has_no_time(agent, thread, call):
    """Nor has one of another thread."""
    other = create_thread(agent)
    for tool_call_id, where in [("call_none", thread), (call.tool_call_id, other)]:
        with pytest.raises(ToolCallNotFoundError):
            lifecycle.set_tool_call_timeout(where, tool_call_id, 5)


def test_a_running_call_whose_time_is_over_is_its_workers_affair_at_first(call, worker):
    """It may try again, as the tool says."""
    claim = worker.claim_call()
    end_of_time(call, ago=1)
    assert lifecycle.overdue_calls([claim]) == {claim.row_id}
    assert lifecycle.expire() == 0


def test_a_running_call_that_its_worker_does_not_end_is_ended(thread, call, worker):
    """The run goes on, and the worker's late result is refused."""
    claim = worker.claim_call()
    end_of_time(call)
    assert lifecycle.expire() == 1
    ended = call_of(claim)
    assert (ended.status, ended.error_code) == ("failed", "timeout")
    assert "may or may not have run" in ended.error
    assert status_of(thread) == "streaming"
    with pytest.raises(LeaseLostError):
        worker.settle(claim=claim)


def test_an_answer_that_nobody_gave_in_time_is_expired(thread, call):
    """A call that waits for somebody outside, not for a worker."""
    ToolCall.objects.filter(pk=call.pk).update(kind="deferred")
    lifecycle.set_tool_call_timeout(thread, call.tool_call_id, 60)
    end_of_time(call, ago=1)
    assert lifecycle.expire() == 1
    call.refresh_from_db()
    assert (call.status, call.error_code) == ("expired", "expired")
    assert status_of(thread) == "streaming"
    assert lifecycle.expire() == 0


def test_a_second_try_is_told_until_the_call_has_its_outcome(thread, call, worker):
    """What failed, when it is tried again, and how often."""
    lifecycle.retry_tool_call(worker.claim_call(), delay_seconds=60, detail="secret")
    told = Thread.objects.get(pk=thread.pk).retry
    assert {key: told[key] for key in ("scope", "attempt", "max_attempts", "kind", "retryable")} == {
        "scope": "tool",
        "attempt": 2,
        "max_attempts": 3,
        "kind": "tool_failed",
        "retryable": True,
    }
    assert "secret" not in str(told)
    call.refresh_from_db()
    assert told["next_retry_at"] == call.available_at.isoformat()
    make_due(thread)
    worker.settle()
    assert Thread.objects.get(pk=thread.pk).retry is None

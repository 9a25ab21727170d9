"""A tool's own changes and its outcome in one transaction: both happen, or neither."""

import pytest
from django.contrib.auth import get_user_model

from durable_agents import create_thread, lifecycle, send_message, stop_thread
from durable_agents.exceptions import LeaseLostError
from durable_agents.lifecycle import CallResult
from durable_agents.models import ToolCall
from tests.lifecycle.stage import call_of, calling, status_of

pytestmark = pytest.mark.django_db
User = get_user_model()


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


@pytest.fixture
def claim(thread, worker):
    """Return the claim of a running call."""
    worker.answer("", calling("plain"))
    return worker.claim_call()


def effect(name="ann"):
    """Do what a tool does."""
    User.objects.create_user(name)
    return CallResult(result=name)


def test_effect_and_outcome_are_stored_together(thread, claim):
    """And the run goes on."""
    lifecycle.run_atomic(claim, effect)
    assert (User.objects.count(), call_of(claim).result, status_of(thread)) == (1, "ann", "streaming")


def test_a_tool_that_raises_leaves_no_effect_and_no_outcome(claim):
    """Its caller decides what follows."""

    def broken():
        effect()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        lifecycle.run_atomic(claim, broken)
    assert (User.objects.count(), call_of(claim).status) == (0, "running")


def test_a_tool_that_was_fenced_out_meanwhile_leaves_no_effect(claim):
    """Somebody else runs it, or it was cancelled."""
    ToolCall.objects.filter(pk=claim.row_id).update(fence=claim.fence + 1)
    with pytest.raises(LeaseLostError):
        lifecycle.run_atomic(claim, effect)
    assert User.objects.count() == 0


def test_a_tool_that_stops_its_own_thread_keeps_its_outcome(thread, claim):
    """It does not fence itself; the run is stopped, and the call has one outcome."""

    def stopping():
        stop_thread(thread)
        return effect()

    lifecycle.run_atomic(claim, stopping)
    assert (status_of(thread), call_of(claim).status, User.objects.count()) == ("stopped", "completed", 1)


def test_a_tool_that_steers_its_own_thread_keeps_its_outcome(thread, claim, worker):
    """The message is in the history of the next step."""

    def steering():
        send_message(thread, "By the way")
        return effect()

    lifecycle.run_atomic(claim, steering)
    worker.answer("Done.")
    assert (status_of(thread), call_of(claim).status) == ("completed", "completed")

"""Each tool call gets exactly one outcome; the last one of a step makes the next step due."""

import pytest

from durable_agents import create_thread, lifecycle
from durable_agents.exceptions import LeaseLostError
from durable_agents.lifecycle import CallResult
from durable_agents.models import Stream, ToolCall, ToolCallStatus
from tests.lifecycle.stage import call_of, calling, make_due, open_stream, status_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(agent, worker):
    """Return a thread whose first step called two tools."""
    made = create_thread(agent, prompt="Hi")
    worker.answer("Let me see.", calling("plain"), calling("again"))
    return made


def test_a_result_is_stored_and_the_lease_ended(thread, worker):
    """Whatever JSON it is."""
    claim = worker.settle({"sky": ["clear", None, 1.5]})
    call = call_of(claim)
    assert (call.status, call.result, call.lease_owner) == ("completed", {"sky": ["clear", None, 1.5]}, "")
    assert call.finished_at is not None


def test_a_null_result_is_a_result(thread, worker):
    """A tool may return None."""
    claim = worker.settle(None)
    assert (call_of(claim).status, call_of(claim).result) == ("completed", None)


def test_an_error_is_stored_in_its_two_texts(thread, worker):
    """One for the model, one for the admin."""
    claim = worker.claim_call()
    failed = CallResult(status=ToolCallStatus.FAILED, error="masked", error_code="tool_failed", error_detail="secret")
    lifecycle.finish_tool_call(claim, failed)
    call = call_of(claim)
    assert (call.status, call.error, call.error_code, call.error_detail) == (
        "failed",
        "masked",
        "tool_failed",
        "secret",
    )


def test_the_thread_waits_until_the_last_call_is_settled(thread, worker):
    """No step begins before."""
    worker.settle()
    assert status_of(thread) == "awaiting_tool_results"
    assert not Stream.objects.open().exists()


def test_the_last_call_makes_exactly_one_step_due(thread, worker):
    """Of the same message."""
    for claim in worker.claim():
        worker.settle(claim=claim)
    first, second = Stream.objects.order_by("number")
    assert (status_of(thread), second.state, second.message_id) == ("streaming", "pending", first.message_id)


def test_a_fenced_out_holder_settles_nothing(thread, worker):
    """Nor does it take back an outcome."""
    claim = worker.claim_call()
    ToolCall.objects.filter(pk=claim.row_id).update(fence=claim.fence + 1)
    with pytest.raises(LeaseLostError):
        worker.settle("late", claim=claim)
    assert (call_of(claim).status, call_of(claim).result) == ("running", None)


def test_a_second_outcome_is_refused(thread, worker):
    """The first one stands."""
    claim = worker.settle("first")
    with pytest.raises(LeaseLostError):
        worker.settle("second", claim=claim)
    assert call_of(claim).result == "first"


def test_a_failed_try_is_due_again_later(thread, worker):
    """Not before its time, and counted."""
    claim = worker.claim_call()
    lifecycle.retry_tool_call(claim, delay_seconds=60, detail="boom")
    call = call_of(claim)
    assert (call.status, call.attempt, call.error_detail, call.lease_owner) == ("pending", 2, "boom", "")
    assert claim.row_id not in {won.row_id for won in worker.claim()}
    make_due(thread)
    assert [won.attempt for won in worker.claim()] == [2]


def test_a_failed_try_is_no_news_to_clients(thread, worker):
    """They see a call that is not finished, before and after."""
    claim = worker.claim_call()
    before = call_of(claim).rev
    lifecycle.retry_tool_call(claim, delay_seconds=60, detail="boom")
    assert call_of(claim).rev == before


def test_a_retry_by_a_fenced_out_holder_is_refused(thread, worker):
    """The row belongs to somebody else."""
    claim = worker.claim_call()
    ToolCall.objects.filter(pk=claim.row_id).update(fence=claim.fence + 1)
    with pytest.raises(LeaseLostError):
        lifecycle.retry_tool_call(claim, delay_seconds=0, detail="boom")


def test_a_result_that_cannot_be_stored_as_it_is_is_cleaned(thread, worker):
    """Tool output is hostile text."""
    claim = worker.settle({"k\x00": ["\ud800"]})
    assert call_of(claim).result == {"k\ufffd": ["\ufffd"]}


def test_the_next_step_is_in_the_pool_of_the_agent(thread, worker):
    """Wherever its tools ran."""
    for claim in worker.claim():
        worker.settle(claim=claim)
    assert open_stream(thread).pool == "agents"

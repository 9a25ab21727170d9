"""A call that needs approval runs when the right person says so, in time, once; the row says who, when and what."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from durable_agents import stop_thread
from durable_agents.exceptions import (
    ApprovalExpiredError,
    InvalidPartsError,
    PermissionDeniedError,
    ToolCallNotFoundError,
    ToolCallNotPendingError,
)
from durable_agents.lifecycle import add_tool_result, approve_tool_call, is_signed, reject_tool_call
from durable_agents.models import ToolCall
from durable_agents.testing import run_until_idle
from tests.lifecycle.stage import status_of
from tests.tools.outcomes import part_of, told

pytestmark = pytest.mark.django_db


def test_a_call_waits_for_a_person(asked, done):
    """Nothing runs meanwhile; clients see the question."""
    thread, call = asked("refund", amount=5)
    assert (call.status, thread.status, done.ran) == ("approval_requested", "awaiting_tool_results", [])
    assert call.approval_requested_at is not None
    part = part_of(call)
    assert (part["state"], part["approval"]) == ("approval-requested", {"id": call.tool_call_id})


def test_an_approved_call_runs_and_the_run_goes_on(asked, done, ada, model):
    """Who, when, why and what stay with the call."""
    thread, call = asked("refund", amount=5)
    approve_tool_call(thread, call.tool_call_id, by=ada, reason="Broken cup.")
    run_until_idle()
    call.refresh_from_db()
    assert (call.status, call.result, done.ran) == ("completed", "refunded 5", [5])
    assert (call.approval_decided_by, call.approval_reason) == (ada, "Broken cup.")
    assert call.approval_decided_at is not None
    assert is_signed(call)
    assert status_of(thread) == "completed"
    assert told(model) == ["refunded 5"]


def test_a_refused_call_does_not_run_and_the_model_is_told_why(asked, done, ada, model):
    """It is no error of the tool's."""
    thread, call = asked("refund", amount=5)
    reject_tool_call(thread, call.tool_call_id, by=ada, reason="Too late.")
    run_until_idle()
    assert done.ran == []
    part = part_of(call)
    assert (part["state"], part["approval"]["approved"]) == ("output-denied", False)
    assert "Too late." in told(model)[0]
    assert status_of(thread) == "completed"


def test_changed_arguments_run_and_are_told(asked, done, ada, model):
    """The model's stay beside them; the digest is of what ran."""
    thread, call = asked("refund", amount=500)
    approve_tool_call(thread, call.tool_call_id, by=ada, arguments={"amount": 50})
    run_until_idle()
    call.refresh_from_db()
    assert (call.arguments, call.approved_arguments, done.ran) == ({"amount": 500}, {"amount": 50}, [50])
    assert is_signed(call)
    assert '{"amount": 50}' in told(model)[0]


def test_changed_arguments_that_do_not_fit_change_nothing(asked, ada):
    """They are a person's mistake, not the model's."""
    thread, call = asked("refund", amount=500)
    with pytest.raises(InvalidPartsError, match="amount"):
        approve_tool_call(thread, call.tool_call_id, by=ada, arguments={"amount": "much"})
    call.refresh_from_db()
    assert (call.status, call.approved_arguments) == ("approval_requested", None)


def test_arguments_altered_after_the_approval_do_not_run(asked, done, ada, model):
    """What was approved is what runs."""
    thread, call = asked("refund", amount=5)
    approve_tool_call(thread, call.tool_call_id, by=ada)
    ToolCall.objects.filter(pk=call.pk).update(arguments={"amount": 5000})
    run_until_idle()
    call.refresh_from_db()
    assert (call.status, done.ran) == ("failed", [])


@pytest.mark.parametrize("decide", [approve_tool_call, reject_tool_call])
def test_a_decision_that_comes_too_late_is_expired_not_denied(asked, done, ada, decide, model):
    """The call has an outcome of its own, and the run goes on."""
    thread, call = asked("refund", amount=5)
    ToolCall.objects.filter(pk=call.pk).update(expires_at=Now() - timedelta(seconds=1))
    with pytest.raises(ApprovalExpiredError):
        decide(thread, call.tool_call_id, by=ada)
    call.refresh_from_db()
    assert (call.status, call.error_code, call.approval_decided_by) == ("expired", "expired", None)
    run_until_idle()
    assert (done.ran, status_of(thread)) == ([], "completed")
    with pytest.raises(ApprovalExpiredError):
        decide(thread, call.tool_call_id, by=ada)


@pytest.mark.parametrize("first", [approve_tool_call, reject_tool_call])
@pytest.mark.parametrize("second", [approve_tool_call, reject_tool_call])
def test_the_first_decision_counts(asked, ada, bob, first, second):
    """The second one is told so."""
    thread, call = asked("refund", amount=5)
    first(thread, call.tool_call_id, by=ada)
    with pytest.raises(ToolCallNotPendingError):
        second(thread, call.tool_call_id, by=bob)
    call.refresh_from_db()
    assert call.approval_decided_by == ada


def test_a_stranger_decides_nothing(asked, django_user_model):
    """Neither the thread's owner nor staff."""
    thread, call = asked("refund", amount=5)
    eve = django_user_model.objects.create(username="eve")
    with pytest.raises(PermissionDeniedError):
        approve_tool_call(thread, call.tool_call_id, by=eve)
    assert part_of(call)["state"] == "approval-requested"


def test_what_staff_has_to_approve_the_owner_cannot(asked, ada, bob):
    """Even in their own thread."""
    thread, call = asked("fire", name="Eve")
    with pytest.raises(PermissionDeniedError):
        approve_tool_call(thread, call.tool_call_id, by=ada)
    assert approve_tool_call(thread, call.tool_call_id, by=bob).status == "pending"


def test_a_function_decides_by_the_arguments(asked, done, model):
    """Small sums run at once, large ones wait."""
    _, small = asked("pay", amount=5)
    _, large = asked("pay", amount=500)
    assert (small.status, large.status, done.ran) == ("completed", "approval_requested", [5])


def test_a_function_that_fails_means_that_approval_is_needed(asked, done):
    """Nothing runs because of a bug."""
    _, call = asked("doubtful")
    assert (call.status, done.ran) == ("approval_requested", [])


def test_a_call_that_waits_for_approval_takes_no_result(asked):
    """The two are not mixed up."""
    thread, call = asked("refund", amount=5)
    with pytest.raises(ToolCallNotPendingError):
        add_tool_result(thread, call.tool_call_id, "refunded")


def test_a_stop_takes_the_question_back(asked, ada):
    """A decision finds nothing to decide."""
    thread, call = asked("refund", amount=5)
    stop_thread(thread)
    assert part_of(call)["state"] == "output-error"
    with pytest.raises(ToolCallNotPendingError):
        approve_tool_call(thread, call.tool_call_id, by=ada)


def test_a_call_of_another_thread_is_not_found(asked, ada):
    """Ids resolve inside their thread only."""
    thread, _ = asked("refund", amount=5)
    _, other = asked("refund", amount=6)
    with pytest.raises(ToolCallNotFoundError):
        approve_tool_call(thread, other.tool_call_id, by=ada)

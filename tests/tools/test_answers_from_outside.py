"""Deferred and client tools: the call waits, its one outcome comes from outside, and the run goes on."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from durable_agents import create_thread, lifecycle, stop_thread
from durable_agents.exceptions import ToolCallNotFoundError, ToolCallNotPendingError
from durable_agents.lifecycle import add_tool_error, add_tool_result
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, crash_at, run_until_idle
from tests.lifecycle.stage import status_of
from tests.tools.outcomes import part_of, told

pytestmark = pytest.mark.django_db
KINDS = pytest.mark.parametrize(
    ("name", "arguments"), [("ask_the_warehouse", {"sku": "a1"}), ("pick_a_date", {"label": "When?"})]
)


def test_a_deferred_tool_is_told_of_the_call_and_the_run_waits(asked, done):
    """The function runs once; its return is no result."""
    thread, call = asked("ask_the_warehouse", sku="a1")
    assert done.ran == [(call.tool_call_id, "a1")]
    assert (call.status, call.lease_owner, call.needs_worker) == ("pending", "", False)
    assert thread.status == "awaiting_tool_results"
    run_until_idle()
    assert len(done.ran) == 1


def test_a_client_tool_waits_for_the_browser(asked):
    """No worker touches it."""
    thread, call = asked("pick_a_date", label="When?")
    assert (call.status, call.kind, call.answered_by) == ("pending", "client", "owner")
    assert call.expires_at is not None
    assert thread.status == "awaiting_tool_results"
    assert part_of(call)["state"] == "input-available"


@KINDS
def test_a_result_ends_the_wait(asked, model, name, arguments):
    """The model is told, and goes on."""
    thread, call = asked(name, **arguments)
    add_tool_result(thread, call.tool_call_id, {"count": 3})
    run_until_idle()
    assert part_of(call)["output"] == {"count": 3}
    assert told(model) == ['{"count": 3}']
    assert status_of(thread) == "completed"


@KINDS
def test_an_error_ends_the_wait_too(asked, model, name, arguments):
    """The model is told so."""
    thread, call = asked(name, **arguments)
    add_tool_error(thread, call.tool_call_id, "Closed.")
    run_until_idle()
    assert part_of(call)["errorText"] == "Closed."
    assert "Closed." in told(model)[0]


@KINDS
def test_the_same_result_again_changes_nothing_and_another_is_refused(asked, name, arguments):
    """A client may send again what it is not sure of."""
    thread, call = asked(name, **arguments)
    first = add_tool_result(thread, call.tool_call_id, [1])
    rev = ToolCall.objects.get(pk=call.pk).rev
    assert add_tool_result(thread, call.tool_call_id, [1]).pk == first.pk
    assert ToolCall.objects.get(pk=call.pk).rev == rev
    for other in (
        lambda: add_tool_result(thread, call.tool_call_id, [2]),
        lambda: add_tool_error(thread, call.tool_call_id, "no"),
    ):
        with pytest.raises(ToolCallNotPendingError):
            other()
    assert part_of(call)["output"] == [1]


@KINDS
def test_nobody_answered_in_time(asked, model, name, arguments):
    """The call is expired, and the run goes on."""
    thread, call = asked(name, **arguments)
    ToolCall.objects.filter(pk=call.pk).update(expires_at=Now() - timedelta(seconds=1))
    assert lifecycle.expire() == 1
    run_until_idle()
    assert part_of(call)["state"] == "output-error"
    assert (call.status, status_of(thread)) == ("expired", "completed")
    with pytest.raises(ToolCallNotPendingError):
        add_tool_result(thread, call.tool_call_id, 1)


@KINDS
def test_a_stop_ends_the_wait(asked, name, arguments):
    """A late result finds nothing to answer."""
    thread, call = asked(name, **arguments)
    stop_thread(thread)
    with pytest.raises(ToolCallNotPendingError):
        add_tool_result(thread, call.tool_call_id, 1)


def test_a_worker_that_dies_while_it_tells_tells_again(agent, done):
    """With the same id, so that the service knows."""
    thread = create_thread(agent, prompt="Please.")
    with ScriptedModel(calls("ask_the_warehouse", sku="a1")):
        with crash_at("tool_ended"):
            run_until_idle()
        run_until_idle()
    call = ToolCall.objects.get(thread=thread)
    assert [first for first, _ in done.ran] == [call.tool_call_id] * 2
    assert (call.status, call.needs_worker, status_of(thread)) == ("pending", False, "awaiting_tool_results")


def test_a_tool_of_a_workers_takes_no_result_from_outside(asked, model):
    """It has its own."""
    thread, call = asked("add", a=2, b=3)
    with pytest.raises(ToolCallNotPendingError):
        add_tool_result(thread, call.tool_call_id, 6)
    with pytest.raises(ToolCallNotFoundError):
        add_tool_result(thread, "call_none", 6)

"""A scripted model can tell the late outcome of a call from a message that a user has written."""

from collections.abc import Iterator
from typing import Any

import pytest

from durable_agents import (
    add_tool_error,
    add_tool_result,
    approve_tool_call,
    create_thread,
    reject_tool_call,
    send_message,
    tool,
)
from durable_agents.llm import ModelRequest
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.testing.shop import opened

pytestmark = pytest.mark.django_db


@tool(needs_approval=True, approved_by="staff")
def refund_order(number: int) -> str:
    """Pay an order back."""
    return f"refunded {number}"


@tool(kind="deferred")
def count(number: int) -> None:
    """Count later."""


@pytest.fixture(autouse=True)
def _agent() -> Iterator[None]:
    with opened(name="support", tools=[refund_order, count]):
        yield


def gone_on(name: str, owner: Any) -> ToolCall:
    """Return an open call of the tool, without which the run has gone on."""
    with ScriptedModel(calls(name, number=7), "It waits.", "It waits.") as model:
        thread = create_thread("support", owner=owner, prompt="Please.")
        run_until_idle()
        assert not model.requests[0].ends_with_late_outcome
        send_message(thread, "[And?]", by=owner)
        run_until_idle()
        assert not model.requests[-1].ends_with_late_outcome
    return ToolCall.objects.select_related("thread").get(thread=thread)


def last_request() -> ModelRequest:
    """Let the model answer once more, and return the last request."""
    with ScriptedModel("Done.") as model:
        run_until_idle()
    return model.requests[-1]


@pytest.fixture
def owner(django_user_model: Any) -> Any:
    """Return a customer."""
    return django_user_model.objects.create(username="ada")


@pytest.mark.parametrize(
    ("decide", "content"),
    [
        (
            lambda call: approve_tool_call(call.thread, call.tool_call_id, by=None),
            '[The call of refund_order that was still open has its result: "refunded 7"]',
        ),
        (
            lambda call: approve_tool_call(call.thread, call.tool_call_id, by=None, arguments={"number": 8}),
            (
                "[The call of refund_order that was still open ran with arguments that a person changed to "
                '{"number": 8}, and has its result: "refunded 8"]'
            ),
        ),
        (
            lambda call: reject_tool_call(call.thread, call.tool_call_id, by=None),
            '[The call of refund_order that was still open failed: "A person refused this call."]',
        ),
    ],
    ids=["approved", "changed", "rejected"],
)
def test_the_late_outcome_of_an_approval_is_recognised(owner, decide, content):
    call = gone_on("refund_order", owner)
    decide(call)
    request = last_request()
    assert request.messages[-1] == {"role": "user", "content": content}
    assert request.ends_with_late_outcome


@pytest.mark.parametrize("add", [add_tool_result, add_tool_error])
def test_the_late_outcome_of_a_deferred_call_is_recognised(owner, add):
    call = gone_on("count", owner)
    add(call.thread, call.tool_call_id, "three")
    assert last_request().ends_with_late_outcome


def test_a_request_without_messages_ends_with_no_outcome():
    assert not ModelRequest(model="openai/x", messages=[]).ends_with_late_outcome

"""A tool whose signature has changed since the model made a call says which arguments do not fit, and does not run."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from durable_agents import (
    Agent,
    InvalidPartsError,
    Retry,
    ToolChangedError,
    approve_tool_call,
    create_thread,
    reject_tool_call,
    tool,
)
from durable_agents.agents import Tool, registry
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.lifecycle.stage import status_of
from tests.tools.outcomes import told

pytestmark = pytest.mark.django_db

CHANGED = "The tool has changed since the call was made, and its arguments do not fit any more."
PROBLEM = "Invalid arguments for pay: currency: Field required"
RAN: list[Any] = []


def new_pay(**options: Any) -> Tool:
    """Return the tool as it is after the deploy."""

    def pay(amount: int, currency: str) -> str:
        """Pay in a currency."""
        RAN.append((amount, currency))
        return f"paid {amount} {currency}"

    return tool(**options)(pay)


OPTIONS = {
    "plain": {"needs_approval": True},
    "atomic": {"needs_approval": True, "atomic": True},
    "deferred": {"needs_approval": True, "kind": "deferred"},
    "client": {"needs_approval": True, "kind": "client"},
    "tried again": {"needs_approval": True, "retry": Retry(max_attempts=3)},
}


@pytest.fixture
def agent() -> Iterator[Agent]:
    """Return an agent without tools."""
    RAN.clear()
    yield Agent("changing", model="openai/x")
    registry.remove("changing")


@pytest.fixture
def asked(agent: Agent) -> Callable[..., ToolCall]:
    """Return a function that lets the model call the tool as it is before the deploy."""

    def asked(**options: Any) -> ToolCall:
        def pay(amount: int) -> str:
            """Pay."""
            raise AssertionError("This is the tool of the release before.")

        agent.tools["pay"] = tool(**options)(pay)
        with ScriptedModel(calls("pay", amount=5)):
            create_thread(agent, prompt="Please.")
            run_until_idle()
        agent.tools["pay"] = new_pay(**options)
        return ToolCall.objects.get()

    return asked


def go_on() -> ScriptedModel:
    """Run on; return what the model was told."""
    with ScriptedModel("I see.") as model:
        run_until_idle()
    return model


@pytest.mark.parametrize("kind", OPTIONS)
def test_an_approval_of_what_does_not_fit_any_more_tells_approver_and_model(asked, kind):
    """Both read which argument; whichever kind of tool, nothing runs."""
    call = asked(**OPTIONS[kind])
    with pytest.raises(ToolChangedError, match=PROBLEM):
        approve_tool_call(call.thread_id, call.tool_call_id, by=None, reason="Fine.")
    assert told(go_on()) == [f"Error: {CHANGED} {PROBLEM}"]
    call.refresh_from_db()
    assert (call.status, call.error_code, call.approval_reason, RAN) == ("failed", "tool_changed", "Fine.", [])
    assert status_of(call.thread) == "completed"


def test_an_approver_may_give_arguments_that_fit(asked):
    """The model's own stay beside them."""
    call = asked(needs_approval=True)
    arguments = {"amount": 5, "currency": "EUR"}
    approve_tool_call(call.thread_id, call.tool_call_id, by=None, arguments=arguments)
    go_on()
    assert RAN == [(5, "EUR")]


def test_given_arguments_that_do_not_fit_are_the_approvers_mistake(asked):
    """The call goes on waiting."""
    call = asked(needs_approval=True)
    with pytest.raises(InvalidPartsError, match="currency"):
        approve_tool_call(call.thread_id, call.tool_call_id, by=None, arguments={"amount": 6})
    call.refresh_from_db()
    assert call.status == "approval_requested"


def test_a_call_that_does_not_fit_any_more_may_be_refused(asked):
    """As any other."""
    call = asked(needs_approval=True)
    assert reject_tool_call(call.thread_id, call.tool_call_id, by=None).status == "denied"


@pytest.mark.parametrize("kind", ["plain", "atomic", "deferred", "tried again"])
def test_a_tool_that_changed_after_the_approval_says_what_does_not_fit(asked, agent, kind):
    """The outcome is the same text, and no other try would help."""
    call = asked(**OPTIONS[kind])
    arguments = {"amount": 5, "currency": "EUR"}
    approve_tool_call(call.thread_id, call.tool_call_id, by=None, arguments=arguments)

    def pay(cents: int) -> str:
        """Pay."""
        raise AssertionError("Nothing fits it.")

    agent.tools["pay"] = tool(**OPTIONS[kind])(pay)
    [text] = told(go_on())
    call.refresh_from_db()
    assert (call.status, call.error_code, call.attempt) == ("failed", "tool_changed", 1)
    assert text == f"Error: {call.error}"
    for name in ("amount", "currency", "cents"):
        assert f"{name}: " in text


def test_a_call_that_waits_for_another_try_says_what_does_not_fit(agent):
    """It needed no approval, and ran once."""

    def pay(amount: int) -> str:
        """Pay, and deploy."""
        agent.tools["pay"] = new_pay(retry=Retry(max_attempts=3))
        raise ConnectionError

    agent.tools["pay"] = tool(retry=Retry(max_attempts=3))(pay)
    with ScriptedModel(calls("pay", amount=5), "I see.") as model:
        create_thread(agent, prompt="Please.")
        run_until_idle()
    assert (told(model), RAN) == ([f"Error: {CHANGED} {PROBLEM}"], [])

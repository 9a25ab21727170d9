"""``configure`` gives a thread its tools: one that it has left out since a call was made does not run any more."""

from collections.abc import Iterator
from typing import Any

import pytest

from durable_agents import (
    Agent,
    Retry,
    ToolContext,
    add_tool_result,
    approve_tool_call,
    create_thread,
    resume_thread,
    tool,
)
from durable_agents.agents import registry
from durable_agents.exceptions import ToolCallNotPendingError
from durable_agents.models import Thread, ToolCall
from durable_agents.testing import ScriptedModel, SimulatedCrash, calls, crash_at, run_until_idle
from tests.lifecycle.stage import status_of
from tests.tools.outcomes import told

pytestmark = pytest.mark.django_db

GONE = "Error: The tool is not available any more."
RAN: list[str] = []


@tool(needs_approval=True)
def refund(amount: int) -> str:
    """Pay back."""
    RAN.append("refund")
    return "refunded"


@tool(needs_approval=True, kind="client")
def pick(label: str) -> str:
    """Let the user pick."""
    raise AssertionError("The browser runs this.")


@tool(needs_approval=True, kind="deferred")
def ask(ctx: ToolContext, sku: str) -> None:
    """Ask the warehouse."""
    RAN.append("ask")


@tool(needs_approval=True, atomic=True)
def book(amount: int) -> str:
    """Book."""
    RAN.append("book")
    return "booked"


@tool(retry=Retry(max_attempts=3, initial_delay_seconds=60), after_crash="retry")
def charge(amount: int) -> str:
    """Charge, and lose the right to."""
    RAN.append("charge")
    leave_out("charge")
    if amount > 0:
        raise ConnectionError
    return "charged"


TOOLS = {item.name: item for item in (refund, pick, ask, book, charge)}
ARGUMENTS: dict[str, dict[str, Any]] = {"pick": {"label": "Day"}, "ask": {"sku": "7"}}


def leave_out(name: str) -> None:
    """From now on ``configure`` gives all tools but this one."""
    Thread.objects.update(metadata={"without": name})


def by_metadata(thread: Thread) -> dict[str, Any]:
    """Give all tools but the one that the thread is to have no more."""
    if thread.metadata.get("without") == "fails":
        raise ValueError("no such plan")
    if thread.metadata.get("without") == "all":
        return {}
    return {"tools": [item for name, item in TOOLS.items() if name != thread.metadata.get("without")]}


@pytest.fixture(autouse=True)
def _agent() -> Iterator[None]:
    RAN.clear()
    for item in TOOLS.values():  # the last one of a name counts, of whichever test
        registry.add_tool(item)
    Agent("configured", model="openai/x", configure=by_metadata)
    yield
    registry.remove("configured")


def asked(name: str) -> ToolCall:
    """Let the model make a call, which waits for approval."""
    with ScriptedModel(calls(name, **ARGUMENTS.get(name, {"amount": 5}))):
        create_thread("configured", prompt="Please.")
        run_until_idle()
    return ToolCall.objects.get()


def approve(call: ToolCall) -> ScriptedModel:
    """Approve the call, and run on; return what the model was told."""
    with ScriptedModel("I see.") as model:
        approve_tool_call(call.thread_id, call.tool_call_id, by=None)
        run_until_idle()
    call.refresh_from_db()
    return model


@pytest.mark.parametrize("name", ["refund", "book", "ask", "pick"])
@pytest.mark.parametrize("without", ["the tool", "all"])
def test_an_approved_call_of_a_tool_left_out_since_does_not_run(name, without):
    """The model and the approver are told; sync, atomic, deferred and client tools alike."""
    call = asked(name)
    leave_out(name if without == "the tool" else without)
    model = approve(call)
    assert (call.status, call.error_code, RAN) == ("failed", "tool_not_available", [])
    assert told(model) == [GONE]
    assert status_of(call.thread) == "completed"


def test_a_tool_left_out_after_the_approval_does_not_run():
    """What counts is when it runs."""
    call = asked("refund")
    approve_tool_call(call.thread_id, call.tool_call_id, by=None)
    leave_out("refund")
    with ScriptedModel("I see.") as model:
        run_until_idle()
    assert (RAN, told(model)) == ([], [GONE])


def test_a_call_that_is_tried_again_is_looked_at_again():
    """Its first try took the tool away."""
    with ScriptedModel(calls("charge", amount=5), "I see.") as model:
        create_thread("configured", prompt="Please.")
        run_until_idle()
    assert (RAN, told(model)) == (["charge"], [GONE])


def test_a_call_whose_worker_died_is_looked_at_again():
    """After the crash it would run once more."""
    with ScriptedModel(calls("charge", amount=0), "I see.") as model:
        create_thread("configured", prompt="Please.")
        with crash_at("tool_ended"), pytest.raises(SimulatedCrash):
            run_until_idle()
        run_until_idle()
    assert (RAN, told(model)) == (["charge"], [GONE])


def test_a_configure_that_fails_lets_nothing_run():
    """Nobody can say whether the tool is left; the run ends as it does before a model call."""
    call = asked("refund")
    leave_out("fails")
    with ScriptedModel("I see."):
        approve_tool_call(call.thread_id, call.tool_call_id, by=None)
        run_until_idle()
    call.refresh_from_db()
    assert (call.status, call.error, RAN) == ("failed", "The tool failed.", [])
    assert "no such plan" in call.error_detail
    leave_out("")
    with ScriptedModel("I see.") as model:
        resume_thread(call.thread_id)
        run_until_idle()
    assert told(model) == ["Error: The tool failed."]


@pytest.mark.parametrize("name", ["refund", "book", "ask"])
def test_an_approved_call_of_a_tool_that_is_left_runs(name):
    """As it did."""
    call = asked(name)
    approve(call)
    assert [name] == RAN


def test_an_approved_client_call_of_a_tool_that_is_left_waits_for_the_browser():
    """Its function is never called."""
    call = asked("pick")
    approve_tool_call(call.thread_id, call.tool_call_id, by=None)
    run_until_idle()
    call.refresh_from_db()
    assert (call.status, call.needs_worker, call.finished_at) == ("pending", False, None)
    assert call.expires_at is not None
    with ScriptedModel("Monday it is.") as model:
        add_tool_result(call.thread_id, call.tool_call_id, "Monday")
        run_until_idle()
    assert told(model) == ["Monday"]


def test_an_approved_client_call_survives_the_worker_that_looked_at_it():
    """It has not run."""
    call = asked("pick")
    approve_tool_call(call.thread_id, call.tool_call_id, by=None)
    with crash_at("claimed"), pytest.raises(SimulatedCrash):
        run_until_idle()
    run_until_idle()
    call.refresh_from_db()
    assert (call.status, call.needs_worker) == ("pending", False)


def test_a_call_of_a_tool_that_is_of_another_kind_by_now_does_not_run(monkeypatch):
    """The browser was to run it; the server's function of that name is another thing."""
    call = asked("pick")
    approve_tool_call(call.thread_id, call.tool_call_id, by=None)

    @tool(name="pick")
    def on_the_server(label: str) -> str:
        """Pick."""
        RAN.append("pick")
        return "picked"

    monkeypatch.setitem(TOOLS, "pick", on_the_server)
    with ScriptedModel("I see.") as model:
        run_until_idle()
    assert (RAN, told(model)) == ([], [GONE])
    with pytest.raises(ToolCallNotPendingError):
        add_tool_result(call.thread_id, call.tool_call_id, "Monday")

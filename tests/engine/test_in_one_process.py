"""A worker that runs in the process of the test, with its own loop, lanes and threads, but without a cluster."""

import time

from durable_agents import Retry, ToolContext, create_thread, stop_thread, tool
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, fails
from tests.testing.shop import opened


@tool
def add_one(ctx: ToolContext, number: int) -> int:
    """Report progress, and run until it is stored."""
    ctx.report({"done": False})
    ctx.report({"done": True})
    while not ToolCall.objects.filter(tool_call_id=ctx.tool_call_id, progress={"done": True}).exists():
        time.sleep(0.01)
    return number + 1


@tool
async def double(number: int) -> int:
    """Run on the worker's event loop."""
    return 2 * number


@tool(atomic=True)
def stop_here(ctx: ToolContext) -> str:
    """Stop the run from inside the transaction of this call."""
    stop_thread(ctx.thread_id)
    return "stopped"


def test_work_runs_steps_tools_retries_and_callbacks_until_nothing_is_due(worker):
    turns = []
    retry = Retry(initial_delay_seconds=0.01, jitter=False)
    with (
        opened(name="adder", tools=[add_one, double], retry=retry, on_turn_complete=lambda **turn: turns.append(turn)),
        ScriptedModel([calls("add_one", number=1), calls("double", number=2)], fails("network"), "Done."),
    ):
        thread = create_thread("adder", prompt="Go.")
        worker.work(slot=0)
    thread.refresh_from_db()
    assert thread.status == "completed"
    assert dict(ToolCall.objects.values_list("tool_name", "result")) == {"add_one": 2, "double": 4}
    assert [turn["thread_id"] for turn in turns] == [thread.pk]
    assert not worker.held
    assert not worker.is_working


def test_atomic_tool_that_stops_its_own_thread_keeps_its_outcome(worker):
    with opened(name="stopper", tools=[stop_here]), ScriptedModel(calls("stop_here")):
        thread = create_thread("stopper", prompt="Stop.")
        worker.work(slot=0)
    thread.refresh_from_db()
    assert thread.status == "stopped"
    assert ToolCall.objects.values_list("status", "result").get() == ("completed", "stopped")

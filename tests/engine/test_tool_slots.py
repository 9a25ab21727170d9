"""How many tool calls run at once in a process, and how many more it may hold."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from uuid import uuid4

from durable_agents import create_thread, lifecycle, tool
from durable_agents.calls_not_begun_files import ROOM, CallsNotBegun, calls_not_begun
from durable_agents.engine import tool_slots
from durable_agents.engine.tool_slots import MOST_WAITING, ToolSlots
from durable_agents.lifecycle import Claim
from durable_agents.testing import ScriptedModel, calls
from tests.testing.shop import opened


def claim() -> Claim:
    """Return the claim on a call."""
    return Claim(kind="tool", row_id=uuid4(), thread_id=uuid4(), fence=1, attempt=1, crashes=0, agent="shop")


async def run(slots: ToolSlots, name: str, seconds: float) -> None:
    """Run a call in a slot."""
    item = claim()
    assert await slots.take(item, name)
    await asyncio.sleep(seconds)
    slots.free(item)


async def test_calls_that_wait_get_slots_in_their_order():
    slots, order = ToolSlots(lambda: 2), []

    async def call(number: int) -> None:
        item = claim()
        assert await slots.take(item, "search")
        order.append(number)
        await asyncio.sleep(0)
        slots.free(item)

    await asyncio.gather(*[call(number) for number in range(20)])
    assert order == list(range(20))


async def test_a_call_that_is_cancelled_while_it_waits_takes_no_slot():
    slots, first = ToolSlots(lambda: 1), claim()
    assert await slots.take(first, "search")
    waiting = asyncio.create_task(slots.take(claim(), "search"))
    await asyncio.sleep(0)
    waiting.cancel()
    slots.free(first)
    await asyncio.wait_for(run(slots, "search", 0), 0.5)


async def test_a_call_waits_for_a_slot_only_so_long(monkeypatch):
    monkeypatch.setattr(tool_slots, "PATIENCE_SECONDS", 0.01)
    slots = ToolSlots(lambda: 1)
    first, late = claim(), claim()
    assert await slots.take(first, "search")
    assert not await slots.take(late, "search")
    slots.free(late)
    slots.free(first)
    assert await slots.take(claim(), "search")


async def test_a_process_holds_more_calls_than_it_has_slots_only_if_its_tools_are_fast():
    slots = ToolSlots(lambda: 8)
    assert slots.capacity() == slots.capacity([("shop", "fast")]) == 8, "of unknown tools"
    await run(slots, "fast", 0)
    assert slots.capacity([("shop", "fast")]) == slots.capacity() == 8 + MOST_WAITING
    await run(slots, "slow", 0.2)
    assert 8 + 8 <= slots.capacity([("shop", "slow")]) <= 8 + 10, "a quarter of a second of waiting"
    assert slots.capacity([("shop", "fast"), ("shop", "slow")]) == slots.capacity([("shop", "slow")])
    assert slots.capacity([("shop", "fast")]) == 8 + MOST_WAITING
    running = claim()
    await slots.take(running, "slow")
    assert slots.capacity([("shop", "fast")]) <= 8 + 10, "while a slow call runs"


async def test_a_fast_tool_that_becomes_slow_counts_as_slow_while_it_runs(monkeypatch):
    slots = ToolSlots(lambda: 8)
    await run(slots, "fast", 0)
    await slots.take(claim(), "fast")
    later = time.monotonic() + 5
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert slots.capacity([("shop", "fast")]) == 8


def test_what_a_process_had_not_begun_is_known_after_it_was_killed():
    held = [str(uuid4()) for _ in range(5)]
    script = (
        "import sys, time, uuid\n"
        "from durable_agents.calls_not_begun_files import CallsNotBegun\n"
        "calls = CallsNotBegun(sys.argv[1])\n"
        "ids = [uuid.UUID(text) for text in sys.argv[2:]]\n"
        "for call in ids: calls.add(call)\n"
        "for call in ids[:2]: calls.remove(call)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = f"test:{uuid4()}"
    process = subprocess.Popen([sys.executable, "-c", script, holder, *held], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert {str(call) for call in calls_not_begun(holder)} == set(held[2:])
    assert not calls_not_begun("another")


def test_calls_for_which_the_file_has_no_room_count_as_begun():
    holder = f"test:{uuid4()}"
    journal, ids = CallsNotBegun(holder), [uuid4() for _ in range(ROOM + 10)]
    for call in ids:
        journal.add(call)
    assert calls_not_begun(holder) == set(ids[:ROOM])
    for call in ids:
        journal.remove(call)
    assert not calls_not_begun(holder)


@tool
def plain() -> str:
    """Run once."""
    return "done"


def test_a_rolled_back_transaction_leaves_no_call_in_the_file(worker, monkeypatch):
    written, end_in_one = [], lifecycle.together._end_in_one

    def failing(endings, hand_over):
        results = end_in_one(endings, hand_over)
        if hand_over is not None and hand_over.calls and not written:
            written.extend(hand_over.calls)
            raise RuntimeError("after the transaction, as far as the engine can tell")
        return results

    monkeypatch.setattr(lifecycle.together, "_end_in_one", failing)
    with opened(name="roller", tools=[plain]), ScriptedModel(calls("plain"), "Done.", repeat_last=True):
        create_thread("roller", prompt="Go.")
        worker.work(slot=0)
    assert written
    assert not calls_not_begun(worker.claimer._holder)

"""Functions that let out what only the event loop should raise: the row ends as with any other error, and no other
row notices."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

from durable_agents import create_thread, delete_thread, lifecycle, tool
from durable_agents.engine import model_step, process
from durable_agents.engine.held import HeldRows
from durable_agents.engine.worker import Worker as EngineWorker
from durable_agents.lifecycle import Claim, recovery
from durable_agents.lifecycle.sqlite_queue import turn
from durable_agents.models import Stream, ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.lifecycle.stage import Worker, status_of
from tests.testing.shop import opened

OPEN_FILES = Path("/proc/self/fd")


@tool
async def wait_for_somebody() -> str:
    """Wait for a task that somebody else has cancelled."""
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task
    return "never"


async def lost(thread):
    """Fail as a function does whose own task was cancelled."""
    raise asyncio.CancelledError


@pytest.mark.django_db
def test_a_cancellation_of_a_tools_own_is_the_tools_error():
    """The model is told, and the run goes on."""
    with opened(name="strange", tools=[wait_for_somebody]), ScriptedModel(calls("wait_for_somebody"), "I see."):
        thread = create_thread("strange", prompt="Go.")
        run_until_idle()
    call = ToolCall.objects.get()
    assert (call.status, call.error, status_of(thread)) == ("failed", "The tool failed.", "completed")


@pytest.mark.django_db
def test_a_cancellation_out_of_a_function_of_the_agent_fails_the_step():
    """Visibly, instead of holding its row for ever."""
    with opened(name="strange", instructions=lost), ScriptedModel("Hello."):
        thread = create_thread("strange", prompt="Go.")
        run_until_idle()
    assert status_of(thread) == "failed"
    assert "CancelledError" in Stream.objects.get().error_detail


@pytest.fixture
def worker():
    """Return a worker that serves nobody."""
    worker = EngineWorker("default")
    yield worker
    worker.runtime.loop.close()


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, SystemExit, StopIteration])
def test_what_a_thread_raises_arrives(worker, error):
    """As an ordinary error: a future that is never settled would hold its row for ever."""

    def fail():
        raise error

    with pytest.raises(RuntimeError, match=error.__name__):
        worker.runtime.loop.run_until_complete(asyncio.wait_for(worker.runtime.in_thread(fail), 10))


def test_threads_that_were_left_behind_leave_no_less_than_nothing(worker):
    """Also those of functions that never had a tool's slot."""
    gate = threading.Event()

    async def give_up():
        calls = [asyncio.ensure_future(worker.runtime.in_thread(gate.wait)) for _ in range(20)]
        await asyncio.wait(calls, timeout=0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)

    worker.runtime.loop.run_until_complete(give_up())
    assert worker.runtime.hung_threads() == 20
    assert worker.claimer.free_slots()[1] == 0
    gate.set()


async def test_the_end_of_a_calls_time_can_be_waited_for_again():
    """It may have been put off meanwhile."""
    held = HeldRows(on_slot_freed=lambda: None)
    claim = Claim(kind="tool", row_id=uuid4(), thread_id=uuid4(), fence=1, attempt=1, crashes=0, agent="a")
    held.add(claim, task=None)
    for _ in range(2):
        waiting = asyncio.ensure_future(held.overdue(claim))
        done, _ = await asyncio.wait({waiting}, timeout=0)
        assert not done
        held.mark_overdue({claim.row_id})
        await asyncio.wait_for(waiting, 10)


@pytest.mark.django_db
def test_a_thread_that_is_deleted_while_its_step_is_read_harms_no_other(monkeypatch):
    """Steps are read together, and the functions of the agents want the threads."""
    with opened(name="curious", instructions=lambda thread: "Be brief."):
        gone, there = (create_thread("curious", prompt="Hi.") for _ in range(2))
        claims = Worker(agents=("curious",)).claim(tools=0)
        read = model_step.histories

        def and_delete(*args, **facts):
            found = read(*args, **facts)
            delete_thread(gone)
            return found

        monkeypatch.setattr(model_step, "histories", and_delete)
        jobs = model_step._load_steps(claims)
    assert [job.thread for job in jobs.values()] == [there]


@pytest.mark.django_db
def test_a_row_that_cannot_be_read_keeps_no_other_from_being_reaped(monkeypatch):
    """Its deltas may be broken, or the project's own code."""
    with opened(name="plain"):
        for _ in range(3):
            create_thread("plain", prompt="Hi.")
        claims = Worker(agents=("plain",)).claim(tools=0)
        broken = claims[0].row_id

        def may_go_on(row):
            if row.pk == broken:
                raise KeyError("type")
            return False

        monkeypatch.setattr(recovery, "_may_go_on", may_go_on)
        assert lifecycle.reap(lambda holder: True) == 2
    assert Stream.objects.get(pk=broken).state == "streaming"


@pytest.mark.django_db
def test_a_stage_of_the_sweep_that_fails_keeps_none_of_the_others_from_its_work(monkeypatch):
    """And the sweep says that it failed."""
    done = []
    for name in ("reap", "settle_unknown_code", "prune"):
        monkeypatch.setattr(lifecycle, name, lambda *_, name=name: done.append(name))
    monkeypatch.setattr(lifecycle, "expire", lambda: 1 / 0)
    monkeypatch.setattr(process, "_notify_for_due", lambda: done.append("notify"))
    with pytest.raises(ZeroDivisionError):
        process.sweep()
    assert done == ["reap", "settle_unknown_code", "prune", "notify"]


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="counts what Linux lists")
def test_threads_that_end_leave_no_open_files_behind(tmp_path):
    """A web server has one for each request, and each wrote something."""
    database = SimpleNamespace(
        vendor="sqlite",
        in_atomic_block=False,
        is_in_memory_db=lambda: False,
        settings_dict={"NAME": str(tmp_path / "db.sqlite3")},
    )

    def write():
        with turn(database):
            pass

    before = len(list(OPEN_FILES.iterdir()))
    for _ in range(50):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(list(OPEN_FILES.iterdir())) <= before + 2

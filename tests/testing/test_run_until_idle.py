"""`run_until_idle` does what a worker does, in the test's thread and transaction, and ends by itself."""

import asyncio
import threading

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from django_q.models import OrmQ

from durable_agents import Retry, create_thread, send_message, tool
from durable_agents.engine.claiming import Claimer
from durable_agents.lifecycle import claim
from durable_agents.models import Stream, ToolCall
from durable_agents.testing import (
    NotIdleError,
    ScriptedModel,
    arun_until_idle,
    calls,
    crash_at,
    does,
    fails,
    run_until_idle,
)
from tests.project.models import Booking
from tests.testing.shop import open_shop, opened

HELD = {"pools": ["agents", "tools"], "holder": "boot:1:2:3", "streams": 1, "tools": 1}


@pytest.mark.django_db
def test_nothing_to_do_is_done_at_once():
    """Without a model."""
    ran = run_until_idle()
    assert (list(ran.trace), ran.skipped_seconds, ran.model_calls, ran.tool_calls) == ([], 0, 0, 0)


@pytest.mark.django_db
def test_many_threads_are_served(shop):
    """All that are due, more than one claim takes."""
    with ScriptedModel(lambda request: request.messages[-1]["content"], repeat_last=True):
        threads = [create_thread("shop", prompt=f"Number {number}.") for number in range(20)]
        ran = run_until_idle()
    assert ran.model_calls == 20
    for thread in threads:
        thread.refresh_from_db()
    assert {thread.status for thread in threads} == {"completed"}


@pytest.mark.django_db
def test_a_run_leaves_no_thread_behind(shop):
    """A project's suite has thousands of them."""
    before = set(threading.enumerate())
    with ScriptedModel(calls("add", a=1, b=1), "Two.", repeat_last=True):
        for _ in range(3):
            create_thread("shop", prompt="Go.")
            run_until_idle()
    assert {thread.name for thread in set(threading.enumerate()) - before if "durable" in thread.name} == set()


@pytest.mark.django_db
def test_what_falls_due_between_two_looks_is_run(monkeypatch):
    """A wait of milliseconds may be over before anybody could skip it."""
    look = Claimer.claim_due

    async def look_and_doze(claimer):
        won = await look(claimer)
        await asyncio.sleep(0 if won else 0.05)
        return won

    monkeypatch.setattr(Claimer, "claim_due", look_and_doze)
    with opened(name="hasty", retry=Retry(initial_delay_seconds=0.03, jitter=False)):
        thread = create_thread("hasty", prompt="Go.")
        with ScriptedModel(fails("network"), "Hello."):
            run_until_idle()
        thread.refresh_from_db()
        assert thread.status == "completed"


@pytest.mark.django_db
def test_sync_code_runs_in_the_thread_of_the_test(shop):
    """Tools, instructions and functions of a script."""
    seen = []

    def instructions(thread):
        seen.append(threading.current_thread())
        return f"You serve {thread.agent}."

    with (
        opened(name="other", instructions=instructions),
        ScriptedModel(
            [calls("book", name="Ada"), does(lambda: seen.append(threading.current_thread()))], "Done."
        ) as model,
    ):
        create_thread("other", prompt="Hi.")
        run_until_idle()
    assert set(seen) == {threading.current_thread()}
    assert model.requests[0].messages[0]["content"] == "You serve other."


@pytest.mark.django_db
def test_a_loop_without_end_is_an_error_that_names_the_thread(shop):
    """Not a test that hangs."""
    with ScriptedModel(calls("add", a=1, b=1), repeat_last=True):
        thread = create_thread("shop", prompt="Go.")
        with pytest.raises(NotIdleError, match=rf"After 7 .* thread {thread.pk} of agent 'shop'"):
            run_until_idle(max_steps=7)


@pytest.mark.django_db
def test_a_statement_that_fails_in_a_tool_leaves_the_transaction_usable(shop):
    """As in production, where it runs outside one."""
    with ScriptedModel(calls("break_the_database"), "I see.") as model:
        thread = create_thread("shop", prompt="Go.")
        run_until_idle()
    assert model.requests[-1].messages[-1]["content"] == "Error: The tool failed."
    thread.refresh_from_db()
    assert thread.status == "completed"


@pytest.mark.django_db
def test_what_waits_for_a_commit_is_done_when_a_worker_would_commit():
    """Within the transaction of a test, too; not where a crash rolls back, and not once more in the end."""
    done = []

    @tool(atomic=True)
    def order() -> str:
        """Order, and tell somebody once that is certain."""
        transaction.on_commit(lambda: done.append("told"))
        assert done == []
        return "ordered"

    before = len(connection.run_on_commit)
    with opened(tools=[order]), ScriptedModel(calls("order"), lambda request: f"Told: {len(done)}."):
        thread = create_thread("shop", prompt="Order.")
        waiting = len(connection.run_on_commit)
        with crash_at("atomic_settled"):
            run_until_idle()
        assert done == []
        run_until_idle()
    assert done == ["told"]
    assert Stream.objects.filter(thread=thread, text="Told: 1.").exists()
    assert before <= waiting == len(connection.run_on_commit)


@pytest.mark.django_db
def test_a_tool_that_stops_its_own_run_ends_it(shop):
    """Its late outcome changes nothing."""
    with ScriptedModel(calls("stop")) as model:
        thread = create_thread("shop", prompt="Stop.")
        run_until_idle()
    thread.refresh_from_db()
    assert (thread.status, ToolCall.objects.get(thread=thread).status) == ("stopped", "cancelled")
    assert len(model.requests) == 1


@pytest.mark.django_db
def test_retries_are_brought_forward_one_after_the_other(shop):
    """The order in which they would have come is kept."""
    with ScriptedModel(fails(retry_after_seconds=200), fails(retry_after_seconds=100), "Second.", "First.") as model:
        first = create_thread("shop", prompt="One.")
        second = create_thread("shop", prompt="Two.")
        ran = run_until_idle()
    asked = [request.messages[-1]["content"] for request in model.requests]
    by_first = asked[0]
    assert asked[2:] == [{"One.": "Two.", "Two.": "One."}[by_first], by_first]
    assert ran.skipped_seconds > 100
    for thread in (first, second):
        thread.refresh_from_db()
        assert thread.status == "completed"


@pytest.mark.django_db
def test_rows_that_the_test_holds_itself_are_left_alone(shop):
    """A worker played by hand is no dead worker."""
    with ScriptedModel(calls("add", a=1, b=1), "Two.") as model:
        create_thread("shop", prompt="Go.")
        [mine] = claim(**HELD, code={"shop": ["add"]})
        assert list(run_until_idle().trace) == []
    assert (mine.kind, model.requests) == ("stream", [])
    assert Stream.objects.get(pk=mine.row_id).lease_owner == "boot:1:2:3"


@pytest.mark.django_db
def test_a_run_within_a_run_is_refused(shop):
    """A script or a tool cannot start another worker here."""
    with ScriptedModel(does(run_until_idle)):
        create_thread("shop", prompt="Go.")
        with pytest.raises(RuntimeError, match="already running"):
            run_until_idle()


async def test_a_running_loop_is_told_of_the_coroutine():
    """Instead of an error from the depths."""
    with pytest.raises(TypeError, match="await arun_until_idle"):
        run_until_idle()


class AsyncTests(TestCase):
    """Tests that are coroutines."""

    async def test_an_async_test_awaits_its_twin(self):
        """On the test's connection, too."""
        open_shop(self)
        with ScriptedModel([calls("weather", city="Oslo"), calls("book", name="Ada")], "Done.") as model:
            await sync_to_async(create_thread)("shop", prompt="Hi.")
            ran = await arun_until_idle()
        assert ran.tool_calls == 2
        assert len(model.requests) == 2
        assert await Booking.objects.acount() == 1


class CommittedTests(TransactionTestCase):
    """Tests whose transactions commit."""

    def test_notifications_are_not_sent(self):
        """Nobody waits for a broker, and no task is left in its queue."""
        open_shop(self)
        with ScriptedModel(calls("book", name="Ada"), "Done.", "Again.") as model:
            thread = create_thread("shop", prompt="Hi.")
            run_until_idle()
            with transaction.atomic():
                send_message(thread, "And again.")
            run_until_idle()
        assert len(model.requests) == 3
        assert OrmQ.objects.count() == 0
        assert Booking.objects.count() == 1
        assert not connection.in_atomic_block

"""Callbacks after a commit: each at its moment, in order, at most once; they break nothing and hold nothing up."""

import logging
import threading
from decimal import Decimal

import pytest
from django.db import transaction

from durable_agents import Fail, Retry, create_thread, send_message, stop_thread
from durable_agents.callbacks import DueCallback, deliver, in_own_thread, run_through
from durable_agents.llm import ModelUsage
from durable_agents.models import Stream, Thread, ThreadStatus
from durable_agents.testing import ScriptedModel, calls, crash_at, does, ends, fails, run_until_idle, says
from durable_agents.testing.crashes import SimulatedCrash
from tests.lifecycle.stage import Worker
from tests.project.models import Booking

pytestmark = pytest.mark.django_db


class Listener:
    """An agent's callbacks that note what they are told."""

    def __init__(self):
        self.heard = []

    def callbacks(self):
        """All of those that run after the commit."""
        names = ["on_message_complete", "on_turn_complete", "on_error", "on_retry"]
        return {name: self._hearing(name) for name in names}

    def _hearing(self, name):
        return lambda **facts: self.heard.append((name, facts))

    @property
    def names(self):
        """In order."""
        return [name for name, _ in self.heard]

    def facts(self, name):
        """What one of them was told, each time."""
        return [facts for heard, facts in self.heard if heard == name]


@pytest.fixture
def listener():
    return Listener()


def ran(*answers, agent="shop"):
    """Run a thread to its rest and return it."""
    with ScriptedModel(*answers):
        thread = create_thread(agent, prompt="Hello.")
        run_until_idle()
    thread.refresh_from_db()
    return thread


def test_each_step_completes_its_message_and_the_last_one_the_turn(shop, listener):
    """With the message as clients see it, what the step has used, and how it ended."""
    shop(**listener.callbacks())
    usage = ModelUsage(input_tokens=7, output_tokens=3, cached_input_tokens=2, cost=Decimal("0.5"))
    thread = ran([says("Let me add."), calls("add", a=1, b=1)], ["Two.", ends("length", usage=usage)])
    assert listener.names == ["on_message_complete", "on_message_complete", "on_turn_complete"]
    first, last = listener.facts("on_message_complete")
    streams = list(Stream.objects.filter(thread=thread).order_by("number"))
    assert [first["stream_id"], last["stream_id"]] == [stream.pk for stream in streams]
    assert first["thread_id"] == last["thread_id"] == thread.pk
    assert [part["type"] for part in first["message"]["parts"]] == ["step-start", "text", "tool-add"]
    assert [part.get("text") for part in last["message"]["parts"]][-1] == "Two."
    assert first["message"]["id"] == last["message"]["id"]
    assert last["usage"] == {
        "input_tokens": 7,
        "output_tokens": 3,
        "cached_input_tokens": 2,
        "total_tokens": 10,
        "cost": Decimal("0.5"),
    }
    [turn] = listener.facts("on_turn_complete")
    facts = {"thread_id": thread.pk, "stream_id": streams[1].pk, "finish_reason": "length", "provider_metadata": {}}
    assert turn == facts


def test_a_retry_is_told_with_what_follows(shop, listener):
    """The number is that of the attempt that failed, the error is the raw one: this is the developer's own code."""
    shop(**listener.callbacks(), retry=Retry(max_attempts=3, initial_delay_seconds=2, jitter=False))
    thread = ran(fails("rate_limited", "slow down"), fails("network", "cut"), "Hi.")
    assert listener.names == ["on_retry", "on_retry", "on_message_complete", "on_turn_complete"]
    first, second = listener.facts("on_retry")
    assert first == {
        "thread_id": thread.pk,
        "stream_id": Stream.objects.get(thread=thread, attempt=1).pk,
        "scope": "step",
        "attempt": 1,
        "max_attempts": 3,
        "delay_seconds": 2.0,
        "kind": "rate_limited",
        "error": "slow down",
    }
    assert (second["attempt"], second["delay_seconds"], second["kind"]) == (2, 4.0, "network")


def test_a_retry_of_a_tool_is_told_with_its_scope(shop, listener):
    """Which of the calls it was, the thread's rows say."""
    shop(**listener.callbacks())
    thread = ran(calls("flaky"), "Done.")
    first, second = listener.facts("on_retry")
    assert first.pop("delay_seconds") >= 15
    assert first == {
        "thread_id": thread.pk,
        "stream_id": Stream.objects.get(thread=thread, number=1).pk,
        "scope": "tool",
        "attempt": 1,
        "max_attempts": 3,
        "kind": "tool_failed",
        "error": "BusyError: ",
    }
    assert second["attempt"] == 2


@pytest.mark.parametrize(
    ("kind", "retryable", "needs_handling"),
    [
        ("provider_5xx", True, False),
        ("auth", False, True),
        ("context_window_exceeded", False, True),
        ("insufficient_credits", False, True),
        ("unknown", False, False),
    ],
)
def test_an_error_that_ends_the_run_is_told_once(shop, listener, kind, retryable, needs_handling):
    """With the attempt that it was, and whether it passes by itself."""
    shop(**listener.callbacks(), retry=Retry(max_attempts=2))
    thread = ran(*[fails(kind, "key-123 is wrong")] * (2 if retryable else 1))
    [facts] = listener.facts("on_error")
    last = Stream.objects.filter(thread=thread).order_by("-number").first()
    assert facts == {
        "thread_id": thread.pk,
        "stream_id": last.pk,
        "error": "key-123 is wrong",
        "kind": kind,
        "retryable": retryable,
        "attempt": last.attempt,
        "max_attempts": 2,
        "requires_explicit_handling": needs_handling,
    }


def test_a_kind_of_the_projects_own_is_told_as_it_is(shop, listener):
    """What `classify` called it."""
    shop(**listener.callbacks(), retry=Retry(classify=lambda error: Fail("closed")))
    ran(fails("network"))
    [facts] = listener.facts("on_error")
    assert (facts["kind"], facts["retryable"], facts["requires_explicit_handling"]) == ("closed", False, False)


def test_used_up_steps_are_an_error(shop, listener):
    """However the run ends, one place tells it."""
    shop(**listener.callbacks(), max_steps=1)
    ran(calls("add", a=1, b=1))
    assert [facts["kind"] for facts in listener.facts("on_error")] == ["max_steps"]


def test_a_function_of_the_agent_that_fails_is_an_error(shop, listener):
    """Though no model was asked."""
    shop(**listener.callbacks(), configure=lambda thread: {"nonsense": 1})
    ran()
    [facts] = listener.facts("on_error")
    assert facts["kind"] == "invalid_request"
    assert "nonsense" in facts["error"]


def test_a_stopped_run_completes_no_turn(shop, listener):
    """A person ended it, which is no error either."""
    shop(**listener.callbacks())
    with ScriptedModel([says("Well, "), does(lambda: stop_thread(Thread.objects.get())), says("no.")]):
        create_thread("shop", prompt="Hello.")
        run_until_idle()
    assert listener.heard == []


@pytest.mark.parametrize("name", ["on_message_complete", "on_turn_complete", "on_error", "on_retry"])
@pytest.mark.parametrize("is_async", [False, True])
def test_each_may_use_the_database(shop, name, is_async):
    """Sync in a thread, async on the loop."""

    def note(**facts):
        Booking.objects.create(name=str(facts["thread_id"]))

    async def note_async(**facts):
        await Booking.objects.acreate(name=str(facts["thread_id"]))

    shop(**{name: note_async if is_async else note}, retry=Retry(max_attempts=2))
    threads = [ran(fails("network"), "Hi."), ran(fails("auth"))]
    told = {"on_error": threads[1], "on_retry": threads[0]}.get(name, threads[0])
    assert [booking.name for booking in Booking.objects.all()] == [str(told.pk)]


@pytest.mark.parametrize("is_async", [False, True])
def test_one_that_raises_breaks_nothing(shop, caplog, listener, is_async):
    """It is logged with its traceback; those after it are told all the same."""

    def broken(**facts):
        raise KeyError

    async def broken_async(**facts):
        raise KeyError

    function = broken_async if is_async else broken
    shop(**listener.callbacks() | {"on_message_complete": function})
    with caplog.at_level(logging.ERROR, logger="durable_agents"):
        thread = ran("Hi.")
    assert (thread.status, listener.names) == ("completed", ["on_turn_complete"])
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (record.action, record.callback, record.exc_info[0]) == ("callback", "on_message_complete", KeyError)
    assert record.thread == str(thread.pk)


def test_one_that_takes_other_arguments_breaks_nothing(shop, caplog):
    """A typing error of the project's."""
    shop(on_turn_complete=lambda thread: None)
    with caplog.at_level(logging.ERROR, logger="durable_agents"):
        assert ran("Hi.").status == "completed"
    assert "TypeError" in caplog.text


def test_a_callback_may_go_on_with_the_thread(shop):
    """What it sends is answered like any other message."""

    def on_turn_complete(*, thread_id, **facts):
        if Stream.objects.filter(thread=thread_id).count() == 1:
            send_message(thread_id, "One more thing.")

    shop(on_turn_complete=on_turn_complete)
    thread = ran("Hi.", "Bye.")
    assert [message.text for message in thread.messages.filter(role="user")] == ["Hello.", "One more thing."]
    assert thread.status == "completed"


def test_a_worker_that_dies_between_tells_nothing(shop, listener):
    """At most once: the committed step is not told of again."""
    shop(**listener.callbacks())
    with ScriptedModel("Hi."):
        create_thread("shop", prompt="Hello.")
        with crash_at("step_committed"), pytest.raises(SimulatedCrash):
            run_until_idle()
        run_until_idle()
    assert listener.heard == []


@pytest.mark.django_db(transaction=True)
class TestOutsideAWorker:
    """A run can fail where no worker works on it: an answer from outside, a sweep."""

    @pytest.fixture(autouse=True)
    def _silent(self, bells):
        """Send no notifications."""

    @pytest.mark.parametrize("is_async", [False, True])
    def test_an_error_is_told_after_the_commit(self, shop, listener, is_async):
        """Never before, and not if it is rolled back."""
        hear = listener.callbacks()["on_error"]

        async def hear_async(**facts):
            hear(**facts)

        shop(on_error=hear_async if is_async else hear)
        create_thread("shop", prompt="Hello.")
        worker = Worker(agents=["shop"])
        claim = worker.claim_step()
        with transaction.atomic():
            worker.fail(claim)
            assert listener.heard == []
            transaction.set_rollback(True)
        assert listener.heard == []
        worker.fail(claim)
        assert [facts["kind"] for facts in listener.facts("on_error")] == ["auth"]

    def test_one_that_raises_does_not_reach_the_caller(self, shop, caplog):
        """The transition is committed."""
        shop(on_error=lambda **facts: 1 / 0)
        thread = create_thread("shop", prompt="Hello.")
        worker = Worker(agents=["shop"])
        with caplog.at_level(logging.ERROR, logger="durable_agents"):
            worker.fail(worker.claim_step())
        assert Thread.objects.get(pk=thread.pk).status == ThreadStatus.FAILED
        assert "ZeroDivisionError" in caplog.text

    def test_a_process_may_have_it_done_beside_its_own_work(self, shop):
        """As workers do that are not at work."""
        told = threading.Event()
        names = []

        def tell(thread_id):
            names.append(threading.current_thread().name)
            told.set()

        before = run_through(in_own_thread)
        try:
            deliver(DueCallback(name="tell", thread_id=None, function=tell, arguments={"thread_id": None}))
        finally:
            run_through(before)
        assert told.wait(5)
        assert names == ["durable-agents-callback"]

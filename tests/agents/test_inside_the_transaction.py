"""`on_status_change` and `on_commit_step` happen with the change or not at all, and break nothing."""

import logging

import pytest
from django.contrib.auth import get_user_model
from django.db import InterfaceError, connection, transaction

from durable_agents import create_thread, resume_thread, send_message, stop_thread
from durable_agents.agents import registry
from durable_agents.models import Stream, Thread
from durable_agents.testing import ScriptedModel, calls, fails, run_until_idle
from tests.lifecycle.stage import Worker
from tests.project.models import Booking

pytestmark = pytest.mark.django_db


def errors(caplog):
    """Return the errors that were logged."""
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_every_change_of_the_status_is_told_with_what_it_was(shop):
    """In order, once each; keywords only."""
    seen = []
    shop(on_status_change=lambda *, thread_id, status, previous_status: seen.append((previous_status, status)))
    with ScriptedModel(calls("add", a=1, b=1), fails("auth"), "Two."):
        thread = create_thread("shop", prompt="Add.")
        run_until_idle()
        resume_thread(thread)
        run_until_idle()
    stop_thread(send_message(thread, "More.").thread_id)
    assert seen == [
        ("completed", "streaming"),
        ("streaming", "awaiting_tool_results"),
        ("awaiting_tool_results", "streaming"),
        ("streaming", "failed"),
        ("failed", "streaming"),
        ("streaming", "completed"),
        ("completed", "streaming"),
        ("streaming", "stopped"),
    ]


def test_facts_are_plain_values(shop):
    """Ids, and the words of the status."""
    seen = []
    shop(on_status_change=lambda **facts: seen.append(facts))
    thread = create_thread("shop", prompt="Hello.")
    assert seen == [{"thread_id": thread.pk, "status": "streaming", "previous_status": "completed"}]
    assert {type(seen[0]["status"]), type(seen[0]["previous_status"])} == {str}


def test_what_it_writes_is_rolled_back_with_the_change(shop):
    """Rolled back means never happened."""
    shop(on_status_change=lambda **facts: Booking.objects.create(name=facts["status"]))

    with transaction.atomic():
        create_thread("shop", prompt="Hello.")
        assert Booking.objects.get().name == "streaming"
        transaction.set_rollback(True)
    assert (Booking.objects.count(), Thread.objects.count()) == (0, 0)


def test_it_sees_the_change_and_may_make_transitions_itself(shop):
    """The thread is saved when it is called."""
    seen = []

    def on_status_change(*, thread_id, status, previous_status):
        seen.append(Thread.objects.get(pk=thread_id).status)
        if status == "completed" and not seen.count("completed") > 1:
            send_message(thread_id, "One more thing.")

    shop(on_status_change=on_status_change)
    with ScriptedModel("Hi.", "Bye."):
        thread = create_thread("shop", prompt="Hello.")
        run_until_idle()
    thread.refresh_from_db()
    assert seen == ["streaming", "completed", "streaming", "completed"]
    assert thread.messages.filter(role="assistant").count() == 2


def break_off(**facts):
    """Write something, then fail."""
    Booking.objects.create(name="half")
    raise KeyError


def break_the_database(**facts):
    """Write something, then run a statement that the database refuses."""
    Booking.objects.create(name="half")
    get_user_model().objects.create(username="twice")
    get_user_model().objects.create(username="twice")


def leave(**facts):
    """Try to end the worker."""
    raise SystemExit(3)


@pytest.mark.parametrize("function", [break_off, break_the_database, leave])
@pytest.mark.parametrize("name", ["on_status_change", "on_commit_step"])
def test_one_that_raises_loses_only_what_it_wrote(shop, caplog, name, function):
    """The run goes on; the error is logged with its traceback."""
    shop(**{name: function})
    with caplog.at_level(logging.ERROR, logger="durable_agents"), ScriptedModel("Hi."):
        thread = create_thread("shop", prompt="Hello.")
        run_until_idle()
    thread.refresh_from_db()
    assert (thread.status, Booking.objects.count(), get_user_model().objects.count()) == ("completed", 0, 0)
    assert {(record.action, record.callback) for record in errors(caplog)} == {("callback", name)}


@pytest.mark.django_db(transaction=True)
def test_one_that_loses_the_transaction_is_no_success(shop, bells):
    """Nothing was stored, and the caller is told so."""
    shop(on_status_change=lambda **facts: connection.close())
    with pytest.raises(InterfaceError, match="on_status_change"):
        create_thread("shop", prompt="Hello.")
    assert Thread.objects.count() == 0


def test_a_committed_step_is_told_within_its_transaction(shop):
    """Each once, with its parts and its usage at hand."""
    seen = []

    def on_commit_step(*, thread_id, stream_id):
        stream = Stream.objects.get(pk=stream_id, thread=thread_id)
        seen.append((stream.state, stream.text, stream.input_tokens > 0))
        Booking.objects.create(name=stream.text)

    shop(on_commit_step=on_commit_step)
    with ScriptedModel([calls("add", a=1, b=1)], fails("network"), "Two."):
        create_thread("shop", prompt="Add.")
        run_until_idle()
    assert seen == [("finished", "", True), ("finished", "Two.", True)]
    assert Booking.objects.count() == 2


def test_a_step_that_is_not_committed_is_told_of_in_vain(shop):
    """What was written goes with it."""
    shop(on_commit_step=lambda **facts: Booking.objects.create(name="step"))
    create_thread("shop", prompt="Add.")
    worker = Worker(agents=["shop"])
    claim = worker.claim_step()
    with transaction.atomic():
        worker.answer("Hi.", claim=claim)
        assert Booking.objects.count() == 1
        transaction.set_rollback(True)
    assert Booking.objects.count() == 0
    assert Stream.objects.get().state == "streaming"


def test_an_agent_that_is_not_known_any_more_is_told_nothing(shop):
    """A person stops a thread of yesterday's code."""
    shop(on_status_change=break_off)
    thread = create_thread("shop")
    Thread.objects.update(status="streaming")
    registry.remove("shop")
    assert stop_thread(thread).status == "stopped"

"""A transition is one transaction: all or nothing, notifications after commit, retried if the database refuses."""

import pytest
from django.db import OperationalError, transaction

from durable_agents import create_thread, delete_thread, lifecycle, send_message, stop_thread
from durable_agents.lifecycle import Append
from durable_agents.lifecycle.transaction import transition
from durable_agents.models import Message, Stream, Thread, ToolCall
from tests.lifecycle.stage import CLUSTER, calling, open_stream, spoken, status_of

pytestmark = pytest.mark.django_db


class ChangedMindError(Exception):
    """What a caller raises whose own work failed."""


@pytest.fixture
def committed(django_capture_on_commit_callbacks):
    """Return a context in which commits happen."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


def test_a_message_in_a_transaction_that_is_rolled_back_never_was(agent, bells, committed):
    """Neither rows nor notifications."""
    thread = create_thread(agent)
    with committed():
        try:
            with transaction.atomic():
                send_message(thread, "Hi")
                raise ChangedMindError
        except ChangedMindError:
            pass
    assert (status_of(thread), Message.objects.count(), Stream.objects.count()) == ("completed", 0, 0)
    assert (bells.workers, bells.browsers) == ([], [])


def test_a_transition_that_breaks_in_the_middle_leaves_nothing(thread, worker, monkeypatch, bells, committed):
    """The step and its calls are committed together."""
    claim = worker.claim_step()
    before = Thread.objects.get(pk=thread.pk).rev

    def broken(*_args, **_options):
        raise ChangedMindError

    monkeypatch.setattr("durable_agents.lifecycle.steps._add_call", broken)
    with committed(), pytest.raises(ChangedMindError):
        worker.answer("Hello.", calling(), claim=claim)
    assert (open_stream(thread).state, ToolCall.objects.count()) == ("streaming", 0)
    assert Thread.objects.get(pk=thread.pk).rev == before
    assert (bells.workers, bells.browsers) == ([], [])


def test_no_notification_is_sent_before_the_commit(agent, bells, committed):
    """Who hears it must find the rows."""
    thread = create_thread(agent)
    with committed():
        send_message(thread, "Hi")
        assert (bells.workers, bells.browsers) == ([], [])
    assert (bells.workers, bells.browsers) == ([CLUSTER], [thread.pk])


def test_a_committed_step_tells_browsers_and_rings_only_if_something_is_due(thread, worker, bells, committed):
    """A worker that has nothing to do sleeps on."""
    with committed():
        worker.answer("Hello.")
    assert (bells.workers, bells.browsers) == ([], [thread.pk])


def test_calls_of_a_step_ring_workers(thread, worker, bells, committed):
    """Each cluster once."""
    with committed():
        worker.answer("", calling("plain"), calling("once"))
    assert bells.workers == [CLUSTER]


def test_the_last_outcome_rings_workers_and_one_before_it_does_not(thread, worker, bells, committed):
    """The next step is due with the last."""
    worker.answer("", calling("plain"), calling("again"))
    rung = []
    for claim in worker.claim():
        with committed():
            worker.settle(claim=claim)
        rung.append((len(bells.workers), len(bells.browsers)))
        bells.forget()
    assert rung == [(0, 1), (1, 1)]


def test_a_claim_an_append_and_a_heartbeat_ring_nothing(thread, worker, bells, committed):
    """Deltas are published by the writer itself."""
    with committed():
        claim = worker.claim_step()
        lifecycle.append_deltas([Append(claim=claim, seq=0, chunks=spoken("Hi", first=True))])
        lifecycle.heartbeat([claim])
    assert (bells.workers, bells.browsers) == ([], [])


@pytest.mark.parametrize("transition", ["stop", "retry", "fail", "release", "reap"])
def test_what_browsers_see_is_told_to_them(thread, worker, bells, committed, transition):
    """And workers hear of what is due again."""
    claim = worker.claim_step()
    with committed():
        match transition:
            case "stop":
                stop_thread(thread)
            case "retry":
                worker.retry(claim)
            case "fail":
                worker.fail(claim)
            case "release":
                lifecycle.release(claim)
            case "reap":
                lifecycle.reap(lambda _: True)
    assert bells.browsers == [thread.pk]
    assert bells.workers == ([] if transition in {"stop", "fail"} else [CLUSTER])


def test_a_deleted_thread_is_told_to_browsers(thread, bells, committed):
    """Who watches it must not wait for news."""
    with committed():
        delete_thread(thread)
    assert bells.browsers == [thread.pk]


def test_nothing_happened_rings_nothing(thread, worker, bells, committed):
    """A second stop, a known message, a resume of a running thread."""
    send_message(thread, "Two", client_id="m1")
    with committed():
        send_message(thread, "Two", client_id="m1")
        lifecycle.resume_thread(thread)
    stop_thread(thread)
    with committed():
        stop_thread(thread)
    assert (bells.workers, bells.browsers) == ([], [])


def test_a_bell_that_breaks_harms_nobody(thread, worker, monkeypatch, committed):
    """The rows are due all the same; Django logs it."""

    def broken(*_args):
        raise ConnectionError

    monkeypatch.setattr("durable_agents.notifications.workers.notify_cluster", broken)
    monkeypatch.setattr("durable_agents.notifications.clients.publish", broken)
    with committed():
        worker.answer("", calling())
    assert status_of(thread) == "awaiting_tool_results"


class Refusing:
    """A function that the database refuses a number of times, for another transaction's sake."""

    def __init__(self, times, message="database is locked"):
        self.times, self.message, self.calls = times, message, 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.times:
            raise OperationalError(self.message)
        return "done"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("times", "calls"), [(0, 1), (1, 2), (2, 3)])
def test_a_transition_that_the_database_refuses_is_retried(times, calls):
    """At most three times in all."""
    refusing = Refusing(times)
    assert transition(refusing.__call__)() == "done"
    assert refusing.calls == calls


@pytest.mark.django_db(transaction=True)
def test_a_transition_that_is_refused_for_ever_raises():
    """After the third try."""
    refusing = Refusing(9)
    with pytest.raises(OperationalError):
        transition(refusing.__call__)()
    assert refusing.calls == 3


@pytest.mark.django_db(transaction=True)
def test_an_error_that_will_not_pass_is_raised_at_once():
    """A full disk is not another transaction's fault."""
    refusing = Refusing(1, "disk I/O error")
    with pytest.raises(OperationalError):
        transition(refusing.__call__)()
    assert refusing.calls == 1


def test_a_transition_in_a_transaction_of_the_caller_is_not_retried():
    """Only the owner of the transaction may try again."""
    refusing = Refusing(1)
    with transaction.atomic(), pytest.raises(OperationalError):
        transition(refusing.__call__)()
    assert refusing.calls == 1

"""What is due at once has no time, so that it is won whatever the clock of who made it due said."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import F
from django.db.models.functions import Now
from django_q.models import OrmQ

from durable_agents import approve_tool_call, create_thread, lifecycle, resume_thread, send_message, stop_thread
from durable_agents.models import Stream, Thread, ToolCall
from durable_agents.notifications.workers import _TableBroker
from tests.lifecycle.stage import CLUSTER, call_of, calling, open_stream, status_of

pytestmark = pytest.mark.django_db


def came_from_an_hour_ahead():
    """Let everything have been written by a process whose clock is an hour ahead of the database's."""
    for model in (Stream, ToolCall):
        later = {name: F(name) + timedelta(hours=1) for name in ("created_at", "pending_since", "available_at")}
        model.objects.update(**later)


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


def test_a_first_step_from_a_clock_ahead_is_won_at_once(thread, worker):
    came_from_an_hour_ahead()
    assert open_stream(thread).available_at is None
    assert [claim.thread_id for claim in worker.claim()] == [thread.pk]


def test_calls_and_the_step_after_them_from_a_clock_ahead_are_won_at_once(thread, worker):
    worker.answer("", calling("plain"), calling("again"))
    came_from_an_hour_ahead()
    assert set(ToolCall.objects.values_list("available_at", flat=True)) == {None}
    for claim in worker.claim(streams=0):
        worker.settle(claim=claim)
    came_from_an_hour_ahead()
    assert open_stream(thread).available_at is None
    assert [claim.kind for claim in worker.claim()] == ["stream"]


def test_an_approved_call_from_a_clock_ahead_is_won_at_once(thread, worker, declare):
    asked = calling("plain")
    worker.answer("", asked.__class__(**{**vars(asked), "needs_approval": True}))
    approve_tool_call(thread, asked.tool_call_id, by=None)
    came_from_an_hour_ahead()
    assert ToolCall.objects.get().available_at is None
    assert [claim.kind for claim in worker.claim()] == ["tool"]


@pytest.mark.parametrize("how", ["released", "reaped"])
def test_what_a_worker_gave_back_from_a_clock_ahead_is_won_at_once(thread, worker, how):
    give_back = lifecycle.release if how == "released" else lambda claim: lifecycle.reap(lambda holder: True)
    give_back(worker.claim_step())
    came_from_an_hour_ahead()
    worker.answer("", calling("again"))
    give_back(worker.claim_call())
    came_from_an_hour_ahead()
    assert worker.claim_call().attempt == 1


def test_a_retry_without_a_delay_has_no_time(thread, worker):
    worker.retry(worker.claim_step(), delay_seconds=0)
    assert open_stream(thread).available_at is None
    thread.refresh_from_db()
    assert datetime.fromisoformat(thread.retry["next_retry_at"]) <= datetime.now(UTC)


def test_a_call_that_is_tried_again_without_a_delay_has_no_time_and_says_when(thread, worker):
    worker.answer("", calling("again"))
    lifecycle.retry_tool_call(worker.claim_call(), delay_seconds=0, detail="failed")
    assert ToolCall.objects.get().available_at is None
    thread.refresh_from_db()
    assert datetime.fromisoformat(thread.retry["next_retry_at"]) <= datetime.now(UTC)
    assert worker.claim_call().attempt == 2


def test_a_delay_has_a_time_and_is_not_won_before(thread, worker):
    worker.retry(worker.claim_step(), delay_seconds=60)
    assert open_stream(thread).available_at > datetime.now(UTC) + timedelta(seconds=50)
    assert worker.claim() == []


def test_a_resume_and_a_message_after_a_stop_are_due_without_a_time(thread, worker):
    for again in (resume_thread, lambda thread: send_message(thread, "Go on.")):
        stop_thread(thread)
        again(thread)
        assert open_stream(thread).available_at is None
        came_from_an_hour_ahead()
        assert [claim.thread_id for claim in worker.claim()] == [thread.pk]


def test_rows_due_at_once_and_rows_whose_time_has_come_are_won_in_the_order_of_their_wait(agent, worker):
    threads = [create_thread(agent, prompt="Hi") for _ in range(4)]
    for minutes, thread in zip((3, 1, 4, 2), threads, strict=True):
        moment = Now() - timedelta(minutes=minutes)
        rows = Stream.objects.filter(thread=thread)
        rows.update(pending_since=moment) if minutes % 2 else rows.update(available_at=moment)
    order = [worker.claim(streams=1)[0].thread_id for _ in threads]
    assert order == [threads[number].pk for number in (2, 0, 3, 1)]


def test_a_row_due_at_once_is_overdue_after_its_wait_alone(thread):
    assert not Stream.objects.overdue(60).exists()
    Stream.objects.update(pending_since=Now() - timedelta(seconds=61))
    assert Stream.objects.overdue(60).exists()
    assert not Stream.objects.overdue(120).exists()


def test_a_call_that_waited_an_hour_for_its_approval_is_not_overdue_then(thread, worker):
    asked = calling("again")
    worker.answer("", asked.__class__(**{**vars(asked), "needs_approval": True}))
    ToolCall.objects.update(created_at=Now() - timedelta(hours=1), pending_since=Now() - timedelta(hours=1))
    approve_tool_call(thread, asked.tool_call_id, by=None)
    assert not ToolCall.objects.overdue(60).exists()


def test_a_call_that_ran_for_an_hour_and_lost_its_worker_is_not_overdue_then(thread, worker):
    worker.answer("", calling("again"))
    ToolCall.objects.update(created_at=Now() - timedelta(hours=1), pending_since=Now() - timedelta(hours=1))
    claim = worker.claim_call()
    lifecycle.reap(lambda holder: True)
    assert call_of(claim).status == "pending"
    assert not ToolCall.objects.overdue(60).exists()


def test_an_unclaimed_notification_of_a_clock_ahead_is_due_for_a_worker_behind():
    broker = _TableBroker(CLUSTER)
    broker.enqueue("payload")
    hour_behind = datetime.now(UTC) - timedelta(hours=1)
    assert OrmQ.objects.filter(lock__lt=hour_behind).count() == 1
    assert broker.is_still_queued()
    OrmQ.objects.update(lock=hour_behind + timedelta(minutes=6))  # as django-q2 does when it takes a task
    assert not broker.is_still_queued()


@pytest.fixture
def before():
    """Return the models as the release before this one has them."""
    loader = MigrationExecutor(connection).loader
    return loader.project_state(("durable_agents", "0004_full_text_search")).apps


def test_rows_of_the_release_before_are_won_when_their_time_has_come(thread, worker, before):
    """Its processes give every row a time, and do not know the column beside it."""
    lifecycle.release(worker.claim_step())
    stream = open_stream(thread)
    old = before.get_model("durable_agents", "Stream")
    facts = {field.attname: getattr(stream, field.attname) for field in old._meta.concrete_fields}
    stream.delete()
    late = old.objects.create(**{**facts, "id": uuid4(), "available_at": Now() + timedelta(hours=1)})
    assert worker.claim() == []
    late.delete()
    old.objects.create(**{**facts, "id": uuid4(), "available_at": Now() - timedelta(hours=1)})
    assert Stream.objects.overdue(60).exists()
    assert [claim.thread_id for claim in worker.claim()] == [thread.pk]


def test_rows_due_at_once_are_left_alone_by_the_release_before(thread, before):
    """It neither claims them, nor takes them for late."""
    old = before.get_model("durable_agents", "Stream")
    assert not old.objects.filter(available_at__lte=Now()).exists()
    assert not old.objects.filter(available_at__lt=Now() - timedelta(seconds=600)).exists()
    assert status_of(thread) == "streaming"
    assert Thread.objects.count() == 1

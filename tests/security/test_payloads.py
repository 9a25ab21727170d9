"""Tasks in the queue and messages in the channel layer carry names and ids, and no content of threads."""

import logging
from typing import Any
from uuid import UUID

import pytest
from django_q.brokers import get_broker
from django_q.models import Schedule
from django_q.signing import SignedPackage

from durable_agents import create_thread, lifecycle, notifications, task_queue
from durable_agents.models import Thread
from tests.api.calls import Api, person
from tests.lifecycle.stage import CLUSTER, Worker, calling

SAID = "kingfisher-4711"
KNOWN = {"id", "name", "func", "args", "kwargs", "started", "save", "ack_failure", "timeout", "sync", "cluster"}


def taken_from_the_queue():
    """Return the tasks that are in the queue, whatever its broker, and empty it."""
    broker, tasks = get_broker(CLUSTER), []
    while broker.queue_size():
        for key, payload in broker.dequeue():
            broker.acknowledge(key)
            tasks.append(SignedPackage.loads(payload))
    return tasks


@pytest.fixture
def tasks(transactional_db, declare):
    """Run every kind of transition that notifies workers, with a text in every field, and return the tasks."""
    notifications.workers._broker.cache_clear()
    agent, worker, owner = declare(public=True), Worker(), person("owner")
    api = Api(owner)
    taken_from_the_queue()
    thread = create_thread(agent, owner=owner, prompt=SAID, title=SAID, metadata={"a": SAID}, context={"b": SAID})
    tasks = taken_from_the_queue()
    worker.answer(SAID, calling(word=SAID))
    tasks += taken_from_the_queue()
    worker.settle({"found": SAID})
    tasks += taken_from_the_queue()
    worker.answer(SAID)
    for path, body in (("messages/", {"prompt": SAID}), ("stop/", {}), ("resume/", {"prompt": SAID})):
        api.post(f"threads/{thread.pk}/{path}", body)
        tasks += taken_from_the_queue()
    lifecycle.delete_thread(thread)
    tasks += taken_from_the_queue()
    notifications.workers._broker.cache_clear()
    return tasks


def test_a_task_names_a_function_and_a_cluster_and_nothing_else(tasks):
    """Tasks are pickled: whoever can write to the queue can run code, and whoever can read it reads what is in them."""
    assert len(tasks) >= 4
    for task in tasks:
        assert set(task) <= KNOWN, task
        assert task["func"] == "durable_agents.engine.work"
        assert task["args"] == (CLUSTER,)
        assert task["kwargs"] == {}
        assert SAID not in str(task)


def test_the_scheduled_sweep_has_no_arguments(transactional_db):
    """It reads the rows."""
    task_queue.schedule_sweep()
    [schedule] = Schedule.objects.filter(func="durable_agents.engine.sweep")
    assert schedule.args in {None, ""}
    assert schedule.kwargs == "q_options={'save': False, 'ack_failure': True}"


def test_a_hint_to_browsers_names_a_thread_and_nothing_else(transactional_db, declare, monkeypatch):
    """A websocket reads the rows itself, with its user's permissions."""
    told: list[Any] = []
    monkeypatch.setattr("durable_agents.notifications.workers.notify_cluster", lambda _: None)
    monkeypatch.setattr(
        "durable_agents.notifications.clients.publish", lambda thread, event: told.append((thread, event))
    )
    thread = create_thread(declare(public=True), owner=person("owner"), prompt=SAID, title=SAID)
    assert told
    for thread_id, event in told:
        assert thread_id == thread.pk
        assert set(event) == {"type", "thread"}
        assert event["type"] == "thread.changed"
        assert UUID(event["thread"]) == thread.pk


def test_groups_are_named_by_our_own_ids(declare, transactional_db):
    """A text of the client's could be the name of another thread."""
    thread = create_thread(declare(public=True), owner=person("owner"), client_id="chat-1")
    assert notifications.group_of(thread.pk) == f"durable_agents.threads.{thread.pk.int % 8}"
    with pytest.raises((AttributeError, TypeError, ValueError)):
        notifications.group_of("../../x y")  # type: ignore[arg-type]


def test_no_content_of_a_thread_is_logged_above_debug(transactional_db, declare, caplog, monkeypatch):
    """Titles, texts, arguments, results."""
    monkeypatch.setattr("durable_agents.notifications.workers.notify_cluster", lambda _: None)
    caplog.set_level(logging.INFO)
    worker, agent = Worker(), declare(public=True)
    create_thread(agent, owner=person("owner"), prompt=SAID, title=SAID, client_id=SAID, metadata={"a": SAID})
    worker.answer(SAID, calling(word=SAID))
    worker.settle({"found": SAID})
    worker.fail(worker.claim_step())
    assert len(caplog.records) >= 4
    assert [record for record in caplog.records if SAID in str(record.__dict__)] == []
    assert Thread.objects.count() == 1

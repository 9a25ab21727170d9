"""What leaves through the queue and the channel layer: names and ids, and nothing that was said."""

import logging
from typing import Any
from uuid import UUID

import pytest
from django_q.models import OrmQ, Schedule
from django_q.signing import SignedPackage

from durable_agents import create_thread, lifecycle, outbound
from durable_agents.models import Thread
from tests.api.calls import Api, person
from tests.lifecycle.stage import Worker, calling, declare

__all__ = ["declare"]

SAID = "kingfisher-4711"
KNOWN = {"id", "name", "func", "args", "kwargs", "started", "save", "ack_failure", "timeout", "sync", "cluster"}


@pytest.fixture
def everything_happens(transactional_db, settings, declare):
    """Draw every arrow that rings, with a text in everything that can have one."""
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, "orm": "default"}
    outbound.workers._broker.cache_clear()
    agent, worker, owner = declare(public=True), Worker(), person("owner")
    api = Api(owner)
    OrmQ.objects.all().delete()
    thread = create_thread(agent, owner=owner, prompt=SAID, title=SAID, metadata={"a": SAID}, context={"b": SAID})
    rung: list[dict[str, Any]] = []

    def empty() -> None:
        for row in OrmQ.objects.all():
            rung.append(SignedPackage.loads(row.payload))
            row.delete()

    empty()
    worker.answer(SAID, calling(word=SAID))
    empty()
    worker.settle({"found": SAID})
    empty()
    worker.answer(SAID)
    for path, body in (("messages/", {"prompt": SAID}), ("stop/", {}), ("resume/", {"prompt": SAID})):
        api.post(f"threads/{thread.pk}/{path}", body)
        empty()
    lifecycle.delete_thread(thread)
    empty()
    outbound.workers._broker.cache_clear()
    return rung


def test_a_task_names_a_function_and_a_cluster_and_nothing_else(everything_happens):
    """Its payload is pickled, so whatever were in it would be code to whoever can write to the queue."""
    assert len(everything_happens) >= 4
    for task in everything_happens:
        assert set(task) <= KNOWN, task
        assert task["func"] == "durable_agents.engine.work"
        assert task["args"] == ("tests",)
        assert task["kwargs"] == {}
        assert SAID not in str(task)


def test_the_sweep_takes_nothing(transactional_db):
    """It looks for itself."""
    outbound.schedule_sweep()
    [schedule] = Schedule.objects.filter(func="durable_agents.engine.sweep")
    assert schedule.args in {None, ""}
    assert schedule.kwargs == "q_options={'save': False, 'ack_failure': True}"


def test_a_hint_to_browsers_names_a_thread_and_nothing_else(transactional_db, declare, monkeypatch):
    """What a socket shows it reads itself, so that nobody hears of what they may not see."""
    told: list[Any] = []
    monkeypatch.setattr("durable_agents.outbound.workers.ring_cluster", lambda _: None)
    monkeypatch.setattr("durable_agents.outbound.browsers.publish", lambda thread, event: told.append((thread, event)))
    thread = create_thread(declare(public=True), owner=person("owner"), prompt=SAID, title=SAID)
    assert told
    for thread_id, event in told:
        assert thread_id == thread.pk
        assert set(event) == {"type", "thread"}
        assert event["type"] == "thread.changed"
        assert UUID(event["thread"]) == thread.pk


def test_groups_are_named_by_our_own_ids(declare, transactional_db):
    """Never by a text of the client's, which could be another thread's name."""
    thread = create_thread(declare(public=True), owner=person("owner"), client_id="chat-1")
    assert thread.pk.hex in outbound.group_of(thread.pk).replace("-", "")
    with pytest.raises((AttributeError, TypeError, ValueError)):
        outbound.group_of("../../x y")  # type: ignore[arg-type]


def test_nothing_that_is_said_is_logged_above_debug(transactional_db, declare, caplog, monkeypatch):
    """Titles, texts, arguments, results."""
    monkeypatch.setattr("durable_agents.outbound.workers.ring_cluster", lambda _: None)
    caplog.set_level(logging.INFO)
    worker, agent = Worker(), declare(public=True)
    create_thread(agent, owner=person("owner"), prompt=SAID, title=SAID, client_id=SAID, metadata={"a": SAID})
    worker.answer(SAID, calling(word=SAID))
    worker.settle({"found": SAID})
    worker.fail(worker.claim_step())
    assert len(caplog.records) >= 4
    assert [record for record in caplog.records if SAID in str(record.__dict__)] == []
    assert Thread.objects.count() == 1

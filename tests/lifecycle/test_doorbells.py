"""Doorbells are hints: what goes out is small and safe, and a broken bell harms nobody."""

import logging
from uuid import uuid4

import pytest
from django.test import override_settings

from durable_agents import outbound
from durable_agents.outbound import workers

MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
BROKEN = {"default": {"BACKEND": f"{__name__}.BrokenLayer"}}


class BrokenLayer:
    """A channel layer whose server does not answer."""

    async def group_send(self, group, message):
        """Fail as an unreachable server does."""
        raise ConnectionError


@pytest.fixture
def rung(monkeypatch):
    """Note what is given to the queue."""
    given = []
    monkeypatch.setattr("django_q.tasks.async_task", lambda *args, **options: given.append((args, options)))
    monkeypatch.setattr(workers, "_broker", lambda *_: "broker")
    return given


def test_a_doorbell_carries_the_name_of_a_cluster_and_nothing_else(rung):
    """Ids and content stay in rows; the result is not kept, and a failed one is not delivered for ever."""
    outbound.ring_cluster("tests")
    [(arguments, options)] = rung
    assert arguments == ("durable_agents.engine.work", "tests")
    wanted = {"cluster": "tests", "save": False, "ack_failure": True, "timeout": -1, "sync": False, "broker": "broker"}
    assert options == {"q_options": wanted}


def test_a_queue_that_does_not_answer_is_logged_and_never_raised(monkeypatch, caplog):
    """The rows are due all the same."""

    def broken(*_):
        raise ConnectionError

    monkeypatch.setattr(workers, "_broker", broken)
    outbound.ring_cluster("tests")
    [record] = caplog.records
    assert (record.levelno, record.action, record.cluster) == (logging.WARNING, "ring_workers", "tests")


def test_a_worker_that_is_awake_is_woken_without_the_queue(bells):
    """Its own process hears it."""
    woken = []
    outbound.answer_doorbells_here("tests", lambda: woken.append(True))
    try:
        workers._ring("tests")
    finally:
        outbound.answer_doorbells_here("tests", None)
    workers._ring("another")
    assert (woken, bells.workers) == ([True], ["another"])


@override_settings(CHANNEL_LAYERS=BROKEN)
def test_a_channel_layer_that_does_not_answer_is_logged_and_never_raised(caplog):
    """Browsers find the rows by themselves."""
    outbound.publish(uuid4(), {"type": "thread.changed"})
    [record] = caplog.records
    assert (record.levelno, record.action) == (logging.WARNING, "ring_browsers")


@override_settings(CHANNEL_LAYERS=MEMORY)
def test_a_layer_that_does_not_cross_processes_is_left_alone():
    """The poller of each web process does its work."""
    assert not outbound.layer_crosses_processes()


def test_the_group_of_a_thread_is_made_from_its_id_alone():
    """Never from what a client says; and within what layers accept."""
    thread = uuid4()
    assert outbound.group_of(thread) == f"durable_agents.{thread.hex}"

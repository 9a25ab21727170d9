"""Notifications are hints: what is sent is small and safe, and a failure to send one loses nothing."""

import logging
from uuid import uuid4

import pytest
from django.test import override_settings

from durable_agents import notifications
from durable_agents.notifications import workers
from durable_agents.notifications.worker_sender import WorkerSender
from tests.workers import until

MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
BROKEN = {"default": {"BACKEND": f"{__name__}.BrokenLayer"}}


class BrokenLayer:
    """A channel layer whose server does not answer."""

    async def group_send(self, group, message):
        """Fail as an unreachable server does."""
        raise ConnectionError


@pytest.fixture
def rung(monkeypatch):
    """Return the arguments of each task that is enqueued, in place of the broker."""
    given = []
    monkeypatch.setattr("django_q.tasks.async_task", lambda *args, **options: given.append((args, options)))
    monkeypatch.setattr(workers, "_broker", lambda *_: "broker")
    return given


def test_a_notification_carries_the_name_of_a_cluster_and_nothing_else(rung):
    """Ids and content stay in rows; the result is not kept, and a failed one is not delivered for ever."""
    notifications.notify_cluster("tests")
    [(arguments, options)] = rung
    assert arguments == ("durable_agents.engine.work", "tests")
    wanted = {"cluster": "tests", "save": False, "ack_failure": True, "timeout": -1, "sync": False, "broker": "broker"}
    assert options == {"q_options": wanted}


def test_a_queue_that_does_not_answer_is_logged_and_never_raised(monkeypatch, caplog):
    """The rows are due all the same."""

    def broken(*_):
        raise ConnectionError

    monkeypatch.setattr(workers, "_broker", broken)
    monkeypatch.setattr(workers, "_worker_sender", WorkerSender(workers._enqueue))
    assert not notifications.notify_cluster("tests")
    until(lambda: caplog.records)  # with a broker behind a socket, the sender's thread writes the log
    [record] = caplog.records
    assert (record.levelno, record.action, record.cluster) == (logging.WARNING, "ring_workers", "tests")


def test_a_worker_that_is_awake_is_woken_without_the_queue(bells):
    """Its own process hears it."""
    woken = []
    notifications.receive_notifications_here("tests", lambda: woken.append(True))
    try:
        workers._notify("tests")
    finally:
        notifications.receive_notifications_here("tests", None)
    workers._notify("another")
    assert (woken, bells.workers) == ([True], ["another"])


@override_settings(CHANNEL_LAYERS=BROKEN)
def test_a_channel_layer_that_does_not_answer_is_logged_and_never_raised(caplog, monkeypatch):
    """Browsers find the rows by themselves."""
    monkeypatch.setattr(notifications.client_sender, "_sender", notifications.client_sender.ClientSender())
    notifications.publish(uuid4(), {"type": "thread.changed"})
    notifications.flush_notifications(5)
    [record] = caplog.records
    assert (record.levelno, record.action) == (logging.WARNING, "ring_browsers")


@override_settings(CHANNEL_LAYERS=MEMORY)
def test_a_layer_that_does_not_cross_processes_is_left_alone():
    """The poller of each web process does its work."""
    assert not notifications.layer_crosses_processes()


def test_the_group_of_a_thread_is_made_from_its_id_alone():
    """Never from what a client says; and within what layers accept."""
    thread = uuid4()
    assert notifications.group_of(thread) == f"durable_agents.threads.{thread.int % 8}"

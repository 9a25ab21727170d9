"""Real workers: what is told after a commit holds nothing up and is told in order, also when they go or die."""

import json
import os
import signal

import pytest

from durable_agents import create_thread
from durable_agents.models import Delta, Stream, Thread
from tests.project.models import Booking
from tests.servers.model import Call, ModelUnderTest, Reply
from tests.workers import Cluster, at_rest, holder_of, running, until

MESSAGE = "message, True"


@pytest.fixture
def cluster(worker_env, model_server):
    """Run two workers whose lost rows fail a run at the first death."""
    settings = json.dumps({"CRASH_LIMIT": 1, "LEASE_SECONDS": 3})
    with running(worker_env, workers=2, TEST_MODEL_URL=model_server.url, TEST_DURABLE_AGENTS=settings) as cluster:
        yield cluster


def told():
    """Return what the callbacks have noted, in order."""
    return list(Booking.objects.order_by("pk").values_list("name", flat=True))


def test_what_is_told_holds_nothing_up(cluster: Cluster, model_server: ModelUnderTest):
    """One cluster, three situations: starting one costs seconds."""
    a_slow_callback_does_not_keep_the_next_step_waiting(model_server)
    a_run_that_died_is_told_of(cluster, model_server)
    a_worker_that_goes_ends_what_it_tells(cluster, model_server)


def a_slow_callback_does_not_keep_the_next_step_waiting(server: ModelUnderTest) -> None:
    server.answer_with(Reply(calls=(Call(name="add", arguments={"a": 1, "b": 2}),)), Reply(text="Three."))
    thread = create_thread("informed", prompt="Add.")
    [thread] = at_rest(thread)
    assert told() == []  # the first takes a second
    assert thread.status == "completed"
    until(lambda: Thread.objects.get(pk=thread.pk).title == "Title of informed")
    assert told() == [MESSAGE, MESSAGE, "turn, stop"]
    Booking.objects.all().delete()


def a_run_that_died_is_told_of(cluster: Cluster, server: ModelUnderTest) -> None:
    server.answer_with(Reply(text="word " * 500, delay_seconds=0.1))
    thread = create_thread("informed", prompt="Talk.")
    while Thread.objects.get(pk=thread.pk).is_running:
        until(lambda: Delta.objects.filter(stream__thread=thread, stream__state="streaming").exists() or rests(thread))
        if not rests(thread):
            os.kill(holder_of(thread), signal.SIGKILL)
            dead = Stream.objects.filter(thread=thread).count()
            until(lambda: Stream.objects.filter(thread=thread).count() > dead or rests(thread))  # noqa: B023
    thread.refresh_from_db()
    assert (thread.status, thread.error_code) == ("failed", "crashed")
    until(lambda: told() == ["error, crashed"])
    Booking.objects.all().delete()
    cluster.wait_until_ready(2)


def rests(thread: Thread) -> bool:
    return not Thread.objects.get(pk=thread.pk).is_running


def a_worker_that_goes_ends_what_it_tells(cluster: Cluster, server: ModelUnderTest) -> None:
    server.answer_with(Reply(text="Hello."))
    at_rest(create_thread("informed", prompt="Hi."))
    cluster.stop()
    assert told() == [MESSAGE, "turn, stop"]

"""The time of a running tool call is changed, and its worker heeds that."""

import time

import pytest

from durable_agents import create_thread, set_tool_call_timeout, stop_thread
from durable_agents.models import ToolCall
from tests.servers.model import Call, Reply
from tests.workers import at_rest, running, until


@pytest.fixture
def cluster(worker_env, model_server):
    with running(worker_env, workers=2, TEST_MODEL_URL=model_server.url) as cluster:
        yield cluster


def test_a_running_call_ends_when_its_changed_time_is_over(cluster, model_server, tmp_path):
    """One is cut short, one is given more; the others' calls run on, and the model is told."""
    waits = tuple(Call(name="wait", arguments={"seconds": seconds}) for seconds in (60, 2.5))
    model_server.answer_with(Reply(calls=waits), Reply(text="I see."))
    thread = create_thread("impatient", prompt="Wait.")
    until(lambda: ToolCall.objects.held().filter(thread=thread).count() == len(waits))
    long, short = ToolCall.objects.filter(thread=thread).order_by("rev")
    set_tool_call_timeout(thread, long.tool_call_id, 1)
    set_tool_call_timeout(thread, short.tool_call_id, None)
    [thread] = at_rest(thread, seconds=50)  # the long one by itself would take a minute
    outcomes = dict(ToolCall.objects.filter(thread=thread).values_list("pk", "status"))
    assert outcomes == {long.pk: "failed", short.pk: "completed"}
    told = [message["content"] for message in model_server.requests[-1]["messages"] if message["role"] == "tool"]
    assert "took longer than" in told[0]
    assert "waited" in told[1]


def test_a_running_call_says_how_far_it_is_and_hears_of_a_stop(cluster, model_server):
    """Of what it says a hundred times a second a small part is stored; its thread ends soon after the stop."""
    model_server.answer_with(Reply(calls=(Call(name="count_up", arguments={"seconds": 60}),)))
    thread = create_thread("impatient", prompt="Count.")
    reports = ToolCall.objects.filter(thread=thread).values_list("progress", "rev")
    first, first_rev = until(lambda: reports.exclude(progress__isnull=True).first())
    second, second_rev = until(lambda: reports.filter(progress__left__lt=first["left"] - 1).first())
    assert 0 < second_rev - first_rev < 20 * (first["left"] - second["left"])
    stop_thread(thread)
    until(lambda: not busy_threads(cluster))


def busy_threads(cluster) -> float:
    """Whether a worker's threads have used the processor in the last half second."""
    workers = [process for process in cluster.processes() if process.pid in cluster.workers]
    before = sum(sum(process.cpu_times()[:2]) for process in workers)
    time.sleep(0.5)
    return sum(sum(process.cpu_times()[:2]) for process in workers) - before > 0.1

"""What no worker knows is left alone for a grace period, and then settled where people see it."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from durable_agents import create_thread, lifecycle
from durable_agents.agents import registry
from durable_agents.models import Stream, Thread, ToolCall
from tests.lifecycle.stage import CLUSTER, calling, status_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


def let_wait(model, seconds=3600):
    """Let due rows have waited for so long."""
    model.objects.update(available_at=Now() - timedelta(seconds=seconds))


def test_a_step_of_a_known_agent_may_wait_for_ever(thread):
    """Workers are busy, or down."""
    let_wait(Stream)
    assert (lifecycle.settle_unknown_code(), status_of(thread)) == (0, "streaming")


def test_a_step_of_an_unknown_agent_fails_the_thread_after_the_grace(thread):
    """With a hint for the admin."""
    registry.remove("tested")
    let_wait(Stream)
    assert lifecycle.settle_unknown_code() == 1
    assert Thread.objects.values_list("status", "error_code").get() == ("failed", "unknown")
    assert "'tested'" in Stream.objects.get().error_detail


def test_a_step_of_an_unknown_agent_is_left_alone_before(thread):
    """A deploy takes its time."""
    registry.remove("tested")
    let_wait(Stream, seconds=300)
    assert (lifecycle.settle_unknown_code(), status_of(thread)) == (0, "streaming")


def test_a_call_of_an_unknown_tool_fails_after_the_grace_and_the_run_goes_on(thread, agent, worker):
    """The model is told."""
    worker.answer("", calling("again"))
    del agent.tools["again"]
    let_wait(ToolCall)
    assert lifecycle.settle_unknown_code() == 1
    call = ToolCall.objects.get()
    assert (call.status, call.error_code, status_of(thread)) == ("failed", "tool_not_available", "streaming")


def test_watchers_of_what_is_overdue_ring_for_it(thread, bells, django_capture_on_commit_callbacks):
    """A lost notification is sent again for threads that somebody looks at, and only then."""
    let_wait(Stream, seconds=10)
    for watched, seconds, rung in [([], 5, []), ([thread.pk], 60, []), ([thread.pk], 5, [CLUSTER])]:
        with django_capture_on_commit_callbacks(execute=True):
            lifecycle.notify_overdue(watched, seconds=seconds)
        assert bells.workers == rung


def test_rows_of_a_pool_that_is_gone_move_to_the_default_one_after_the_grace(thread, worker):
    """Not before: workers of the next release may name it already."""
    Stream.objects.update(pool="gpu")
    lifecycle.settle_unknown_code()
    assert worker.claim() == []
    let_wait(Stream)
    lifecycle.settle_unknown_code()
    worker.answer("", calling())
    ToolCall.objects.update(pool="slow")
    let_wait(ToolCall)
    lifecycle.settle_unknown_code()
    worker.settle()
    assert status_of(thread) == "streaming"

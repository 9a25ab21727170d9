"""What holds after every transition: revs that show every change, and a transcript fit for a provider."""

import pytest

from durable_agents import create_thread
from durable_agents.llm import openai_messages
from durable_agents.models import Message, Stream, Thread, ToolCall
from durable_agents.transcript import turns
from tests.lifecycle.histories import History

pytestmark = pytest.mark.django_db

SEEDS = range(3)
TRANSITIONS = 50
WHEN_BUSY = ("steer", "queue", "interrupt")


@pytest.fixture(params=SEEDS)
def history(request, declare):
    """Return a thread at the beginning of a random history."""
    agent = declare(when_busy=WHEN_BUSY[request.param % len(WHEN_BUSY)], max_steps=4)
    return History(create_thread(agent), seed=request.param)


def changes(thread):
    """Return what clients are shown of each row, with the rev of its last change."""
    calls = ToolCall.objects.filter(thread=thread).values_list("pk", "rev", "result", "error")
    settled = ToolCall.objects.open().values_list("pk", flat=True)
    streams = Stream.objects.filter(thread=thread).values_list("pk", "rev", "parts", "finish_reason")
    messages = Message.objects.filter(thread=thread).values_list("pk", "rev", "position", "parts")
    return {pk: (rev, str(facts), pk in settled) for pk, rev, *facts in [*calls, *streams, *messages]}


def test_every_change_has_a_rev_of_its_own(history):
    """After each transition: changed rows have new revs, no two rows the same one, and the thread's is the highest."""
    before, rev = changes(history.thread), history.thread.rev
    for _ in range(TRANSITIONS):
        name = history.go_on()
        now, newest = changes(history.thread), Thread.objects.get(pk=history.thread.pk).rev
        changed = [pk for pk in now if now[pk] != before.get(pk)]
        assert all(rev < now[pk][0] <= newest for pk in changed), name
        assert len({row[0] for row in now.values()}) == len(now), name
        before, rev = now, newest


def test_the_transcript_is_valid_for_a_provider_whenever_a_step_is_due(history):
    """Every call has exactly one result, in order, and the model has the last word never."""
    for _ in range(TRANSITIONS):
        history.go_on()
        if Stream.objects.open().filter(thread=history.thread).exists():
            assert_valid(openai_messages("", turns(history.thread.pk), max_result_bytes=1000))


def assert_valid(messages):
    """Check the history as a strict provider does."""
    expected = []
    for message in messages:
        if expected:
            assert (message["role"], message.get("tool_call_id")) == ("tool", expected.pop(0))
        else:
            assert message["role"] in {"user", "assistant"}
            expected = [call["id"] for call in message.get("tool_calls") or []]
            assert len(set(expected)) == len(expected)
    assert not expected
    assert messages[-1]["role"] in {"user", "tool"}


def test_every_history_comes_to_rest(history):
    """A thread is never stuck: at rest in the end, with no open row."""
    for _ in range(TRANSITIONS):
        history.go_on()
    history.come_to_rest()
    assert not Thread.objects.get(pk=history.thread.pk).is_running
    assert not Stream.objects.open().exists()
    assert not ToolCall.objects.open().exists()

"""A model that can goes on with what a dead worker's attempt had said; the text stands once, and is paid for twice."""

import pytest

from durable_agents import create_thread, lifecycle, send_message, stop_thread
from durable_agents.lifecycle import Spent
from durable_agents.live.reader import Cursor, ThreadReader
from durable_agents.llm import ModelUsage
from durable_agents.models import Delta, Message, Stream, Thread
from durable_agents.parts import fold, text_of
from durable_agents.transcript import ui_messages
from tests.lifecycle.stage import open_stream, stream_of

pytestmark = pytest.mark.django_db


class AnyModelGoesOn:
    """Stands for the model library."""

    def continues(self, model, settings):
        return True


@pytest.fixture(autouse=True)
def _goes_on(monkeypatch):
    monkeypatch.setattr("durable_agents.lifecycle.recovery.door", AnyModelGoesOn)


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


def reap(spent=Spent):
    """End the leases of everybody."""
    return lifecycle.reap(lambda holder: True, lambda stream: spent())


def said_by(stream):
    """What the deltas of a stream add up to."""
    return text_of(fold(chunk for row in Delta.objects.filter(stream=stream) for chunk in row.chunks))


def test_the_next_attempt_begins_with_what_was_said(thread, worker):
    """In one delta, however many it was; the old attempt keeps nothing."""
    claim = worker.claim_step()
    worker.say(claim, "Once ", "upon ", "a time")
    assert reap() == 1
    old, new = stream_of(claim), open_stream(thread)
    assert (old.state, old.parts, old.finish_reason) == ("aborted", [], "crashed")
    assert (new.goes_on, new.attempt, new.crashes) == (True, 1, 1)
    assert [(row.seq, said_by(new)) for row in Delta.objects.filter(stream=new)] == [(0, "Once upon a time")]


def test_it_is_shown_all_the_while(thread, worker):
    """A browser that follows drops the old text and has the same one back in the same breath."""
    claim = worker.claim_step()
    worker.say(claim, "Once upon")
    reader = ThreadReader(thread.pk, Cursor())
    reader.snapshot()
    reap()
    frames = reader.news()
    assert [frame["type"] for frame in frames] == ["stream", "thread", "delta"]
    assert frames[0]["status"] == "superseded"
    assert (frames[2]["stream"], frames[2]["seq"]) == (str(open_stream(thread).pk), 0)
    [_, answer] = ThreadReader(thread.pk).snapshot()["messages"]
    assert text_of(answer["parts"]) == "Once upon"


def test_a_second_death_loses_nothing_either(thread, worker):
    """What the second attempt added is there for the third."""
    worker.say(worker.claim_step(), "Once ")
    reap()
    second = worker.claim_step()
    worker.said[second.row_id] = 1
    worker.say(second, "upon")
    reap()
    [third] = worker.claim(suspects=True)
    assert said_by(stream_of(third)) == "Once upon"


def test_a_released_step_goes_on_too(thread, worker):
    """A deploy costs no text; its attempt and deaths stay what they were."""
    claim = worker.claim_step()
    worker.say(claim, "Once")
    lifecycle.release(claim)
    new = open_stream(thread)
    assert (said_by(new), new.attempt, new.crashes) == ("Once", 1, 0)


@pytest.mark.parametrize(
    "chunks",
    [
        [{"type": "start-step"}],
        [{"type": "start-step"}, {"type": "text-start", "id": "t"}, {"type": "text-delta", "id": "t", "delta": " \n"}],
        [
            {"type": "start-step"},
            {"type": "reasoning-start", "id": "r"},
            {"type": "reasoning-delta", "id": "r", "delta": "Hm."},
        ],
        [
            {"type": "start-step"},
            {"type": "text-start", "id": "t"},
            {"type": "text-delta", "id": "t", "delta": "Let me see."},
            {"type": "text-end", "id": "t"},
            {"type": "tool-input-start", "toolCallId": "c", "toolName": "plain"},
        ],
    ],
    ids=["nothing", "white space", "reasoning", "a call"],
)
def test_what_cannot_be_continued_begins_again(thread, worker, chunks):
    """Only text can be handed to a model as the beginning of its answer."""
    claim = worker.claim_step()
    lifecycle.append_deltas([lifecycle.Append(claim=claim, seq=0, chunks=chunks)])
    reap()
    assert not open_stream(thread).goes_on
    assert said_by(open_stream(thread)) == ""


def test_an_agent_may_say_that_it_begins_again(declare, worker):
    """Whatever the model can do."""
    agent = declare("fresh", after_crash="restart")
    thread = create_thread(agent, prompt="Hi")
    worker.agents = ("fresh",)
    worker.say(worker.claim_step(), "Once")
    reap()
    assert not open_stream(thread).goes_on


def test_a_worker_that_finds_that_the_model_cannot_begins_again(thread, worker):
    """The model of the next attempt may be another one by now."""
    worker.say(worker.claim_step(), "Once")
    reap()
    lifecycle.begin_again(worker.claim_step())
    new = open_stream(thread)
    assert (new.goes_on, new.attempt, new.crashes, said_by(new)) == (False, 1, 1, "")


def test_a_stop_keeps_what_waits_to_be_continued(thread, worker):
    """It was said."""
    worker.say(worker.claim_step(), "Once")
    reap()
    stop_thread(thread)
    [_, answer] = ui_messages(Message.objects.shown().filter(thread=thread))
    assert text_of(answer["parts"]) == "Once"


def test_a_message_that_comes_before_the_next_attempt_leaves_what_was_said_above_it(thread, worker):
    """The new attempt answers the new message and does not go on with the old text."""
    worker.say(worker.claim_step(), "Once")
    reap()
    send_message(thread, "Stop, something else")
    shown = ui_messages(Message.objects.shown().filter(thread=thread))
    assert [(m["role"], text_of(m["parts"])) for m in shown] == [
        ("user", "Hi"),
        ("assistant", "Once"),
        ("user", "Stop, something else"),
        ("assistant", ""),
    ]
    assert not open_stream(thread).goes_on


def test_a_dead_attempt_keeps_what_it_has_used(thread, worker):
    """Estimated by whoever finds it; the thread's totals know it too."""
    claim = worker.claim_step()
    worker.say(claim, "Once")
    used = ModelUsage(input_tokens=7, output_tokens=2, estimated=True)
    reap(lambda: Spent(model="openai/x", usage=used))
    old = stream_of(claim)
    assert (old.model, old.input_tokens, old.output_tokens, old.usage_estimated) == ("openai/x", 7, 2, True)
    assert Thread.objects.get(pk=thread.pk).input_tokens == 7
    assert Stream.objects.get(pk=open_stream(thread).pk).input_tokens == 0


def test_a_message_does_not_make_deaths_undone(thread, worker):
    """Else a row that kills workers would be run beside others again."""
    worker.say(worker.claim_step(), "Once")
    reap()
    crashes = open_stream(thread).crashes
    send_message(thread, "Stop, something else")
    assert (crashes, open_stream(thread).crashes) == (1, 1)

"""An answer is told in the AI SDK's own terms, at any moment of any history, whoever comes when."""

import random
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from durable_agents import create_thread, delete_thread, lifecycle, regenerate, send_message, stop_thread
from durable_agents.exceptions import ThreadNotFoundError
from durable_agents.models import Message, Role, Thread
from durable_agents.reading import AnswerStream, Seen, latest_answer_of, steps_in
from tests.chat.screen import Screen
from tests.chat.stored import plain, stored
from tests.lifecycle.stage import Worker, calling, let_expire
from tests.python_api.following import FaithfulHistory, begin_call

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _quiet(bells) -> None:
    """Keep the queue out of it."""


@pytest.mark.matrix
@pytest.mark.parametrize("knows_7", [True, False], ids=["7", "6"])
@pytest.mark.parametrize("seed", range(15))
def test_whoever_follows_shows_what_is_stored(seed, knows_7, declare):
    """One follows from the beginning; others come in the middle. Who is cut off comes again."""
    agent = declare(when_busy=("steer", "queue", "interrupt")[seed % 3], max_steps=4)
    history = FaithfulHistory(create_thread(agent, prompt="Question"), seed=seed)
    chance = random.Random(seed)
    following: list[tuple[Message, AnswerStream, Screen]] = []
    for _ in range(60):
        history.go_on()
        thread = Thread.objects.get(pk=history.thread.pk)
        answer = latest_answer_of(thread)
        if answer is not None and thread.is_running and chance.random() < 0.3:
            following.append(begun(answer, knows_7=knows_7))
        for answer, teller, screen in list(following):
            screen.take(teller.read())
            if teller.is_cut:
                assert not knows_7
                following.remove((answer, teller, screen))
                following.append(begun(answer, knows_7=knows_7))
            elif teller.is_over:
                following.remove((answer, teller, screen))
                assert screen.end is not None
            elif Message.objects.get(pk=answer.pk).superseded_at is None:
                assert plain(screen.parts) == plain(stored(answer))
    history.come_to_rest()
    for answer, teller, screen in following:
        screen.take(teller.read())
        assert teller.is_over
        if screen.end and screen.end["type"] == "finish":
            assert plain(screen.parts) == plain(stored(answer))


def begun(answer: Message, *, knows_7: bool) -> tuple[Message, AnswerStream, Screen]:
    """Return somebody who begins to follow an answer."""
    teller = AnswerStream(answer.thread_id, answer=answer, knows_7=knows_7)
    return answer, teller, Screen(knows_7=knows_7)


@pytest.fixture
def agent(declare):
    """Return an agent with three tools."""
    return declare()


@pytest.fixture
def thread(agent):
    """Return a thread with its first step due."""
    return create_thread(agent, prompt="Question")


def teller_of(thread, **options) -> AnswerStream:
    """Return a teller of the latest answer."""
    return AnswerStream(thread.pk, answer=latest_answer_of(thread), **options)


def kinds(chunks) -> list[str]:
    """Return the types of chunks."""
    return [chunk["type"] for chunk in chunks]


def test_an_attempt_that_is_taken_back_is_reset_where_the_client_knows_that(thread, worker):
    """The step goes on as the one that it is: no second beginning of it."""
    teller = teller_of(thread, knows_7=True)
    lose(worker, "half", teller)
    assert kinds(teller.read()) == ["reset-step"]
    worker.answer("Whole.")
    assert kinds(teller.read()) == ["text-start", "text-delta", "text-end", "finish-step", "finish"]


def test_an_attempt_that_is_taken_back_ends_the_response_for_others(thread, worker):
    """Without an end, so that the client knows that there is more; who comes again is told the whole."""
    teller = teller_of(thread)
    lose(worker, "half", teller)
    assert teller.read() == []
    assert (teller.is_over, teller.is_cut) == (True, True)
    worker.answer("Whole.")
    assert Screen().take(teller_of(thread).read()).text == "Whole."


def test_an_attempt_that_had_said_nothing_is_not_missed(thread, worker):
    """There is nothing to be taken back."""
    teller = teller_of(thread)
    lose(worker, None, teller)
    assert teller.read() == []
    assert not teller.is_over
    worker.answer("Whole.")
    assert kinds(teller.read())[-2:] == ["finish-step", "finish"]


def lose(worker: Worker, text: str | None, teller: AnswerStream) -> None:
    """Let an attempt say this, be told, and be lost."""
    claim = worker.claim_step()
    if text is not None:
        worker.say(claim, text)
    teller.read()
    let_expire(claim)
    lifecycle.reap(lambda _: False)


@pytest.mark.parametrize("knows_7", [True, False])
def test_a_stop_in_the_middle_of_a_call_closes_what_is_shown(thread, worker, knows_7):
    """The call was begun and never made; both majors are told of an end."""
    teller, screen = teller_of(thread, knows_7=knows_7), Screen(knows_7=knows_7)
    claim = worker.claim_step()
    worker.say(claim, "half")
    begin_call(worker, claim, calling())
    screen.take(teller.read())
    stop_thread(thread)
    screen.take(teller.read())
    assert screen.end == {"type": "abort"}
    assert screen.text == "half"


@pytest.mark.parametrize("knows_7", [True, False])
def test_a_failure_in_the_middle_of_a_text_ends_with_the_error(thread, worker, knows_7):
    """The text that was begun is closed before, or taken back."""
    teller, screen = teller_of(thread, knows_7=knows_7), Screen(knows_7=knows_7)
    claim = worker.claim_step()
    worker.say(claim, "half")
    screen.take(teller.read())
    worker.fail(claim)
    screen.take(teller.read())
    assert screen.end == {"type": "error", "errorText": "The model's credentials are not accepted."}
    assert screen.text == ("" if knows_7 else "half")


def test_an_answer_ends_where_a_steering_message_has_begun_the_next(thread, worker):
    """That it is not the end is said; the next answer is for whoever asked."""
    claim = worker.claim_step()
    teller = teller_of(thread)
    question = send_message(thread, "Wait.")
    other = AnswerStream(thread.pk, question=question)
    assert (kinds(teller.read()), other.read()) == (["start"], [])
    worker.answer("First.", claim=claim)
    assert teller.read()[-1]["finishReason"] == "tool-calls"
    assert kinds(other.read()) == ["start"]
    worker.answer("Second.")
    assert Screen(knows_7=True).take([{"type": "start", "messageId": "x"}, *other.read()]).text == "Second."


def test_a_client_of_version_7_gets_the_messages_that_the_run_took_in(thread, worker):
    """After the last step, and with a reason after which it sends nothing by itself."""
    teller, screen = teller_of(thread, knows_7=True), Screen(knows_7=True)
    claim = worker.claim_step()
    first, second = send_message(thread, "Wait.", client_id="m2"), send_message(thread, "Shorter.")
    worker.answer("First.", calling(), claim=claim)
    worker.settle()
    worker.claim_step()
    screen.take(teller.read())
    assert [(chunk["id"], chunk["parts"]) for chunk in screen.steering] == [
        ("m2", first.parts),
        (str(second.pk), second.parts),
    ]
    assert (screen.end["type"], screen.end["finishReason"]) == ("finish", "interrupted")


@pytest.mark.parametrize("knows_7", [True, False])
def test_an_answer_that_was_complete_before_the_next_message_ends_as_such(thread, worker, knows_7):
    """Even if the client reads its end only after the next run has begun."""
    teller, screen = teller_of(thread, knows_7=knows_7), Screen(knows_7=knows_7)
    worker.answer("First.")
    send_message(thread, "And?")
    worker.answer("Second.")
    screen.take(teller.read())
    assert (screen.text, screen.end["finishReason"], screen.steering) == ("First.", "stop", [])


def test_a_stream_that_waits_goes_on_with_the_result_and_ends_in_time(thread, worker, monkeypatch):
    """While it may wait, nothing ends it; after that, it ends as a stream does that does not wait."""
    call = replace(calling(), needs_approval=True)
    worker.answer("May I?", call)
    at_once, teller = teller_of(thread), teller_of(thread, wait_seconds=600)
    assert kinds(at_once.read())[-1] == "finish"
    screen = Screen().take(teller.read())
    assert (teller.is_over, screen.tool()["state"]) == (False, "approval-requested")
    assert (teller.read(), teller.is_over) == ([], False)
    lifecycle.approve_tool_call(thread, call.tool_call_id, by=None)
    worker.settle("paid")
    worker.answer("Paid.", replace(calling(), needs_approval=True))
    screen.take(teller.read())
    assert (teller.is_over, screen.text) == (False, "May I?Paid.")
    late = time.monotonic() + 601
    monkeypatch.setattr("durable_agents.reading.ui_stream.time", SimpleNamespace(monotonic=lambda: late))
    screen.take(teller.read())
    assert (teller.is_over, screen.end["finishReason"]) == (True, "tool-calls")


def test_a_continuation_is_told_what_the_client_does_not_show(thread, worker):
    """By the steps and the calls that it shows; nothing of that is told again."""
    call = calling()
    worker.answer("Let me see.", call)
    first = Screen().take(teller_of(thread).read())
    worker.settle({"found": 1})
    worker.answer("Found.")
    seen = Seen(steps=steps_in(first.parts), calls={call.tool_call_id: first.tool()})
    rest = teller_of(thread, seen=seen).read()
    assert "tool-output-available" in kinds(rest)
    assert plain(Screen(first.parts).take(rest).parts) == plain(stored(latest_answer_of(thread)))
    shown = Screen(first.parts).take(rest)
    seen = Seen(steps=2, calls={call.tool_call_id: shown.tool()})
    assert kinds(teller_of(thread, seen=seen).read()) == ["start", "finish"]


def test_a_message_that_waits_is_told_when_its_turn_comes(declare, worker):
    """Nothing of the run before; a stop ends the waiting."""
    thread = create_thread(declare(when_busy="queue"), prompt="First?")
    second = AnswerStream(thread.pk, question=send_message(thread, "Second?"))
    third = AnswerStream(thread.pk, question=send_message(thread, "Third?"))
    assert (second.read(), third.read()) == ([], [])
    worker.answer("One.")
    worker.answer("Two.")
    assert Screen().take(second.read()).text == "Two."
    stop_thread(thread)
    assert kinds(third.read()) == ["start", "abort"]


def test_a_message_that_a_stop_holds_back_is_told_of_the_stop(declare):
    """It has no answer, and the run is over."""
    thread = create_thread(declare(when_busy="queue"), prompt="First?")
    waiting = AnswerStream(thread.pk, question=send_message(thread, "Second?"))
    stop_thread(thread)
    assert (kinds(waiting.read()), waiting.is_over) == (["abort"], True)


def test_metadata_say_what_the_answer_has_used(thread, worker):
    """In camel case, as the AI SDK has it; null is nowhere."""
    worker.answer("Let me see.", calling())
    worker.settle("x")
    worker.answer("Found.")
    screen = Screen().take(teller_of(thread).read())
    assert screen.metadata["threadId"] == str(thread.pk)
    assert screen.metadata["status"] == "completed"
    assert screen.metadata["createdAt"] == latest_answer_of(thread).created_at.isoformat()
    used = Thread.objects.get(pk=thread.pk)
    assert screen.metadata["usage"]["inputTokens"] == used.input_tokens > 0
    assert screen.metadata["usage"]["totalTokens"] == used.input_tokens + used.output_tokens
    assert None not in screen.metadata.values()


def test_a_thread_that_is_deleted_ends_the_telling(thread):
    """The reader is told."""
    teller = teller_of(thread)
    teller.read()
    delete_thread(thread)
    with pytest.raises(ThreadNotFoundError):
        teller.read()


def test_an_answer_that_is_replaced_ends(thread, worker):
    """Whoever followed it is not told of the one in its place."""
    worker.answer("First.")
    teller = AnswerStream(thread.pk, answer=Message.objects.get(role=Role.ASSISTANT))
    regenerate(thread)
    screen = Screen().take(teller.read())
    assert screen.end["type"] == "finish"

"""A message that comes while a run is on is answered once, whatever the run is doing."""

import pytest
from django.db.models.functions import Now

from durable_agents import create_thread, delete_thread, lifecycle, resume_thread, send_message, stop_thread
from durable_agents.exceptions import ThreadNotFoundError
from durable_agents.models import Message, Stream
from durable_agents.transcript import turns

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(agent):
    """Return a thread with a question, whose step is due."""
    return create_thread(agent, prompt="One")


def roles(thread) -> list[str]:
    """Who has said something, in order, in the history of the next model call."""
    return [turn.role for turn in turns(thread.pk) if turn.parts or turn.steps]


def history_of(claim) -> list[str]:
    """Who spoke, as the engine tells the model of this attempt."""
    stream = Stream.objects.select_related("message").get(pk=claim.row_id)
    return [turn.role for turn in turns(claim.thread_id, upto=stream.message.position) if turn.parts or turn.steps]


def at_rest(thread) -> bool:
    thread.refresh_from_db()
    return not thread.is_running


def test_a_message_before_the_first_claim_is_answered_with_it(thread, worker):
    send_message(thread, "Two")
    claim = worker.claim_step()
    assert history_of(claim) == ["user", "user"]
    worker.answer("Both.", claim=claim)
    assert roles(thread) == ["user", "user", "assistant"]
    assert at_rest(thread)


def test_a_message_during_backoff_is_answered_by_the_next_attempt(thread, worker):
    worker.retry(worker.claim_step())
    send_message(thread, "Two")
    Stream.objects.update(available_at=Now())
    worker.answer("Both.")
    assert roles(thread) == ["user", "user", "assistant"]
    assert at_rest(thread)


def test_a_message_during_an_attempt_is_answered_after_it(thread, worker):
    claim = worker.claim_step()
    send_message(thread, "Two")
    assert history_of(claim) == ["user"]
    worker.answer("First.", claim=claim)
    worker.answer("Second.")
    assert roles(thread) == ["user", "assistant", "user", "assistant"]
    assert at_rest(thread)


@pytest.mark.parametrize("ending", ["retry", "reap", "release"])
def test_a_message_during_an_attempt_that_fails_is_answered_by_the_next(thread, worker, ending):
    claim = worker.claim_step()
    send_message(thread, "Two")
    match ending:
        case "retry":
            worker.retry(claim, delay_seconds=0)
        case "reap":
            lifecycle.reap(lambda _: True)
        case "release":
            lifecycle.release(claim)
    Stream.objects.filter(state="pending").update(available_at=Now())
    worker.answer("Both.")
    assert roles(thread) == ["user", "user", "assistant"]
    assert at_rest(thread)


def test_an_answer_that_never_began_is_taken_back_from_browsers(thread, worker):
    send_message(thread, "Two")
    assert Message.objects.filter(role="assistant", superseded_at__isnull=False).count() == 1
    assert Message.objects.shown().filter(role="assistant").count() == 1


@pytest.mark.parametrize("when_busy", ["steer", "queue", "interrupt", "reject"])
def test_a_resume_with_a_prompt_makes_one_model_call(declare, worker, when_busy):
    thread = create_thread(declare(when_busy=when_busy), prompt="One")
    stop_thread(thread)
    resume_thread(thread, "Two")
    worker.answer("Both.")
    assert roles(thread) == ["user", "user", "assistant"]
    assert at_rest(thread)


def test_a_deleted_thread_leaves_nothing_to_a_worker_that_still_writes(thread, worker):
    claim = worker.claim_step()
    worker.say(claim, "Half")
    delete_thread(thread)
    assert lifecycle.lost_claims([claim]) == {claim.row_id}
    with pytest.raises(ThreadNotFoundError):
        worker.answer("Whole.", claim=claim)

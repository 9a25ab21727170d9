"""An attempt that failed: tried again later, given up, or given back by a worker that has to go."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from durable_agents import create_thread, lifecycle
from durable_agents.exceptions import ErrorKind, LeaseLostError
from durable_agents.llm import ModelUsage
from durable_agents.models import Message, Stream, Thread
from durable_agents.transcript import ui_messages
from tests.lifecycle.stage import call_of, calling, failed, make_due, open_stream, status_of, stream_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


def test_a_failed_attempt_is_aborted_and_a_new_one_due_later(thread, worker):
    """Of the same message, the next in number and attempt."""
    claim = worker.claim_step()
    worker.say(claim, "half")
    worker.retry(claim, kind=ErrorKind.RATE_LIMITED)
    old, new = stream_of(claim), open_stream(thread)
    assert (old.state, old.parts, old.error_code, old.error_detail) == (
        "aborted",
        [],
        "rate_limited",
        "refused: key-123",
    )
    assert (new.number, new.attempt, new.message_id) == (old.number + 1, 2, old.message_id)
    assert Stream.objects.filter(pk=new.pk, available_at__gt=Now() + timedelta(seconds=50)).exists()
    assert worker.claim() == []


def test_a_retry_is_shown_without_the_providers_text(thread, worker):
    """What went wrong in detail is for the admin."""
    worker.retry(worker.claim_step(), kind=ErrorKind.RATE_LIMITED)
    stored = Thread.objects.get(pk=thread.pk)
    facts = {name: value for name, value in stored.retry.items() if name != "next_retry_at"}
    assert facts == {
        "scope": "step",
        "attempt": 2,
        "max_attempts": 4,
        "error": "The model is busy: too many requests.",
        "kind": "rate_limited",
        "retryable": True,
    }
    assert stored.status == "streaming"


def test_the_parts_of_a_failed_attempt_are_not_shown(thread, worker):
    """The answer stands once."""
    claim = worker.claim_step()
    worker.say(claim, "half")
    worker.retry(claim)
    make_due(thread)
    worker.answer("Whole.")
    answer = ui_messages(Message.objects.shown())[-1]
    assert [part["text"] for part in answer["parts"] if part["type"] == "text"] == ["Whole."]
    assert Thread.objects.get(pk=thread.pk).retry is None


@pytest.mark.parametrize("transition", ["retry_step", "fail_step"])
def test_a_failed_attempt_keeps_what_it_has_used(thread, worker, transition):
    """The provider wants its money; the thread's totals have it too."""
    ended = failed(ErrorKind.NETWORK, usage=ModelUsage(input_tokens=7, output_tokens=2, estimated=True))
    claim = worker.claim_step()
    if transition == "retry_step":
        lifecycle.retry_step(claim, ended, delay_seconds=1, max_attempts=4)
    else:
        lifecycle.fail_step(claim, ended)
    stream, total = stream_of(claim), Thread.objects.get(pk=thread.pk)
    assert (stream.input_tokens, stream.output_tokens, stream.usage_estimated) == (7, 2, True)
    assert (total.input_tokens, total.output_tokens) == (7, 2)


def test_what_a_stopped_attempt_had_used_is_added_once(thread, worker):
    """By the worker that learns of the stop; nothing else of it."""
    claim = worker.claim_step()
    lifecycle.stop_thread(thread)
    for _ in range(2):
        lifecycle.record_usage(claim, model="openai/x", usage=ModelUsage(input_tokens=7, output_tokens=2))
    assert (stream_of(claim).input_tokens, stream_of(claim).model) == (7, "openai/x")
    assert (Thread.objects.get(pk=thread.pk).input_tokens, status_of(thread)) == (7, "stopped")


def test_usage_of_a_step_that_is_not_closed_is_not_added(thread, worker):
    """Its commit brings it."""
    claim = worker.claim_step()
    lifecycle.record_usage(claim, model="openai/x", usage=ModelUsage(input_tokens=7))
    assert stream_of(claim).input_tokens == 0


def test_a_step_that_failed_for_good_fails_the_thread(thread, worker):
    """With the kind as its code and a text that gives nothing away."""
    worker.fail(worker.claim_step(), kind=ErrorKind.AUTH)
    stored = Thread.objects.get(pk=thread.pk)
    assert (stored.status, stored.error_code, stored.retry) == ("failed", "auth", None)
    assert "key-123" not in stored.error_message
    assert not Stream.objects.open().exists()


def test_a_failed_run_is_warned_of_in_the_log(thread, worker, caplog, django_capture_on_commit_callbacks):
    """Projects that configure no logging see the warning in the worker's terminal. It has no text of the provider."""
    with django_capture_on_commit_callbacks(execute=True):
        worker.fail(worker.claim_step(), kind=ErrorKind.AUTH)
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert (record.action, record.thread, record.kind) == ("run_failed", str(thread.pk), "auth")
    assert "key-123" not in str(vars(record))


def test_an_attempt_that_is_retried_is_not_warned_of(thread, worker, caplog, django_capture_on_commit_callbacks):
    """The run has not failed."""
    with django_capture_on_commit_callbacks(execute=True):
        worker.retry(worker.claim_step(), kind=ErrorKind.RATE_LIMITED)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.parametrize("transition", ["retry", "fail"])
def test_a_fenced_out_holder_ends_nothing(thread, worker, transition):
    """The step belongs to somebody else."""
    claim = worker.claim_step()
    Stream.objects.filter(pk=claim.row_id).update(fence=claim.fence + 1)
    with pytest.raises(LeaseLostError):
        getattr(worker, transition)(claim)
    assert (stream_of(claim).state, status_of(thread)) == ("streaming", "streaming")


def test_a_released_step_is_due_now_and_not_counted(thread, worker):
    """A deploy is no failure."""
    claim = worker.claim_step()
    lifecycle.release(claim)
    again = worker.claim_step()
    assert (again.attempt, again.crashes) == (1, 0)
    assert again.row_id != claim.row_id
    assert (stream_of(claim).state, stream_of(claim).finish_reason) == ("aborted", "released")


def test_a_released_step_keeps_the_count_of_its_attempt(thread, worker):
    """What failed before still counts."""
    worker.retry(worker.claim_step())
    make_due(thread)
    lifecycle.release(worker.claim_step())
    assert worker.claim_step().attempt == 2


def test_a_released_call_that_may_run_twice_is_due_now_and_not_counted(thread, worker):
    """The same row, with a higher fence."""
    worker.answer("", calling("again"))
    claim = worker.claim_call()
    lifecycle.release(claim)
    again = worker.claim_call()
    assert (again.row_id, again.attempt, again.crashes) == (claim.row_id, 1, 0)
    assert again.fence > claim.fence


def test_a_released_call_that_may_not_run_twice_is_settled(thread, worker):
    """It has begun, so it may have had its effect: the model is told, and the run goes on."""
    worker.answer("", calling("plain"))
    claim = worker.claim_call()
    lifecycle.release(claim)
    assert (call_of(claim).status, status_of(thread)) == ("unknown", "streaming")


def test_a_release_of_what_is_lost_changes_nothing(thread, worker):
    """A worker that leaves late does no harm."""
    claim = worker.claim_step()
    lifecycle.stop_thread(thread)
    lifecycle.release(claim)
    assert (status_of(thread), Stream.objects.count()) == ("stopped", 1)


def test_what_a_released_holder_says_late_is_refused(thread, worker):
    """Its fence is old."""
    worker.answer("", calling("again"))
    claim = worker.claim_call()
    lifecycle.release(claim)
    with pytest.raises(LeaseLostError):
        worker.settle("late", claim=claim)
    assert call_of(claim).status == "pending"

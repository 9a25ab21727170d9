"""A person halts a run, at once; and continues a thread at rest."""

import pytest

from durable_agents import (
    InvalidPartsError,
    ThreadBusyError,
    create_thread,
    lifecycle,
    resume_thread,
    send_message,
    stop_thread,
)
from durable_agents.models import Message, Stream, Thread, ToolCall
from durable_agents.transcript import turns, ui_messages
from tests.lifecycle.stage import calling, make_due, open_stream, status_of, stream_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


def texts(thread):
    """Return the texts of the thread's last message as clients see them."""
    parts = ui_messages(Message.objects.shown().filter(thread=thread))[-1]["parts"]
    return [part["text"] for part in parts if part["type"] == "text"]


def test_a_stop_keeps_the_text_stored_so_far(thread, worker):
    """And marks it as ended."""
    claim = worker.claim_step()
    worker.say(claim, "So ", "far")
    assert stop_thread(thread).status == "stopped"
    stream = stream_of(claim)
    assert (stream.state, stream.finish_reason, stream.text) == ("aborted", "stopped", "So far")
    assert stream.parts == [{"type": "step-start"}, {"type": "text", "text": "So far", "state": "done"}]
    assert texts(thread) == ["So far"]


def test_a_stop_before_any_text_leaves_no_parts(thread, worker):
    """An empty step would be shown as one."""
    claim = worker.claim_step()
    stop_thread(thread)
    assert (stream_of(claim).parts, texts(thread)) == ([], [])


def test_a_stop_leaves_out_a_call_that_was_never_committed(thread, worker):
    """It has no row, so it could never have a result."""
    claim = worker.claim_step()
    worker.say(claim, "Let me see.")
    call = {"type": "tool-input-start", "toolCallId": "call_1", "toolName": "plain"}
    lifecycle.append_deltas([lifecycle.Append(claim=claim, seq=1, chunks=[call])])
    stop_thread(thread)
    assert [part["type"] for part in stream_of(claim).parts] == ["step-start", "text"]


def test_a_stop_cancels_open_calls_and_says_which_may_have_run(thread, worker):
    """Each gets its one outcome."""
    worker.answer("", calling("plain"), calling("again"))
    running = worker.claim_call()
    stop_thread(thread)
    calls = {call.pk: call for call in ToolCall.objects.all()}
    assert {call.status for call in calls.values()} == {"cancelled"}
    assert "may or may not have run" in calls.pop(running.row_id).error
    [pending] = calls.values()
    assert "may" not in pending.error


def test_a_stop_keeps_outcomes_that_are_there(thread, worker):
    """Only open calls are cancelled."""
    worker.answer("", calling("plain"), calling("again"))
    worker.settle("first")
    stop_thread(thread)
    assert sorted(ToolCall.objects.values_list("status", flat=True)) == ["cancelled", "completed"]


def test_a_stop_in_backoff_ends_the_waiting(thread, worker):
    """Nothing runs when its time comes."""
    worker.retry(worker.claim_step())
    stop_thread(thread)
    make_due(thread)
    assert worker.claim() == []
    assert Thread.objects.get(pk=thread.pk).retry is None


@pytest.mark.parametrize("ending", ["completed", "failed", "stopped"])
def test_a_stop_at_rest_changes_nothing(thread, worker, ending):
    """Not even the rev."""
    claim = worker.claim_step()
    if ending == "completed":
        worker.answer(claim=claim)
    elif ending == "failed":
        worker.fail(claim)
    else:
        stop_thread(thread)
    before = Thread.objects.get(pk=thread.pk)
    after = stop_thread(thread)
    assert (after.status, after.rev) == (ending, before.rev)


def test_a_message_after_a_stop_starts_a_new_run(thread, worker):
    """With an answer of its own."""
    stop_thread(thread)
    send_message(thread, "Again")
    worker.answer("Hello.")
    assert status_of(thread) == "completed"
    assert [turn.role for turn in turns(thread.pk)] == ["user", "assistant", "user", "assistant"]


def test_messages_queued_before_a_stop_wait_for_a_resume(declare, worker):
    """They are kept and not run."""
    thread = create_thread(declare(when_busy="queue"), prompt="One")
    send_message(thread, "Two")
    stop_thread(thread)
    assert worker.claim() == []
    resume_thread(thread)
    worker.answer("First.")
    worker.answer("Second.")
    assert status_of(thread) == "completed"
    assert Message.objects.queued().count() == 0


def test_a_message_after_a_stop_does_not_run_those_queued_before(declare, worker):
    """The stop position divides them."""
    thread = create_thread(declare(when_busy="queue"), prompt="One")
    held_back = send_message(thread, "Two")
    stop_thread(thread)
    send_message(thread, "Three")
    send_message(thread, "Four")
    worker.answer("Third.")
    worker.answer("Fourth.")
    assert status_of(thread) == "completed"
    assert list(Message.objects.queued()) == [held_back]


def test_messages_held_back_by_a_stop_run_on_a_resume_after_a_later_run(declare, worker):
    """None is ever lost."""
    thread = create_thread(declare(when_busy="queue"), prompt="One")
    send_message(thread, "Two")
    stop_thread(thread)
    send_message(thread, "Three")
    worker.answer("Third.")
    assert resume_thread(thread).status == "streaming"
    worker.answer("Second.")
    assert (status_of(thread), Message.objects.queued().count()) == ("completed", 0)


def test_a_resume_of_a_stopped_run_goes_on_in_the_same_message(thread, worker):
    """After what was kept."""
    claim = worker.claim_step()
    worker.say(claim, "So far")
    stop_thread(thread)
    assert resume_thread(thread).status == "streaming"
    assert open_stream(thread).message_id == stream_of(claim).message_id
    worker.answer("and on.")
    assert texts(thread) == ["So far", "and on."]


def test_a_resume_after_cancelled_calls_goes_on_with_their_outcomes(thread, worker):
    """The model is told that they were cancelled."""
    worker.answer("", calling("plain"))
    stop_thread(thread)
    resume_thread(thread)
    [call] = turns(thread.pk)[-1].steps[0].calls
    assert call.status == "cancelled"
    worker.answer("Done.")
    assert status_of(thread) == "completed"


def test_a_resume_of_a_failed_run_tries_again(thread, worker):
    """From the step that failed, its error forgotten."""
    worker.fail(worker.claim_step())
    resumed = resume_thread(thread)
    assert (resumed.status, resumed.error_code) == ("streaming", "")
    worker.answer("Hello.")
    assert status_of(thread) == "completed"
    assert Message.objects.filter(role="assistant").count() == 1


def test_a_resume_after_max_steps_gives_as_many_again(declare, worker):
    """And no more."""
    thread = create_thread(declare(max_steps=2), prompt="Hi")
    for _ in range(2):
        for _ in range(2):
            worker.answer("", calling())
            worker.settle()
        assert Thread.objects.values_list("status", "error_code").get() == ("failed", "max_steps")
        resume_thread(thread)
    assert status_of(thread) == "streaming"


def test_a_resume_of_a_completed_thread_changes_nothing(thread, worker):
    """There is nothing to go on with."""
    worker.answer("Hello.")
    before = Thread.objects.get(pk=thread.pk).rev
    assert resume_thread(thread).status == "completed"
    assert (Thread.objects.get(pk=thread.pk).rev, Stream.objects.count()) == (before, 1)


def test_a_resume_of_a_running_thread_changes_nothing(thread):
    """It goes on anyhow."""
    before = Thread.objects.get(pk=thread.pk).rev
    assert resume_thread(thread).status == "streaming"
    assert Thread.objects.get(pk=thread.pk).rev == before


def test_a_resume_with_a_prompt_asks_anew(thread, worker):
    """By the ordinary door, whatever the thread's state at rest."""
    worker.answer("Hello.")
    resume_thread(thread, "And now?")
    worker.answer("Now too.")
    assert [turn.role for turn in turns(thread.pk)] == ["user", "assistant", "user", "assistant"]
    assert status_of(thread) == "completed"


def test_a_resume_with_a_prompt_that_is_refused_changes_nothing(thread, worker):
    """Checked before anything is written."""
    worker.answer("Hello.")
    with pytest.raises(InvalidPartsError):
        resume_thread(thread, "  ")
    assert status_of(thread) == "completed"


def test_a_resume_with_a_prompt_of_a_busy_thread_that_rejects_is_refused(declare):
    """As any message would be."""
    thread = create_thread(declare(when_busy="reject"), prompt="One")
    with pytest.raises(ThreadBusyError):
        resume_thread(thread, "Two")


def test_a_resume_with_a_prompt_of_a_busy_thread_that_queues_waits_its_turn(declare, worker):
    """A prompt meets a run by the ordinary door."""
    thread = create_thread(declare(when_busy="queue"), prompt="One")
    resume_thread(thread, "Two")
    assert [turn.parts[0]["text"] for turn in turns(thread.pk) if turn.role == "user"] == ["One"]
    worker.answer("First.")
    worker.answer("Second.")
    assert [turn.role for turn in turns(thread.pk)] == ["user", "assistant"] * 2

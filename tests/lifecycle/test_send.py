"""A user's message: it starts a run, or meets one that is on."""

import pytest

from durable_agents import (
    InvalidPartsError,
    ThreadBusyError,
    ThreadNotFoundError,
    TooLargeError,
    create_thread,
    send_message,
)
from durable_agents.models import Message, Stream, Thread
from durable_agents.transcript import turns
from tests.lifecycle.stage import calling, open_stream, status_of, stream_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(agent):
    """Return a new thread."""
    return create_thread(agent)


def test_a_message_to_a_thread_at_rest_starts_a_run(thread):
    """The answer is there from the start, empty, with its first attempt due."""
    message = send_message(thread, "Hi")
    answer = Message.objects.get(role="assistant")
    assert status_of(thread) == "streaming"
    assert (message.position, answer.position, answer.parent_id) == (1, 2, message.pk)
    assert (open_stream(thread).message_id, open_stream(thread).number) == (answer.pk, 1)


def test_a_message_may_name_its_thread_by_id_or_text(thread):
    """What crosses processes is an id."""
    assert send_message(str(thread.pk), "Hi").thread_id == thread.pk


@pytest.mark.parametrize("unknown", ["00000000-0000-0000-0000-000000000000", "no uuid"])
def test_an_unknown_thread_is_not_found(agent, unknown):
    """Whatever the id looks like."""
    with pytest.raises(ThreadNotFoundError):
        send_message(unknown, "Hi")


def test_a_known_client_id_gives_back_the_first_message_and_changes_nothing(thread):
    """A client that sends twice is answered once."""
    first = send_message(thread, "Hi", client_id="m1")
    rev = Thread.objects.get(pk=thread.pk).rev
    again = send_message(thread, "Something else", client_id="m1")
    assert (again.pk, again.text) == (first.pk, "Hi")
    assert (Thread.objects.get(pk=thread.pk).rev, Message.objects.filter(role="user").count()) == (rev, 1)


def test_the_same_client_id_in_two_threads_makes_two_messages(agent, thread):
    """Ids of messages are unique per thread."""
    other = create_thread(agent)
    assert send_message(thread, "Hi", client_id="m1").pk != send_message(other, "Hi", client_id="m1").pk


def test_context_of_a_message_replaces_that_of_the_thread(thread):
    """The latest caller knows best."""
    send_message(thread, "Hi", context={"tenant": 7})
    assert Thread.objects.get(pk=thread.pk).context == {"tenant": 7}


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"prompt": ""}, InvalidPartsError),
        ({}, InvalidPartsError),
        ({"prompt": "a", "parts": [{"type": "text", "text": "b"}]}, InvalidPartsError),
        ({"parts": [{"type": "tool-add", "toolCallId": "x"}]}, InvalidPartsError),
        ({"parts": []}, InvalidPartsError),
        ({"prompt": "a" * 32_001}, TooLargeError),
    ],
)
def test_what_a_user_may_not_send_is_refused_and_leaves_nothing(thread, given, error):
    """No message, no run."""
    with pytest.raises(error):
        send_message(thread, **given)
    assert (status_of(thread), Message.objects.count()) == ("completed", 0)


def test_a_new_run_forgets_the_error_of_the_last(thread, worker):
    """The thread shows what is, not what was."""
    send_message(thread, "Hi")
    worker.fail(worker.claim_step())
    send_message(thread, "Hi again")
    assert Thread.objects.values_list("error_code", "error_message").get(pk=thread.pk) == ("", "")


def test_a_steering_message_during_a_step_is_answered_after_it(thread, worker):
    """The step goes on; then an answer of its own begins, and the run ends with it."""
    send_message(thread, "One")
    claim = worker.claim_step()
    send_message(thread, "Two")
    assert stream_of(claim).state == "streaming"
    worker.answer("First.", claim=claim)
    assert [turn.role for turn in turns(thread.pk)] == ["user", "assistant", "user", "assistant"]
    worker.answer("Second.")
    assert status_of(thread) == "completed"


def test_a_steering_message_is_in_the_history_of_the_next_model_call(thread, worker):
    """Between two steps of a run, after the tool's outcome."""
    send_message(thread, "One")
    worker.answer("", calling())
    send_message(thread, "Two")
    assert status_of(thread) == "awaiting_tool_results"
    worker.settle()
    assert [turn.role for turn in turns(thread.pk)] == ["user", "assistant", "user", "assistant"]
    assert turns(thread.pk)[2].parts[0]["text"] == "Two"
    assert status_of(thread) == "streaming"


def test_two_steering_messages_get_one_answer(thread, worker):
    """Both are in the history of the next call."""
    send_message(thread, "One")
    claim = worker.claim_step()
    send_message(thread, "Two")
    send_message(thread, "Three")
    worker.answer("First.", claim=claim)
    worker.answer("Second.")
    assert [turn.role for turn in turns(thread.pk)] == ["user", "assistant", "user", "user", "assistant"]
    assert status_of(thread) == "completed"


def test_queued_messages_are_answered_one_after_the_other(declare, worker):
    """Each gets its place when its turn comes, and an answer of its own."""
    thread = create_thread(declare(when_busy="queue"), prompt="One")
    second, third = send_message(thread, "Two"), send_message(thread, "Three")
    assert (second.position, third.position, second.queued_at is not None) == (None, None, True)
    for text in ("First.", "Second.", "Third."):
        worker.answer(text)
    roles = list(Message.objects.shown().values_list("role", "position"))
    assert roles == [(role, place + 1) for place, role in enumerate(["user", "assistant"] * 3)]
    assert status_of(thread) == "completed"


def test_a_queued_message_is_not_in_the_history_of_the_run_before(declare, worker):
    """None is ever in two runs."""
    thread = create_thread(declare(when_busy="queue"), prompt="One")
    send_message(thread, "Two")
    assert [turn.parts[0]["text"] for turn in turns(thread.pk) if turn.role == "user"] == ["One"]


def test_an_interrupting_message_stops_the_run_and_starts_the_next(declare, worker):
    """What was said so far is kept."""
    thread = create_thread(declare(when_busy="interrupt"), prompt="One")
    claim = worker.claim_step()
    worker.say(claim, "So far")
    send_message(thread, "Two")
    assert (stream_of(claim).state, stream_of(claim).text) == ("aborted", "So far")
    assert (status_of(thread), open_stream(thread).number) == ("streaming", 2)
    worker.answer("Second.")
    assert status_of(thread) == "completed"


def test_a_message_to_a_busy_thread_that_rejects_is_refused(declare):
    """Nothing is written."""
    thread = create_thread(declare(when_busy="reject"), prompt="One")
    with pytest.raises(ThreadBusyError):
        send_message(thread, "Two")
    assert Message.objects.filter(role="user").count() == 1


@pytest.mark.parametrize("when_busy", ["steer", "queue", "interrupt", "reject"])
def test_a_repeated_client_id_is_no_second_message_whatever_a_busy_thread_does(declare, when_busy):
    """Not even an error: the message is known."""
    thread = create_thread(declare(when_busy=when_busy))
    first = send_message(thread, "One", client_id="m1")
    assert send_message(thread, "One", client_id="m1").pk == first.pk
    assert Stream.objects.count() == 1


def test_a_known_client_id_gives_back_its_message_whatever_is_said(thread):
    """Also where nothing is said, or too much."""
    first = send_message(thread, "Hi", client_id="m1")
    assert send_message(thread, client_id="m1") == first
    assert send_message(thread, "x" * 1_000_000, client_id="m1") == first


def test_two_messages_are_never_shown_under_one_id(thread):
    """The id that we gave a user's message names that one; that of an answer is taken."""
    question = send_message(thread, "Hi")
    answer = Message.objects.get(role="assistant")
    for spelling in (str(question.pk), str(question.pk).upper(), question.pk.hex):
        assert send_message(thread, "Again", client_id=spelling) == question
    with pytest.raises(InvalidPartsError, match="id"):
        send_message(thread, "Again", client_id=str(answer.pk))
    assert Message.objects.count() == 2
    assert send_message(create_thread("tested"), "Hi", client_id=str(answer.pk)).shown_id == str(answer.pk)

"""Editing, regenerating and forking: what was said is replaced or copied, and never lost."""

from dataclasses import replace

import pytest
from django.contrib.auth import get_user_model

from durable_agents import (
    MessageNotFoundError,
    add_message,
    add_tool_result,
    create_thread,
    delete_thread,
    edit_message,
    fork_thread,
    lifecycle,
    list_messages,
    regenerate,
    resume_thread,
    send_message,
    stop_thread,
)
from durable_agents.agents import registry
from durable_agents.exceptions import AgentNotFoundError, InvalidPartsError, ThreadBusyError, TooLargeError
from durable_agents.live.reader import Cursor, ThreadReader
from durable_agents.llm import openai_messages
from durable_agents.models import Message, Stream, Thread, ToolCall
from durable_agents.parts import STILL_RUNNING, text_of
from durable_agents.transcript import turns
from tests.lifecycle.stage import calling, open_stream, status_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def talk(agent, worker):
    """Return a thread in which two questions were answered, the second with a tool."""
    thread = create_thread(agent, prompt="One?", client_id="t")
    worker.answer("1.")
    send_message(thread, "Two?", client_id="second")
    worker.answer("Let me see.", calling("plain"))
    worker.settle()
    worker.answer("2.")
    thread.refresh_from_db()
    return thread


def shown(thread):
    """Return role and text of each message."""
    return [(message.role, message.text) for message in list_messages(thread)]


def texts(thread):
    """Return the text of each message."""
    return [text for _, text in shown(thread)]


def told(thread):
    """Return the messages of the thread that the model gets."""
    history = openai_messages("", turns(thread.pk), max_result_bytes=1000)
    return [message["content"] for message in history]


# ---------------------------------------------------------------------------------------------------------- editing


def test_an_edited_message_is_answered_and_what_came_after_it_is_superseded(talk, worker):
    """Under the id that it had."""
    first = list_messages(talk)[0]
    edited = edit_message(talk, first.id, "Three?")
    assert (status_of(talk), edited.shown_id) == ("streaming", first.id)
    assert told(talk) == ["Three?"]
    worker.answer("3.")
    assert texts(talk) == ["Three?", "3."]
    assert status_of(talk) == "completed"


def test_what_was_superseded_is_kept(talk):
    """With the moment, so that one can see what was said before."""
    edit_message(talk, "second", "Three?", metadata={"by": "hand"})
    gone = Message.objects.filter(thread=talk, superseded_at__isnull=False).order_by("position")
    assert [message.text for message in gone.filter(role="user")] == ["Two?"]
    assert [step.text for step in Stream.objects.in_transcript().filter(message__in=gone)] == ["Let me see.", "2."]
    assert ToolCall.objects.get().status == "completed"
    assert texts(talk) == ["One?", "1.", "Three?"]
    assert list_messages(talk)[-1].metadata == {"by": "hand"}


def test_an_edit_may_be_edited(talk, worker):
    """Its id stays the same all along."""
    for text in ("Three?", "Four?", "Five?"):
        edit_message(talk, "second", text)
        worker.answer(f"{text} indeed.")
    assert texts(talk) == ["One?", "1.", "Five?", "Five? indeed."]
    assert Message.objects.filter(client_id="second").count() == 4


def test_a_queued_message_can_be_edited_and_others_stay_queued(declare, worker):
    """A stop holds queued messages back."""
    thread = create_thread(declare(when_busy="queue"), prompt="One?")
    send_message(thread, "Two?", client_id="second")
    send_message(thread, "Three?", client_id="third")
    stop_thread(thread)
    edit_message(thread, "second", "Two, please?")
    assert told(thread)[-1] == "Two, please?"
    assert texts(thread) == ["One?", "Two, please?", "Three?"]


@pytest.mark.parametrize("wrong", ["unknown", "4d6c7a50-0000-4000-8000-000000000000", "\x00", "\ud800", ""])
def test_a_message_that_is_not_there_is_not_found(talk, wrong):
    """Nothing changes."""
    rev = Thread.objects.get(pk=talk.pk).rev
    for change in (
        lambda: edit_message(talk, wrong, "X"),
        lambda: regenerate(talk, wrong),
        lambda: fork_thread(talk, wrong),
    ):
        with pytest.raises(MessageNotFoundError) as refused:
            change()
        assert refused.value.status_code == 404
    assert Thread.objects.get(pk=talk.pk).rev == rev
    assert Thread.objects.count() == 1


def test_a_message_of_another_thread_and_a_superseded_one_are_not_found(talk, agent):
    """By whatever id."""
    other = create_thread(agent, messages=[{"role": "user", "content": "Mine"}])
    answer = list_messages(talk)[-1]
    regenerate(talk)
    stop_thread(talk)
    for gone in (list_messages(other)[0].id, answer.id):
        with pytest.raises(MessageNotFoundError):
            regenerate(talk, gone)


def test_only_a_users_message_can_be_edited(talk):
    """Answers are the model's."""
    with pytest.raises(InvalidPartsError, match="Regenerate"):
        edit_message(talk, list_messages(talk)[-1].id, "2, of course.")


def test_bad_parts_change_nothing(talk, settings):
    """Neither the thread nor the message."""
    settings.DURABLE_AGENTS = {"MAX_TEXT_CHARS": 5}
    for parts, error in (([{"type": "nonsense"}], InvalidPartsError), ("Too long", TooLargeError)):
        with pytest.raises(error):
            edit_message(talk, "second", parts)
    assert texts(talk) == ["One?", "1.", "Two?", "Let me see.\n\n2."]


def test_a_running_thread_is_left_alone(agent):
    """Stop it first."""
    thread = create_thread(agent, prompt="One?", client_id="t")
    for change in (lambda: edit_message(thread, "x", "Y"), lambda: regenerate(thread), lambda: fork_thread(thread)):
        with pytest.raises(ThreadBusyError):
            change()


def test_an_agent_that_is_gone_answers_nothing_anew(talk):
    """What was said stays; a fork is no question."""
    registry.remove("tested")
    for change in (lambda: edit_message(talk, "second", "Three?"), lambda: regenerate(talk)):
        with pytest.raises(AgentNotFoundError):
            change()
    assert len(texts(talk)) == 4
    assert fork_thread(talk).status == "completed"


# ------------------------------------------------------------------------------------------------------ regenerating


def test_the_last_answer_is_made_anew(talk, worker):
    """As a message of its own."""
    old = list_messages(talk)[-1]
    answer = regenerate(talk)
    assert (answer.role, answer.parts, answer.shown_id != old.id) == ("assistant", [], True)
    assert told(talk) == ["One?", "1.", "Two?"]
    worker.answer("Two.")
    assert texts(talk) == ["One?", "1.", "Two?", "Two."]
    assert Thread.objects.get(pk=talk.pk).output_tokens >= 5, "what the superseded answer has cost stays counted"


@pytest.mark.parametrize("which", [0, 1])
def test_an_earlier_answer_is_made_anew_and_what_followed_is_superseded(talk, worker, which):
    """Named by itself or by its question."""
    regenerate(talk, list_messages(talk)[which].id)
    worker.answer("One.")
    assert texts(talk) == ["One?", "One."]


def test_a_question_without_an_answer_is_answered(talk, worker):
    """As after a failure before the first word."""
    add_message(talk, "user", "Three?")
    regenerate(talk)
    worker.answer("3.")
    assert texts(talk)[-2:] == ["Three?", "3."]


def test_a_failed_thread_begins_afresh(agent, worker):
    """Its error is over, and it has all its steps again."""
    thread = create_thread(agent, prompt="One?")
    worker.fail(worker.claim_step())
    Thread.objects.update(run_steps=50)
    regenerate(thread)
    row = Thread.objects.get()
    assert (row.status, row.error_code, row.run_steps) == ("streaming", "", 0)
    assert open_stream(thread).attempt == 1


@pytest.mark.parametrize("history", [[], [{"role": "assistant", "content": "Hello!"}]])
def test_where_nobody_asked_there_is_nothing_to_answer(agent, history):
    """A greeting is not an answer."""
    with pytest.raises(MessageNotFoundError):
        regenerate(create_thread(agent, messages=history))


def test_browsers_are_told_what_is_gone_before_what_is_new(talk, worker):
    """However much they have missed: a message that came back under its id is not taken for gone."""
    before = Cursor(rev=Thread.objects.get(pk=talk.pk).rev)
    edit_message(talk, "second", "Three?")
    worker.answer("3.")
    regenerate(talk)
    worker.answer("Three.")
    frames = ThreadReader(talk.pk, before).news()
    state = {message.id: message.text for message in list_messages(talk)[:2]} | {"second": "Two?"}
    for frame in sorted(frames, key=lambda frame: frame["rev"]):
        if frame["type"] == "removed":
            for gone in frame["ids"]:
                state.pop(gone, None)
        elif frame["type"] == "message":
            state[frame["message"]["id"]] = text_of(frame["message"]["parts"])
        elif frame["type"] == "step":
            state[frame["message"]] += text_of(frame["parts"])
    assert list(state.values()) == texts(talk)


# ----------------------------------------------------------------------------------------------------------- forking


def test_a_fork_has_the_same_history_and_a_life_of_its_own(talk, worker):
    """Neither hears of the other."""
    fork = fork_thread(talk)
    assert shown(fork) == shown(talk)
    assert told(fork) == told(talk)
    assert [m.parts for m in list_messages(fork)] == [m.parts for m in list_messages(talk)]
    send_message(fork, "Three?")
    worker.answer("3.")
    assert (len(texts(fork)), len(texts(talk))) == (6, 4)
    assert (fork.forked_from_id, fork.client_id, fork.rev > 0) == (talk.pk, None, True)


def test_a_fork_costs_nothing_until_it_runs(talk):
    """The ledger counts each call once."""
    fork = Thread.objects.get(pk=fork_thread(talk).pk)
    assert (fork.input_tokens, fork.output_tokens, fork.cost) == (0, 0, None)
    steps = Stream.objects.filter(thread=fork)
    assert set(steps.values_list("input_tokens", "output_tokens", "cost")) == {(0, 0, None)}
    assert Thread.objects.get(pk=talk.pk).output_tokens >= 5


@pytest.mark.parametrize(("at", "kept"), [(0, 1), (1, 2), (2, 3), (3, 4)])
def test_a_fork_goes_as_far_as_a_message(talk, at, kept, worker):
    """One that ends with a question is answered on demand."""
    fork = fork_thread(talk, list_messages(talk)[at].id)
    assert texts(fork) == texts(talk)[:kept]
    assert (fork.status, ToolCall.objects.filter(thread=fork).count()) == ("completed", int(kept == 4))
    resume_thread(fork)
    assert status_of(fork) == ("completed" if at % 2 else "streaming")


def test_a_fork_of_what_was_edited_has_what_is_shown(talk, worker):
    """And no queued messages."""
    edit_message(talk, "second", "Three?")
    worker.answer("3.")
    assert texts(fork_thread(talk)) == ["One?", "1.", "Three?", "3."]


def test_a_fork_of_a_stopped_thread_goes_on_when_resumed(agent, worker):
    """From where it stood."""
    thread = create_thread(agent, prompt="One?")
    worker.answer("Let me", calling("plain"))
    stop_thread(thread)
    fork = fork_thread(thread)
    assert fork.status == "stopped"
    assert ToolCall.objects.get(thread=fork).status == "cancelled"
    resume_thread(fork)
    worker.answer("Done.")
    assert texts(fork)[-1].endswith("Done.")


def test_a_fork_may_be_somebody_elses(talk):
    """And stays in its scope."""
    Thread.objects.filter(pk=talk.pk).update(scope="acme")
    other = get_user_model().objects.create_user("other")
    fork = fork_thread(talk, owner=other)
    assert (fork.owner, fork.scope, fork.title) == (other, "acme", talk.title)
    assert set(Stream.objects.filter(thread=fork).values_list("owner", "scope")) == {(other.pk, "acme")}


def test_a_fork_outlives_what_it_came_from(talk):
    """It only forgets where that was."""
    fork = fork_thread(talk)
    delete_thread(talk)
    fork.refresh_from_db()
    assert (fork.forked_from, len(texts(fork))) == (None, 4)
    assert Message.objects.filter(thread=fork, parent__isnull=False).count() == 2


def test_an_empty_thread_can_be_forked(agent):
    """Into an empty one."""
    assert texts(fork_thread(create_thread(agent))) == []


def test_a_fork_asks_the_database_the_same_however_long_the_thread(talk, agent, django_assert_max_num_queries):
    """In batches."""
    long = create_thread(agent, messages=[{"role": "user", "content": f"{n}"} for n in range(300)])
    with django_assert_max_num_queries(17):
        fork_thread(talk)
    with django_assert_max_num_queries(17):
        fork_thread(long)


# ------------------------------------------------------------------------------- what is queued, and what is still open


@pytest.mark.parametrize("change", [regenerate, fork_thread])
def test_a_queued_message_has_no_place_in_the_history(declare, change):
    """There is nothing up to it, and nothing after it."""
    thread = create_thread(declare(when_busy="queue"), prompt="One?")
    queued = send_message(thread, "Two?")
    stop_thread(thread)
    with pytest.raises(MessageNotFoundError):
        change(thread, str(queued.pk))
    assert Thread.objects.count() == 1


@pytest.fixture
def failed(declare, worker):
    """Return a thread at rest whose first answer has made a call that a service is still working at."""
    thread = create_thread(declare(max_steps=2), prompt="One?")
    worker.answer("I ask.", replace(calling(), kind="deferred"))
    lifecycle.announce_tool_call(worker.claim_call())
    send_message(thread, "Two?")
    worker.fail(worker.claim_step())
    assert (status_of(thread), ToolCall.objects.get().status) == ("failed", "pending")
    return thread


def test_nobody_waits_for_a_call_that_was_edited_away(failed, worker):
    """Its result would come into a history that knows nothing of it."""
    edit_message(failed, list_messages(failed)[0].id, "Three?")
    call = ToolCall.objects.get()
    assert (call.status, call.error_code) == ("cancelled", "superseded")
    worker.answer("3.")
    assert status_of(failed) == "completed"
    assert texts(failed) == ["Three?", "3."]


def test_nobody_waits_for_a_call_of_an_answer_that_is_made_anew(failed, worker):
    """The new one may make it again."""
    regenerate(failed, list_messages(failed)[0].id)
    assert ToolCall.objects.get().status == "cancelled"
    worker.answer("1.")
    assert status_of(failed) == "completed"


def test_a_call_from_before_the_edit_is_still_waited_for(failed, worker):
    """Its answer counts as before."""
    edit_message(failed, list_messages(failed)[2].id, "Three?")
    assert ToolCall.objects.get().status == "pending"
    worker.answer("3.")
    assert status_of(failed) == "awaiting_tool_results"


def test_a_late_result_that_was_edited_away_is_told_with_its_call(failed, worker):
    """The model would wait for ever for what it was told in a message that is gone."""
    add_tool_result(failed, ToolCall.objects.get().tool_call_id, "at last")
    assert STILL_RUNNING in told(failed)
    edit_message(failed, list_messages(failed)[2].id, "Three?")
    assert [word for word in told(failed) if "at last" in word] == ["at last"]
    assert STILL_RUNNING not in told(failed)


def test_an_open_call_is_answered_where_it_was_made(failed, worker):
    """The fork does not wait for it."""
    fork = fork_thread(failed)
    copy = ToolCall.objects.get(thread=fork)
    assert (copy.status, copy.passed_at, copy.finished_at is None) == ("cancelled", None, False)
    assert ToolCall.objects.get(thread=failed).status == "pending"
    assert told(fork)[2] == f"Error: {copy.error}"
    resume_thread(fork)
    worker.answer("2.")
    assert status_of(fork) == "completed"

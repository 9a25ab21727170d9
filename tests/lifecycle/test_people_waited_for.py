"""Questions and approvals that are open when somebody sends a message: who takes them back, and what comes later."""

from dataclasses import replace

import pytest
from django.contrib.auth import get_user_model

from durable_agents import (
    add_tool_result,
    approve_tool_call,
    create_thread,
    lifecycle,
    reject_tool_call,
    send_message,
    settle_tool_call,
    tool,
)
from durable_agents.llm import openai_messages
from durable_agents.models import Message, Stream, ToolCall
from durable_agents.parts import STILL_RUNNING, STILL_WAITING
from durable_agents.transcript import turns
from tests.lifecycle.stage import calling, let_expire, status_of

pytestmark = pytest.mark.django_db


@tool(after_crash="ask")
def asked(word: str = "") -> str:
    """Say a word; a person is asked whether it was said."""
    return word


def person(name, **facts):
    return get_user_model().objects.create_user(name, **facts)


@pytest.fixture
def people():
    """Return who owns the thread and asks, a colleague, and a member of staff; "project" is the project's own code."""
    return {"ada": person("ada"), "bob": person("bob"), "sue": person("sue", is_staff=True), "project": None}


@pytest.fixture
def thread(agent, people):
    return create_thread(agent, owner=people["ada"], scope="org", prompt="Please.", by=people["ada"])


def approval(**facts):
    return replace(calling(**facts), needs_approval=True)


def told_of_calls(thread):
    """Return the results of calls in the next model request, and the late results in it."""
    history = openai_messages("", turns(thread.pk), max_result_bytes=1000)
    late = [message["content"] for message in history if message["role"] == "user" and message["content"][0] == "["]
    return [message["content"] for message in history if message["role"] == "tool"], late


TAKES_BACK = {
    "owner": {"ada", "sue", "project"},
    "staff": {"sue", "project"},
    "other": {"bob", "sue", "project"},
    "auth.add_user": {"project"},
}


@pytest.mark.parametrize("speaker", ["ada", "bob", "sue", "project"])
@pytest.mark.parametrize("who", TAKES_BACK)
@pytest.mark.parametrize("kind", ["approval", "client"])
def test_a_message_takes_back_only_what_its_sender_may_decide(thread, worker, people, kind, who, speaker):
    """In either case, the run continues, and the model gets a result for the question."""
    named = {"approved_by": who} if kind == "approval" else {"answered_by": who}
    worker.answer("May I?", replace(calling(), needs_approval=kind == "approval", **named, kind=KINDS[kind]))
    send_message(thread, "And?", by=people[speaker])
    call = ToolCall.objects.get()
    told, late = told_of_calls(thread)
    if speaker in TAKES_BACK[who]:
        assert (call.status, call.error_code, call.passed_at) == ("cancelled", "superseded", None)
        assert told == ["Error: The user went on without waiting for this."]
    else:
        assert (call.status, call.finished_at) == (OPEN[kind], None)
        assert told == [STILL_WAITING]
    assert (late, status_of(thread)) == ([], "streaming")
    assert Stream.objects.open().filter(thread=thread).count() == 1


KINDS = {"approval": "sync", "client": "client"}
OPEN = {"approval": "approval_requested", "client": "pending"}


def test_each_question_is_decided_by_itself(thread, worker, people):
    """One message takes one back and leaves the other."""
    mine, theirs = approval(word="a"), replace(approval(word="b"), approved_by="staff")
    worker.answer("May I?", mine, theirs)
    send_message(thread, "And?", by=people["ada"])
    statuses = dict(ToolCall.objects.values_list("tool_call_id", "status"))
    assert statuses == {mine.tool_call_id: "cancelled", theirs.tool_call_id: "approval_requested"}


def test_a_permission_is_asked_when_the_message_comes(thread, worker, people):
    """A superuser has all of them."""
    worker.answer("May I?", replace(approval(), approved_by="auth.add_user"))
    people["bob"].is_superuser = True
    people["bob"].save()
    send_message(thread, "No.", by=people["bob"])
    assert ToolCall.objects.get().status == "cancelled"


def test_a_visitor_takes_back_the_visitors_questions_and_not_those_of_staff(agent, worker):
    """A thread without an owner belongs to its visitor; so a message without a sender is the visitor's."""
    thread = create_thread(agent, scope="visitor:1", prompt="Please.")
    worker.answer("May I?", approval(word="a"), replace(approval(word="b"), approved_by="staff"))
    send_message(thread, "And?")
    statuses = {call.arguments["word"]: call.status for call in ToolCall.objects.all()}
    assert statuses == {"a": "cancelled", "b": "approval_requested"}


@pytest.fixture
def passed(thread, worker, people):
    """Return a call that staff have to approve, after Bob's message let the run go on and was answered."""
    worker.answer("May I?", replace(approval(), approved_by="staff"))
    send_message(thread, "And?", by=people["bob"])
    worker.answer("I wait for staff.")
    assert status_of(thread) == "awaiting_tool_results"
    return ToolCall.objects.get()


def test_an_approval_runs_the_tool_and_its_result_begins_another_step(passed, thread, worker, people):
    """Once; then the run is complete."""
    approve_tool_call(thread, passed.tool_call_id, by=people["sue"], arguments={"word": "changed"})
    assert status_of(thread) == "awaiting_tool_results"
    worker.settle("paid")
    told, late = told_of_calls(thread)
    assert told == [STILL_WAITING]
    changed = 'ran with arguments that a person changed to {"word": "changed"}, and has its result: "paid"'
    assert late == [f"[The call of plain that was still open {changed}]"]
    worker.answer("It is paid.")
    assert status_of(thread) == "completed"
    answers = Message.objects.filter(thread=thread, role="assistant").order_by("position")
    assert [row.streams.get().text for row in answers] == ["May I?", "I wait for staff.", "It is paid."]


def test_the_tool_may_run_beside_a_step_of_the_model(passed, thread, worker, people):
    """The step is committed first; its run goes on with the result."""
    send_message(thread, "Well?", by=people["bob"])
    step = worker.claim_step()
    approve_tool_call(thread, passed.tool_call_id, by=people["sue"])
    worker.settle("paid")
    assert Stream.objects.open().get(thread=thread).pk == step.row_id
    worker.answer("Not yet.", claim=step)
    assert told_of_calls(thread)[1] == ['[The call of plain that was still open has its result: "paid"]']
    worker.answer("It is paid.")
    assert status_of(thread) == "completed"


def test_a_refusal_comes_later_with_its_reason(passed, thread, worker, people):
    """The model reads it in a step of its own."""
    reject_tool_call(thread, passed.tool_call_id, by=people["sue"], reason="Too much.")
    assert told_of_calls(thread) == (
        [STILL_WAITING],
        ['[The call of plain that was still open failed: "A person refused this call. Too much."]'],
    )
    assert status_of(thread) == "streaming"


def test_a_question_that_nobody_answers_expires_later(passed, thread):
    """As it does while the run waits for it."""
    ToolCall.objects.update(expires_at=passed.created_at)
    lifecycle.expire()
    assert told_of_calls(thread)[1] == ['[The call of plain that was still open failed: "Nobody answered in time."]']


def test_who_may_decide_takes_it_back_with_a_later_message(passed, thread, people):
    """The model gets a final result for the call. There is no late result."""
    send_message(thread, "Leave it.", by=people["sue"])
    assert told_of_calls(thread) == (["Error: The user went on without waiting for this."], [])
    passed.refresh_from_db()
    assert (passed.status, passed.error_code) == ("cancelled", "superseded")


def test_a_message_from_before_takes_nothing_back(thread, worker, people):
    """Sue wrote before the model asked; the run went on because of Bob."""
    send_message(thread, "I am here.", by=people["sue"])
    worker.answer("May I?", replace(approval(), approved_by="staff"))
    send_message(thread, "And?", by=people["bob"])
    worker.answer("I wait.")
    assert ToolCall.objects.get().status == "approval_requested"


def test_the_answer_of_a_browser_comes_later(thread, worker, people):
    """Bob cannot answer for Ada, and does not keep her from answering."""
    worker.answer("Which?", replace(calling(), kind="client", answered_by="owner"))
    send_message(thread, "And?", by=people["bob"])
    worker.answer("I wait for Ada.")
    add_tool_result(thread, ToolCall.objects.get().tool_call_id, "Friday", by=people["ada"])
    assert told_of_calls(thread) == (
        [STILL_WAITING],
        ['[The call of plain that was still open has its result: "Friday"]'],
    )
    assert status_of(thread) == "streaming"


@pytest.mark.parametrize("speaker", ["bob", "sue"])
def test_only_staff_go_on_without_an_interrupted_call_that_asks(declare, people, worker, speaker):
    """Others leave it to be settled later."""
    agent = declare(tools=[asked])
    worker.tool_names = ("asked",)
    thread = create_thread(agent, owner=people["ada"], prompt="Please.", by=people["ada"])
    worker.answer("So.", calling("asked"))
    let_expire(worker.claim_call())
    lifecycle.reap(is_gone=lambda _: False)
    send_message(thread, "And?", by=people[speaker])
    call = ToolCall.objects.get()
    assert (call.status, call.finished_at is None) == ("unknown", speaker == "bob")
    if speaker == "bob":
        assert told_of_calls(thread)[0] == [STILL_WAITING]
        settle_tool_call(thread, call.tool_call_id, result="It ran.", by=people["sue"])
        assert told_of_calls(thread)[1] == ['[The call of asked that was still open has its result: "It ran."]']


def test_a_deferred_call_is_passed_over_whoever_speaks(thread, worker, people):
    """A service cannot be asked to stop."""
    worker.answer("I ask.", replace(calling(), kind="deferred", answered_by="owner"))
    lifecycle.announce_tool_call(worker.claim_call())
    send_message(thread, "And?", by=people["ada"])
    assert (told_of_calls(thread)[0], ToolCall.objects.get().status) == ([STILL_RUNNING], "pending")

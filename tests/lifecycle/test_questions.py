"""``after_crash="ask"``: nobody knows whether the tool ran, so a person says what became of it, while the run waits."""

import pytest
from django.contrib.auth import get_user_model

from durable_agents import create_thread, lifecycle, stop_thread, tool
from durable_agents.exceptions import ToolCallNotFoundError, ToolCallNotPendingError
from durable_agents.models import Message, ToolCall
from durable_agents.transcript import ui_messages
from tests.lifecycle.stage import calling, plain, status_of

pytestmark = pytest.mark.django_db


@tool(after_crash="ask")
def wire(word: str = "") -> str:
    """Send money."""
    return word


@pytest.fixture
def thread(declare, worker):
    """Return a thread whose call was lost with its worker."""
    agent = declare(tools=[wire, plain])
    worker.tool_names = ("wire", "plain")
    made = create_thread(agent, prompt="Pay them.")
    worker.answer("", calling("wire"))
    worker.claim_call()
    assert lifecycle.reap(lambda holder: True) == 1
    return made


@pytest.fixture
def call(thread):
    """Return the row of that call."""
    return ToolCall.objects.get(thread=thread)


def test_the_run_waits(thread, call, worker):
    """The call is unknown and has no outcome; nobody runs it again, and no lease is left to reap."""
    assert (call.status, call.finished_at, call.lease_owner) == ("unknown", None, "")
    assert status_of(thread) == "awaiting_tool_results"
    assert worker.claim() == []
    assert lifecycle.reap(lambda holder: True) == 0


def test_it_is_shown_as_an_error_meanwhile(thread, call):
    """Clients see that it may have run."""
    [_, answer] = ui_messages(Message.objects.shown().filter(thread=thread))
    part = answer["parts"][-1]
    assert (part["state"], part["toolCallId"]) == ("output-error", call.tool_call_id)
    assert "may or may not have run" in part["errorText"]


def test_a_person_says_that_it_ran(thread, call, worker):
    """The model gets the result; who said so is kept."""
    person = get_user_model().objects.create(username="ada")
    settled = lifecycle.settle_tool_call(thread, call.tool_call_id, result={"sent": 5}, by=person, reason="Seen it.")
    assert (settled.status, settled.result, settled.error) == ("completed", {"sent": 5}, "")
    call.refresh_from_db()
    assert (call.approval_decided_by, call.approval_reason) == (person, "Seen it.")
    assert call.approval_decided_at is not None
    assert status_of(thread) == "streaming"


def test_a_person_says_that_it_failed(thread, call):
    """The model is told."""
    settled = lifecycle.settle_tool_call(thread, call.tool_call_id, error="The bank refused.")
    assert (settled.status, settled.error, settled.error_code) == ("failed", "The bank refused.", "settled")
    assert status_of(thread) == "streaming"


def test_a_person_lets_it_run_again(thread, call, worker):
    """It is due, as a new one would be."""
    lifecycle.settle_tool_call(thread, call.tool_call_id, run_again=True)
    claim = worker.claim_call()
    assert claim.row_id == call.pk
    worker.settle("sent", claim=claim)
    call.refresh_from_db()
    assert (call.status, call.result, call.error) == ("completed", "sent", "")


def test_the_first_answer_stands(thread, call):
    """A second one is told so."""
    lifecycle.settle_tool_call(thread, call.tool_call_id, result=1)
    with pytest.raises(ToolCallNotPendingError):
        lifecycle.settle_tool_call(thread, call.tool_call_id, result=2)
    call.refresh_from_db()
    assert call.result == 1


def test_a_call_that_asks_nothing_is_not_settled(declare, worker):
    """A running one belongs to its worker."""
    thread = create_thread(declare(), prompt="Hi")
    worker.answer("", calling("plain"))
    call = ToolCall.objects.get(thread=thread)
    with pytest.raises(ToolCallNotPendingError):
        lifecycle.settle_tool_call(thread, call.tool_call_id, result=1)
    with pytest.raises(ToolCallNotFoundError):
        lifecycle.settle_tool_call(thread, "call_none", result=1)


def test_a_stop_settles_the_question(thread, call):
    """As cancelled; the run is over."""
    stop_thread(thread)
    call.refresh_from_db()
    assert (call.status, call.finished_at is None) == ("cancelled", False)
    assert status_of(thread) == "stopped"

"""Calls that wait for somebody: the response ends, and what the client answers goes on in the same message."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from durable_agents import add_tool_result
from durable_agents.models import Message, Thread, ToolCall
from durable_agents.reading import PersonalView
from durable_agents.reading.ui_stream import AnswerStream
from durable_agents.testing import ScriptedModel, calls, fails, run_until_idle
from durable_agents.transcript import ui_messages
from tests.chat import agents
from tests.chat.client import HUGE, Body, Chatter
from tests.chat.screen import Screen

PICK = calls("pick_a_date", label="When?")
PAY = calls("pay", amount=5)


@pytest.fixture(autouse=True)
def _forget() -> None:
    agents.RAN.clear()


def asked(me: Chatter, *answers: Any, path: str = "chat/chatty") -> Screen:
    """Say something that the model answers with these calls, and return what the client then shows."""
    body = me.say("Please.", path=path).until("start")
    with ScriptedModel(*answers):
        run_until_idle()
    return Screen().take(body.ended().chunks)


def answering(screen: Screen, **change: Any) -> dict[str, Any]:
    """Return what the client posts when the one tool part has changed: its message with that part."""
    parts = [part | change if "toolCallId" in part else part for part in screen.parts]
    message = {"id": screen.message_id, "role": "assistant", "parts": parts, "metadata": screen.metadata}
    return {"id": "c1", "messages": [message], "trigger": "submit-message", "messageId": screen.message_id}


def decided(screen: Screen, *, approved: bool, **more: Any) -> dict[str, Any]:
    """Return what the client posts when the user has decided."""
    approval = {"id": screen.tool()["toolCallId"], "approved": approved, **more}
    return answering(screen, state="approval-responded", approval=approval)


def gone_on(body: Body, screen: Screen, *answers: Any) -> Screen:
    """Let the model give these answers, and return what the client then shows, with what it showed before."""
    body.until("start")
    with ScriptedModel(*answers):
        run_until_idle()
    return Screen(screen.parts).take(body.ended().chunks)


def test_a_response_ends_where_a_call_waits_for_the_browser(me: Chatter):
    """The call has its arguments and no output; the run waits, and there is nothing to resume."""
    screen = asked(me, PICK)
    assert (screen.tool()["state"], screen.tool()["input"]) == ("input-available", {"label": "When?"})
    assert screen.end["finishReason"] == "tool-calls"
    assert screen.metadata["status"] == "awaiting_tool_results"
    assert Thread.objects.get().status == "awaiting_tool_results"
    assert me.resume().ended().status == 204


@pytest.mark.parametrize(
    "state", [{"state": "output-available", "output": "Monday"}, {"state": "output-error", "errorText": "No."}]
)
def test_the_browsers_output_goes_on_in_the_same_message(me: Chatter, state: dict[str, Any]):
    """Under the same id, with one more step; what the client shows is not told again."""
    screen = asked(me, PICK)
    body = me.post(answering(screen, **state))
    screen.tool().update(state)
    shown = gone_on(body, screen, "So be it.")
    assert shown.message_id == screen.message_id
    assert (shown.text, shown.end["finishReason"]) == ("So be it.", "stop")
    assert body.kinds[:2] == ["start", "start-step"]
    call = ToolCall.objects.get()
    assert (call.result, call.error) == (state.get("output"), state.get("errorText", ""))
    assert Message.objects.count() == 2


def test_an_approval_runs_the_call_and_goes_on(me: Chatter):
    """The outcome comes in the same message."""
    screen = asked(me, PAY)
    assert screen.tool()["state"] == "approval-requested"
    assert screen.tool()["approval"] == {"id": screen.tool()["toolCallId"]}
    assert screen.end["finishReason"] == "tool-calls"
    body = me.post(decided(screen, approved=True, reason="Fine."))
    shown = gone_on(body, screen, "Paid.")
    assert (shown.message_id, shown.text) == (screen.message_id, "Paid.")
    assert (shown.tool()["state"], shown.tool()["output"]) == ("output-available", "paid 5")
    assert agents.RAN == ["paid 5"]
    call = ToolCall.objects.get()
    assert (call.approval_reason, call.approval_decided_by) == ("Fine.", Thread.objects.get().owner)


@pytest.mark.parametrize(("call", "may"), [(PAY, True), (calls("fire", name="Bob"), False)])
def test_the_metadata_say_whether_the_caller_may_decide(me: Chatter, call: Any, may: bool):
    """The chunk of the request has no room for it."""
    screen = asked(me, call)
    assert screen.metadata["canDecide"] == {screen.tool()["toolCallId"]: may}


def test_after_the_decision_nothing_is_said_about_who_may_decide(me: Chatter):
    """The answer is read from its beginning again."""
    screen = asked(me, PAY)
    body = me.post(decided(screen, approved=False))
    gone_on(body, screen, "As you like.")
    thread = Thread.objects.get()
    view = PersonalView(SimpleNamespace(user=thread.owner, session=None, headers={}), thread)
    again = AnswerStream(thread.pk, answer=Message.objects.get(role="assistant"), view=view).read()
    assert "tool-approval-request" in [chunk["type"] for chunk in again]
    assert "message-metadata" not in [chunk["type"] for chunk in again]


def test_a_refusal_is_told_to_the_model(me: Chatter):
    """The tool is not run."""
    screen = asked(me, PAY)
    shown = gone_on(me.post(decided(screen, approved=False)), screen, "As you like.")
    assert (shown.tool()["state"], shown.text) == ("output-denied", "As you like.")
    assert agents.RAN == []


def test_an_approved_call_that_waits_for_a_service_is_seen_to_wait(me: Chatter):
    """The client's message is not complete but for an answer any more: it would be sent for ever."""
    screen = asked(me, calls("order", sku="x"))
    body = me.post(decided(screen, approved=True)).until("start")
    run_until_idle()
    shown = Screen(answering(screen)["messages"][0]["parts"]).take(body.ended().chunks)
    assert (shown.tool()["state"], shown.tool()["input"]) == ("input-available", {"sku": "x"})
    assert shown.end["finishReason"] == "tool-calls"


@pytest.mark.parametrize("approved", [True, False])
def test_who_comes_later_sees_how_it_was_decided(me: Chatter, approved: bool):
    """In the stored message, and told in chunks of version 7; version 6 has no words for it."""
    screen = asked(me, PAY)
    gone_on(me.post(decided(screen, approved=approved, reason="So.")), screen, "Well.")
    answer = Message.objects.get(role="assistant")
    [stored] = [part for part in ui_messages([answer])[0]["parts"] if "toolCallId" in part]
    approval = {"id": stored["toolCallId"], "approved": approved, "reason": "So."}
    assert stored["approval"] == approval
    told = AnswerStream(answer.thread_id, answer=answer, knows_7=True).read()
    assert Screen(knows_7=True).take(told).tool() == stored
    told = AnswerStream(answer.thread_id, answer=answer).read()
    del stored["approval"]
    assert Screen().take(told).tool() == (stored if approved else stored | {"approval": {"id": approval["id"]}})


def test_the_first_decision_counts(me: Chatter):
    """A late one is told how things stand, and changes nothing."""
    screen = asked(me, PAY)
    gone_on(me.post(decided(screen, approved=False)), screen, "As you like.")
    with ScriptedModel() as model:
        late = me.post(decided(screen, approved=True)).ended()
        run_until_idle()
    assert model.requests == []
    shown = Screen(screen.parts).take(late.chunks)
    assert (shown.tool()["state"], shown.text) == ("output-denied", "As you like.")
    assert agents.RAN == []


def test_a_response_ends_again_while_one_of_two_calls_waits(me: Chatter):
    """What the server could do is done and told."""
    screen = asked(me, [PAY, calls("add", a=1, b=2)])
    states = {part["type"]: part["state"] for part in screen.parts if "toolCallId" in part}
    assert states == {"tool-pay": "approval-requested", "tool-add": "output-available"}


def test_a_late_result_of_a_service_is_told_to_whoever_goes_on(me: Chatter):
    """The client has heard nothing of it: there was no response."""
    screen = asked(me, [PAY, calls("ask_the_warehouse", sku="x")])
    call = ToolCall.objects.get(tool_name="ask_the_warehouse")
    add_tool_result(call.thread, call.tool_call_id, "three left")
    pay = next(part for part in screen.parts if part["type"] == "tool-pay")
    pay |= {"state": "approval-responded", "approval": {"id": pay["toolCallId"], "approved": True}}
    body = me.post(answering(screen))
    shown = gone_on(body, screen, "Done.")
    outputs = {part["type"]: part["output"] for part in shown.parts if "toolCallId" in part}
    assert outputs == {"tool-pay": "paid 5", "tool-ask_the_warehouse": "three left"}


def test_a_run_that_waits_for_a_service_ends_the_response(me: Chatter):
    """When the result has come there is something to resume: the whole message, from its start."""
    screen = asked(me, calls("ask_the_warehouse", sku="x"))
    assert screen.end["finishReason"] == "tool-calls"
    call = ToolCall.objects.get()
    add_tool_result(call.thread, call.tool_call_id, "three left")
    body = me.resume().until("tool-output-available")
    with ScriptedModel("Three."):
        run_until_idle()
    shown = Screen().take(body.ended().chunks)
    assert (shown.message_id, shown.text) == (screen.message_id, "Three.")
    assert [part["type"] for part in shown.parts].count("step-start") == 2


def test_many_responses_wait_and_go_on_together(me: Chatter):
    """More of them than the server has threads for its database work: none is held by a response that waits."""
    screen = asked(me, calls("ask_the_warehouse", sku="x"))
    waiting = [me.resume("c1", path="chat/{}/stream?wait=1").until("tool-input-available") for _ in range(19)]
    assert me.client.get("threads/c1/").status_code == 200
    assert all(body.is_open for body in waiting)
    call = ToolCall.objects.get()
    add_tool_result(call.thread, call.tool_call_id, "three left")
    with ScriptedModel("Three."):
        run_until_idle()
    for body in waiting:
        shown = Screen().take(body.ended().chunks)
        assert (shown.message_id, shown.text) == (screen.message_id, "Three.")
        assert (shown.tool()["output"], body.is_done) == ("three left", True)


@pytest.mark.parametrize("wait", ["0", "false", ""])
def test_a_response_that_is_not_to_wait_is_none(me: Chatter, wait: str):
    """As without the parameter."""
    asked(me, PAY)
    assert me.resume(path=f"chat/{{}}/stream?wait={wait}").ended().status == 204


def test_a_response_waits_for_nothing_at_rest(me: Chatter):
    """Nothing is open; what is no answer to the question is refused."""
    asked(me, "Hello.")
    assert me.resume(path="chat/{}/stream?wait=1").ended().status == 204
    assert me.resume(path="chat/{}/stream?wait=long").problem == (400, "invalid")


def test_a_new_message_goes_on_without_the_decision(me: Chatter):
    """The call is given up; the next answer is its own message."""
    screen = asked(me, PAY)
    body = me.say("Never mind.", message="m2").until("start")
    with ScriptedModel("All right."):
        run_until_idle()
    shown = Screen().take(body.ended().chunks)
    assert shown.text == "All right."
    assert shown.message_id != screen.message_id
    late = Screen(screen.parts).take(me.post(decided(screen, approved=True)).ended().chunks)
    assert late.tool()["state"] == "output-error"
    assert agents.RAN == []


@pytest.mark.parametrize("times", [1, 3])
def test_what_changes_nothing_never_asks_the_model(me: Chatter, times: int):
    """Clients that send by themselves would else send for ever."""
    body = me.say("1 + 2?").until("start")
    with ScriptedModel(calls("add", a=1, b=2), "Three."):
        run_until_idle()
    screen = Screen().take(body.ended().chunks)
    with ScriptedModel() as model:
        for _ in range(times):
            again = me.post(answering(screen)).ended()
            assert again.kinds == ["start", "finish"]
            assert again.only("start")["messageId"] == screen.message_id
        run_until_idle()
    assert model.requests == []


def test_what_changes_nothing_while_a_call_waits_is_told_that_it_waits(me: Chatter):
    """For a client tool, and without a word to the model."""
    screen = asked(me, PICK)
    again = me.post(answering(screen)).ended()
    assert again.kinds == ["start", "finish"]
    assert again.only("finish")["finishReason"] == "tool-calls"


def test_going_on_joins_what_is_running(me: Chatter):
    """An output that came twice, from two tabs: both see the answer."""
    screen = asked(me, PICK)
    change = {"state": "output-available", "output": "Monday"}
    first = me.post(answering(screen, **change)).until("start")
    second = me.post(answering(screen, **change)).until("start")
    with ScriptedModel("So be it."):
        run_until_idle()
    for body in (first, second):
        assert Screen(screen.parts).take(body.ended().chunks).text == "So be it."


FORGED: dict[str, dict[str, Any]] = {
    "an output of a call that waits for consent": {"state": "output-available", "output": "FORGED"},
    "an error of a call that waits for consent": {"state": "output-error", "errorText": "FORGED"},
    "a decision with another id": {"state": "approval-responded", "approval": {"id": "another", "approved": True}},
    "a decision that is none": {"state": "approval-responded", "approval": {"approved": "yes"}},
    "a decision without an approval": {"state": "approval-responded"},
    "a decision that is a text": {"state": "approval-responded", "approval": "yes"},
    "another call": {"toolCallId": "call_forged", "state": "output-available", "output": "FORGED"},
    "an id that cannot be": {"toolCallId": "a\x00\ud800", "state": "output-available", "output": "FORGED"},
    "an id that is none": {"toolCallId": ["x"], "state": "output-available", "output": "FORGED"},
    "a state that is none": {"state": {"x": 1}},
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_what_is_forged_changes_nothing(me: Chatter, change: dict[str, Any]):
    """The call waits on, the model is not asked, and the truth is told again."""
    screen = asked(me, PAY)
    before = list(ToolCall.objects.values())
    with ScriptedModel() as model:
        body = me.post(answering(screen, **change)).ended()
        run_until_idle()
    assert body.status == 200
    assert body.only("finish")["finishReason"] == "tool-calls"
    assert list(ToolCall.objects.values()) == before
    assert model.requests == []


def test_an_output_of_a_servers_tool_is_not_the_clients_to_give(me: Chatter):
    """Nor of a deferred one, whose result comes from a service."""
    screen = asked(me, calls("ask_the_warehouse", sku="x"))
    me.post(answering(screen, state="output-available", output="FORGED")).ended()
    assert ToolCall.objects.get().status == "pending"


@pytest.mark.parametrize(
    ("call", "change"),
    [
        (calls("fire", name="Bob"), {"state": "approval-responded", "approval": {"approved": True}}),
        (calls("stamp", label="x"), {"state": "output-available", "output": "FORGED"}),
    ],
    ids=["approval", "output"],
)
def test_what_is_left_to_staff_is_refused_to_the_owner(me: Chatter, call: Any, change: dict[str, Any]):
    """An error, so that a client that sends by itself does not do so for ever."""
    screen = asked(me, call)
    if "approval" in change:
        change["approval"]["id"] = screen.tool()["toolCallId"]
    assert me.post(answering(screen, **change)).problem == (403, "permission_denied")
    assert ToolCall.objects.get().finished_at is None


def test_staff_decides_by_the_admin_or_a_policy_and_not_in_anothers_chat(me: Chatter, chatter: Callable[..., Chatter]):
    """The default policy knows own threads only."""
    screen = asked(me, PAY)
    body = decided(screen, approved=True)
    assert chatter("boss", is_staff=True).post(body).problem == (404, "thread_not_found")


def test_an_output_has_a_limit(me: Chatter):
    """That of bodies over REST; nothing is lost."""
    screen = asked(me, PICK)
    body = me.post(answering(screen, state="output-available", output="x" * 300_000))
    assert body.problem == (413, "too_large")
    assert ToolCall.objects.get().status == "pending"


def test_an_error_needs_words(me: Chatter):
    """They are what the model is told."""
    screen = asked(me, PICK)
    assert me.post(answering(screen, state="output-error")).problem == (400, "invalid_parts")


def test_a_client_that_shows_less_is_told_the_rest(me: Chatter):
    """After a reload in the middle: it shows the first step only."""
    screen = asked(me, PAY)
    gone_on(me.post(decided(screen, approved=True)), screen, "Paid.")
    behind = me.post(answering(screen)).ended()
    shown = Screen(screen.parts).take(behind.chunks)
    assert (shown.text, shown.tool()["output"]) == ("Paid.", "paid 5")


def test_a_failed_run_is_tried_again_by_going_on(me: Chatter):
    """`sendMessage()` without an argument; what the client shows of the message stays."""
    screen = asked(me, calls("add", a=1, b=2), fails("auth"))
    assert screen.end["type"] == "error"
    shown = gone_on(me.post(answering(screen)), screen, "Three.")
    assert (shown.text, shown.end["finishReason"]) == ("Three.", "stop")


def test_a_run_that_was_stopped_among_its_calls_is_not_gone_on_with_by_itself(me: Chatter):
    """All calls have an outcome then, and clients send by themselves: that would undo the stop."""
    screen = asked(me, PICK)
    me.stop()
    with ScriptedModel() as model:
        body = me.post(answering(screen)).ended()
        run_until_idle()
    assert body.kinds == ["start", "tool-output-error", "abort"]
    assert model.requests == []
    assert Thread.objects.get().status == "stopped"


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (PICK, {"state": "output-available", "output": HUGE}),
        (PICK, {"state": "output-error", "errorText": HUGE}),
        (PAY, {"state": "approval-responded", "approval": {"approved": True, "reason": HUGE}}),
        (PAY, {"state": "approval-responded", "approval": {"approved": False, "reason": HUGE}}),
    ],
    ids=["output", "error", "approval", "refusal"],
)
def test_an_answer_to_a_call_may_not_be_as_large_as_a_history(me: Chatter, call: Any, answer: dict[str, Any]):
    """It is stored, and nothing is where it is too large."""
    screen = asked(me, call)
    if "approval" in answer:
        answer = answer | {"approval": answer["approval"] | {"id": screen.tool()["toolCallId"]}}
    assert me.post(answering(screen, **answer)).problem == (413, "too_large")
    assert ToolCall.objects.open().get().approval_decided_at is None


def test_what_is_not_ascii_may_be_as_long_in_bytes(me: Chatter):
    """It is the bytes of the text that count, not how a request writes them."""
    screen = asked(me, PICK)
    body = me.post(answering(screen, state="output-available", output="ä" * 130_000))
    assert gone_on(body, screen, "So be it.").text == "So be it."


def test_a_client_may_show_very_many_calls(me: Chatter):
    """Those that are open are looked for among them, and the database is not asked for each."""
    screen = asked(me, PICK)
    body = answering(screen, state="output-available", output="Monday")
    [message] = body["messages"]
    message["parts"] += [{"toolCallId": f"{n}"} for n in range(260_000)]
    answer = me.post(body).until("start")
    with ScriptedModel("So be it."):
        run_until_idle()
    assert answer.ended().kinds[-1] == "finish"
    assert ToolCall.objects.get().result == "Monday"

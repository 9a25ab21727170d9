"""docs/howto/shared-threads.md: people who write in one thread."""

from tests.foreign.shop.site import Person, SignIn, text_of
from tests.servers.model import Call, ModelUnderTest, Reply

REFUND = Reply(calls=(Call(name="refund", arguments={"number": 7, "amount": "20"}),))


def test_messages_know_their_senders_and_staff_is_shown_as_support(
    model: ModelUnderTest, site: str, ada: Person, bob: Person, sign_in: SignIn
):
    """Item 1."""
    sue = sign_in(site, "sue")
    thread = ada.ask("Hello?")
    ada.answer(thread)
    for person in (bob, sue):
        person.send(thread, f"{person.name} is here, too.")
        person.answer(thread)
    senders = [message["sender"] and message["sender"]["name"] for message in ada.messages(thread)]
    assert senders == ["Ada Adams", None, "Bob Brown", None, "Support", None]
    assert [message["metadata"].get("sender") for message in ada.messages(thread)][2]["name"] == "Bob Brown"
    assert sue.messages(thread)[4]["sender"]["name"].startswith("Sue")


def test_a_client_cannot_write_in_the_name_of_others(model: ModelUnderTest, ada: Person):
    body = {"agent": "support", "prompt": "Hello?", "metadata": {"sender": {"id": "1", "name": "Bob Brown"}}}
    thread = ada.post("threads/", body).json()["id"]
    ada.answer(thread)
    assert ada.messages(thread)[0]["metadata"]["sender"]["name"] == "Ada Adams"


def test_tools_look_rows_up_by_the_sender_of_the_message(model: ModelUnderTest, ada: Person, bob: Person):
    """Item 1: order 8 is Bob's, and he may also see those of his colleagues."""
    find_8 = Reply(calls=(Call(name="find_order", arguments={"number": 8}),))
    model.answer_with(find_8, Reply(text="There is none."), find_8, Reply(text="It is open."))
    thread = ada.ask("Where is order 8?")
    ada.answer(thread)
    bob.send(thread, "Let me see: where is it?")
    bob.answer(thread)
    first, second = [message["content"] for message in model.requests[-1]["messages"] if message["role"] == "tool"]
    assert "There is no order 8." in first
    assert '"open"' in second


def test_an_approval_stays_open_when_somebody_writes_who_may_not_decide(
    model: ModelUnderTest, ada: Person, bob: Person, cem: Person
):
    """Item 1: the model knows that it waits; the outcome comes as a message of its own, and is answered."""
    model.answer_with(REFUND, Reply(text="It still waits."), Reply(text="Now it is paid."))
    thread = ada.ask("I want my money back.")
    call = ada.call(thread, "refund", "approval_requested")
    cem.send(thread, "What takes so long?")
    ada.wait(thread, "awaiting_tool_results")
    assert text_of(ada.messages(thread)[-1]) == "It still waits."
    assert "wait" in str([message for message in model.requests[1]["messages"] if message["role"] == "tool"])
    assert ada.call(thread, "refund", "approval_requested")["tool_call_id"] == call["tool_call_id"]
    assert bob.decide(thread, call).status_code == 200
    assert ada.answer(thread) == "Now it is paid."


def test_a_message_of_somebody_who_may_decide_cancels_the_approval(model: ModelUnderTest, ada: Person, bob: Person):
    """Item 1."""
    model.answer_with(REFUND, Reply(text="As you like."))
    thread = ada.ask("I want my money back.")
    call = ada.call(thread, "refund", "approval_requested")
    bob.send(thread, "No, send a new one.")
    assert ada.answer(thread) == "As you like."
    assert ada.call(thread, "refund", "cancelled")["tool_call_id"] == call["tool_call_id"]
    assert bob.decide(thread, call).status_code == 409

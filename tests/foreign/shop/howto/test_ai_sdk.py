"""docs/howto/ai-sdk.md: the stream that `useChat` reads, and results that come later (item 3)."""

import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import httpx

from tests.foreign.shop.site import Person, Shop, SignIn, until, warehouse_says
from tests.servers.model import Call, ModelUnderTest, Reply

REFUND = Reply(calls=(Call(name="refund", arguments={"number": 7, "amount": "20"}),))
ASK = Reply(calls=(Call(name="ask_the_warehouse", arguments={"sku": "cup"}),))


def chunks(response: httpx.Response) -> Iterator[Any]:
    """Yield the chunks of a response while they arrive."""
    for line in response.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def say(person: Person, chat: str, text: str, *, key: str = "") -> list[Any]:
    """Send a message as `useChat` does; return the chunks of the answer."""
    message = {"id": key or uuid.uuid4().hex, "role": "user", "parts": [{"type": "text", "text": text}]}
    body = {"id": chat, "messages": [message], "trigger": "submit-message"}
    with person.http.stream("POST", "/agents/chat", json=body, headers=person.headers) as response:
        assert response.status_code == 200, response.read()
        return list(chunks(response))


def types(found: list[Any]) -> list[str]:
    """Return the types of the chunks."""
    return [chunk["type"] for chunk in found]


def written(found: list[Any]) -> str:
    """Return the text of the chunks."""
    return "".join(chunk["delta"] for chunk in found if chunk["type"] == "text-delta")


class Waiting:
    """A page that waits with `stream?wait=1`: reads in a thread of its own until the response ends."""

    def __init__(self, person: Person, chat: str) -> None:
        self.found: list[Any] = []
        self._person, self._chat = person, chat
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._person.http.stream("GET", f"/agents/chat/{self._chat}/stream?wait=1") as response:
            for chunk in chunks(response):
                self.found.append(chunk)

    @property
    def is_open(self) -> bool:
        """Whether the response goes on."""
        return self._thread.is_alive()

    def ended(self) -> list[Any]:
        """Return all chunks, once the response has ended."""
        until(lambda: not self.is_open, lambda: str(self.found))
        return self.found


def test_a_chat_streams_an_answer_and_repeats_it_for_the_same_request(
    model: ModelUnderTest, each_site: str, sign_in: SignIn
):
    ada, chat = sign_in(each_site, "ada"), uuid.uuid4().hex
    model.answer_with(Reply(text="Good morning, Ada."), Reply(text="Never asked."))
    first = say(ada, chat, "Good morning.", key="m-1")
    assert written(first) == "Good morning, Ada."
    assert types(first)[0] == "start"
    assert types(first)[-1] == "finish"
    assert written(say(ada, chat, "Good morning.", key="m-1")) == "Good morning, Ada."
    assert len(model.requests) == 1
    assert ada.get(f"chat/{chat}/stream").status_code == 204
    assert ada.thread(chat)["client_id"] == chat


def test_a_waiting_response_continues_after_an_approval(model: ModelUnderTest, each_site: str, sign_in: SignIn):
    ada, bob, chat = sign_in(each_site, "ada"), sign_in(each_site, "bob"), uuid.uuid4().hex
    model.answer_with(REFUND, Reply(text="You have your money back."))
    first = say(ada, chat, "I want my money back.")
    assert "tool-approval-request" in types(first)
    assert first[-1]["finishReason"] == "tool-calls"
    page = Waiting(ada, chat)
    until(lambda: "tool-approval-request" in types(page.found), lambda: str(page.found))
    assert page.is_open
    thread = first[0]["messageMetadata"]["threadId"]  # the chat's id belongs to Ada; colleagues use the thread's own
    assert bob.decide(thread, bob.call(thread, "refund", "approval_requested")).status_code == 200
    found = page.ended()
    assert "tool-output-available" in types(found)
    assert written(found) == "You have your money back."
    assert types(found)[-1] == "finish"


def test_a_waiting_response_continues_after_a_webhook(
    shop: Shop, model: ModelUnderTest, each_site: str, sign_in: SignIn
):
    ada, chat = sign_in(each_site, "ada"), uuid.uuid4().hex
    model.answer_with(ASK, Reply(text="There are three cups."))
    first = say(ada, chat, "How many cups are there?")
    page = Waiting(ada, chat)
    until(lambda: "tool-input-available" in types(page.found), lambda: str(page.found))
    thread = first[0]["messageMetadata"]["threadId"]
    find = f"from shop.models import Inquiry\nvalue = Inquiry.objects.get(thread='{thread}').pk"
    assert page.is_open
    assert warehouse_says(each_site, {"inquiry": shop.value(find), "in_stock": 3}).status_code == 204
    found = page.ended()
    [output] = [chunk["output"] for chunk in found if chunk["type"] == "tool-output-available"]
    assert output == {"in_stock": 3}
    assert written(found) == "There are three cups."


def test_a_decision_may_come_with_the_message_that_the_client_posts_again(
    model: ModelUnderTest, each_site: str, sign_in: SignIn
):
    """As `addToolApprovalResponse` and `sendAutomaticallyWhen` do."""
    bob, chat = sign_in(each_site, "bob"), uuid.uuid4().hex
    model.answer_with(REFUND, Reply(text="You have your money back."))
    say(bob, chat, "Pay order 7 back.")
    message = bob.messages(chat)[-1]
    [part] = [part for part in message["parts"] if part["type"] == "tool-refund"]
    part |= {"state": "approval-responded", "approval": part["approval"] | {"approved": True}}
    body = {"id": chat, "messages": [message], "trigger": "submit-message", "messageId": message["id"]}
    with bob.http.stream("POST", "/agents/chat", json=body, headers=bob.headers) as response:
        found = list(chunks(response))
    assert written(found) == "You have your money back."

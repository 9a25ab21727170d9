"""Messages with very many parts are refused soon, at every door, and keep nobody waiting."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from durable_agents import create_thread, lifecycle, send_message
from durable_agents.lifecycle import NewCall
from durable_agents.models import Message, ToolCall
from tests.lifecycle.stage import Worker, outcome
from tests.people.peaks import MEGABYTE, Peak

SECONDS = 15
"""For three requests; on an idle machine each takes less than one."""


def many(piece: str, *, count: int) -> str:
    """Return a list of this piece many times over."""
    return "[" + ",".join([piece] * count) + "]"


def in_chat(parts: str, role: str = "user") -> str:
    """Return a chat whose only message has these parts."""
    return f'{{"id": "many", "messages": [{{"id": "m1", "role": "{role}", "parts": {parts}}}]}}'


CHATS = {
    "lists": in_chat(many("[]", count=240_000)),
    "texts": in_chat(many('"a"', count=240_000)),
    "nulls": in_chat(many("null", count=480_000)),
    "objects of no type": in_chat(many("{}", count=240_000)),
    "lists of an assistant": in_chat(many("[]", count=240_000), "assistant"),
}


@pytest.mark.parametrize("body", CHATS.values(), ids=CHATS)
def test_a_chat_message_of_very_many_parts_is_refused_soon(team_server, chat, bob, body):
    """With one short error, and without a long wait for others."""
    bob.post("threads/")
    began = time.monotonic()
    with Peak(team_server, bob) as peak, ThreadPoolExecutor(3) as clients:
        answers = list(clients.map(chat, [body] * 3))
    assert {status for status, _ in answers} == {400}
    assert max(len(told["detail"]) for _, told in answers) < 200
    assert time.monotonic() - began < SECONDS
    assert peak.longest_wait < SECONDS / 3
    assert peak.bytes < 250 * MEGABYTE
    assert Message.objects.count() == 0


BODIES = {
    "parts that are lists": f'{{"agent": "chatty", "parts": {many("[]", count=83_000)}}}',
    "parts that are numbers": f'{{"agent": "chatty", "parts": {many("1", count=120_000)}}}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_new_thread_of_very_many_parts_is_refused_soon(team_server, ann, bob, body):
    """Within the 256 kB that such a request may have."""

    def posted(_):
        headers = {**ann.headers, "Content-Type": "application/json"}
        return httpx.post(f"{ann.url}/agents/threads/", content=body, headers=headers, timeout=60, trust_env=False)

    bob.post("threads/")
    began = time.monotonic()
    with ThreadPoolExecutor(3) as clients:
        answers = list(clients.map(posted, range(12)))
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(400, "invalid_parts")}
    assert time.monotonic() - began < SECONDS


@pytest.fixture
def approval(ann):
    """Return a call of Ann's that waits for her approval."""
    thread = create_thread("chatty", owner=ann.user, scope="team", client_id="many")
    send_message(thread, "Hi")
    call = NewCall(
        tool_call_id="call_1",
        provider_call_id="",
        tool_name="pay",
        arguments={"amount": 1},
        max_attempts=1,
        timeout_seconds=60,
        needs_approval=True,
    )
    lifecycle.commit_step(Worker(agents=["chatty"]).claim_step(), outcome("", call))
    return ToolCall.objects.get(thread=thread)


def test_one_approval_said_sixty_thousand_times_is_carried_out_once(chat, approval):
    """Each time it is said costs no query."""
    part = {"type": "tool-pay", "toolCallId": "call_1", "state": "approval-responded"}
    invalid = json.dumps({**part, "approval": {"id": "another", "approved": True}})
    said = json.dumps({**part, "approval": {"id": "call_1", "approved": False}})
    began = time.monotonic()
    assert chat(in_chat(f"[{invalid},{many(said, count=60_000)[1:]}", "assistant"))[0] == 200
    assert time.monotonic() - began < SECONDS
    approval.refresh_from_db()
    assert approval.status == "denied"

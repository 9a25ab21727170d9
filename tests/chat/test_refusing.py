"""Who may not chat, and what is no chat: an error in JSON with its status, and nothing is lost or begun by it."""

import json
from typing import Any

import httpx
import pytest

from durable_agents.models import Message, Thread
from durable_agents.testing import ScriptedModel, run_until_idle
from tests.chat.client import HUGE, Chatter, sending, user_message
from tests.chat.server import Server

PATHS = [
    ("POST", "chat"),
    ("POST", "chat/chatty"),
    ("POST", "chat/nobody/"),
    ("GET", "chat/c1/stream"),
    ("GET", "chat/chatty/c1/stream/"),
    ("POST", "chat/c1/stop"),
    ("POST", "chat/chatty/c1/stop"),
    ("GET", "threads/c1/events/"),
    ("GET", "threads/c1/events"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Token forged"}], ids=["nobody", "forged"])
def test_anonymous_callers_are_refused_on_every_path(server: Server, transactional_db, method: str, path: str, headers):
    """Never by a redirect, which the client would follow and read."""
    body = None if method == "GET" else sending("Hi")
    answer = httpx.request(method, f"{server.url}/agents/{path}", json=body, headers=headers, trust_env=False)
    assert answer.status_code in {401, 403}
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"code", "detail"}
    assert Thread.objects.count() == 0


@pytest.mark.parametrize(
    ("path", "more", "problem"),
    [
        ("chat", {}, (400, "agent_required")),
        ("chat", {"agent": "nobody"}, (400, "agent_not_found")),
        ("chat", {"agent": "internal"}, (400, "agent_not_found")),
        ("chat", {"agent": ["chatty"]}, (400, "invalid")),
        ("chat/internal", {}, (400, "agent_not_found")),
        ("chat/nobody", {"agent": "chatty"}, (400, "agent_not_found")),
    ],
)
def test_a_new_chat_needs_an_agent(me: Chatter, path: str, more: dict[str, Any], problem: tuple[int, str]):
    """The path's, else the body's; an internal one is as one that is not there."""
    assert me.say("Hello?", path=path, **more).problem == problem
    assert Thread.objects.count() == 0


def test_the_body_may_name_the_agent_of_a_new_chat(me: Chatter):
    """Where the path does not; an old chat has its own."""
    me.say("Hello?", path="chat", agent="chatty").until("start").hang_up()
    me.say("Hello?", path="chat", message="m2").until("start").hang_up()
    me.say("Hello?", path="chat/chatty", agent="queueing", chat="c2").until("start").hang_up()
    assert sorted(Thread.objects.values_list("client_id", "agent")) == [("c1", "chatty"), ("c2", "chatty")]


def nested(depth: int) -> str:
    """Return a list in a list, and so on."""
    return "[" * depth + "]" * depth


GOOD = user_message("Hello?")
MALFORMED: dict[str, tuple[Any, tuple[int, str]]] = {
    "no JSON": ("{", (400, "parse_error")),
    "nothing": ("", (400, "invalid")),
    "a list": ([], (400, "invalid")),
    "NaN": ('{"id": NaN}', (400, "parse_error")),
    "too deep": (f'{{"id": "c1", "messages": {nested(100)}}}', (400, "too_deep")),
    "deep beyond reading": (f'{{"id": "c1", "messages": {nested(100_000)}}}', (400, "too_deep")),
    "not UTF-8": (b'{"id": "\xff"}', (400, "parse_error")),
    "no id": ({"messages": [GOOD]}, (400, "invalid")),
    "an id that is null": ({"id": None, "messages": [GOOD]}, (400, "invalid")),
    "an id that is a number": ({"id": 7, "messages": [GOOD]}, (400, "invalid")),
    "an id that is empty": ({"id": "", "messages": [GOOD]}, (400, "invalid")),
    "an id that is long": ({"id": "x" * 201, "messages": [GOOD]}, (400, "invalid")),
    "an id with a NUL": ({"id": "a\x00", "messages": [GOOD]}, (400, "invalid")),
    "an id with half a letter": ('{"id": "a\\ud800", "message": {}}', (400, "invalid")),
    "no message": ({"id": "c1"}, (400, "invalid")),
    "no messages": ({"id": "c1", "messages": []}, (400, "invalid")),
    "messages that are a text": ({"id": "c1", "messages": "Hello?"}, (400, "invalid")),
    "a message that is a text": ({"id": "c1", "messages": ["Hello?"]}, (400, "invalid")),
    "a message that is null": ({"id": "c1", "messages": [None]}, (400, "invalid")),
    "a message's id that is a list": ({"id": "c1", "message": {**GOOD, "id": ["x"]}}, (400, "invalid")),
    "a message's id with half a letter": (
        json.dumps({"id": "c1", "message": {**GOOD, "id": "\ud800"}}),
        (400, "invalid"),
    ),
    "no role": ({"id": "c1", "message": {"parts": GOOD["parts"]}}, (400, "invalid")),
    "the role system": ({"id": "c1", "message": {**GOOD, "role": "system"}}, (400, "invalid")),
    "no parts": ({"id": "c1", "message": {"role": "user"}}, (400, "invalid")),
    "parts that are none": ({"id": "c1", "message": {**GOOD, "parts": []}}, (400, "invalid_parts")),
    "a part that is null": ({"id": "c1", "message": {**GOOD, "parts": [None]}}, (400, "invalid")),
    "a part of no type": ({"id": "c1", "message": {**GOOD, "parts": [{}]}}, (400, "invalid_parts")),
    "a tool's part": ({"id": "c1", "message": {**GOOD, "parts": [{"type": "tool-add"}]}}, (400, "invalid_parts")),
    "an empty text": ({"id": "c1", "message": user_message(" ")}, (400, "invalid_parts")),
    "a long text": ({"id": "c1", "message": user_message("x" * 32_001)}, (413, "too_large")),
    "metadata that are a text": ({"id": "c1", "message": {**GOOD, "metadata": "x"}}, (400, "invalid")),
    "metadata that are huge": ({"id": "c1", "message": {**GOOD, "metadata": {"x": HUGE}}}, (413, "too_large")),
    "an id with a slash": ({"id": "a/b", "message": GOOD}, (400, "invalid_parts")),
    "an id that means a folder": ({"id": "..", "message": GOOD}, (400, "invalid_parts")),
    "a text in very many parts": (
        {"id": "c1", "message": {**GOOD, "parts": GOOD["parts"] * 1001}},
        (400, "invalid_parts"),
    ),
    "a trigger that is none": ({"id": "c1", "message": GOOD, "trigger": "delete"}, (400, "invalid")),
    "an answer in a new chat": ({"id": "c1", "message": {**GOOD, "role": "assistant"}}, (404, "thread_not_found")),
    "a huge body": ({"id": "c1", "message": GOOD, "padding": "x" * 10_500_000}, (413, "too_large")),
    "a file that is fetched": (
        {"id": "c1", "message": {**GOOD, "parts": [{"type": "file", "mediaType": "a/b", "url": "http://127.0.0.1/"}]}},
        (400, "invalid_parts"),
    ),
}


@pytest.mark.parametrize(("body", "problem"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_message_is_refused(me: Chatter, body: Any, problem: tuple[int, str]):
    """With a code, in a new chat; nothing is begun."""
    assert me.post(body).problem == problem
    assert Thread.objects.count() == 0


def test_what_is_no_message_costs_a_chat_nothing(me: Chatter):
    """Its run goes on, and its history stays."""
    first = me.say("Hello?", message="m0").until("start")
    for name, (body, problem) in MALFORMED.items():
        if name not in {"a huge body", "an answer in a new chat"}:
            assert me.post(body).problem == problem
    with ScriptedModel("Hello."):
        run_until_idle()
    assert first.ended().kinds[-1] == "finish"
    assert Message.objects.filter(role="user").count() == 1


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain"])
def test_only_json_is_read(me: Chatter, kind: str):
    """A form of another site's brings nothing."""
    assert me.post("id=c1", Content_Type=kind).problem == (415, "unsupported_media_type")


def test_the_methods_are_those_of_the_protocol(me: Chatter):
    """And the answer to others is JSON."""
    for method, path in [("GET", "chat"), ("PUT", "chat/chatty"), ("POST", "chat/c1/stream"), ("GET", "chat/c1/stop")]:
        answer = me.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")

"""Whatever is sent to whatever field: a clear refusal, or it is stored in a form that every database keeps.

Never an error of the server's, never a stored row less, never an answer that cannot be written to the wire.
"""

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model

from durable_agents.models import Message, Thread
from durable_agents.strictjson import is_storable
from durable_agents.urls import urlpatterns
from tests.api.calls import Api, person
from tests.policies.calling import live
from tests.policies.cases import CASES, FRAMES, Names, belongings, path_of
from tests.security.places import rows
from tests.websocket.sockets import ORIGIN, SUBPROTOCOL, Socket, cookie_of, forget_layer

SENT = {name: case for name, case in CASES.items() if not (case.live or case.upload or case.form)}
WRITING = [name for name in SENT if not name.startswith("GET") and name != "POST ws-ticket"]
READING = [name for name in SENT if name.startswith("GET") and name != "GET schema"]
CHATS = ["POST chat", "POST chat/<str:agent> | answers"]
CHAT_FIELDS = ("id", "messages", "message", "trigger", "messageId", "agent")
MESSAGE_FIELDS = ("id", "role", "parts", "metadata")
FIELDS = (
    *("agent", "prompt", "parts", "client_id", "title", "metadata", "archived", "message_id", "at", "result", "error"),
    *("reason", "arguments", "seconds", "search", "status", "after", "limit", "cursor", "streams", "from_number"),
)
FRAME_FIELDS = (
    *("id", "type", "thread", "key", "prompt", "parts", "client_id", "metadata", "tool_call_id", "output", "error"),
    *("arguments", "reason", "approved", "cursor", "tail", "stream", "from", "to", "before", "limit", "version", "t"),
    *("ticket", "message", "message_id", "at"),
)
TEXTS = {
    "NUL": "a\x00b",
    "a lone surrogate": "a\ud800b",
    "surrogates the wrong way round": "\udfff\ud800",
    "line ends": "ok\r\n1795.000 CRITICAL forged line",
    "bidi controls": "\u202egnp.exe\u2066\u2069\ufeff",
    "escapes of a terminal": "\x1b[2J\x1b]0;title\x07",
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "markup": "<script>alert(1)</script>{{ 7*7 }}{% debug %}%s%n",
    "SQL": "'; DROP TABLE durable_agents_thread; --",
    "long": "x" * 100_000,
    "nothing": "",
    "spaces": " \t\u3000\u200b",
    "a path": "../../../etc/passwd",
}
VALUES = {
    "null": None,
    "true": True,
    "zero": 0,
    "minus one": -1,
    "a huge number": 10**4000,
    "a fraction": 1e308,
    "a list": [],
    "lists": [[[]], [1, "x"], [{}]],
    "an object": {},
    "objects": {"type": {"type": []}, "": None, "rev": {}, "stream": [], "seq": "x"},
    "a key with NUL": {"a\x00": "\x00", "\ud800": "\ud800"},
    "a huge key": {"k" * 100_000: 1},
    "strange parts": [{"type": "text"}, {"type": "text", "text": 5}, {"type": "file", "url": 5, "mediaType": []}],
    "parts with NUL": [{"type": "text", "text": "\x00\ud800"}],
}
HOSTILE = {**TEXTS, **VALUES}
UNSTORABLE = re.compile(r"(?<!\\)(\\\\)*\\(x00|ud[89a-f])")
"""As Python writes it within a row that is shown as a text."""
NINES, OPENED = "9" * 5000, '{"a":' * 32
RAW = {
    "5,000 digits": f'{{"FIELD": {NINES}}}',
    "5,000 digits within": f'{{"FIELD": {{"a": [-{NINES}]}}}}',
    "NaN": '{"FIELD": NaN}',
    "an infinity": '{"FIELD": {"a": -Infinity}}',
    "an overflow": '{"FIELD": 1e999}',
    "depth 33": '{"FIELD": ' + "[" * 32 + "]" * 32 + "}",
    "depth 33 of objects": '{"FIELD": ' + OPENED + "1" + "}" * 33,
    "no end": '{"FIELD": ' + "[" * 90_000,
    "text after the end": '{"FIELD": 1} {"FIELD": 2}',
    "a byte order mark": '\ufeff{"FIELD": 1}',
    "no UTF-8": b'{"FIELD": "\xff\xfe"}',
    "half a character": b'{"FIELD": "\xed\xa0\x80"}',
    "a NUL": b"\x00",
}
"""No JSON, or none that is read."""
ODD = {
    "the same key twice": '{"FIELD": "one", "FIELD": {"two": 2}}',
    "no object": '["FIELD"]',
    "a bare text": '"FIELD"',
}


@pytest.fixture(autouse=True)
def _agents(bells, declare, settings):
    """Declare the agent, keep the queue out of it, and let one user open whatever a test opens."""
    declare(public=True)
    limits = {"MAX_SOCKETS_PER_USER": 10_000, "MAX_STREAMS_PER_USER": 10_000}
    settings.DURABLE_AGENTS = settings.DURABLE_AGENTS | limits


@pytest.fixture
def me(db):
    """Return a user who may do everything with their own."""
    return person("me", is_staff=True)


@pytest.fixture
def api(me):
    """Return the API as that user sees it, with errors of the server as answers."""
    made = Api(me)
    made.client.raise_request_exception = False
    return made


def kept(names: Names) -> list[Any]:
    """Return what was said, and what is known of the thread, unless it was deleted or edited away on purpose."""
    return list(Message.objects.filter(thread=names.thread_id).values_list("pk", "role", "text"))


def check(response: Any, what: str) -> None:
    """An answer is one of success, or says in a code and a sentence what is wrong."""
    if getattr(response, "streaming", False):
        assert b"".join(response.streaming_content)  # which closes its file
        return
    assert response.status_code < 500, (what, response.content[:300])
    if response.status_code >= 400:
        body = response.json()
        assert set(body) == {"code", "detail"}, what
        assert body["code"], what
        assert body["detail"], what


def assert_storable() -> None:
    """Every row is one that PostgreSQL keeps as well."""
    assert [row for row in rows("durable_agents") if not is_storable(row[1]) or UNSTORABLE.search(row[1])] == []


def fields_of(operation: str) -> Iterator[str]:
    """Yield the fields that the operation takes; where it does not say, those that any operation takes."""
    method, _, route = operation.partition(" | ")[0].partition(" ")
    [view] = {pattern.callback for pattern in urlpatterns if str(pattern.pattern) == f"{route}/"}
    described = getattr(getattr(getattr(view, "cls", None), method.lower(), None), "operation", None)
    taken = described.body().fields if described and described.body else () if described else FIELDS
    yield from dict.fromkeys((*(CASES[operation].body or {}), *taken))


@pytest.mark.parametrize("operation", WRITING)
def test_every_field_of_every_body_takes_or_refuses_everything(api, me, operation):
    """One field after the other, of whatever type."""
    names = belongings(CASES[operation].needs, owner=me, scope="")
    before = kept(names)
    method, path = operation.partition(" ")[0], path_of(operation, names)
    for field in fields_of(operation):
        for what, value in HOSTILE.items():
            body = {**(CASES[operation].filled(names) or {}), field: value}
            check(api.send(method, path, body), f"{operation} {field} {what}")
    assert method == "DELETE" or set(before) <= set(kept(names))
    assert_storable()


@pytest.mark.parametrize("operation", WRITING)
def test_a_body_that_is_no_json_of_ours_is_refused(api, me, operation):
    """Before anything is done; where no field means anything, no body is read."""
    names = belongings(CASES[operation].needs, owner=me, scope="")
    method, path = operation.partition(" ")[0], path_of(operation, names)
    before = kept(names)
    field = next(iter(CASES[operation].body or ["none"]))
    for what, raw in (RAW | ODD).items():
        text = raw.replace(b"FIELD", field.encode()) if isinstance(raw, bytes) else raw.replace("FIELD", field)
        response = api.send(method, path, text)
        check(response, f"{operation} {what}")
        assert response.status_code == 400 or what in ODD or field == "none", (operation, what)
    assert method == "DELETE" or set(before) <= set(kept(names))
    assert_storable()


QUERIES = ("%00", "%ED%A0%80", "%FF", "9" * 5000, "-" + "9" * 30, "1e999", "NaN", "x" * 5000, "%0D%0AX-Evil:1", "[]")


@pytest.mark.parametrize("operation", READING)
def test_every_query_takes_or_refuses_everything(api, me, operation):
    """Known parameters and unknown ones."""
    names = belongings(CASES[operation].needs, owner=me, scope="")
    for field in FIELDS:
        for value in QUERIES:
            response = api.client.get(f"/agents/{path_of(operation, names)}?{field}={value}")
            check(response, f"{operation} {field} {value[:20]}")
            assert not response.has_header("X-Evil")


@pytest.mark.parametrize("operation", [name for name, case in SENT.items() if case.is_private])
def test_every_id_of_every_path_takes_or_refuses_everything(api, me, operation):
    """What is no id is not found."""
    real = belongings(CASES[operation].needs, owner=me, scope="")
    for value in ("%00", "%ED%A0%80", "9" * 500, "%0D%0AX-Evil:1", "%2e%2e", "%F0%9F%90%B3", "{}", "-1", "null"):
        for name in [name for name in Names.__dataclass_fields__ if f"<str:{name}>" in operation]:
            names = Names(**{**real.__dict__, name: value})
            body = CASES[operation].filled(real)
            response = api.send(operation.partition(" ")[0], path_of(operation, names), body)
            check(response, f"{operation} {name} {value}")
            assert response.status_code == 404 or name != "thread_id", f"{operation} {name} {value}"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("operation", CHATS)
def test_every_field_of_a_request_of_the_ai_sdk_takes_or_refuses_everything(api, me, operation):
    """Of the request, and of its message."""
    names = belongings(CASES[operation].needs, owner=me, scope="")
    before, path, ask = kept(names), path_of(operation, names), async_to_sync(live)
    body = CASES[operation].filled(names)
    [last] = body.get("messages") or [body["message"]]
    bodies = [(field, {**body, field: value}) for field in CHAT_FIELDS for value in HOSTILE.values()]
    bodies += [
        (field, {**body, "messages": [{**last, field: value}]})
        for field in MESSAGE_FIELDS
        for value in HOSTILE.values()
    ]
    for field, asked in bodies:
        check(ask(api, "POST", path, asked, seconds=0), f"{operation} {field}")
    for what, raw in RAW.items():
        text = raw.replace(b"FIELD", b"id") if isinstance(raw, bytes) else raw.replace("FIELD", "id")
        response = ask(api, "POST", path, text, seconds=0)
        check(response, f"{operation} {what}")
        assert response.status_code == 400, what
    assert set(before) <= set(kept(names))
    assert_storable()


# The websocket.


async def _answers(cookie: str, frames: list[str]) -> list[Any]:
    """Send texts, each answered before the next; return what came, ``None`` for a socket that was closed (400x)."""
    socket = await _opened(cookie)
    heard: list[Any] = []
    for text in frames:
        await socket.tell(text)
        await socket.tell(json.dumps({"type": "ping", "t": "after"}))
        while (event := await socket.hear_event(seconds=10))["type"] == "websocket.send":
            event["text"].encode()  # as the server writes it to the wire
            frame = json.loads(event["text"])
            if frame["type"] == "pong" and frame["t"] == "after":
                break
            heard.append(frame)
        if event["type"] == "websocket.close":
            assert event["code"] in {4400, 4401, 4403, 4406, 4413}, event
            heard.append(None)
            socket = await _opened(cookie)
    await socket.leave()
    await forget_layer()
    return heard


async def _opened(cookie: str) -> Socket:
    return await Socket(headers={"origin": ORIGIN, "cookie": cookie}, subprotocols=[SUBPROTOCOL]).open()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", FRAMES)
def test_every_field_of_every_frame_takes_or_refuses_everything(me, kind):
    """Each is answered, with a code where it is refused, and the socket lives on; what is no frame closes it."""
    names = belongings(FRAMES[kind].needs, owner=me, scope="")
    frame = {"type": kind, "id": "r1", "thread": names.thread_id, **FRAMES[kind].filled(names)}
    before = kept(names)
    texts = [
        json.dumps({**frame, field: value})
        for field in FRAME_FIELDS
        if field in frame or field in {"key", "cursor", "error", "client_id"}
        for value in HOSTILE.values()
    ]
    texts += [raw.replace("FIELD", "id") for raw in (RAW | ODD).values() if isinstance(raw, str)]
    heard = async_to_sync(_answers)(cookie_of(me), texts)
    assert [answer for answer in heard if answer and answer["type"] == "error" and not answer["code"]] == []
    assert set(before) <= set(kept(names))
    assert_storable()


# The log.


@pytest.mark.django_db
def test_no_line_of_the_log_is_forged(api, me, caplog):
    """Nothing that a client wrote is in it, so that a line end begins no line of theirs."""
    caplog.set_level(logging.DEBUG, "durable_agents")
    forged = "ok\r\nCRITICAL forged line"
    thread = api.post("threads/", {"agent": "tested", "client_id": forged, "title": forged, "prompt": forged}).json()
    for path, body in (
        ("messages/", {"prompt": forged, "client_id": forged + "2"}),
        ("stop/", {"reason": forged}),
        ("resume/", {"prompt": forged}),
        ("messages/", {"parts": [{"type": forged}]}),
    ):
        api.post(f"threads/{thread['id']}/{path}", body)
    api.post("threads/", {"agent": forged})
    formatter = logging.Formatter("%(message)s %(thread)s")
    assert len(caplog.records) >= 3
    assert [line for line in map(formatter.format, caplog.records) if "forged" in line or "\r" in line] == []
    assert not any("forged" in str(record.__dict__) for record in caplog.records)


@pytest.mark.django_db
def test_what_was_typed_comes_back_as_it_was_typed(api):
    """Cleaning takes away only what no database keeps."""
    text = "\u202eabc\u2066 \ufeff\r\n\t\x1b[0m <b>&amp;</b> \U0001f433 e\u0301"
    thread = api.post("threads/", {"agent": "tested", "prompt": text, "metadata": {text: [text]}}).json()
    [message] = api.get(f"threads/{thread['id']}/messages/").json()["results"]
    assert message["parts"] == [{"type": "text", "text": text}]
    assert thread["metadata"] == {text: [text]}
    cleaned = api.post(f"threads/{thread['id']}/messages/", {"prompt": "a\x00\ud800b"}).json()
    assert cleaned["parts"] == [{"type": "text", "text": "a\ufffd\ufffdb"}]
    assert Thread.objects.count() == 1
    assert get_user_model().objects.count() == 1

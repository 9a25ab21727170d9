"""Whose mistake it is: what a frame lacks is the client's and found by the parser; all else is ours and logged."""

import json
from collections.abc import Iterator

import pytest

from durable_agents import create_thread
from durable_agents.exceptions import DurableAgentsError, InvalidFrameError
from durable_agents.live import frames
from durable_agents.live.reader import Cursor
from tests.chat.agents import chatty
from tests.chat.server import Server
from tests.processes import database_url
from tests.websocket.broken import MISTAKES
from tests.websocket.protocol import SCHEMA
from tests.websocket.real import connected


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def broken_server(request: pytest.FixtureRequest, django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return a running server with mistakes of its own."""
    settings = json.dumps({"POLICY": "tests.websocket.broken.BrokenPolicy"})
    env = child_env | {"TEST_DATABASE_URL": database_url(), "TEST_DURABLE_AGENTS": settings}
    with Server(env, kind=request.param, application="tests.websocket.asgi:application") as running:
        yield running


FRAMES = {
    "send": {"type": "send", "prompt": "Hi"},
    "stop": {"type": "stop"},
    "resume": {"type": "resume"},
    "edit": {"type": "edit", "message": "m1", "prompt": "Ho"},
}


@pytest.mark.parametrize("action", FRAMES)
def test_an_error_of_ours_is_internal_and_logged_and_the_socket_goes_on(broken_server, cookie, user, action):
    """Whatever Python calls it: a client that is told `invalid_frame` would look for the mistake in itself."""
    thread = create_thread(chatty, owner=user)
    with connected(broken_server, cookie=cookie) as socket:
        answer = socket.ask(thread=str(thread.pk), **FRAMES[action])
        assert (answer["type"], answer["code"], answer["retryable"]) == ("error", "internal", True)
        assert str(MISTAKES[action]) not in json.dumps(answer)
        assert socket.ask(type="subscribe", id="r1", thread=str(thread.pk))["type"] == "snapshot"
    raised = type(MISTAKES[action]).__name__
    assert "Traceback" in broken_server.log
    assert f"{raised}: " in broken_server.log


@pytest.mark.parametrize("error", [KeyError("x"), AttributeError("x"), TypeError("x"), ValueError("x"), OSError("x")])
async def test_an_error_of_ours_in_a_subscription_is_internal(connect, thread, monkeypatch, caplog, error):
    """It is not followed then, and may be asked for again."""

    def broken(*_, **__):
        raise error

    monkeypatch.setattr("durable_agents.live.reader.ThreadReader.begin", broken)
    socket = await connect()
    answer = await socket.ask(type="subscribe", thread=str(thread.pk))
    assert (answer["code"], answer["retryable"]) == ("internal", True)
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info[1] is error
    monkeypatch.undo()
    assert (await socket.ask(type="subscribe", thread=str(thread.pk)))["type"] == "snapshot"


THREAD = {"thread": "t"}
CALL = {**THREAD, "tool_call_id": "c"}
WRONG = [
    {"type": "ping", "id": {}},
    {"type": "ping", "id": True},
    {"type": "subscribe"},
    {"type": "subscribe", "thread": None},
    {"type": "subscribe", **THREAD, "tail": "50"},
    {"type": "subscribe", **THREAD, "tail": True},
    {"type": "subscribe", **THREAD, "tail": 1.5},
    {"type": "subscribe", **THREAD, "tail": None},
    {"type": "subscribe", **THREAD, "cursor": []},
    {"type": "subscribe", **THREAD, "cursor": {"seq": 1}},
    {"type": "subscribe", **THREAD, "cursor": {"rev": "1"}},
    {"type": "subscribe", **THREAD, "cursor": {"rev": 1, "stream": 7}},
    {"type": "unsubscribe", "thread": 7},
    {"type": "fill", **THREAD, "from": 0},
    {"type": "fill", **THREAD, "stream": "x", "from": 0},
    {"type": "fill", **THREAD, "stream": "0" * 32},
    {"type": "fill", **THREAD, "stream": "0" * 32, "from": 0, "to": "9"},
    {"type": "older", **THREAD},
    {"type": "older", **THREAD, "before": 1, "steps": []},
    {"type": "send", **THREAD, "key": 7},
    {"type": "send", **THREAD, "prompt": 7},
    {"type": "send", **THREAD, "client_id": 7},
    {"type": "send", **THREAD, "parts": "x"},
    {"type": "send", **THREAD, "metadata": []},
    {"type": "edit", **THREAD, "prompt": "Hi"},
    {"type": "edit", **THREAD, "message": None, "prompt": "Hi"},
    {"type": "resume", **THREAD, "prompt": {}},
    {"type": "regenerate", **THREAD, "message": 7},
    {"type": "tool_result", **CALL},
    {"type": "tool_result", **THREAD, "result": 1},
    {"type": "tool_error", **CALL},
    {"type": "tool_error", **CALL, "error": None},
    {"type": "tool_error", **CALL, "error": " "},
    {"type": "tool_error", **CALL, "error": 7},
    {"type": "approve", **CALL, "approved": None},
    {"type": "approve", **CALL, "approved": 1},
    {"type": "approve", **CALL, "arguments": []},
    {"type": "approve", **CALL, "reason": 7},
    {"type": "reject", **CALL, "reason": 7},
    {"type": "dance"},
    {"type": ["send"]},
    {},
]


@pytest.mark.parametrize("frame", WRONG, ids=json.dumps)
def test_a_frame_that_lacks_something_or_has_it_wrong_is_refused_by_the_parser(frame):
    """With a code for the client, and words that name the field."""
    with pytest.raises(DurableAgentsError) as caught:
        frames.parse(frame)
    assert caught.value.code in {"invalid_frame", "invalid_parts", "unknown_type"}
    assert str(caught.value)


def test_the_parser_knows_the_fields_that_the_schema_names():
    """No more and no fewer, but for `client`, which is for people."""
    described = {frame["properties"]["type"]["const"]: frame for frame in SCHEMA["$defs"]["client"]["oneOf"]}
    for name, kind in frames.FRAMES.items():
        fields = set(described[name]["properties"]) - {"type", "client"}
        known = {rule.wire_name or field for field, (rule, _) in frames._RULES[kind.type].items()}
        required = {rule.wire_name or field for field, (rule, needed) in frames._RULES[kind.type].items() if needed}
        assert (known - {"id"}, required | {"type"}) == (fields - {"id"}, set(described[name]["required"]))


def test_a_frame_becomes_a_value_that_does_not_change():
    """With the fields that it has, and the defaults of those that it lacks."""
    cursor = {"rev": 4.0, "stream": None, "seq": None}
    frame = frames.parse({"type": "subscribe", "id": 7, "thread": "t", "cursor": cursor, "colour": "red"})
    assert frame == frames.Subscribe(id=7, thread="t", cursor=Cursor(rev=4), tail=50)
    with pytest.raises(AttributeError):
        frame.thread = "u"
    assert frames.parse({"type": "tool_result", **CALL, "result": None}) == frames.AddToolResult(**CALL, result=None)


def test_an_answer_repeats_only_what_is_as_it_should_be():
    """What a client made of the rest has no place in a frame of ours."""
    assert frames.address({"id": "r1", "thread": "t"}) == {"id": "r1", "thread": "t"}
    assert frames.address({"id": {}, "thread": 7}) == {"id": None, "thread": None}
    assert frames.address({}) == {"id": None, "thread": None}


@pytest.mark.parametrize("number", [10**30, -(10**30), 2**63, 0, -1])
@pytest.mark.parametrize(
    "frame",
    [
        {"type": "fill", "stream": "0" * 32, "from": "N"},
        {"type": "fill", "stream": "0" * 32, "from": 0, "to": "N"},
        {"type": "older", "before": "N"},
        {"type": "older", "before": 1, "limit": "N"},
        {"type": "older", "before": 1, "steps": "N"},
        {"type": "subscribe", "tail": "N"},
        {"type": "subscribe", "cursor": {"rev": "N", "seq": 1}},
    ],
    ids=json.dumps,
)
async def test_a_number_of_any_size_is_no_error_of_ours(connect, thread, frame, number):
    """No database column has to hold it."""
    given = json.loads(json.dumps(frame).replace('"N"', str(number)))
    socket = await connect()
    answer = await socket.ask(thread=str(thread.pk), **given)
    assert answer.get("code") != "internal"


def test_an_invalid_frame_is_an_error_of_the_tree():
    """As all of ours are."""
    assert issubclass(InvalidFrameError, DurableAgentsError)

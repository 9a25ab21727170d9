"""What a client may put into a frame; whatever it puts there, the server stays up and answers or closes with a code."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from durable_agents.conf import config
from durable_agents.live.consumer import HEARTBEAT_SECONDS, MAX_FRAME_VALUES, SILENT_SECONDS
from tests.websocket.sockets import act


@pytest.fixture
async def socket(connect):
    """Return an open socket of the user."""
    return await connect()


async def test_hello_is_welcomed_with_the_limits(socket):
    """And with who the server thinks it is."""
    await socket.tell(type="hello", version=1)
    welcome = await socket.hear()
    assert (welcome["type"], welcome["version"], welcome["user"], welcome["heartbeat"]) == ("welcome", 1, "ann", 25)
    assert welcome["limits"] == {"frame": 256 * 1024, "values": 15_000, "subscriptions": 50, "inflight": 16}
    assert welcome["session"]


async def test_a_version_that_the_server_does_not_speak_is_told_so(socket):
    """In the first frame too."""
    await socket.tell(type="hello", version=2)
    assert await socket.close_code() == 4406


async def test_ping_is_answered_with_its_own_time(socket):
    """So that a client can measure the way."""
    await socket.tell(type="ping", t=123)
    assert await socket.hear() == {"type": "pong", "t": 123}


async def test_a_malformed_frame_closes_the_socket(connect):
    """The client has a bug, or is none."""
    malformed = ["nonsense", '{"type": "ping"', "[]", "7", "null", '"ping"', "[" * 10_000]
    codes = []
    for text in malformed:
        socket = await connect()
        await socket.tell(text)
        codes.append(await socket.close_code())
    assert codes == [4400] * len(malformed)


async def test_a_binary_message_closes_the_socket(socket):
    """Frames are text."""
    await socket.tell_bytes(b"\x00\x01")
    assert await socket.close_code() == 4400


async def test_a_frame_that_is_too_big_closes_the_socket(connect):
    """Measured in bytes, as it travels."""
    for letter in ("a", "ä"):
        socket = await connect()
        letters = config().max_frame_bytes // len(letter.encode())
        await socket.tell(json.dumps({"type": "ping", "t": letter * letters}, ensure_ascii=False))
        assert await socket.close_code() == 4413


def ping_with_values(count):
    """Return a frame of so many JSON values, as the limit counts them: objects, arrays and what follows a comma."""
    return json.dumps({"type": "ping", "t": [0] * (count - 2)})


async def test_a_frame_with_as_many_values_as_are_allowed_is_answered(socket):
    """What looks like values within a text is none."""
    await socket.tell(ping_with_values(MAX_FRAME_VALUES))
    assert (await socket.hear())["type"] == "pong"
    await socket.tell(type="ping", t="[],{" * 50_000)
    assert (await socket.hear())["type"] == "pong"


@pytest.mark.parametrize("filler", ["0", "[]", "{}", "[" * 25 + "]" * 25])
async def test_a_frame_with_too_many_values_closes_the_socket_before_it_is_parsed(socket, monkeypatch, filler):
    """However small it is: parsing it would hold up every other socket of the process."""
    parsed = []
    reader = SimpleNamespace(loads=lambda text, **_: parsed.append(text), dumps=json.dumps)
    monkeypatch.setattr("durable_agents.strictjson.json", reader)
    await socket.tell('{"type": "ping", "t": [' + ",".join([filler] * MAX_FRAME_VALUES)[: 250 * 1024] + "]}")
    assert await socket.close_code() == 4413
    assert parsed == []


async def test_one_value_too_many_is_too_many(socket):
    """The reason names the limits of the first frame."""
    await socket.tell(ping_with_values(MAX_FRAME_VALUES + 1))
    closing = await socket.hear()
    assert (closing["type"], closing["code"]) == ("closing", 4413)
    assert "values" in closing["message"]


async def test_a_client_that_is_silent_for_long_is_gone(connect, monkeypatch):
    """One that pings is not, whatever else it does."""
    monkeypatch.setattr("durable_agents.live.socket_checks.HEAL_SECONDS", 0.05)
    monkeypatch.setattr("durable_agents.live.consumer.SILENT_SECONDS", 0.5)
    socket = await connect()
    for _ in range(8):
        assert (await socket.ask(type="ping", id=None, t=1))["type"] == "pong"
        await asyncio.sleep(0.1)
    assert await socket.close_code() == 4410


def test_three_heartbeats_are_long():
    """A background tab pings once a minute only."""
    assert SILENT_SECONDS == 3 * HEARTBEAT_SECONDS > 60


async def test_a_client_that_sends_too_many_frames_is_told_to_stay_away(connect, monkeypatch):
    """For the seconds in which it may send as many again."""
    monkeypatch.setattr("durable_agents.live.consumer.FRAMES_AT_ONCE", 10)
    monkeypatch.setattr("durable_agents.live.consumer.FRAMES_PER_SECOND", 1)
    socket = await connect()
    for _ in range(40):
        await socket.tell(type="ping", t=1)
    told = [await socket.hear_event(seconds=5) for _ in range(12)]
    assert [event["type"] for event in told] == ["websocket.send"] * 11 + ["websocket.close"]
    last = json.loads(told[-2]["text"])
    assert (last["type"], last["code"], last["retryAfter"], told[-1]["code"]) == ("closing", 4429, 10, 4429)
    assert await socket.hears_nothing()


async def test_a_frame_is_allowed_again_after_a_while(connect, monkeypatch):
    """So many in a second, for as long as it goes on."""
    monkeypatch.setattr("durable_agents.live.consumer.FRAMES_AT_ONCE", 2)
    monkeypatch.setattr("durable_agents.live.consumer.FRAMES_PER_SECOND", 20)
    socket = await connect()
    for _ in range(10):
        assert (await socket.ask(type="ping", id=None, t=1))["type"] == "pong"
        await asyncio.sleep(0.07)


async def test_what_no_database_stores_is_replaced_in_what_is_said(socket, thread):
    """And nowhere else: in ids it is refused."""
    said = {"prompt": "a\x00b\ud800", "metadata": {"k\x00": "\udfff"}}
    answer = await socket.ask(type="send", thread=str(thread.pk), **said)
    stored = await act(thread.messages.get, role="user")
    assert (stored.text, stored.metadata) == ("a\ufffdb\ufffd", {"k\ufffd": "\ufffd"})
    assert answer["message"]["parts"][0]["text"] == "a\ufffdb\ufffd"


async def test_an_unknown_type_is_an_error_and_no_more(socket):
    """Newer clients may know more."""
    answer = await socket.ask(type="dance", id="r7")
    assert (answer["type"], answer["code"], answer["retryable"]) == ("error", "unknown_type", False)
    await socket.tell(type="ping", t=1)
    assert (await socket.hear())["type"] == "pong"


WRONG = {
    "no type": {},
    "a tail that is no number": {"type": "subscribe", "tail": "many"},
    "a tail that is a list": {"type": "subscribe", "tail": []},
    "a tail without end": {"type": "subscribe", "tail": float("inf")},
    "a cursor that is no object": {"type": "subscribe", "cursor": "abc"},
    "a cursor that is a list": {"type": "subscribe", "cursor": [1]},
    "a cursor without a rev": {"type": "subscribe", "cursor": {"seq": 1}},
    "a rev that is no number": {"type": "subscribe", "cursor": {"rev": "new"}},
    "a rev without end": {"type": "subscribe", "cursor": {"rev": float("inf")}},
    "a stream that is no id": {"type": "fill", "stream": "x", "from": 0},
    "a stream that is a list": {"type": "fill", "stream": [], "from": 0},
    "a gap without a beginning": {"type": "fill", "stream": "0" * 32},
    "a page before nothing": {"type": "older", "before": None},
    "a page without a limit": {"type": "older", "before": 1, "limit": None},
    "parts that are no list": {"type": "send", "parts": {"type": "text"}},
    "a part that is no object": {"type": "send", "parts": [1]},
    "a part of an unknown type": {"type": "send", "parts": [{"type": ["text"], "text": "a"}]},
    "metadata that is no object": {"type": "send", "prompt": "a", "metadata": [1]},
    "metadata that no database stores": {"type": "send", "prompt": "a", "metadata": {"a": float("nan")}},
    "metadata that is too deep": {"type": "send", "prompt": "a", "metadata": json.loads('{"a":' * 40 + "1" + "}" * 40)},
    "an id that no database stores": {"type": "send", "prompt": "a", "client_id": "\x00"},
    "an id that is too long": {"type": "send", "prompt": "a", "client_id": "x" * 201},
    "a key that no database stores": {"type": "send", "prompt": "a", "key": "\ud800"},
    "a key that is too long": {"type": "send", "prompt": "a", "key": "x" * 201},
    "nothing to send": {"type": "send"},
    "an empty prompt": {"type": "send", "prompt": " "},
}


async def test_a_frame_with_a_wrong_field_is_answered_or_closes_with_a_code(connect, thread):
    """It never breaks the server; and nothing is written."""
    answers = {}
    for name, frame in WRONG.items():
        socket = await connect()
        await socket.tell(id="r1", thread=str(thread.pk), **frame)
        answers[name] = await answered(socket)
        await socket.leave()
    assert [name for name, answer in answers.items() if answer not in {("error", "r1"), ("closed", 4400)}] == []
    assert await act(thread.messages.count) == 0


async def answered(socket):
    """Return how the server took a frame: type and id of its answer, or the code with which it closed."""
    try:
        event = await socket.hear_event(seconds=2)
    except TimeoutError:
        return "silence", None
    answer = json.loads(event["text"])
    if answer["type"] == "closing":
        return "closed", await socket.close_code()
    return answer["type"], answer["id"]


async def test_a_frame_without_a_thread_is_answered(socket):
    """Where it needs one."""
    assert (await socket.ask(type="subscribe"))["code"] == "invalid_frame"


async def test_a_cursor_with_a_huge_number_gets_a_snapshot(socket, thread):
    """No database column has to hold it."""
    for field in ("rev", "seq"):
        cursor = {"rev": 1, "stream": "", "seq": 0} | {field: 10**30}
        assert (await socket.ask(type="subscribe", thread=str(thread.pk), cursor=cursor))["type"] == "snapshot"


async def test_a_name_that_no_thread_can_have_is_not_found(socket):
    """As any other."""
    names = ["\x00", "\ud800", "", "x" * 10_000, "' OR 1=1"]
    codes = [(await socket.ask(type="subscribe", thread=name))["code"] for name in names]
    assert codes == ["thread_not_found"] * len(names)

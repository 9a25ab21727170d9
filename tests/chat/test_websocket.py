"""The websocket of the AI SDK's transport: the same requests as over HTTP, many on one connection."""

import json
from collections.abc import Callable, Iterator

import pytest

from durable_agents import add_tool_result
from durable_agents.conf import config
from durable_agents.models import Message, Thread, ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.chat.client import Chatter, wait_for
from tests.chat.server import Server
from tests.chat.socket import ChatSocket, Frame, connected, shown

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def socket(server: Server, me: Chatter) -> Iterator[ChatSocket]:
    """Return a connection of the one whom most tests are about."""
    with connected(server, {"Authorization": me.client.headers["Authorization"]}) as opened:
        yield opened


def test_two_answers_come_side_by_side(socket: ChatSocket):
    """Each on its own request, whole and in order."""
    socket.say("r1", "One?")
    socket.say("r2", "Two?", chat="c2", message="m2")
    heard = [socket.hear() for _ in range(2)]
    with ScriptedModel("Hello.", "Hello."):
        run_until_idle()
    while sum(frame["type"] == "end" for frame in heard) < 2:
        heard.append(socket.hear())
    for request in ("r1", "r2"):
        frames = [frame for frame in heard if frame["requestId"] == request]
        assert (shown(frames).text, frames[0]["type"], frames[-1]["type"]) == ("Hello.", "start", "end")


def test_the_agent_comes_from_the_path_or_the_body(server: Server, me: Chatter):
    """As over HTTP."""
    headers = {"Authorization": me.client.headers["Authorization"]}
    with connected(server, headers, "chat/queueing") as one, connected(server, headers, "chat") as other:
        one.say("r1", "Hello?", chat="c1")
        one.hear_until("start")
        other.say("r1", "Hello?", chat="c2", message="m2")
        assert other.problem() == "agent_required"
        other.say("r2", "Hello?", chat="c2", message="m2", agent="chatty")
        other.hear_until("start", "r2")
    assert dict(Thread.objects.values_list("client_id", "agent")) == {"c1": "queueing", "c2": "chatty"}


def test_an_abort_ends_the_response_and_not_the_run(socket: ChatSocket):
    """Whoever resumes gets the answer from its start."""
    socket.say("r1", "Hello?")
    socket.hear_until("chunk")
    socket.tell("r1", "abort")
    socket.tell("r2", "resume", id="c1")
    socket.hear_until("start", "r2")
    with ScriptedModel("Hello."):
        run_until_idle()
    frames = [frame for frame in socket.hear_until("end", "r2") if frame["type"] != "start"]
    assert shown(frames).text == "Hello."


def test_there_is_nothing_to_resume_at_rest_or_while_a_call_waits(socket: ChatSocket):
    """With ``wait``, the response goes on with the result."""
    socket.tell("r0", "resume", id="c1")
    assert socket.hear_until("no-active", "r0")
    socket.say("r1", "Please.")
    socket.hear_until("start")
    with ScriptedModel(calls("ask_the_warehouse", sku="x"), "Three."):
        run_until_idle()
        assert shown(socket.hear_until("end")).end["finishReason"] == "tool-calls"
        socket.tell("r2", "resume", id="c1")
        assert socket.hear_until("no-active", "r2")
        socket.tell("r3", "resume", id="c1", body={"wait": True})
        socket.hear_until("start", "r3")
        call = ToolCall.objects.get()
        add_tool_result(call.thread, call.tool_call_id, "three left")
        run_until_idle()
    assert shown(socket.hear_until("end", "r3")).text == "Three."


@pytest.mark.parametrize("kind", ["send", "resume"])
def test_what_is_somebody_elses_does_not_exist(socket: ChatSocket, chatter: Callable[..., Chatter], kind: str):
    """A foreign id is answered as an unknown one is, in every respect."""
    chatter("other").say("Mine.", chat="theirs").until("start")
    foreign = str(Thread.objects.get().pk)
    for request, chat in (("r1", foreign), ("r2", "unknown")):
        part = {"id": "m1", "role": "assistant", "parts": []}
        socket.tell(request, kind, id=chat, messages=[part], trigger="submit-message")
        if kind == "resume":
            assert socket.hear_until("no-active", request)
        else:
            assert socket.problem(request) == "thread_not_found"
    assert Message.objects.filter(role="user").count() == 1


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "send", "id": "c1", "messages": []}, "invalid"),
        ({"type": "send", "id": 5, "messages": [{"role": "user", "parts": []}]}, "invalid"),
        ({"type": "send", "id": "c1", "messages": [{"role": "user", "parts": [{"type": "odd"}]}]}, "invalid_parts"),
        ({"type": "resume", "id": "c1", "lastSequence": 3}, "invalid"),
        ({"type": "resume"}, "invalid"),
        ({"type": "resume", "id": "c1", "body": {"wait": "long"}}, "invalid"),
        ({"type": "strange", "id": "c1"}, "invalid"),
        ({"id": "c1", "body": 5}, "invalid"),
    ],
)
def test_a_request_that_is_none_is_refused(socket: ChatSocket, frame: Frame, code: str):
    """The connection goes on."""
    socket.wire.send(json.dumps({"requestId": "r1"} | frame))
    assert socket.problem() == code
    socket.tell("r2", "resume", id="c1")
    assert socket.hear_until("no-active", "r2")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no JSON", 4400),
        ("[]", 4400),
        ('{"type": "send"}', 4400),
        ('{"type": "send", "requestId": 5}', 4400),
        ('{"requestId": "' + "r" * 201 + '"}', 4400),
        ('{"requestId": "r", "a": ' + "[" * 40 + "]" * 40 + "}", 4400),
        ("," * 600_001, 4413),
    ],
)
def test_a_frame_that_cannot_be_answered_closes_the_connection(socket: ChatSocket, text: str, code: int):
    """Without a frame before: the SDK would take it for a broken one."""
    socket.wire.send(text)
    assert socket.close_code() == code


def test_a_user_has_so_many_requests_answered_at_once(socket: ChatSocket):
    """Further ones are refused until one has ended."""
    for number in range(config().max_streams_per_user):
        socket.say(f"r{number}", "Hello?", chat=f"c{number}", message=f"m{number}")
        socket.hear_until("start", f"r{number}")
    socket.say("more", "Hello?", chat="c0", message="m0")
    assert socket.problem("more") == "too_many_streams"
    socket.tell("r0", "abort")
    wait_for(lambda: is_answered(socket))


def is_answered(socket: ChatSocket) -> bool:
    """Return whether the server answers one more request."""
    socket.tell("next", "resume", id="unknown")
    while (frame := socket.hear())["requestId"] != "next":
        pass
    return bool(frame["type"] == "no-active")


@pytest.mark.parametrize("query", ["", "?ticket=", "?ticket=unknown"])
def test_nobody_gets_in_without_a_sign_in(server: Server, me: Chatter, query: str):
    """The close code says why."""
    with connected(server, {}, f"chat/{query}") as socket:
        assert socket.close_code() == 4401


def test_a_ticket_signs_in_once(server: Server, me: Chatter):
    """In the query: browsers send no headers with a websocket."""
    ticket = me.client.post("ws-ticket/").json()["ticket"]
    with connected(server, {}, f"chat/chatty?ticket={ticket}") as socket:
        socket.say("r1", "Hello?")
        socket.hear_until("start")
    assert Thread.objects.get().owner.get_username() == "me@example.org"
    with connected(server, {}, f"chat/chatty?ticket={ticket}") as socket:
        assert socket.close_code() == 4401


def test_a_page_of_another_origin_is_refused(server: Server, me: Chatter):
    """As on the other websocket."""
    headers = {"Authorization": me.client.headers["Authorization"], "Origin": "https://evil.example"}
    with connected(server, headers) as socket:
        assert socket.close_code() == 4403


def test_a_thread_that_is_deleted_ends_its_response(socket: ChatSocket, me: Chatter):
    """With an error on its request; the connection goes on."""
    socket.say("r1", "Hello?")
    socket.hear_until("chunk")
    assert me.client.delete("threads/c1/").status_code == 204
    assert socket.problem() == "thread_not_found"
    socket.tell("r2", "resume", id="c1")
    assert socket.hear_until("no-active", "r2")

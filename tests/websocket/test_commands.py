"""Commands over the socket: done once per key, answered, and shown at once."""

import pytest
from django.core.cache import cache

from durable_agents import create_thread, send_message, stop_thread
from durable_agents.models import Message, Thread
from tests.api.calls import Api
from tests.websocket.sockets import act


@pytest.fixture
async def socket(connect):
    """Return an open socket of the user."""
    return await connect()


async def test_a_message_is_sent_and_shown(socket, thread):
    """To the sender too, without waiting for a hint."""
    await socket.ask(type="subscribe", thread=str(thread.pk))
    answer = await socket.ask(type="send", thread=str(thread.pk), key="k1", prompt="Hi", client_id="m1")
    assert (answer["type"], answer["thread"]) == ("ok", str(thread.pk))
    assert (answer["message"]["id"], answer["message"]["position"]) == ("m1", 1)
    frames = await socket.hear_status("streaming")
    assert [frame["message"]["role"] for frame in frames if frame["type"] == "message"] == ["user", "assistant"]


async def test_a_message_of_parts_with_metadata_is_sent(socket, thread):
    """As the REST API takes it."""
    parts = [{"type": "text", "text": "Hi"}]
    answer = await socket.ask(type="send", thread=str(thread.pk), parts=parts, metadata={"page": 7})
    message = answer["message"]
    assert (message["parts"], message["metadata"]) == (parts, {"page": 7, "sender": message["sender"]})


async def test_the_same_key_again_is_the_same_answer_and_one_message(socket, connect, thread):
    """On the same socket, or on the next after the connection broke."""
    frame = {"type": "send", "thread": str(thread.pk), "key": "k1", "prompt": "Hi"}
    first = await socket.ask(**frame)
    await socket.leave()
    again = await connect()
    assert await again.ask(**frame) == first
    assert await again.ask(**frame) == first
    assert await act(Message.objects.filter(role="user").count) == 1


async def test_another_key_is_another_message(socket, thread):
    """The user may say the same thing twice."""
    for key in ("k1", "k2"):
        await socket.ask(type="send", thread=str(thread.pk), key=key, prompt="Hi")
    assert await act(Message.objects.filter(role="user").count) == 2


async def test_stop_and_resume_tell_the_status(socket, thread):
    """Each once per key."""
    await act(send_message, thread, "Hi")
    stop = {"type": "stop", "thread": str(thread.pk), "key": "k1"}
    resume = {"type": "resume", "thread": str(thread.pk), "key": "k2"}
    answers = [await socket.ask(**frame) for frame in (stop, resume, stop, resume)]
    assert [answer["status"] for answer in answers] == ["stopped", "streaming", "stopped", "streaming"]
    assert (await act(Thread.objects.get, pk=thread.pk)).status == "streaming"


async def test_a_resume_may_bring_a_prompt(socket, thread):
    """And begins a run."""
    await act(send_message, thread, "Hi")
    await act(stop_thread, thread)
    await socket.ask(type="resume", thread=str(thread.pk), prompt="Go on, but briefly.")
    assert await act(Message.objects.filter(text="Go on, but briefly.").count) == 1


async def test_a_refused_command_has_the_code_of_its_error(socket, declare, user):
    """And may be sent again with the same key."""
    thread = await act(create_thread, declare("strict", when_busy="reject", public=True), owner=user, prompt="Hi")
    frame = {"type": "send", "thread": str(thread.pk), "key": "k1", "prompt": "Again"}
    assert (await socket.ask(**frame))["code"] == "thread_busy"
    await act(stop_thread, thread)
    assert (await socket.ask(**frame))["type"] == "ok"


async def test_a_message_that_is_refused_says_why(socket, thread):
    """With a stable code."""
    refused = [({"prompt": ""}, "invalid_parts"), ({"prompt": "a" * 32_001}, "too_large"), ({}, "invalid_parts")]
    for given, code in refused:
        answer = await socket.ask(type="send", thread=str(thread.pk), key="k1", **given)
        assert (answer["type"], answer["code"], answer["retryable"]) == ("error", code, False)


async def test_a_command_needs_no_subscription(socket, thread):
    """Then nothing but the answer comes."""
    await socket.ask(type="send", thread=str(thread.pk), prompt="Hi")
    assert await socket.hears_nothing()


async def test_commands_that_begin_runs_are_throttled_with_the_requests_of_the_same_user(
    socket, thread, agent, user, settings
):
    """Others are not; what was refused may be sent again with the same key."""
    await act(cache.clear)
    settings.DURABLE_AGENTS = {"THROTTLES": {"sends": "3/hour"}}
    rest = await act(Api, user)
    made = await act(rest.post, "threads/", {"agent": agent.name, "prompt": "Hi"})
    assert made.status_code == 201
    named = {"thread": str(thread.pk)}
    for frame in ({"type": "send", "prompt": "Hi"}, {"type": "resume"}):
        assert (await socket.ask(**frame, **named))["type"] == "ok"
    refused = [{"type": kind, "key": "k1", "prompt": "Hi", **named} for kind in ("send", "resume")]
    for frame in refused:
        answer = await socket.ask(**frame)
        assert (answer["type"], answer["code"], answer["retryable"]) == ("error", "sends_throttled", True)
        assert "try again" in answer["message"]
    for kind in ("subscribe", "stop"):
        assert (await socket.ask(type=kind, **named))["type"] in {"snapshot", "ok"}
    assert (await act(rest.post, f"threads/{thread.pk}/messages/", {"prompt": "Hi"})).status_code == 429
    settings.DURABLE_AGENTS = {}
    assert (await socket.ask(**refused[0]))["type"] == "ok"


async def test_a_run_too_many_is_refused_over_the_socket_too(socket, thread, agent, user, settings):
    """By the code that REST has."""
    settings.DURABLE_AGENTS = {"MAX_RUNNING_PER_OWNER": 1}
    await act(create_thread, agent, owner=user, prompt="Hi")
    answer = await socket.ask(type="send", thread=str(thread.pk), prompt="Hi")
    assert (answer["code"], answer["retryable"]) == ("too_many_running", True)


@pytest.mark.parametrize("headers", [{}, {"x-forwarded-for": "10.0.0.7"}])
async def test_anonymous_sockets_are_counted_by_their_address(connect, agent, settings, headers):
    """Where a project lets them in."""
    await act(cache.clear)
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": 1}
    policy = "tests.api.policies.GuestPolicy"
    settings.DURABLE_AGENTS = {"THROTTLES": {"sends": "1/hour"}, "POLICY": policy}
    thread = await act(create_thread, agent, scope="guests")
    frame = {"type": "send", "thread": str(thread.pk), "prompt": "Hi"}
    first, second = [await connect(cookie=None, headers=headers) for _ in range(2)]
    other = await connect(cookie=None, headers={"x-forwarded-for": "10.0.0.8"})
    answers = [await socket.ask(**frame) for socket in (first, second, other)]
    assert [answer["type"] for answer in answers] == ["ok", "error", "ok"]

"""Frames that say different things to different viewers: senders as the policy shows them, and who may decide."""

from dataclasses import replace
from typing import Any

import pytest

from durable_agents import create_thread, send_message
from tests.api.calls import person
from tests.lifecycle.stage import Worker, calling
from tests.tools.outcomes import SharedPolicy
from tests.websocket.sockets import act, cookie_of


class ToStaff(SharedPolicy):
    """Shows people to staff only; fails for one of them."""

    def person(self, request: Any, user: Any, *, thread: Any) -> Any:
        """Return what the caller may see."""
        if request.user.get_username().startswith("max"):
            raise LookupError(user)
        return super().person(request, user, thread=thread) if request.user.is_staff else None


@pytest.fixture
async def sockets(connect, declare, settings, user):
    """Return the sockets of the user, of staff, and of somebody for whom the policy fails."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.ToStaff"}
    declare(public=True)
    sue, max_ = await act(person, "sue", is_staff=True), await act(person, "max")
    return {
        "user": await connect(),
        "sue": await connect(cookie=await act(cookie_of, sue)),
        "max": await connect(cookie=await act(cookie_of, max_)),
    }


def people_in(frame: dict[str, Any]) -> list[Any]:
    """Return the senders of the users' messages in a snapshot."""
    senders = [message["sender"] for message in frame["messages"] if message["role"] == "user"]
    return [sender and sender["name"] for sender in senders]


def may_decide(frame: dict[str, Any]) -> Any:
    """Return what a snapshot's last message says of its approval."""
    return frame["messages"][-1]["parts"][-1]["approval"].get("canDecide")


async def test_live_frames_say_to_each_viewer_what_they_may_know(sockets, user, delivery):
    """The same news, read once; a policy that fails leaves out people and breaks nothing."""
    thread = await act(begin, user)
    for socket in sockets.values():
        await socket.ask(type="subscribe", id="s", thread=str(thread.pk))
    await act(go_on, thread, user)
    seen = {}
    for name, socket in sockets.items():
        frames = await socket.hear_status("awaiting_tool_results")
        messages = [frame["message"] for frame in frames if frame["type"] == "message"]
        [message] = [message for message in messages if message["role"] == "user"]
        [step] = [frame for frame in frames if frame["type"] == "step"]
        [part] = [part for part in step["parts"] if "toolCallId" in part]
        named = message["metadata"].get("sender") == message["sender"]
        seen[name] = (message["sender"] and message["sender"]["name"], named, part["approval"].get("canDecide"))
    assert seen == {"user": (None, True, False), "sue": ("ann", True, True), "max": (None, True, False)}


async def test_a_snapshot_and_older_messages_say_it_too(sockets, user):
    """To a client that comes later."""
    thread = await act(begin, user)
    await act(go_on, thread, user)
    expected = {"user": ([None, None], False), "sue": (["ann", "ann"], True), "max": ([None, None], None)}
    for name, socket in sockets.items():
        snapshot = await socket.ask(type="subscribe", id="s", thread=str(thread.pk))
        assert (people_in(snapshot), may_decide(snapshot)) == expected[name]
        page = await socket.ask(type="older", id="o", thread=str(thread.pk), before=99, limit=9)
        assert (people_in(page), may_decide(page)) == expected[name]


async def test_the_answer_to_a_send_names_the_sender_as_the_policy_says(sockets, user):
    """Which need not be at all."""
    thread = await act(begin, user)
    hi = {"type": "send", "id": "m", "thread": str(thread.pk), "prompt": "Hi."}
    answers = {name: await sockets[name].ask(**hi) for name in ("user", "sue")}
    assert answers["user"]["message"]["sender"] is None
    assert answers["sue"]["message"]["sender"]["name"].startswith("sue")


def begin(user: Any) -> Any:
    """Begin a thread with a message of the user's."""
    return create_thread("tested", scope="acme", prompt="Hello.", start=False, by=user)


def go_on(thread: Any, user: Any) -> None:
    """Let the user ask for a payment, and the model for an approval."""
    send_message(thread, "Pay.", by=user)
    Worker().answer("May I?", replace(calling(), needs_approval=True, approved_by="staff"))

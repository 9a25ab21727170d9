"""Calls that wait for somebody are answered over the socket too: with the same rights, once per key."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now

from durable_agents import tool
from durable_agents.models import ToolCall
from durable_agents.policies import OwnerPolicy
from tests.api.calls import KINDS, waiting_call
from tests.websocket.sockets import act, cookie_of

FRAMES: dict[str, dict[str, Any]] = {
    "result": {"type": "tool_result", "result": {"found": [1, None]}},
    "error": {"type": "tool_error", "error": "The warehouse is closed."},
    "approve": {"type": "approve", "reason": "Fine."},
    "reject": {"type": "reject", "reason": "Too dear."},
}
STATUS_AFTER = {"result": "completed", "error": "failed", "approve": "pending", "reject": "denied"}


@pytest.fixture
async def socket(connect):
    """Return an open socket of the user."""
    return await connect()


def about(call: ToolCall, action: str, **fields: Any) -> dict[str, Any]:
    """Return the frame that does something to a call."""
    return {"thread": str(call.thread_id), "tool_call_id": call.tool_call_id, **FRAMES[action], **fields}


@pytest.mark.parametrize("action", FRAMES)
async def test_a_call_is_answered_and_everybody_sees_it(socket, agent, user, action):
    """The answer says how it stands; the patch follows at once, in the open page."""
    call = await act(waiting_call, user, **KINDS[action])
    await socket.ask(type="subscribe", id="s", thread=str(call.thread_id))
    answer = await socket.ask(**about(call, action, key="k1"))
    assert (answer["type"], answer["tool_call_id"], answer["status"]) == ("ok", call.tool_call_id, STATUS_AFTER[action])
    patch = (await socket.hear_until(lambda frame: frame["type"] == "tool"))[-1]
    assert (patch["tool_call_id"], patch["status"]) == (call.tool_call_id, STATUS_AFTER[action])
    assert patch.get("output") == FRAMES[action].get("result")


@pytest.mark.parametrize("action", FRAMES)
async def test_the_same_key_again_is_the_same_answer(socket, connect, agent, user, action):
    """On the next socket, after the connection broke before the answer came; without a key it is a conflict."""
    call = await act(waiting_call, user, **KINDS[action])
    frame = about(call, action, key="k1")
    first = await socket.ask(**frame)
    await socket.leave()
    again = await connect()
    assert await again.ask(**frame) == first
    conflict = await again.ask(**about(call, "reject" if action in {"approve", "reject"} else "error", error="Other."))
    assert conflict["code"] == "tool_call_not_pending"


async def test_an_approval_may_change_the_arguments(socket, agent, user):
    """To ones that the tool takes."""
    call = await act(waiting_call, user, **KINDS["approve"])
    assert (await socket.ask(**about(call, "approve", arguments={"size": 1})))["code"] == "invalid_parts"
    await socket.ask(**about(call, "approve", arguments={"word": "y"}))
    await act(call.refresh_from_db)
    assert (call.status, call.approved_arguments) == ("pending", {"word": "y"})
    assert (call.approval_decided_by_id, call.approval_reason) == (user.pk, "Fine.")


async def test_an_approval_that_says_no_is_a_refusal(socket, agent, user):
    """`approved` false is never taken for a yes, and what is neither is an error."""
    call = await act(waiting_call, user, **KINDS["approve"])
    assert (await socket.ask(**about(call, "approve", approved="false")))["code"] == "invalid_frame"
    assert (await socket.ask(**about(call, "approve", approved=False)))["status"] == "denied"


@pytest.mark.parametrize("key", ["k1", None])
@pytest.mark.parametrize("action", ["approve", "reject"])
async def test_a_decision_that_comes_too_late_settles_the_call(socket, agent, user, action, key):
    """Although the command itself failed."""
    call = await act(waiting_call, user, **KINDS[action])
    await act(ToolCall.objects.filter(pk=call.pk).update, expires_at=Now() - timedelta(seconds=1))
    assert (await socket.ask(**about(call, action, key=key)))["code"] == "approval_expired"
    await act(call.refresh_from_db)
    assert call.status == "expired"


@pytest.mark.parametrize("action", ["approve", "reject"])
async def test_somebody_else_than_who_asked_decides(connect, agent, user, settings, action):
    """Staff included: `approved_by` is `other`."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.SharedPolicy"}
    await act(User.objects.filter(pk=user.pk).update, is_staff=True, is_superuser=True)
    call = await act(waiting_call, user, **KINDS[action], approved_by="other")
    asker = await connect()
    assert (await asker.ask(**about(call, action)))["code"] == "permission_denied"
    eve = await act(User.objects.create_user, "eve")
    other = await connect(cookie=await act(cookie_of, eve))
    assert (await other.ask(**about(call, action)))["status"] == STATUS_AFTER[action]
    await act(call.refresh_from_db)
    assert call.approval_decided_by_id == eve.pk


@pytest.mark.parametrize("key", ["k1", None])
async def test_an_approval_of_arguments_that_do_not_fit_any_more_names_them(socket, agent, user, key, monkeypatch):
    """The call has failed, although the command itself failed too."""
    call = await act(waiting_call, user, **KINDS["approve"])

    @tool(name="plain")
    def changed(city: str) -> str:
        """Do the same for a city."""
        return city

    monkeypatch.setitem(agent.tools, "plain", changed)
    answer = await socket.ask(**about(call, "approve", key=key))
    assert answer["code"] == "tool_changed"
    assert "city: Field required" in answer["message"]
    await act(call.refresh_from_db)
    assert (call.status, call.error_code) == ("failed", "tool_changed")


class SharedPolicy(OwnerPolicy):
    """Shows everybody's threads to everybody who is signed in."""

    def filter(self, queryset: Any, request: Any) -> Any:
        """Return all of them."""
        return queryset


@pytest.mark.parametrize("action", FRAMES)
@pytest.mark.parametrize(
    ("left_to", "allowed"), [("owner", {"ann", "staff"}), ("staff", {"staff"}), ("server", set[str]())]
)
async def test_who_may_do_what(connect, agent, user, settings, action, left_to, allowed):
    """As over REST: owner, staff or nobody outside."""
    if action in {"approve", "reject"} and left_to == "server":
        pytest.skip("approvals are never left to the server")
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.SharedPolicy"}
    names = "approved_by" if action in {"approve", "reject"} else "answered_by"
    for name, facts in (("ann", {}), ("eve", {}), ("staff", {"is_staff": True})):
        call = await act(waiting_call, user, **KINDS[action] | {names: left_to})
        person, _ = await act(User.objects.get_or_create, username=name, defaults=facts)
        other = await connect(cookie=await act(cookie_of, person))
        answer = await other.ask(**about(call, action))
        assert (answer["type"] == "ok") == (name in allowed), (name, answer)
        assert name in allowed or answer["code"] == "permission_denied"


async def test_what_is_foreign_or_unknown_is_not_found(connect, socket, agent, user):
    """A call of another thread too."""
    call, other = [await act(waiting_call, user, **KINDS["result"]) for _ in range(2)]
    unknown = await socket.ask(**about(call, "result") | {"tool_call_id": other.tool_call_id})
    assert unknown["code"] == "tool_call_not_found"
    eve = await act(User.objects.create_user, "eve")
    foreign = await (await connect(cookie=await act(cookie_of, eve))).ask(**about(call, "result"))
    assert foreign["code"] == "thread_not_found"


@pytest.mark.parametrize(
    ("action", "wrong"),
    [
        ("result", {"result": ...}),
        ("error", {"error": ["no"]}),
        ("approve", {"arguments": 5}),
        ("reject", {"reason": 7}),
    ],
)
async def test_a_frame_that_lacks_something_or_has_it_wrong_is_refused(socket, agent, user, action, wrong):
    """The call waits on."""
    call = await act(waiting_call, user, **KINDS[action])
    frame = {name: value for name, value in about(call, action, **wrong).items() if value is not ...}
    assert (await socket.ask(**frame))["code"] == "invalid_frame"
    await act(call.refresh_from_db)
    assert call.finished_at is None

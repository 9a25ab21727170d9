"""``approved_by="other"``: somebody else than who asked has to approve, staff included, whichever way they come."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.messages import get_messages
from django.test import AsyncClient, Client
from django.urls import reverse

from durable_agents import (
    Agent,
    PermissionDeniedError,
    approve_tool_call,
    create_thread,
    fork_thread,
    regenerate,
    reject_tool_call,
    resume_thread,
    send_message,
    stop_thread,
    tool,
)
from durable_agents.agents import registry
from durable_agents.models import Thread, ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.api.calls import Api, act, person, problem

pytestmark = pytest.mark.django_db

RAN: list[int] = []


@tool(needs_approval=True, approved_by="other")
def pay(amount: int) -> str:
    """Pay; somebody else has to agree."""
    RAN.append(amount)
    return "paid"


@pytest.fixture(autouse=True)
def _agent(settings: Any) -> Iterator[None]:
    RAN.clear()
    settings.DURABLE_AGENTS = {"POLICY": "tests.tools.outcomes.SharedPolicy"}
    Agent("four_eyes", model="openai/x", tools=[pay], public=True)
    yield
    registry.remove("four_eyes")


@pytest.fixture
def ada() -> Any:
    """Return who asks: staff with all permissions."""
    return person("ada", is_staff=True, is_superuser=True)


@pytest.fixture
def bob() -> Any:
    """Return somebody else, who is no staff."""
    return person("bob")


def waiting(thread: Thread) -> ToolCall:
    """Let the model make its call, and return it."""
    with ScriptedModel(calls("pay", amount=5)):
        run_until_idle()
    return ToolCall.objects.select_related("thread").get(thread=thread)


@pytest.fixture
def call(ada: Any) -> ToolCall:
    """Return a call that waits in a thread which Ada has begun over REST."""
    begun = Api(ada).post("threads/", {"agent": "four_eyes", "prompt": "Pay."}).json()
    return waiting(Thread.objects.get(pk=begun["id"]))


def go_on(call: ToolCall) -> str:
    """Run on, and return what became of the call."""
    with ScriptedModel("Done."):
        run_until_idle()
    call.refresh_from_db()
    return call.status


@pytest.mark.parametrize("decide", [approve_tool_call, reject_tool_call])
def test_who_asked_decides_nothing_though_they_are_staff(call, ada, decide):
    """From Python, by their user."""
    with pytest.raises(PermissionDeniedError):
        decide(call.thread, call.tool_call_id, by=ada)
    call.refresh_from_db()
    assert (call.status, call.approval_decided_by) == ("approval_requested", None)


@pytest.mark.parametrize("is_staff", [True, False])
def test_somebody_else_decides(call, is_staff):
    """Who it was is kept, though nobody owns the thread."""
    eve = person("eve", is_staff=is_staff)
    approve_tool_call(call.thread, call.tool_call_id, by=eve)
    assert (go_on(call), RAN, call.approval_decided_by) == ("completed", [5], eve)


def test_the_project_itself_may_decide(call):
    """Its code has no user."""
    approve_tool_call(call.thread, call.tool_call_id, by=None)
    assert go_on(call) == "completed"


@pytest.mark.parametrize("action", ["approve", "reject"])
def test_over_rest_who_asked_is_refused_and_somebody_else_is_not(call, ada, bob, action):
    """`can_decide` says so beforehand, and to nobody afterwards."""
    path = f"threads/{call.thread_id}/tool-calls/"
    shown = {name: Api(user).get(path).json()["results"][0]["approval"] for name, user in (("a", ada), ("b", bob))}
    assert {name: approval["can_decide"] for name, approval in shown.items()} == {"a": False, "b": True}
    assert problem(act(Api(ada), call, action)) == (403, "permission_denied")
    decided = act(Api(bob), call, action).json()["approval"]
    assert (decided["decided_by"], decided["can_decide"]) == (bob.get_username(), False)


def test_a_visitor_decides_nothing(call):
    """Nobody could say that they are somebody else."""
    assert problem(act(Api(), call, "approve")) == (403, "permission_denied")


def test_at_the_chat_endpoint_who_asked_is_refused_and_somebody_else_is_not(ada, bob, transactional_db):
    """The client's word that it was approved counts for nothing."""
    begun = Api(ada).post("threads/", {"agent": "four_eyes", "prompt": "Pay."}).json()
    call = waiting(Thread.objects.get(pk=begun["id"]))
    part = call.outcome().part()
    part |= {"state": "approval-responded", "approval": {"id": call.tool_call_id, "approved": True}}
    message = {"id": str(call.message_id), "role": "assistant", "parts": [part]}

    def post(user: Any) -> int:
        client = AsyncClient()
        async_to_sync(client.aforce_login)(user)
        body = json.dumps({"id": str(call.thread_id), "messages": [message]})

        async def posted() -> int:
            response = await client.post("/agents/chat/four_eyes", body, content_type="application/json")
            response.close()
            return response.status_code

        return async_to_sync(posted)()

    assert post(ada) == 403
    call.refresh_from_db()
    assert call.status == "approval_requested"
    assert post(bob) == 200
    call.refresh_from_db()
    assert (call.status, call.approval_decided_by) == ("pending", bob)


def test_in_the_admin_who_asked_is_refused_and_somebody_else_is_not(call, ada):
    """Superusers as well."""
    address = reverse("admin:durable_agents_toolcall_approve", args=[call.pk])
    client = Client()
    client.force_login(ada)
    response = client.post(address, {"back": "inbox"})
    [said] = [str(message) for message in get_messages(response.wsgi_request)]
    assert "somebody other" in said
    call.refresh_from_db()
    assert call.status == "approval_requested"
    other = person("root", is_staff=True, is_superuser=True)
    client.force_login(other)
    client.post(address, {"back": "inbox"})
    call.refresh_from_db()
    assert (call.status, call.approval_decided_by) == ("pending", other)


def test_who_asked_is_who_sent_the_message_that_the_run_answers(ada, bob):
    """Not who owns the thread, nor who spoke before or has spoken since."""
    thread = create_thread("four_eyes", owner=ada, prompt="Hello.")
    with ScriptedModel("Hello."):
        run_until_idle()
    send_message(thread, "Pay.", by=bob)
    call = waiting(thread)
    with pytest.raises(PermissionDeniedError):
        approve_tool_call(thread, call.tool_call_id, by=bob)
    approve_tool_call(thread, call.tool_call_id, by=ada)
    assert go_on(call) == "completed"


def test_who_has_it_answered_again_approves_nothing_of_it(ada, bob):
    """Else one person could have a second payment made and approve it, without who asked for the first."""
    thread = create_thread("four_eyes", owner=ada, prompt="Pay.")
    first = waiting(thread)
    approve_tool_call(thread, first.tool_call_id, by=bob)
    assert go_on(first) == "completed"
    regenerate(thread, by=bob)
    second = again(thread)
    for asker in (ada, bob):
        with pytest.raises(PermissionDeniedError):
            approve_tool_call(thread, second.tool_call_id, by=asker)
    approve_tool_call(thread, second.tool_call_id, by=person("eve"))
    assert go_on(second) == "completed"


def test_who_resumes_a_copy_of_the_thread_approves_nothing_in_it(ada, bob):
    thread = create_thread("four_eyes", owner=ada, prompt="Pay.")
    stop_thread(thread)
    fork = fork_thread(thread, owner=bob, by=bob)
    resume_thread(fork, by=bob)
    call = again(fork)
    with pytest.raises(PermissionDeniedError):
        approve_tool_call(fork, call.tool_call_id, by=bob)


def test_who_resumed_an_earlier_run_approves_what_another_asks_for_later(ada, bob):
    thread = create_thread("four_eyes", owner=ada, prompt="Hello.")
    stop_thread(thread)
    resume_thread(thread, by=bob)
    with ScriptedModel("Hello."):
        run_until_idle()
    send_message(thread, "Pay.", by=ada)
    call = waiting(thread)
    approve_tool_call(thread, call.tool_call_id, by=bob)
    assert go_on(call) == "completed"


def again(thread: Thread) -> ToolCall:
    """Let the model make one more call, and return it."""
    with ScriptedModel(calls("pay", amount=6)):
        run_until_idle()
    return ToolCall.objects.select_related("thread").get(thread=thread, status="approval_requested")


def test_what_the_project_sends_is_asked_by_the_owner(ada, bob):
    """A view of the project sends for its user."""
    thread = create_thread("four_eyes", owner=ada)
    send_message(thread, "Pay.")
    call = waiting(thread)
    with pytest.raises(PermissionDeniedError):
        approve_tool_call(thread, call.tool_call_id, by=ada)
    approve_tool_call(thread, call.tool_call_id, by=bob)


def test_what_a_visitor_asked_for_anybody_who_is_known_may_approve(ada):
    """There is nobody to be another than."""
    thread = create_thread("four_eyes", scope="acme", prompt="Pay.")
    call = waiting(thread)
    assert problem(act(Api(), call, "approve")) == (403, "permission_denied")
    assert act(Api(ada), call, "approve").status_code == 200

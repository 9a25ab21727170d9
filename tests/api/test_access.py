"""Who gets in: the policy is asked on every path, and what it does not show is answered like what does not exist.

The cases are made from the URLs, so that an endpoint that is added without one of its own fails here.
"""

from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from rest_framework.authtoken.models import Token

from durable_agents import add_message, create_thread
from durable_agents.models import Message, Thread, ToolCall
from durable_agents.policies import OwnerPolicy
from tests.api.calls import BODIES as OF_CALLS
from tests.api.calls import KINDS, Api, person, problem, waiting_call
from tests.api.operations import BODIES, CALL, OPERATIONS, call
from tests.api.policies import AskedPolicy

pytestmark = pytest.mark.django_db


OF_A_THREAD = [(method, route) for method, route, _ in OPERATIONS if "thread_id" in route]


BODIES |= {f"POST {CALL}{action}/": body for action, body in OF_CALLS.items()}


def answered_thread(owner: Any) -> Thread:
    """Return a thread at rest, with a question called "asked" and its answer."""
    thread = create_thread("tested", owner=owner, messages=[{"role": "user", "content": "Question"}])
    Message.objects.filter(thread=thread).update(client_id="asked")
    add_message(thread, "assistant", "Answer.")
    return thread


def call_fitting(api: Api, method: str, route: str, owner: Any) -> Any:
    """Send a request that does something, to a thread of this owner's in which there is something to do it to."""
    action = route.removeprefix(CALL).rstrip("/") if route.startswith(CALL) else ""
    if route == "attachments/<str:attachment_id>/":
        response = api.follow(api.upload(b"Notes.").json()["url"])
        response.close()
        return response
    if not action:
        return call(api, method, route, answered_thread(owner).pk)
    if action == "timeout":
        type(owner).objects.filter(pk=owner.pk).update(is_staff=True)
    waiting = waiting_call(owner, **KINDS[action])
    return call(api, method, route, waiting.thread_id, waiting.tool_call_id)


def snapshot() -> list[Any]:
    """Return everything that an attack could have changed."""
    return [*Thread.objects.values(), *ToolCall.objects.values()]


@pytest.mark.parametrize(("method", "route"), OF_A_THREAD)
def test_a_foreign_thread_answers_as_one_that_does_not_exist(stranger, agent, me, method, route):
    """Byte for byte, but for the id that was asked for; and nothing happens to it."""
    thread = create_thread(agent, owner=me, prompt="Hi")
    before = snapshot()
    unknown_id = uuid4()
    foreign, unknown = (call(stranger, method, route, id_) for id_ in (thread.pk, unknown_id))
    assert problem(foreign) == (404, "thread_not_found")
    assert foreign.content.replace(str(thread.pk).encode(), b"") == unknown.content.replace(
        str(unknown_id).encode(), b""
    )
    assert snapshot() == before


@pytest.mark.parametrize(("method", "route"), OF_A_THREAD)
def test_a_superuser_reaches_only_their_own_threads(agent, me, method, route):
    """Staff act on others' threads in the admin."""
    thread = create_thread(agent, owner=me, prompt="Hi")
    root = Api(person("root", is_staff=True, is_superuser=True))
    assert problem(call(root, method, route, thread.pk)) == (404, "thread_not_found")


@pytest.mark.parametrize(("method", "route"), OF_A_THREAD)
def test_threads_of_internal_agents_do_not_exist_outside(api, declare, me, method, route):
    """Not even for their owner, by either id."""
    thread = create_thread(declare("inside"), owner=me, client_id="mine", prompt="Hi")
    assert problem(call(api, method, route, thread.pk)) == (404, "thread_not_found")
    assert problem(call(api, method, route, "mine")) == (404, "thread_not_found")
    assert api.get("threads/").json()["results"] == []


@pytest.mark.parametrize(("method", "route"), OF_A_THREAD)
@pytest.mark.parametrize("thread_id", ["x", "%00", "%F0%9F%90%B3", "0" * 32, "..", "%27%20OR%201=1--"])
def test_an_id_that_is_none_is_not_found(api, agent, method, route, thread_id):
    """Whatever it is made of."""
    assert call(api, method, route, thread_id).status_code == 404


@pytest.mark.parametrize(("method", "route"), [(method, route) for method, route, _ in OPERATIONS])
def test_anonymous_callers_are_turned_away(agent, me, method, route):
    """At the door, and with nothing to learn about ids."""
    thread = create_thread(agent, owner=me, prompt="Hi")
    known, unknown = (call(Api(), method, route, id_) for id_ in (thread.pk, uuid4()))
    assert known.status_code in {401, 403}
    assert problem(known)[1] == "not_authenticated"
    assert known.content == unknown.content


@pytest.fixture
def asked(settings):
    """Return the project's own policy, with the signature of the contract."""
    AskedPolicy.asked, AskedPolicy.refused = [], set()
    settings.DURABLE_AGENTS = {"POLICY": "tests.api.policies.AskedPolicy"}
    return AskedPolicy


@pytest.mark.parametrize(("method", "route", "operation"), OPERATIONS)
def test_the_policy_is_asked_on_every_access(api, agent, me, asked, method, route, operation):
    """In its own words."""
    assert call_fitting(api, method, route, me).status_code < 300
    assert operation.action in asked.asked


@pytest.mark.parametrize(("method", "route", "operation"), [o for o in OPERATIONS if o[2].action != "view"])
def test_what_the_policy_refuses_is_denied(api, agent, me, asked, method, route, operation):
    """A caller who may view the thread is told so."""
    asked.refused = {operation.action}
    assert problem(call_fitting(api, method, route, me)) == (403, "permission_denied")
    assert not Message.objects.filter(text="Hi there").exists()
    assert {row["status"] for row in ToolCall.objects.values()} <= {"pending", "approval_requested"}


@pytest.mark.parametrize(("method", "route"), OF_A_THREAD)
def test_who_may_not_even_view_a_thread_learns_nothing(api, agent, me, asked, method, route):
    """It is not found."""
    thread = create_thread(agent, owner=me)
    asked.refused = {operation.action for _, _, operation in OPERATIONS}
    assert problem(call(api, method, route, thread.pk)) == (404, "thread_not_found")


def test_an_agent_that_the_policy_withholds_is_hidden_with_its_threads(api, agent, me, settings, asked):
    """In the list as on its own."""
    thread = create_thread(agent, owner=me)
    asked.refused = {"view"}
    assert api.get("threads/").json()["results"] == []
    assert "tested" not in [row["name"] for row in api.get("agents/").json()["results"]]
    assert api.get(f"threads/{thread.pk}/").status_code == 404


def test_a_project_may_let_guests_in(agent, settings):
    """Its policy says to whom their threads belong and what is known of them."""
    settings.DURABLE_AGENTS = {"POLICY": "tests.api.policies.GuestPolicy"}
    guest = Api()
    made = guest.post("threads/", {"agent": "tested", "context": {"path": "forged"}})
    assert made.status_code == 201
    thread = Thread.objects.get(pk=made.json()["id"])
    assert (thread.owner, thread.scope, thread.context) == (None, "guests", {"path": "web"})
    assert [row["id"] for row in guest.get("threads/").json()["results"]] == [str(thread.pk)]


def test_a_session_needs_a_csrf_token(agent, me):
    """Another site cannot make the browser write."""
    browser = Api(me, enforce_csrf_checks=True)
    assert problem(browser.post("threads/", {"agent": "tested"})) == (403, "permission_denied")
    browser.client.cookies["csrftoken"] = "a" * 32
    assert browser.post("threads/", {"agent": "tested"}, headers={"X-CSRFToken": "a" * 32}).status_code == 201
    assert browser.get("threads/").status_code == 200


def test_a_token_of_the_project_is_enough(agent, me):
    """Authentication is the project's."""
    token = Token.objects.create(user=me)
    client = Client(enforce_csrf_checks=True, headers={"Authorization": f"Token {token.key}"})
    made = client.post("/agents/threads/", {"agent": "tested"}, content_type="application/json")
    assert made.status_code == 201
    assert Thread.objects.get().owner == me
    wrong = Client(headers={"Authorization": "Token wrong"}).get("/agents/threads/")
    assert problem(wrong) in {(401, "authentication_failed"), (403, "authentication_failed")}


def test_an_agent_that_is_not_public_or_unknown_cannot_be_talked_to(api, declare):
    """Both answer alike."""
    declare("inside")
    answers = [api.post("threads/", {"agent": name}) for name in ("inside", "nobody")]
    assert [problem(answer) for answer in answers] == [(400, "agent_not_found")] * 2
    assert answers[0].content.replace(b"inside", b"") == answers[1].content.replace(b"nobody", b"")


def test_a_client_id_of_an_internal_thread_gives_nothing_away(api, agent, declare, me):
    """Its owner cannot reach it by creating it again."""
    create_thread(declare("inside"), owner=me, client_id="mine")
    assert problem(api.post("threads/", {"agent": "tested", "client_id": "mine"})) == (404, "thread_not_found")


class OpenPolicy(OwnerPolicy):
    """Lets everybody in, and says nothing of whose the threads of those are who are nobody."""

    def filter(self, queryset, request):
        """Return all that belongs to nobody."""
        return queryset.filter(owner=None)

    def allows(self, request, action, *, agent, thread=None, tool_call=None):
        """Everything."""
        return True


def test_threads_of_callers_who_are_nobody_belong_to_nobody(agent, settings):
    """Where a policy lets them in, Django's anonymous user is what it names as the owner."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.OpenPolicy"}
    guest = Api()
    made = guest.post("threads/", {"agent": "tested", "client_id": "mine"})
    assert (made.status_code, Thread.objects.get().owner) == (201, None)
    assert guest.post("threads/", {"agent": "tested", "client_id": "mine"}).status_code == 200
    fork = guest.post("threads/mine/fork/")
    assert (fork.status_code, Thread.objects.get(pk=fork.json()["id"]).owner) == (201, None)
    file = guest.upload(b"Hello.").json()
    assert b"".join(guest.follow(file["url"]).streaming_content) == b"Hello."
    sent = guest.post("threads/mine/messages/", {"parts": [{"type": "file", "url": file["url"]}]})
    assert sent.status_code == 202

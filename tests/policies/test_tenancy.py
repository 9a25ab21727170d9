"""The policies of docs/howto/tenancy.md keep tenants apart, over REST and over the websocket."""

import asyncio
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model

from durable_agents import create_thread
from durable_agents.models import Message, Thread
from durable_agents.policies import OwnerPolicy
from tests.api.calls import Api, all_pages, person, problem
from tests.websocket.sockets import ORIGIN, SUBPROTOCOL, Socket, forget_layer

pytestmark = pytest.mark.django_db(transaction=True)

ORGANISATION, SESSION = "OrganisationPolicy", "SessionPolicy"


@pytest.fixture(autouse=True)
def _quiet(bells):
    """Keep the queue out of it."""


@pytest.fixture(autouse=True)
def agent(declare):
    """Return a public agent."""
    return declare(public=True)


@pytest.fixture(params=[ORGANISATION, SESSION])
def tenants(request, settings, monkeypatch):
    """Return callers under a policy: one, another of the same tenant, and somebody of another tenant."""
    settings.DURABLE_AGENTS = {"POLICY": f"tests.policies.documented.{request.param}"}
    if request.param == ORGANISATION:
        organisation = property(lambda user: int(user.last_name) if user.last_name else None)
        monkeypatch.setattr(get_user_model(), "organisation_id", organisation, raising=False)
        return [Api(person(name, last_name=number)) for name, number in (("ada", "1"), ("bob", "1"), ("eve", "2"))]
    first, stranger = Api(), Api()
    return [first, first, stranger]


def begin(api, **facts):
    """Create a thread over REST; return it as it is stored."""
    response = api.post("threads/", {"agent": "tested", **facts})
    assert response.status_code == 201, response.content
    return Thread.objects.get(pk=response.json()["id"])


def on_socket(api, *frames):
    """Send these frames over a websocket with the cookies of this caller; return the answers, or the closing code."""

    async def talk():
        name = django_settings.SESSION_COOKIE_NAME
        given = api.client.cookies.get(name)
        headers = {"origin": ORIGIN, **({"cookie": f"{name}={given.value}"} if given else {})}
        socket = await Socket(headers=headers, subprotocols=[SUBPROTOCOL]).open()
        try:
            if not frames:
                await socket.tell(type="hello")
                return [await socket.close_code()]
            return [await socket.ask(**{"id": f"r{number}", **frame}) for number, frame in enumerate(frames)]
        finally:
            await socket.leave()
            await asyncio.sleep(0)
            await forget_layer()

    return async_to_sync(talk)()


def test_a_tenant_lists_reads_and_continues_its_threads(tenants):
    """Whoever of it began them."""
    one, other, _ = tenants
    thread = begin(one, prompt="Hello.")
    assert [row["id"] for row in all_pages(other, "threads/")] == [str(thread.pk)]
    assert other.get(f"threads/{thread.pk}/").status_code == 200
    assert other.get(f"threads/{thread.pk}/messages/").json()["results"][0]["role"] == "user"
    assert other.post(f"threads/{thread.pk}/messages/", {"prompt": "And more."}).status_code == 202
    assert other.post(f"threads/{thread.pk}/stop/").status_code == 200


def test_a_stranger_finds_nothing(tenants):
    """An id of another tenant is answered as one that does not exist."""
    one, _, stranger = tenants
    thread = begin(one, prompt="Hello.", client_id="mine")
    begin(stranger)
    before = Message.objects.filter(thread=thread).count()
    for name in (thread.pk, "mine", uuid4()):
        asked = [
            stranger.get(f"threads/{name}/"),
            stranger.get(f"threads/{name}/messages/"),
            stranger.get(f"threads/{name}/tool-calls/"),
            stranger.post(f"threads/{name}/messages/", {"prompt": "Let me in."}),
            stranger.post(f"threads/{name}/stop/"),
            stranger.post(f"threads/{name}/resume/"),
        ]
        assert {problem(response) for response in asked} == {(404, "thread_not_found")}
        assert stranger.patch(f"threads/{name}/", {"title": "Mine now"}).status_code in {403, 404}
        assert stranger.delete(f"threads/{name}/").status_code in {403, 404}
    assert str(thread.pk) not in [row["id"] for row in all_pages(stranger, "threads/")]
    assert Message.objects.filter(thread=thread).count() == before
    assert Thread.objects.get(pk=thread.pk).title == ""


def test_a_thread_gets_the_owner_and_scope_of_its_creator(tenants):
    """The same client_id in two tenants is two threads."""
    one, _, stranger = tenants
    first, second = begin(one, client_id="chat-1"), begin(stranger, client_id="chat-1")
    assert first.scope
    assert second.scope
    assert first.scope != second.scope
    again = one.post("threads/", {"agent": "tested", "client_id": "chat-1"})
    assert (again.status_code, again.json()["id"]) == (200, str(first.pk))


def test_what_is_sent_cannot_choose_owner_or_scope(tenants):
    """Fields of these names mean nothing."""
    one, _, stranger = tenants
    theirs = begin(stranger)
    mine = begin(one, scope=theirs.scope, owner=str(theirs.owner_id), context={"organisation": 2})
    assert mine.scope != theirs.scope
    assert one.get(f"threads/{mine.pk}/").status_code == 200
    assert stranger.get(f"threads/{mine.pk}/").status_code == 404


def test_over_the_websocket_a_tenant_reads_and_sends(tenants):
    """As over REST."""
    one, other, _ = tenants
    thread = str(begin(one).pk)
    snapshot, sent = on_socket(
        other, {"type": "subscribe", "thread": thread}, {"type": "send", "thread": thread, "prompt": "Over the wire."}
    )
    assert (snapshot["type"], sent["type"]) == ("snapshot", "ok")
    assert Message.objects.filter(thread=thread, role="user", text="Over the wire.").exists()


def test_over_the_websocket_a_stranger_finds_nothing(tenants):
    """Whatever the frame."""
    one, _, stranger = tenants
    thread = begin(one, client_id="mine")
    begin(stranger)
    kinds = ("subscribe", "send", "stop", "resume", "unsubscribe")
    for name in (str(thread.pk), "mine"):
        answers = on_socket(stranger, *({"type": kind, "thread": name, "prompt": "Hi."} for kind in kinds))
        assert [answer.get("code") for answer in answers] == ["thread_not_found"] * len(kinds)
    assert not Message.objects.filter(thread=thread).exists()


@pytest.mark.parametrize("tenants", [ORGANISATION], indirect=True)
def test_only_who_began_a_thread_of_an_organisation_deletes_it(tenants):
    """A colleague is told that they may not, since they may see it."""
    one, other, _ = tenants
    thread = begin(one)
    assert problem(other.delete(f"threads/{thread.pk}/")) == (403, "permission_denied")
    assert one.delete(f"threads/{thread.pk}/").status_code == 204


@pytest.mark.parametrize("tenants", [ORGANISATION], indirect=True)
def test_tools_may_trust_which_organisation_asks(tenants):
    """It is in the context, which clients cannot write."""
    thread = begin(tenants[0])
    assert (thread.scope, thread.context, thread.owner.last_name) == ("1", {"organisation": 1}, "1")


@pytest.mark.parametrize("tenants", [ORGANISATION], indirect=True)
@pytest.mark.parametrize("name", ["", "guest"])
def test_who_belongs_to_no_organisation_is_kept_out(tenants, name):
    """Signed in or not."""
    thread = begin(tenants[0])
    outsider = Api(person(name)) if name else Api()
    assert outsider.get("threads/").status_code in ({200, 403} if name else {401, 403})
    assert outsider.get(f"threads/{thread.pk}/").status_code in {401, 403, 404}
    assert outsider.post("threads/", {"agent": "tested"}).status_code in {401, 403}
    assert on_socket(outsider) == [4403 if name else 4401]


@pytest.mark.parametrize("tenants", [SESSION], indirect=True)
def test_a_visitor_begins_without_a_session_and_gets_one(tenants):
    """Looking makes none."""
    visitor = tenants[0]
    assert visitor.get("threads/").json()["results"] == []
    assert visitor.get("threads/unknown/").status_code == 404
    assert django_settings.SESSION_COOKIE_NAME not in visitor.client.cookies
    thread = begin(visitor, prompt="Hello.")
    assert (thread.owner, thread.scope[:8]) == (None, "visitor:")
    assert visitor.client.cookies[django_settings.SESSION_COOKIE_NAME].value not in thread.scope


@pytest.mark.parametrize("tenants", [SESSION], indirect=True)
def test_a_cookie_that_somebody_made_up_is_nobodys(tenants):
    """Two browsers with the same one do not share threads."""
    made_up = "a" * 32
    one, two = Api(), Api()
    for api in (one, two):
        api.client.cookies[django_settings.SESSION_COOKIE_NAME] = made_up
    thread = begin(one)
    assert two.get(f"threads/{thread.pk}/").status_code == 404
    assert begin(two).scope != thread.scope


@pytest.mark.parametrize("tenants", [SESSION], indirect=True)
def test_a_visitor_may_not_delete_and_threads_of_users_are_not_theirs(tenants, agent):
    """The policy lists what visitors may do."""
    visitor = tenants[0]
    thread = begin(visitor)
    assert problem(visitor.delete(f"threads/{thread.pk}/"))[0] == 403
    owned = create_thread(agent, owner=person("owner"), scope=thread.scope)
    assert visitor.get(f"threads/{owned.pk}/").status_code == 404


class OddPolicy(OwnerPolicy):
    """Returns a context that cannot be stored."""

    def context(self, request):
        """Return the user in place of the user's id."""
        return {"who": request.user}


def test_a_context_that_is_no_json_object_is_an_error_with_a_code(settings, caplog):
    """The log names the value. Nothing is created."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.OddPolicy"}
    response = Api(person("ada")).post("threads/", {"agent": "tested"})
    assert problem(response) == (500, "invalid_json_object")
    assert "'who'" in response.json()["detail"]
    assert [record.action for record in caplog.records if record.name == "durable_agents"] == ["context"]
    assert Thread.objects.count() == 0


def test_support_staff_see_and_answer_all_threads_but_do_not_delete_those_of_others(settings, monkeypatch):
    """Customers see their own threads only."""
    settings.DURABLE_AGENTS = {"POLICY": "tests.policies.documented.SupportDeskPolicy"}
    user = get_user_model()
    allowed = ("lee@example.org", "shop.approve_refund")
    monkeypatch.setattr(user, "has_perm", lambda user, name: (user.get_username(), name) == allowed)
    kim, lee, eve = (Api(person(name)) for name in ("kim", "lee", "eve"))
    thread = begin(kim, prompt="Hello.")
    assert eve.get(f"threads/{thread.pk}/").status_code == 404
    assert eve.delete(f"threads/{thread.pk}/").status_code == 404
    assert lee.get(f"threads/{thread.pk}/messages/").status_code == 200
    assert lee.post(f"threads/{thread.pk}/messages/", {"prompt": "I help you."}).status_code == 202
    assert lee.delete(f"threads/{thread.pk}/").status_code == 403
    assert kim.delete(f"threads/{thread.pk}/").status_code == 204
    assert lee.delete(f"threads/{begin(lee, prompt='Mine.').pk}/").status_code == 204

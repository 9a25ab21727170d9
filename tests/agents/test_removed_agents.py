"""Threads whose agent has been removed from the code: their callers can read and delete them, but not continue them."""

import json

import pytest
from asgiref.sync import async_to_sync
from django.template import RequestContext, Template
from django.utils.translation import override

from durable_agents import (
    AgentNotFoundError,
    AgentRemovedError,
    create_thread,
    export_thread,
    fork_thread,
    regenerate,
    send_message,
    stop_thread,
    update_thread,
)
from durable_agents.agents import Agent, RemovedAgent, registry
from durable_agents.api.serializers import threads_json
from durable_agents.chat_texts import localized
from durable_agents.models import Thread
from durable_agents.policies import OwnerPolicy, visible_threads
from tests.api.calls import KINDS, Api, all_pages, person, problem, waiting_call
from tests.lifecycle.stage import Worker
from tests.policies.attempts import over_the_websocket
from tests.policies.calling import live
from tests.policies.cases import Names

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _quiet(bells):
    """Send no notifications."""


@pytest.fixture
def ada():
    """Return the owner of the threads."""
    return person("ada")


@pytest.fixture
def api(ada):
    """Return the API as the owner sees it."""
    return Api(ada)


@pytest.fixture
def thread(declare, ada):
    """Return a thread with a question and an answer. Its agent, which was public, has been removed."""
    declare("concierge", public=True)
    thread = create_thread("concierge", owner=ada, prompt="Is there a pool?")
    Worker(agents=("concierge",)).answer("On the roof.")
    registry.remove("concierge")
    return thread


def test_its_thread_is_read_and_says_that_it_is_read_only(api, thread):
    shown = api.get(f"threads/{thread.pk}/").json()
    text = "This assistant no longer exists. You can still read and delete this chat."
    reason = {"code": "agent_removed", "message": text}
    assert (shown["agent"], shown["status"], shown["read_only"]) == ("concierge", "completed", reason)
    assert [row["id"] for row in all_pages(api, "threads/")] == [str(thread.pk)]
    messages = api.get(f"threads/{thread.pk}/messages/").json()["results"]
    assert [part["text"] for message in messages for part in message["parts"] if "text" in part] == [
        "Is there a pool?",
        "On the roof.",
    ]
    for path in ("usage/", "tool-calls/"):
        assert api.get(f"threads/{thread.pk}/{path}").status_code == 200
    exported = api.get(f"threads/{thread.pk}/export/").json()
    assert exported["thread"]["read_only"] == reason
    assert len(exported["messages"]) == 2


def test_the_reason_is_in_the_reader_s_language(api, thread):
    with override("de"):
        [shown] = threads_json([thread])
        refused = localized("agent_removed", "Only in English.")
    assert shown["read_only"]["message"] == refused
    assert refused.startswith("Diesen Assistenten gibt es nicht mehr.")


def test_a_thread_whose_agent_exists_is_not_read_only(api, ada, declare):
    declare("concierge", public=True)
    thread = create_thread("concierge", owner=ada)
    assert api.get(f"threads/{thread.pk}/").json()["read_only"] is None
    assert export_thread(thread)["thread"]["read_only"] is None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "messages/", {"prompt": "And a sauna?"}),
        ("POST", "resume/", {}),
        ("POST", "resume/", {"prompt": "And a sauna?"}),
        ("POST", "regenerate/", {}),
        ("POST", "fork/", {}),
        ("PATCH", "", {"title": "Pool", "archived": True}),
    ],
)
def test_what_needs_the_agent_is_refused_and_says_what_to_do(api, thread, method, path, body):
    before = Thread.objects.values().get()
    response = api.send(method, f"threads/{thread.pk}/{path}", body)
    assert problem(response) == (409, "agent_removed")
    assert "can only be read, stopped, exported and deleted" in response.json()["detail"]
    assert Thread.objects.values().get() == before


def test_its_messages_are_not_edited(api, thread):
    message = thread.messages.get(role="user")
    response = api.send("PUT", f"threads/{thread.pk}/messages/{message.pk}/", {"prompt": "Is there a sauna?"})
    assert problem(response) == (409, "agent_removed")


@pytest.mark.parametrize("action", ["approve", "reject", "result", "error"])
def test_its_open_calls_take_no_answer(api, ada, declare, action):
    agent = declare(public=True)
    call = waiting_call(ada, **KINDS[action])
    registry.remove(agent.name)
    body = {"result": {"result": 1}, "error": {"error": "No."}}.get(action, {})
    path = f"threads/{call.thread_id}/tool-calls/"
    assert problem(api.post(f"{path}{call.tool_call_id}/{action}/", body)) == (409, "agent_removed")
    [shown] = api.get(path).json()["results"]
    assert shown["approval"] is None or shown["approval"]["can_decide"] is False


def test_it_is_deleted(api, thread):
    assert api.delete(f"threads/{thread.pk}/").status_code == 204
    assert not Thread.objects.exists()


def test_its_run_is_stopped(api, ada, declare):
    declare("concierge", public=True)
    thread = create_thread("concierge", owner=ada, prompt="Is there a pool?")
    registry.remove("concierge")
    assert api.post(f"threads/{thread.pk}/stop/").json()["status"] == "stopped"


def test_with_an_alias_it_goes_on(api, thread, declare):
    declare("reception", public=True, aliases=["concierge"])
    shown = api.get(f"threads/{thread.pk}/").json()
    assert (shown["agent"], shown["read_only"]) == ("reception", None)
    assert api.post(f"threads/{thread.pk}/messages/", {"prompt": "And a sauna?"}).status_code == 202


# Who sees it.


def test_the_thread_of_an_internal_agent_stays_hidden(api, ada, declare):
    declare("inside")
    thread = create_thread("inside", owner=ada)
    registry.remove("inside")
    assert problem(api.get(f"threads/{thread.pk}/")) == (404, "thread_not_found")
    assert problem(api.delete(f"threads/{thread.pk}/")) == (404, "thread_not_found")
    assert all_pages(api, "threads/") == []


def test_a_thread_from_before_the_column_stays_hidden(api, thread):
    Thread.objects.update(agent_is_public=False)
    assert problem(api.get(f"threads/{thread.pk}/")) == (404, "thread_not_found")


def change(thread):
    update_thread(thread, title="Changed")


def answer(thread):
    send_message(thread, "And a sauna?")
    Worker(agents=("concierge",)).answer("Next to it.")


def stop(thread):
    send_message(thread, "And a sauna?")
    stop_thread(thread)


@pytest.mark.parametrize("use", [change, answer, stop])
@pytest.mark.parametrize(("was", "now"), [(True, False), (False, True)])
def test_what_counts_is_whether_the_agent_was_public_at_the_last_change(api, ada, declare, use, was, now):
    declare("concierge", public=was)
    thread = create_thread("concierge", owner=ada)
    registry.remove("concierge")
    declare("concierge", public=now)
    use(thread)
    registry.remove("concierge")
    assert api.get(f"threads/{thread.pk}/").status_code == (200 if now else 404)


def test_a_change_without_the_agent_keeps_what_is_known(api, ada, thread):
    update_thread(thread, title="Changed by the project")
    fork = fork_thread(thread)
    for row in (thread, fork):
        assert api.get(f"threads/{row.pk}/").status_code == 200
    Thread.objects.update(agent_is_public=False)
    assert problem(api.get(f"threads/{fork_thread(thread).pk}/")) == (404, "thread_not_found")


def test_nobody_else_sees_it(thread):
    for stranger in (Api(person("eve")), Api(person("root", is_staff=True, is_superuser=True))):
        assert problem(stranger.get(f"threads/{thread.pk}/")) == (404, "thread_not_found")
        assert problem(stranger.delete(f"threads/{thread.pk}/")) == (404, "thread_not_found")
        assert all_pages(stranger, "threads/") == []
    assert Api().get(f"threads/{thread.pk}/").status_code in {401, 403}


class Choosy(OwnerPolicy):
    """A policy that decides by the agent's name, and for one action."""

    asked: list[Agent] = []  # noqa: RUF012 - emptied by the fixture
    hidden: set[str] = set()  # noqa: RUF012 - as above
    refused: set[str] = set()  # noqa: RUF012 - as above

    def allows(self, request, action, *, agent=None, thread=None, tool_call=None):
        self.asked.append(agent)
        return agent.name not in self.hidden and action not in self.refused


@pytest.fixture
def choosy(settings):
    """Return the policy of the project."""
    Choosy.asked, Choosy.hidden, Choosy.refused = [], set(), set()
    settings.DURABLE_AGENTS = {"POLICY": "tests.agents.test_removed_agents.Choosy"}
    return Choosy


def test_the_policy_decides_about_it_by_its_name(api, thread, choosy):
    assert api.get(f"threads/{thread.pk}/").status_code == 200
    [removed] = {agent.name: agent for agent in choosy.asked if isinstance(agent, RemovedAgent)}.values()
    assert (removed.name, removed.public, removed.tools) == ("concierge", True, {})
    assert registry.find("concierge") is None
    choosy.hidden = {"concierge"}
    assert problem(api.get(f"threads/{thread.pk}/")) == (404, "thread_not_found")
    assert problem(api.post(f"threads/{thread.pk}/messages/", {"prompt": "Hi"})) == (404, "thread_not_found")


def test_an_action_that_the_policy_refuses_is_denied(api, thread, choosy):
    choosy.refused = {"delete", "send"}
    assert problem(api.delete(f"threads/{thread.pk}/")) == (403, "permission_denied")
    assert problem(api.post(f"threads/{thread.pk}/messages/", {"prompt": "Hi"})) == (403, "permission_denied")


def test_pages_of_the_list_are_full_without_what_the_policy_refuses(api, ada, declare, choosy):
    for name in ("one", "two", "three", "four"):
        declare(name, public=True)
        for _ in range(2):
            create_thread(name, owner=ada)
        if name != "four":
            registry.remove(name)
    choosy.hidden = {"one", "three"}
    page = api.get("threads/", limit=3).json()
    assert [row["agent"] for row in page["results"]] == ["four", "four", "two"]
    assert [row["agent"] for row in all_pages(api, "threads/", limit=3)] == ["four", "four", "two", "two"]


def test_a_websocket_may_go_on_following_it(ada, thread, choosy, rf):
    request = rf.get("/")
    request.user = ada
    assert visible_threads([(request, {thread.pk})]) == [{thread.pk}]
    choosy.hidden = {"concierge"}
    assert visible_threads([(request, {thread.pk})]) == [frozenset()]


# In Python.


def test_python_code_gets_an_error_of_its_own(thread):
    for go_on in (lambda: send_message(thread, "And a sauna?"), lambda: regenerate(thread)):
        with pytest.raises(AgentRemovedError, match="'concierge' any more") as raised:
            go_on()
        assert isinstance(raised.value, AgentNotFoundError)
        assert raised.value.status_code == 409


# Over other interfaces.


def frames(response):
    """Return the frames of server-sent events."""
    return [
        json.loads(line.removeprefix("data: "))
        for line in response.content.decode().splitlines()
        if line[:5] == "data:"
    ]


@pytest.mark.django_db(transaction=True)
def test_its_events_are_read(api, thread):
    response = async_to_sync(live)(api, "GET", f"threads/{thread.pk}/events/")
    [snapshot] = frames(response)
    assert snapshot["read_only"]["code"] == "agent_removed"
    assert len(snapshot["messages"]) == 2


@pytest.mark.django_db(transaction=True)
def test_a_client_of_the_ai_sdk_is_told(api, thread):
    def answer(method, path, body=None):
        return async_to_sync(live)(api, method, path, body)

    said = {"id": "m2", "role": "user", "parts": [{"type": "text", "text": "And a sauna?"}]}
    shown = {"id": "a", "role": "assistant", "parts": [{"type": "text", "text": "On the roof."}]}
    for more in ({"messages": [said]}, {"messages": [shown], "trigger": "regenerate-message"}):
        response = answer("POST", "chat/", {"id": str(thread.pk), **more})
        assert problem(response) == (409, "agent_removed")
    assert answer("GET", f"chat/{thread.pk}/stream/").status_code == 204
    assert answer("GET", f"chat/{thread.pk}/stream/?wait=1").status_code == 204
    assert api.post(f"chat/{thread.pk}/stop/").json() == {"status": "completed"}
    assert thread.messages.count() == 2


@pytest.mark.django_db(transaction=True)
def test_over_the_websocket_it_is_read_and_takes_no_command(api, thread):
    names = Names(thread_id=str(thread.pk), message_id=str(thread.messages.get(role="user").pk))
    [snapshot] = over_the_websocket(api, "subscribe", names)
    assert (snapshot["type"], snapshot["read_only"]["code"]) == ("snapshot", "agent_removed")
    for kind in ("send", "resume", "edit", "regenerate"):
        [refused] = over_the_websocket(api, kind, names)
        assert (refused["type"], refused["code"], refused["retryable"]) == ("error", "agent_removed", False), kind
    assert thread.messages.count() == 2


class ByName(OwnerPolicy):
    """A policy that decides by the name of the agent, which it takes for granted."""

    def allows(self, request, action, *, agent=None, thread=None, tool_call=None):
        """Return whether the agent's name is known."""
        return agent.name == "concierge" and super().allows(
            request, action, agent=agent, thread=thread, tool_call=tool_call
        )


def test_without_scripts_its_run_can_be_stopped(ada, thread, rf, settings):
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.ByName"}
    Thread.objects.filter(pk=thread.pk).update(status="awaiting_tool_results")
    request = rf.get("/")
    request.user = ada
    html = Template("{% load durable_agents %}{% durable_chat thread %}").render(
        RequestContext(request, {"thread": thread})
    )
    assert html.count("<form") == html.count("/stop/") == 1


def test_without_scripts_it_is_read_and_has_no_forms(ada, thread, rf):
    request = rf.get("/")
    request.user = ada
    html = Template("{% load durable_agents %}{% durable_chat thread %}").render(
        RequestContext(request, {"thread": thread})
    )
    assert "On the roof." in html
    assert '<p role="alert" dir="auto">This assistant no longer exists.' in html
    assert "<form" not in html

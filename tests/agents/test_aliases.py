"""An agent or a tool that was renamed: what was made under the old name goes on under the new one."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from durable_agents import (
    Agent,
    ToolContext,
    add_tool_result,
    approve_tool_call,
    create_thread,
    list_threads,
    send_message,
    tool,
)
from durable_agents.agents import registry
from durable_agents.models import Thread, ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle

pytestmark = pytest.mark.django_db


def looked_up(ctx: ToolContext, number: int) -> str:
    """Find an order."""
    return f"order {number}, by {ctx.agent} with {ctx.tool_name}"


OLD = tool(name="search", needs_approval=True)(looked_up)
NEW = tool(name="find_order", aliases=["search"], needs_approval=True)(looked_up)


@pytest.fixture
def asked(shop):
    """Return a thread of the agent `helpdesk` whose call of `search` waits for an approval. Both are renamed now."""
    shop(name="helpdesk", tools=[OLD], public=True)
    with ScriptedModel(calls("search", number=7)):
        thread = create_thread("helpdesk", prompt="Where is it?")
        run_until_idle()
    registry.remove("helpdesk")
    shop(name="support", tools=[NEW], aliases=["helpdesk"], public=True)
    return thread


def decided(thread, *answers):
    """Approve the thread's call, and let the run go on with these answers; return the model's requests."""
    with ScriptedModel(*answers) as model:
        approve_tool_call(thread, ToolCall.objects.get(thread=thread).tool_call_id, by=None)
        run_until_idle()
    thread.refresh_from_db()
    return model.requests


def test_an_open_call_and_its_thread_go_on(asked):
    """The approval of the call counts, and the tool gets the current names."""
    decided(asked, "Here it is.")
    call = ToolCall.objects.get(thread=asked)
    assert (asked.status, call.status, call.tool_name) == ("completed", "completed", "search")
    assert call.result == "order 7, by support with find_order"


def test_the_model_sees_only_the_current_name(asked):
    """In its tools, and in the call of the history."""
    [request] = decided(asked, "Here it is.")
    assert [item["function"]["name"] for item in request.tools] == ["find_order"]
    [call] = [call for message in request.messages for call in message.get("tool_calls", ())]
    assert call["function"]["name"] == "find_order"
    assert request.agent == "support"
    assert "search" not in str(request.messages)


def test_a_thread_of_the_old_name_takes_messages(asked):
    """The agent of the new name answers."""
    decided(asked, "Here it is.")
    with ScriptedModel("You are welcome.") as model:
        send_message(asked, "Thanks.")
        run_until_idle()
    assert [request.agent for request in model.requests] == ["support"]


def test_a_deferred_call_of_the_old_name_takes_its_result(shop):
    """Also if the agent chooses its tools for each thread."""
    ask = tool(name="ask", kind="deferred")(lambda number: None)
    shop(tools=[], configure=lambda thread: {"tools": [ask]})
    with ScriptedModel(calls("ask", number=1)):
        thread = create_thread("shop", prompt="How many?")
        run_until_idle()
    registry.remove("shop")
    renamed = tool(name="inquire", kind="deferred", aliases=["ask"])(lambda number: None)
    shop(tools=[], configure=lambda thread: {"tools": [renamed]})
    with ScriptedModel("Three.") as model:
        add_tool_result(thread, ToolCall.objects.get(thread=thread).tool_call_id, 3)
        run_until_idle()
    thread.refresh_from_db()
    assert thread.status == "completed"
    assert "'inquire'" in str(model.requests[0].messages)


def test_a_model_that_calls_the_old_name_is_understood(shop):
    """It may have read the name elsewhere."""
    shop(tools=[tool(name="find_order", aliases=["search"])(looked_up)])
    with ScriptedModel(calls("search", number=8), "Found."):
        thread = create_thread("shop", prompt="Where is it?")
        run_until_idle()
    assert ToolCall.objects.get(thread=thread).result == "order 8, by shop with find_order"


def test_an_alias_does_not_run_another_tool_of_that_name(shop):
    """The thread has the renamed tool, but not the tool that now has the old name."""
    run = []
    renamed = tool(name="new", aliases=["old"], needs_approval=True)(lambda: run.append("renamed"))
    other = tool(name="old")(lambda: run.append("other"))
    shop(tools=[other], configure=lambda thread: {"tools": [renamed]})
    with ScriptedModel(calls("old"), "Well."):
        thread = create_thread("shop", prompt="Do it.")
        run_until_idle()
        approve_tool_call(thread, ToolCall.objects.get(thread=thread).tool_call_id, by=None)
        run_until_idle()
    assert ToolCall.objects.get(thread=thread).status == "failed"
    assert run == []


def test_needs_approval_is_asked_for_a_call_of_the_old_name(shop):
    """With the current name in its context."""
    asked = []
    shop(
        tools=[
            tool(name="new", aliases=["old"], needs_approval=lambda ctx, args: asked.append(ctx.tool_name))(lambda: 1)
        ]
    )
    with ScriptedModel(calls("old"), "Well."):
        create_thread("shop", prompt="Do it.")
        run_until_idle()
    assert asked == ["new"]


def test_a_new_thread_gets_the_current_name(asked):
    """Also if it is created with the old one."""
    assert create_thread("helpdesk").agent == "support"


@pytest.mark.parametrize("name", ["support", "helpdesk"])
def test_both_names_list_the_threads_of_both(asked, name):
    """In Python and over REST, where the threads have the current name."""
    new = create_thread("support")
    assert {thread.pk for thread in list_threads(agent=name)} == {asked.pk, new.pk}
    assert list_threads(agent=registry.get(name)).count() == 2
    assert not list_threads(agent="nobody").exists()


def test_clients_see_threads_of_the_old_name_under_the_current_name(asked, client, django_user_model):
    """They are the caller's, as before."""
    ada = django_user_model.objects.create(username="ada")
    Thread.objects.filter(pk=asked.pk).update(owner=ada)
    create_thread("support", owner=ada)
    client.force_login(ada)
    for name in ("support", "helpdesk"):
        rows = client.get("/agents/threads/", {"agent": name}).json()["results"]
        assert [row["agent"] for row in rows] == ["support", "support"]


@pytest.mark.parametrize(
    ("name", "aliases"), [("other", ["support"]), ("other", ["helpdesk"]), ("helpdesk", []), ("helpdesk", ["x"])]
)
def test_a_name_or_an_alias_belongs_to_one_agent(shop, name, aliases):
    """The second agent is refused, and leaves nothing behind."""
    first = shop(name="support", aliases=["helpdesk"])
    with pytest.raises(ImproperlyConfigured, match="must be unique"):
        Agent(name, model="openai/x", aliases=aliases)
    assert (registry.find("support"), registry.find("helpdesk"), registry.find("x")) == (first, first, None)

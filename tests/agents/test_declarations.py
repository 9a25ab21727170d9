"""A declaration that cannot work is refused where it is made, with a sentence that says what to do."""

import functools
from dataclasses import fields

import pytest
from django.core.exceptions import ImproperlyConfigured

from durable_agents import Agent, Retry, ToolContext, tool
from durable_agents.agents import registry
from tests.testing.shop import add


def work(word: str = "") -> str:
    """Say a word."""
    return word


async def work_async(word: str = "") -> str:
    """Say a word."""
    return word


class Callable:
    """An object that is called like a coroutine function."""

    async def __call__(self, **facts):
        """Do nothing."""


def test_a_tool_is_sync_and_runs_unasked_unless_it_says_otherwise():
    """Also where it is a coroutine function."""
    for made in (tool(work), tool(work_async)):
        assert (made.kind, made.needs_approval, made.approved_by, made.answered_by) == (
            "sync",
            False,
            "owner",
            "server",
        )


@pytest.mark.parametrize(
    ("options", "answered_by"),
    [
        ({"kind": "deferred"}, "server"),
        ({"kind": "client"}, "owner"),
        ({"kind": "client", "answered_by": "server"}, "server"),
        ({"kind": "deferred", "answered_by": "staff"}, "staff"),
    ],
)
def test_who_answers_follows_from_the_kind_unless_it_is_said(options, answered_by):
    """Browsers answer client tools; nobody from outside answers deferred ones."""
    assert tool(**options)(work).answered_by == answered_by


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"name": "get weather"}, "name="),
        ({"name": "x" * 65}, "1 to 64"),
        ({"name": "größe"}, "name="),
        ({"kind": "provider"}, "provider_tools"),
        ({"kind": "remote"}, "'deferred'"),
        ({"kind": "client", "atomic": True}, "Leave out atomic"),
        ({"kind": "deferred", "atomic": True}, "Leave out atomic"),
        ({"kind": "client", "retry": Retry(max_attempts=2)}, "Leave out retry"),
        ({"answered_by": "owner"}, "deferred or client"),
        ({"kind": "client", "answered_by": "anybody"}, "'staff'"),
        ({"approved_by": "staff"}, "needs_approval=True"),
        ({"needs_approval": True, "approved_by": "anybody"}, "'owner'"),
        ({"needs_approval": "yes"}, "callable"),
        ({"after_crash": "again"}, "'unknown'"),
        ({"aliases": "old"}, "list of its earlier names"),
        ({"aliases": [""]}, "list of its earlier names"),
        ({"aliases": ["work"]}, "without 'work'"),
        ({"aliases": ["old", "old"]}, "each once"),
    ],
)
def test_a_tool_that_cannot_work_is_refused(options, hint):
    """The sentence names the tool and what to change."""
    with pytest.raises(ImproperlyConfigured, match=rf"Tool .*{hint}"):
        tool(**options)(work)


def test_a_function_without_a_name_of_its_own_needs_one():
    """A lambda is called <lambda>."""
    with pytest.raises(ImproperlyConfigured, match=r"@tool\(name=\.\.\.\)"):
        tool(lambda: 1)


def test_the_schema_of_a_client_tool_comes_from_its_signature():
    """Its function is never called."""
    made = tool(kind="client")(work)
    assert made.definition["function"]["parameters"]["properties"] == {
        "word": {"default": "", "title": "Word", "type": "string"}
    }


@pytest.mark.parametrize("name", ["on_status_change", "on_commit_step"])
@pytest.mark.parametrize("function", [work_async, functools.partial(work_async, word="x"), Callable()])
def test_what_runs_inside_a_transaction_cannot_be_async(shop, name, function):
    """However the coroutine function is disguised."""
    with pytest.raises(ImproperlyConfigured, match=f"{name} runs inside a database transaction"):
        shop(**{name: function})
    assert registry.find("shop") is None


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"name": "the shop"}, "letters"),
        ({"name": "a/b"}, "URLs"),
        ({"name": ""}, "1 to 100"),
        ({"model": []}, "needs a model"),
        ({"tools": [work]}, "@tool"),
        ({"provider_tools": ["web_search"]}, "dicts"),
        ({"when_busy": "wait"}, "'queue'"),
        ({"after_crash": "retry"}, "'restart'"),
        ({"title": "A title"}, "title is a function"),
        ({"on_error": 5}, "on_error is a function"),
        ({"aliases": "old"}, "list of its earlier names"),
        ({"aliases": ["wrong"]}, "without 'wrong'"),
        ({"tools": [add, tool(aliases=["add"])(work)]}, "name or alias add"),
        ({"tools": [tool(aliases=["x"])(work), tool(name="y", aliases=["x"])(work)]}, "name or alias x"),
    ],
)
def test_an_agent_that_cannot_work_is_refused(options, hint):
    """And is not registered."""
    with pytest.raises(ImproperlyConfigured, match=rf"Agent .*{hint}"):
        Agent(**{"name": "wrong", "model": "openai/x", "tools": [add], **options})
    assert registry.find(options.get("name", "wrong")) is None


def test_a_context_for_a_test_is_complete():
    """So that a tool can be tested as a function."""
    context, other = ToolContext.for_test(), ToolContext.for_test()
    assert all(
        getattr(context, item.name) is not None for item in fields(context) if item.name not in {"owner", "sender"}
    )
    assert context.idempotency_key != other.idempotency_key
    context.progress({"done": 1})
    assert not context.stop_requested


def test_a_context_for_a_test_has_what_the_test_gives():
    """Also what a worker would do."""
    seen: list[object] = []
    given = {"owner": "ada", "scope": "acme", "context": {"a": 1}, "attempt": 2, "max_attempts": 3, "tool_name": "x"}
    context = ToolContext.for_test(**given, on_progress=seen.append, stop_requested=True)
    assert {name: getattr(context, name) for name in given} == given
    context.progress({"done": 1})
    assert (context.stop_requested, seen) == (True, [{"done": 1}])
    assert "report" not in repr(context)

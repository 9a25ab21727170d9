"""Tools that no module declares: ``configure`` offers them, and workers find them again with ``tool_resolver``."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from durable_agents import Agent, Retry, Tool, ToolContext, approve_tool_call, create_thread, lifecycle, tool
from durable_agents.agents import RESOLVED_TOOLS, registry
from durable_agents.models import Stream, Thread, ToolCall
from durable_agents.testing import ScriptedModel, SimulatedCrash, calls, crash_at, run_until_idle
from tests.tools.outcomes import told

pytestmark = pytest.mark.django_db

SCHEMA = {"type": "object", "properties": {"order-id": {"type": "integer"}}, "required": ["order-id"]}
RAN: list[dict[str, Any]] = []
OPTIONS: dict[str, Any] = {}
"""The options of the tools that are found from now on."""
NAMES = ["look_up"]
"""The names of the tools that there are."""


@tool
def declared(word: str = "") -> str:
    """Say a word."""
    return word


def made(name: str) -> Tool:
    """Return a new tool, as a server's list of tools would describe it."""

    async def call(ctx: ToolContext, **arguments: Any) -> dict[str, Any]:
        RAN.append(arguments)
        if OPTIONS.get("retry") and ctx.attempt < 2:
            raise ConnectionError
        return {"owner": ctx.owner, "ran": len(RAN)}

    return Tool(name, call, schema=SCHEMA, description=f"{name} of the server.", **OPTIONS)


def offer(thread: Thread) -> dict[str, Any]:
    """Offer what there is."""
    return {"tools": [declared, *map(made, NAMES)]}


def find_again(name: str, thread: Thread) -> Tool | None:
    """Find one of them."""
    assert isinstance(thread, Thread)
    return made(name) if name in NAMES else None


@pytest.fixture(autouse=True)
def _agent() -> Iterator[None]:
    RAN.clear()
    OPTIONS.clear()
    NAMES[:] = ["look_up"]
    Agent("resolving", model="openai/x", configure=offer, tool_resolver=find_again)
    yield
    registry.remove("resolving")


def asked(**arguments: Any) -> tuple[ToolCall, ScriptedModel]:
    """Let the model call the tool."""
    with ScriptedModel(calls("look_up", **arguments or {"order-id": 7}), "I see.") as model:
        create_thread("resolving", prompt="Please.")
        run_until_idle()
    return ToolCall.objects.get(), model


def test_a_tool_that_no_module_declares_runs():
    """The model gets its schema; the function gets the arguments and the context."""
    call, model = asked()
    definition = model.requests[0].tools[1]["function"]
    assert definition == {"name": "look_up", "description": "look_up of the server.", "parameters": SCHEMA}
    assert (call.status, call.result, RAN) == ("completed", {"owner": None, "ran": 1}, [{"order-id": 7}])
    assert call.is_resolved


def test_a_call_that_does_not_fit_the_schema_goes_back_to_the_model():
    """Nothing runs."""
    call, model = asked(**{"order-id": "seven"})
    text = "Invalid arguments for look_up: order-id: must be of the type integer"
    assert (call.error, RAN, told(model)) == (text, [], [f"Error: {text}"])


def test_a_declared_tool_beside_it_is_not_looked_up():
    """Its calls stay calls of the code."""
    with ScriptedModel(calls("declared", word="x"), "I see."):
        create_thread("resolving", prompt="Please.")
        run_until_idle()
    assert not ToolCall.objects.get().is_resolved


def wait_for_approval() -> ToolCall:
    """Let the model make a call that waits for approval."""
    OPTIONS["needs_approval"] = lambda ctx, args: args["order-id"] == 7
    call, _ = asked()
    assert call.status == "approval_requested"
    return call


def approved(call: ToolCall) -> ToolCall:
    """Approve the call and run on; return it as it is then."""
    approve_tool_call(call.thread_id, call.tool_call_id, by=None)
    with ScriptedModel("I see."):
        run_until_idle()
    call.refresh_from_db()
    return call


def test_a_call_that_was_approved_days_later_finds_its_tool():
    """The worker of then makes the tool anew."""
    assert approved(wait_for_approval()).status == "completed"


def test_a_call_whose_tool_is_gone_fails():
    """The server has removed it."""
    call = wait_for_approval()
    NAMES.clear()
    assert (approved(call).error_code, RAN) == ("tool_not_available", [])


@pytest.mark.parametrize("found", ["a text", Tool("another", declared.function)])
def test_a_resolver_that_returns_something_else_fails_the_call(found):
    """The admin sees why."""
    call = wait_for_approval()
    registry.get("resolving").tool_resolver = lambda name, thread: found
    assert (approved(call).error_code, RAN) == ("tool_failed", [])
    assert "tool_resolver returns a Tool named 'look_up' or None" in call.error_detail


@pytest.mark.parametrize(("error", "status"), [(ConnectionError, "completed"), (KeyError, "failed")])
def test_a_resolver_that_fails_is_asked_again_if_that_may_help(error, status, monkeypatch):
    """The network may be back; a mistake stays."""
    monkeypatch.setattr("durable_agents.engine.call_options._AGENT_FUNCTION_WAITS_SECONDS", (0, 0))
    call, failures = wait_for_approval(), [error("secret")]

    async def fails_once(name, thread):
        if failures:
            raise failures.pop()
        return made(name)

    registry.get("resolving").tool_resolver = fails_once
    assert approved(call).status == status
    assert "secret" not in call.error


def test_retries_find_the_tool_again():
    """With the options that the call was made with."""
    OPTIONS["retry"] = Retry(max_attempts=2)
    call, _ = asked()
    assert (call.status, call.attempt) == ("completed", 2)


@pytest.mark.parametrize(
    ("options", "status"),
    [({}, "unknown"), ({"after_crash": "retry"}, "completed"), ({"after_crash": "fail"}, "failed")],
)
def test_a_call_whose_worker_died_does_what_its_tool_said(options, status):
    """The transition does not ask the resolver."""
    OPTIONS.update(options)
    with ScriptedModel(calls("look_up", **{"order-id": 7}), "I see."):
        create_thread("resolving", prompt="Please.")
        with crash_at("tool_ended"), pytest.raises(SimulatedCrash):
            run_until_idle()
        run_until_idle()
    assert ToolCall.objects.get().status == status


def test_a_call_runs_in_the_pool_of_its_tool():
    """Otherwise in the agent's."""
    OPTIONS["pool"] = "tools"
    assert asked()[0].pool == "tools"


def test_only_a_process_whose_agent_has_a_resolver_takes_the_call():
    """Also if it has a declared tool of that name. The name of a declared tool does not stand for a resolver's."""
    call = wait_for_approval()
    approve_tool_call(call.thread_id, call.tool_call_id, by=None)
    rows = {"pools": ["agents"], "holder": "other", "streams": 1, "tools": 1}
    assert lifecycle.claim(**rows, code={"resolving": ["look_up"]}) == []
    ToolCall.objects.update(is_resolved=False)
    assert lifecycle.claim(**rows, code={"resolving": [RESOLVED_TOOLS]}) == []
    ToolCall.objects.update(is_resolved=True)
    assert len(lifecycle.claim(**rows, code={"resolving": [RESOLVED_TOOLS]})) == 1


def test_an_approved_call_is_not_turned_into_a_call_of_a_declared_tool():
    """The signature says which it was."""
    call = wait_for_approval()
    approve_tool_call(call.thread_id, call.tool_call_id, by=None)
    call.refresh_from_db()
    assert lifecycle.is_signed(call)
    call.is_resolved = False
    assert not lifecycle.is_signed(call)


def test_undeclared_tools_without_a_resolver_are_refused():
    """The error says what to add."""
    registry.get("resolving").tool_resolver = None
    with ScriptedModel():
        thread = create_thread("resolving", prompt="Please.")
        run_until_idle()
    stream = Stream.objects.get(thread=thread)
    assert stream.error_code == "invalid_request"
    assert "look_up" in stream.error_detail
    assert "tool_resolver" in stream.error_detail


@pytest.mark.parametrize("option", ["approved_by", "answered_by"])
def test_a_function_that_names_deciders_is_refused(option):
    """Web processes do not call the resolver."""
    OPTIONS.update({option: lambda user, call: True, "kind": "deferred", "needs_approval": True})
    with ScriptedModel():
        thread = create_thread("resolving", prompt="Please.")
        run_until_idle()
    assert f"a function as {option}" in Stream.objects.get(thread=thread).error_detail


def test_a_resolver_without_configure_is_a_mistake():
    """Nothing would offer its tools to the model."""
    with pytest.raises(ImproperlyConfigured, match="Add configure"):
        Agent("half", model="openai/x", tool_resolver=find_again)


def test_a_tool_made_at_run_time_does_not_replace_a_declared_one():
    """Another thread's tool may have any name."""
    Tool("declared", made("x").function, schema=SCHEMA)
    assert registry.find_tool("declared") is declared


class TestDeclaration:
    """``schema=`` of ``tool`` and ``Tool``."""

    def test_a_declared_tool_takes_a_schema(self):
        """Named parameters are as good as a ``**parameter``."""

        @tool(schema={"properties": {"day": {"type": "string", "format": "date"}}})
        def book(ctx: ToolContext, day: str = "today") -> str:
            """Book a day."""
            return day

        function = book.definition["function"]
        assert function["parameters"] == {
            "type": "object",
            "properties": {"day": {"type": "string", "format": "date"}},
        }
        assert (function["description"], book.validate({"day": "x"})) == ("Book a day.", {"day": "x"})
        with pytest.raises(ValueError, match="unexpected keyword argument 'hour'"):
            book.validate({"hour": 1})

    def test_the_model_cannot_pass_the_context(self):
        """Not even where the schema allows anything."""
        with pytest.raises(ValueError, match="ctx: is not allowed"):
            made("x").validate({"order-id": 1, "ctx": {}})

    @pytest.mark.parametrize(
        ("schema", "words"),
        [
            ({"type": "array"}, "JSON schema of the arguments"),
            (["x"], "JSON schema of the arguments"),
            ({"properties": []}, "JSON schema of the arguments"),
            ({"properties": {"ctx": {}}}, "Rename the parameter"),
        ],
    )
    def test_a_schema_that_is_none_is_a_mistake(self, schema, words):
        """The error says what it has to be."""
        with pytest.raises(ImproperlyConfigured, match=words):
            Tool("x", made("y").function, schema=schema)

    def test_the_owner_answers_a_client_tool(self):
        """As with the decorator."""
        assert Tool("x", declared.function, kind="client").answered_by == "owner"
        assert Tool("x", declared.function, kind="deferred").answered_by == "server"

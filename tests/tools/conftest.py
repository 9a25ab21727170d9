"""An agent whose tools wait for people, browsers and services, and a thread of a user's."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from durable_agents import Agent, ToolContext, create_thread, tool
from durable_agents.agents import registry
from durable_agents.models import Thread, ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.tools.outcomes import Done


@pytest.fixture
def done() -> Done:
    """Return the list of what the tools have done."""
    return Done()


@pytest.fixture
def agent(done: Done) -> Iterator[Agent]:
    """Return an agent with a tool of each kind, forgotten after the test."""

    @tool(needs_approval=True, timeout_seconds=600)
    def refund(ctx: ToolContext, amount: int) -> str:
        """Pay back."""
        done.ran.append(amount)
        return f"refunded {amount}"

    @tool(needs_approval=True, approved_by="staff")
    def fire(name: str) -> str:
        """Dismiss somebody."""
        done.ran.append(name)
        return f"{name} is gone"

    @tool(needs_approval=lambda ctx, args: args["amount"] > 100)
    def pay(amount: int) -> str:
        """Pay."""
        done.ran.append(amount)
        return f"paid {amount}"

    @tool(needs_approval=lambda ctx, args: 1 / 0)
    def doubtful() -> str:
        """Do something of which nobody knows whether it needs approval."""
        done.ran.append("doubtful")
        return "done"

    @tool(kind="deferred")
    def ask_the_warehouse(ctx: ToolContext, sku: str) -> None:
        """Ask for the stock; the answer comes later."""
        done.ran.append((ctx.tool_call_id, sku))

    @tool(kind="client")
    def pick_a_date(label: str) -> str:
        """Let the user pick a date."""
        raise AssertionError("The browser runs this.")

    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @tool(needs_approval=True)
    def wire(amount: float) -> str:
        """Wire money."""
        return f"wired {amount}"

    tools = [refund, fire, pay, doubtful, ask_the_warehouse, pick_a_date, add, wire]
    made = Agent("counter_clerk", model="openai/x", tools=tools)
    yield made
    registry.remove("counter_clerk")


@pytest.fixture
def ada() -> Any:
    """Return a user."""
    return get_user_model().objects.create(username="ada")


@pytest.fixture
def bob() -> Any:
    """Return another user, who is staff."""
    return get_user_model().objects.create(username="bob", is_staff=True)


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    """Return a model that answers "Done." to whatever it is not told to answer."""
    with ScriptedModel(*["Done."] * 20) as scripted:
        yield scripted


@pytest.fixture
def asked(agent: Agent, ada: Any) -> Callable[..., tuple[Thread, ToolCall]]:
    """Return a function that lets the model call a tool, and gives the thread and the call as they then are."""

    def asked(tool_name: str, /, **arguments: Any) -> tuple[Thread, ToolCall]:
        with ScriptedModel(calls(tool_name, **arguments), *["Done."] * 3):
            thread = create_thread(agent, owner=ada, prompt="Please.")
            run_until_idle()
        return Thread.objects.get(pk=thread.pk), ToolCall.objects.get(thread=thread)

    return asked

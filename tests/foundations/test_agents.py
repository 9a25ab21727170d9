"""What developers declare: tools from functions, agents under a name."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from pydantic import BaseModel

from durable_agents import Agent, AgentNotFoundError, Retry, Streaming, ToolContext, tool
from durable_agents.agents import registry


@tool
def weather(ctx: ToolContext, city: str, unit: Literal["c", "f"] = "c") -> dict:
    """Tell the weather.

    In one city.
    """
    return {"city": city, "unit": unit}


@dataclass
class Receipt:
    """What a shop gives back."""

    amount: Decimal
    at: datetime


class Line(BaseModel):
    """One line of an order."""

    sku: UUID
    count: int = 1


def test_a_tool_is_described_by_its_function():
    """Name, docstring, and a schema that knows nothing of the context."""
    function = weather.definition["function"]
    assert (function["name"], function["description"]) == ("weather", "Tell the weather.\n\nIn one city.")
    assert function["parameters"]["required"] == ["city"]
    assert set(function["parameters"]["properties"]) == {"city", "unit"}
    assert function["parameters"]["properties"]["unit"]["enum"] == ["c", "f"]
    assert function["parameters"]["additionalProperties"] is False


def test_a_tool_is_still_a_function():
    """Developers call it in their own tests."""
    assert weather(None, "Oslo") == {"city": "Oslo", "unit": "c"}


def test_name_and_description_may_be_given():
    """Where the function's own do not fit."""

    @tool(name="other", description="Something else.")
    def named() -> None: ...

    assert (named.name, named.description) == ("other", "Something else.")


def test_arguments_become_python_values():
    """By the type hints."""

    @tool
    def order(lines: list[Line], total: Decimal, at: datetime | None = None) -> None: ...

    sku = "12345678-1234-5678-1234-567812345678"
    values = order.validate({"lines": [{"sku": sku}], "total": "1.50"})
    assert values == {"lines": [Line(sku=UUID(sku))], "total": Decimal("1.50"), "at": None}


@pytest.mark.parametrize("arguments", [{}, {"city": 1}, {"city": "a", "unit": "k"}, {"city": "a", "ctx": {}}])
def test_arguments_that_do_not_fit_are_refused_with_a_text_for_the_model(arguments):
    """It may call again; nobody but us gives the context."""
    with pytest.raises(ValueError, match="Invalid arguments for weather"):
        weather.validate(arguments)


@pytest.mark.parametrize(
    ("annotation", "value", "dumped"),
    [
        (
            Receipt,
            Receipt(Decimal("1.50"), datetime(2026, 1, 2, tzinfo=UTC)),
            {"amount": "1.50", "at": "2026-01-02T00:00:00Z"},
        ),
        (Line, Line(sku=UUID(int=1)), {"sku": str(UUID(int=1)), "count": 1}),
        (list[UUID], [UUID(int=2)], [str(UUID(int=2))]),
        (None, None, None),
        (dict, {"a": (1, {2})}, {"a": [1, [2]]}),
    ],
)
def test_a_return_value_becomes_json_by_its_annotation(annotation, value, dumped):
    """Whatever Pydantic can dump."""

    @tool
    def giving() -> annotation: ...

    assert giving.to_json(value) == dumped


@pytest.mark.parametrize("value", [User(), User.objects.none()])
def test_a_model_instance_is_no_return_value(value):
    """The hint says what to return instead."""
    with pytest.raises(TypeError, match="not model instances or querysets"):
        weather.to_json(value)


def test_an_atomic_tool_cannot_be_async():
    """It runs inside a transaction."""
    with pytest.raises(ImproperlyConfigured):

        @tool(atomic=True)
        async def wrong() -> None: ...


def test_a_tool_without_retry_runs_once():
    """Others as often as they say."""
    assert weather.retry.max_attempts == 1
    assert tool(retry=Retry(max_attempts=3))(weather.function).retry.max_attempts == 3


def test_a_second_agent_of_the_same_name_is_refused(declare):
    """Names are what rows remember."""
    declare("same")
    with pytest.raises(ImproperlyConfigured):
        Agent("same", model="openai/x")


def test_two_tools_of_the_same_name_are_refused(declare):
    """A model could not tell them apart; the agent is not registered."""
    with pytest.raises(ImproperlyConfigured):
        declare("twice", tools=[weather, weather])
    assert registry.find("twice") is None


def test_an_unknown_agent_is_not_found():
    """With a hint where to declare it."""
    with pytest.raises(AgentNotFoundError, match=r"agents\.py"):
        registry.get("nobody")


@pytest.mark.parametrize(
    ("retry", "models"), [(Retry(max_attempts=2), "aabbb"), (False, "abbbb"), (Retry(max_attempts=0), "abbbb")]
)
def test_each_model_has_its_attempts_before_the_next(declare, retry, models):
    """The last model has all attempts from then on."""
    agent = declare("several", tools=[], retry=retry)
    agent.models = ("a", "b")
    assert [agent.model_for(attempt) for attempt in (1, 2, 3, 4, 5)] == list(models)


def test_a_tool_runs_in_its_own_pool_else_the_agents(declare):
    """Tool, then the agent's pool for tools, then the agent's."""
    own = tool(pool="own", name="owned")(weather.function)
    assert declare("one", tools=[own, weather]).pool_of("owned") == "own"
    assert declare("two", tools=[weather]).pool_of("weather") == "agents"
    assert declare("three", tools=[weather], tool_pool="tools").pool_of("weather") == "tools"


@pytest.mark.parametrize(
    ("given", "kept"), [(True, Streaming()), (False, None), (Streaming(throttle_ms=5), Streaming(throttle_ms=5))]
)
def test_streaming_is_on_off_or_tuned(declare, given, kept):
    """On by default."""
    assert declare(streaming=given).streaming == kept


def test_only_public_agents_are_for_the_outside(declare):
    """By default an agent is for Python and the admin."""
    declare("inside")
    declare("outside", public=True)
    names = [agent.name for agent in registry.public()]
    assert ("inside" in names, "outside" in names) == (False, True)

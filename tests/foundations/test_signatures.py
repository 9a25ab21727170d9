"""Parameters of tools: whatever they are called, they work, or the declaration is refused with the reason."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Annotated, Any, ClassVar, Optional
from uuid import UUID

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from pydantic import AfterValidator, AliasChoices, BaseModel, Field

from durable_agents import ToolContext, create_thread, tool
from durable_agents import ToolContext as Call
from durable_agents.agents import Tool
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle

NAMES = [
    *("model_config", "model_fields", "model_dump", "model_validate", "model_computed_fields", "model_post_init"),
    *("_x", "__x", "__dunder__", "_", "self", "cls", "copy", "json", "dict", "schema", "validate", "construct"),
    *("fields", "parse_obj", "root", "args", "kwargs", "arguments", "argument_0", "name", "function", "größe"),
]


def function_with(parameters: str, **known: Any) -> Callable[..., Any]:
    """Return a function with these parameters, which returns what it gets, without the context."""
    scope: dict[str, Any] = {"ToolContext": ToolContext, "Optional": Optional, "Annotated": Annotated, **known}
    exec(f"def made({parameters}):\n    return {{k: v for k, v in locals().items() if k != 'ctx'}}", scope)
    made: Callable[..., Any] = scope["made"]
    return made


def properties(item: Tool) -> dict[str, Any]:
    """Return the description of the parameters that the model gets."""
    found: dict[str, Any] = item.definition["function"]["parameters"]["properties"]
    return found


def result_of(item: Tool, **arguments: Any) -> ToolCall:
    """Let a model call the tool of an agent that has no other, and return the call."""
    with ScriptedModel(calls(item.name, **arguments), "Done."):
        create_thread("naming", prompt="Go.")
        run_until_idle()
    return ToolCall.objects.get()


@pytest.mark.django_db
@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_of_any_name_is_told_to_the_model_and_reaches_the_function(name, declare):
    """Also where Pydantic keeps the name for itself."""
    item = tool(name="named")(function_with(f"ctx: ToolContext, {name}: int, other: int = 5"))
    declare("naming", tools=[item])
    assert set(properties(item)) == {name, "other"}
    assert item.definition["function"]["parameters"]["required"] == [name]
    assert result_of(item, **{name: "7"}).result == {name: 7, "other": 5}


@pytest.mark.parametrize("name", NAMES)
def test_a_refusal_names_the_parameter(name):
    """As the model knows it, and no name of ours."""
    item = tool(name="named")(function_with(f"{name}: int"))
    with pytest.raises(ValueError, match=f"^Invalid arguments for named: {name}: ") as refused:
        item.validate({name: "many"})
    assert "argument_0:" not in str(refused.value) or name == "argument_0"
    with pytest.raises(ValueError, match="argument_1: Extra inputs"):
        item.validate({name: 1, "argument_1": 1})


CONTEXTS = [
    "ctx: ToolContext",
    "ctx: Optional[ToolContext]",
    "ctx: Optional[ToolContext] = None",
    "ctx: ToolContext | None",
    "ctx: None | ToolContext = None",
    "ctx: ToolContext = None",
    "ctx: 'ToolContext'",
    "ctx: 'ToolContext | None'",
    "ctx: Optional['ToolContext']",
    "ctx: Annotated[ToolContext, 'whose']",
    "ctx: Annotated[ToolContext | None, 'whose'] = None",
    "ctx: Call",
]


@pytest.mark.django_db
@pytest.mark.parametrize("context", CONTEXTS)
def test_the_context_is_given_however_it_is_annotated(context, declare):
    """Optional, as text, under another name: the model is not asked for it."""
    function = function_with(f"*, {context}, city: str", Call=Call)

    @tool(name="told")
    @wraps(function)
    def told(ctx: Any, city: str) -> Any:
        return [city, ctx.agent, function(ctx=ctx, city=city)]

    declare("naming", tools=[told])
    assert set(properties(told)) == {"city"}
    assert result_of(told, city="Oslo").result == ["Oslo", "naming", {"city": "Oslo"}]


def test_the_context_may_have_any_name():
    """The class says what it is."""
    assert tool(function_with("who: ToolContext, city: str")).context_parameter == "who"


def test_a_context_that_is_imported_for_type_checkers_only_is_known():
    """As linters have it for what only hints name."""
    scope: dict[str, Any] = {}
    exec("def made(ctx: 'ToolContext | None', city: str): ...", scope)
    item = tool(scope["made"])
    assert (item.context_parameter, set(properties(item))) == ("ctx", {"city"})


def test_a_tool_may_have_no_context():
    """It gets only its arguments."""
    assert tool(function_with("city: str")).context_parameter is None


class Special(ToolContext):
    """A context of somebody's own."""


class Shop:
    """A class with a method that is no tool."""

    def refund(self, amount: int) -> int:
        """Pay back."""
        return amount


REFUSED = {
    "positional only": ("city: str, /", "'city' must be an ordinary named parameter"),
    "a positional-only context": ("ctx: ToolContext, /, city: str", "'ctx' must be an ordinary named parameter"),
    "any positional": ("*cities: str", "'cities' must be an ordinary named parameter"),
    "any named": ("city: str, **others: str", "'others' must be an ordinary named parameter"),
    "two contexts": ("ctx: ToolContext, other: ToolContext", "ctx, other are all annotated with ToolContext"),
    "a context or something else": ("ctx: ToolContext | str", "'ctx' gets the context only where it is annotated"),
    "a context within something": ("ctx: list[ToolContext]", "'ctx' gets the context only where it is annotated"),
    "a context of one's own": ("ctx: Special", "'ctx' gets the context only where it is annotated"),
    "a context without a hint": ("ctx, city: str", "annotate ctx with ToolContext"),
    "hints that are no hints": ("city: 'a b'", "its type hints cannot be read"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_work_is_refused_at_the_declaration_with_the_reason(what):
    """Not in every run."""
    parameters, reason = REFUSED[what]
    function = function_with(parameters, Special=Special)
    with pytest.raises(ImproperlyConfigured, match=reason) as refused:
        tool(name="wrong")(function)
    assert "'wrong'" in str(refused.value)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (Shop.refund, "Move it out of the class"),
        (partial(Shop.refund, None), "a partial has no hints"),
        (classmethod(Shop.refund), "a tool is made of a function"),
        ("refund", "a tool is made of a function"),
    ],
)
def test_what_is_no_function_is_refused_at_the_declaration(function, reason):
    """Each with what to do."""
    with pytest.raises(ImproperlyConfigured, match=reason):
        tool(name="wrong")(function)


def test_a_static_method_and_a_callable_object_are_tools():
    """Nothing is missing when they are called."""

    class Weather:
        @tool
        @staticmethod
        def of(city: str) -> str:
            return city

        def __call__(self, ctx: ToolContext, city: str) -> str:
            return city

    assert set(properties(Weather.of)) == {"city"}
    weather = tool(name="weather")(Weather())
    assert (weather.context_parameter, set(properties(weather))) == ("ctx", {"city"})


@pytest.mark.parametrize(
    ("parameter", "shown", "given"),
    [
        ("source: Annotated[int, Field(alias='from', ge=1)]", "from", {"from": "2"}),
        ("source: int = Field(5, alias='from')", "from", {"from": 2}),
        ("source: Annotated[int, Field(validation_alias=AliasChoices('from', 'of'))]", "from", {"of": 2}),
        ("source: Annotated[int, Field(ge=1, description='Whence')]", "source", {"source": 2}),
    ],
)
def test_an_alias_of_the_developers_is_what_the_model_sees(parameter, shown, given):
    """The function gets its parameter."""
    item = tool(name="aliased")(function_with(parameter, Field=Field, AliasChoices=AliasChoices))
    assert set(properties(item)) == {shown}
    assert item.validate(given) == {"source": 2}


def test_two_parameters_of_one_alias_are_refused():
    """A model could name only one of them."""
    item = tool(name="twice")(function_with("a: Annotated[int, Field(alias='b')], b: int", Field=Field))
    with pytest.raises(ImproperlyConfigured, match="alias of its own"):
        _ = item.definition


class Line(BaseModel):
    """A nested model, with an alias and a reserved name of its own."""

    sku: UUID = Field(alias="model_sku")


def test_nested_models_keep_their_own_names():
    """Ours are for the parameters only."""
    item = tool(name="nested")(function_with("lines: list[Line]", Line=Line))
    sku = "12345678-1234-5678-1234-567812345678"
    assert item.validate({"lines": [{"model_sku": sku}]})["lines"][0].sku == UUID(sku)


def broken(value: int) -> int:
    """Fail as no validator should."""
    raise LookupError("secret")


def test_a_validator_that_fails_otherwise_is_a_refusal_without_its_text(caplog):
    """The run goes on, and somebody can find the error in the log."""
    item = tool(name="odd")(function_with("n: Annotated[int, V]", V=AfterValidator(broken)))
    with pytest.raises(ValueError, match="could not be checked") as refused:
        item.validate({"n": 1})
    assert "secret" not in str(refused.value)
    assert [record.action for record in caplog.records] == ["validate"]


class Connection:
    """Something that no schema describes."""


@pytest.mark.django_db  # checks of Django ask the database what it can do
@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ("connection: Connection", "Connection"),
        ("amount: 'Money'", "'Money' is not defined"),
        ("city: ClassVar[str]", "none of the parameters city"),
    ],
)
def test_a_hint_without_a_schema_is_a_check_that_names_it(parameters, reason, declare):
    """It may stand for a class that is defined later in the module, so that the declaration cannot tell."""
    item = tool(name="without_schema")(function_with(parameters, Connection=Connection, ClassVar=ClassVar))
    declare("naming", tools=[item])
    [found] = [message for message in run_checks() if message.id == "durable_agents.E012"]
    assert "without_schema" in found.msg
    assert reason in found.msg
    assert found.hint


@pytest.mark.django_db
def test_a_return_annotation_that_nothing_dumps_does_not_matter(declare):
    """What comes back counts."""

    @tool
    def connect() -> Connection:
        return {"ok": True}

    declare("naming", tools=[connect])
    assert result_of(connect).result == {"ok": True}

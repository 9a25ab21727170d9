"""What developers declare: agents and tools, and the registry that finds them by name.

Declarations are plain values. Nothing here touches the database, a model or the queue, and Pydantic is imported
only when a tool's schema is first needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_type_hints, overload
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured

from durable_agents.exceptions import AgentNotFoundError
from durable_agents.retry import ONCE, Retry

if TYPE_CHECKING:
    from pydantic import BaseModel, TypeAdapter

WhenBusy = Literal["steer", "queue", "interrupt", "reject"]
AfterCrash = Literal["retry", "fail", "unknown"]


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """What a tool may know about its call; a parameter annotated with this class gets it.

    ``context`` is set by Python only and may be trusted, ``metadata`` is written by clients and may not.
    ``idempotency_key`` is the same for every attempt at one call.
    """

    thread_id: UUID
    message_id: UUID
    tool_call_id: str
    tool_name: str
    agent: str
    owner: Any
    scope: str
    context: Mapping[str, Any]
    metadata: Mapping[str, Any]
    attempt: int
    max_attempts: int
    idempotency_key: str


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """How the fragments of an answer are stored: at most one row per ``throttle_ms`` and stream."""

    throttle_ms: int = 100
    tool_input_deltas: bool = False


@dataclass(frozen=True)
class Tool:
    """A function that a model may call. Made by ``@tool``; calling it calls the function."""

    function: Callable[..., Any]
    name: str = field(kw_only=True)
    description: str = field(kw_only=True)
    retry: Retry = field(kw_only=True, default=ONCE)
    timeout_seconds: float | None = field(kw_only=True, default=1800)
    after_crash: AfterCrash = field(kw_only=True, default="unknown")
    atomic: bool = field(kw_only=True, default=False)
    pool: str | None = field(kw_only=True, default=None)

    def __post_init__(self) -> None:
        if self.atomic and self.is_async:
            raise ImproperlyConfigured(
                f"Tool {self.name!r}: an atomic tool runs inside a database transaction, so it cannot be async."
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def kind(self) -> str:
        """Who runs it, in the words of ``ToolCall.kind``."""
        return "sync"

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The function's type hints, resolved."""
        return get_type_hints(self.function, include_extras=True)

    @cached_property
    def context_parameter(self) -> str | None:
        """Name of the parameter that gets the ToolContext."""
        return next((name for name, hint in self.hints.items() if hint is ToolContext and name != "return"), None)

    @cached_property
    def arguments_model(self) -> type[BaseModel]:
        """A Pydantic model of the arguments, made from the signature. Unknown arguments are refused."""
        from pydantic import ConfigDict, create_model  # noqa: PLC0415 - web processes need no schema

        fields: dict[str, Any] = {}
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.name != self.context_parameter:
                fields[parameter.name] = self._field(parameter)
        return create_model(self.name, __config__=ConfigDict(extra="forbid"), **fields)

    def _field(self, parameter: inspect.Parameter) -> tuple[Any, Any]:
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise ImproperlyConfigured(
                f"Tool {self.name!r}: parameter {parameter.name!r} must be an ordinary named parameter."
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        return self.hints.get(parameter.name, Any), default

    @cached_property
    def result_adapter(self) -> TypeAdapter[Any]:
        """Turns a return value into JSON by the annotation of the function."""
        from pydantic import TypeAdapter  # noqa: PLC0415 - as above

        return TypeAdapter(self.hints.get("return", Any))

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The tool as models are told of it: an OpenAI function definition with a JSON schema."""
        parameters = self.arguments_model.model_json_schema()
        parameters.pop("title", None)
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as Python values. Raises ValueError with a text for the model where they do not fit."""
        from pydantic import ValidationError  # noqa: PLC0415 - as above

        try:
            model = self.arguments_model.model_validate(arguments)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
            raise ValueError(f"Invalid arguments for {self.name}: {problems}") from error
        return {name: getattr(model, name) for name in type(model).model_fields}

    def to_json(self, value: Any) -> Any:
        """A return value as JSON. Raises TypeError with a hint for what cannot be dumped."""
        if type(value).__module__.startswith("django.db.models") or hasattr(value, "_meta"):
            raise TypeError(
                f"Tool {self.name!r} returned a {type(value).__name__}. Return values (a dict, a Pydantic model), "
                "not model instances or querysets."
            )
        return self.result_adapter.dump_python(value, mode="json", warnings="none")


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    retry: Retry | None = None,
    timeout_seconds: float | None = 1800,
    after_crash: AfterCrash = "unknown",
    atomic: bool = False,
    pool: str | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    retry: Retry | None = None,
    timeout_seconds: float | None = 1800,
    after_crash: AfterCrash = "unknown",
    atomic: bool = False,
    pool: str | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function, sync or async.

    The model is told the function's name, docstring and the JSON schema of its type hints. ``timeout_seconds`` ends
    one attempt (None: never), ``after_crash`` says what follows when the worker dies while it runs: ``retry`` it with
    the same ``ctx.idempotency_key``, ``fail`` the call, or settle it as ``unknown`` and tell the model that it may
    have run (default).

    An ``atomic`` tool (sync only) runs in one database transaction with its outcome: both happen, or neither and it
    runs again. So its effect on the database happens exactly once, whatever dies when. On SQLite it holds the only
    write lock meanwhile: keep it short.
    """

    def declare(target: Callable[..., Any]) -> Tool:
        return Tool(
            target,
            name=name or target.__name__,
            description=description or inspect.getdoc(target) or "",
            retry=retry or ONCE,
            timeout_seconds=timeout_seconds,
            after_crash=after_crash,
            atomic=atomic,
            pool=pool,
        )

    return declare(function) if function is not None else declare


class Agent:
    """A model, its instructions and its tools under a name. Declaring one registers it.

    ``model`` is a litellm model string or a list of them (the next one is tried when one fails for good);
    ``instructions`` a text or a callable(thread) -> text; ``model_settings`` are passed to the model call;
    ``max_steps`` bounds the model calls of one run; ``when_busy`` says what a new message does while a run is on.
    A second agent of the same name raises ImproperlyConfigured.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str | Sequence[str],
        instructions: str | Callable[..., Any] = "",
        tools: Sequence[Tool] = (),
        model_settings: Mapping[str, Any] | None = None,
        streaming: Streaming | bool = True,
        max_steps: int = 50,
        when_busy: WhenBusy = "steer",
        retry: Retry | Literal[False] | None = None,
        pool: str = "agents",
        tool_pool: str | None = None,
        public: bool = False,
        description: str = "",
    ) -> None:
        self.name = name
        self.models = (model,) if isinstance(model, str) else tuple(model)
        self.instructions = instructions
        self.tools = {item.name: item for item in tools}
        self.model_settings = dict(model_settings or {})
        self.streaming = Streaming() if streaming is True else streaming or None
        self.max_steps = max_steps
        self.when_busy: WhenBusy = when_busy
        self.retry = ONCE if retry is False else retry or Retry()
        self.pool = pool
        self.tool_pool = tool_pool
        self.public = public
        self.description = description
        if len(self.tools) != len(tools):
            raise ImproperlyConfigured(f"Agent {name!r} has two tools of the same name.")
        registry.add(self)

    def __repr__(self) -> str:
        return f"<Agent {self.name!r}>"

    def model_for(self, attempt: int) -> str:
        """The model of attempt number ``attempt`` (from 1): each of a list in turn, the last one from then on."""
        return self.models[min(attempt, len(self.models)) - 1]

    def pool_of(self, tool_name: str) -> str:
        """The pool in which a call of this tool runs: the tool's own, else ``tool_pool``, else ``pool``."""
        declared = self.tools.get(tool_name)
        return (declared.pool if declared else None) or self.tool_pool or self.pool


class Registry:
    """Agents by name, filled by their declaration."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

    def add(self, agent: Agent) -> None:
        """Register an agent; the same name twice is ImproperlyConfigured."""
        if agent.name in self._agents:
            raise ImproperlyConfigured(f"Two agents are called {agent.name!r}: names are unique in a project.")
        self._agents[agent.name] = agent

    def remove(self, name: str) -> None:
        """Forget an agent (for tests)."""
        self._agents.pop(name, None)

    def find(self, name: str) -> Agent | None:
        """The agent of this name, or None where this process does not know it."""
        return self._agents.get(name)

    def get(self, name: str) -> Agent:
        """The agent of this name; raises AgentNotFoundError."""
        agent = self.find(name)
        if agent is None:
            raise AgentNotFoundError(name)
        return agent

    def all(self) -> list[Agent]:
        """All agents, by name."""
        return [self._agents[name] for name in sorted(self._agents)]

    def public(self) -> list[Agent]:
        """The agents that the outside may use, by name."""
        return [agent for agent in self.all() if agent.public]

    def tool_names(self) -> set[str]:
        """Names of all tools that this process can run."""
        return {name for agent in self._agents.values() for name in agent.tools}


registry = Registry()

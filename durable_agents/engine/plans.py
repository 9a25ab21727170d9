"""Hides what one model call is made with: the agent's declaration, what its functions say, and errors of theirs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django.db import InterfaceError, OperationalError

from durable_agents.agents import Agent, Tool, registry
from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm.mending import mended
from durable_agents.logs import log_error
from durable_agents.models import Thread
from durable_agents.redaction import described

if TYPE_CHECKING:
    from durable_agents.engine.worker import Engine

_PASSING = (OperationalError, InterfaceError, ConnectionError, TimeoutError)
"""Errors of the agent's functions that another attempt may not meet."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one model call is made with."""

    models: Sequence[str]
    instructions: str | Callable[..., Any]
    tools: Mapping[str, Tool]
    provider_tools: Sequence[Mapping[str, Any]]
    model_settings: Mapping[str, Any]
    max_steps: int

    def model_for(self, attempt: int) -> str:
        """The model of attempt number ``attempt`` (from 1): each of a list in turn, the last one from then on."""
        return self.models[min(attempt, len(self.models)) - 1]

    @property
    def tool_schemas(self) -> list[Mapping[str, Any]]:
        """The tools as the model is told of them, those of its vendor last."""
        return [*(tool.schema for tool in self.tools.values()), *self.provider_tools]

    @property
    def provider_tool_names(self) -> set[str]:
        """Names under which a call of a tool of the vendor's may appear in an answer."""
        named = {str(name) for tool in self.provider_tools for name in _names_of(tool)}
        return named - self.tools.keys()


def _names_of(tool: Mapping[str, Any]) -> Iterator[Any]:
    """Vendors name a tool by its name, by its type, or by the only key of its definition (Google)."""
    yield from (tool[key] for key in ("name", "type") if key in tool)
    if isinstance(function := tool.get("function"), Mapping):
        yield function.get("name")
    if "type" not in tool:
        yield from tool


def needs_thread(agent: Agent) -> bool:
    """Whether functions of the agent ask for the thread before a model call."""
    return callable(agent.instructions) or agent.configure is not None or agent.transform_messages is not None


async def plan_for(engine: Engine, agent: Agent, thread: Thread | None) -> Plan:
    """The agent's declaration with what its ``configure`` overrides for this thread.

    Raises ModelError of kind ``unknown`` where ``configure`` raises, ``invalid_request`` where it returns something
    else than overrides, ``max_steps`` where the run has used up the steps that it is given.
    """
    plan = Plan(
        models=agent.models,
        instructions=agent.instructions,
        tools=agent.tools,
        provider_tools=agent.provider_tools,
        model_settings=agent.model_settings,
        max_steps=agent.max_steps,
    )
    if agent.configure is None or thread is None:
        return plan
    declared = registry.known_tools() | agent.tools  # not those that configure makes itself: no other worker has them
    overrides = await _asked(engine, thread, "configure", agent.configure, thread)
    plan = replace(plan, **_checked(overrides, declared))
    if thread.run_steps >= plan.max_steps:
        raise ModelError(ErrorKind.MAX_STEPS, f"configure allows {plan.max_steps} steps.", retryable=False)
    return plan


async def instructions_of(engine: Engine, plan: Plan, thread: Thread | None) -> str:
    """The instructions for this thread. Raises ModelError where a function of the agent fails."""
    if not callable(plan.instructions):
        return plan.instructions
    return str(await _asked(engine, thread, "instructions", plan.instructions, thread))


async def transformed(
    engine: Engine, agent: Agent, thread: Thread | None, messages: list[dict[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """What ``transform_messages`` makes of them, made valid again, before what an earlier attempt has said already.
    Raises ModelError where it fails."""
    if agent.transform_messages is None:
        return messages
    begun = [message for message in messages[-1:] if message["role"] == "assistant"]
    given = copy.deepcopy(messages[: len(messages) - len(begun)])
    changed = await _asked(engine, thread, "transform_messages", agent.transform_messages, given, thread)
    try:
        made = mended(list(changed))
    except (TypeError, KeyError, AttributeError) as error:
        raise _mistake("transform_messages", "returns messages in the OpenAI format, a list of dicts.") from error
    if not made:
        raise _mistake("transform_messages", "returned no messages. A model needs at least one.")
    return [*made, *begun]


async def _asked(engine: Engine, thread: Thread | None, name: str, function: Callable[..., Any], *args: Any) -> Any:
    """What a function of the agent returns; what it raises becomes the failure of the attempt."""
    try:
        return await engine.call_user(function, *args)
    except Exception as error:
        facts = {} if thread is None else {"thread": thread.pk}
        log_error("a function of the agent failed", action="agent_function", function=name, **facts)
        detail = f"{name} raised {described(error)}"
        raise ModelError(ErrorKind.UNKNOWN, detail, retryable=isinstance(error, _PASSING)) from error


def _mistake(name: str, sentence: str) -> ModelError:
    return ModelError(ErrorKind.INVALID_REQUEST, f"{name} {sentence}", retryable=False)


def _checked(overrides: Any, declared: Mapping[str, Tool]) -> dict[str, Any]:
    """The overrides as fields of a plan. Raises ModelError with a sentence that says what is wrong."""
    if overrides is None:
        return {}
    if not isinstance(overrides, Mapping):
        raise _mistake("configure", f"returns a dict of overrides or None, not {type(overrides).__name__}.")
    unknown = sorted(str(key) for key in overrides.keys() - _CHECKS.keys())
    if unknown:
        raise _mistake("configure", f"overrides {', '.join(unknown)}: only {', '.join(_CHECKS)} can be overridden.")
    return {field: check(overrides[key], declared) for key, (field, check) in _CHECKS.items() if key in overrides}


def _models(value: Any, declared: Mapping[str, Tool]) -> Sequence[str]:
    models = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not models or not all(isinstance(model, str) and model for model in models):
        raise _mistake("configure", "overrides model with a litellm model string or a list of them.")
    return models


def _instructions(value: Any, declared: Mapping[str, Tool]) -> str | Callable[..., Any]:
    if isinstance(value, str) or callable(value):
        instructions: str | Callable[..., Any] = value
        return instructions
    raise _mistake("configure", "overrides instructions with a text or a callable(thread).")


def _tools(value: Any, declared: Mapping[str, Tool]) -> Mapping[str, Tool]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, Tool) for item in value):
        raise _mistake("configure", "overrides tools with a list of functions that have @tool above.")
    strange = [item.name for item in value if declared.get(item.name) is not item]
    if strange:
        names = ", ".join(strange)
        raise _mistake("configure", f"gives tools that workers would not find: {names}. Add them to the agent's tools.")
    if len({item.name for item in value}) != len(value):
        raise _mistake("configure", "gives two tools of the same name.")
    return {item.name: item for item in value}


def _settings(value: Any, declared: Mapping[str, Tool]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _mistake("configure", "overrides model_settings with a dict.")
    return dict(value)


def _max_steps(value: Any, declared: Mapping[str, Tool]) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _mistake("configure", "overrides max_steps with a whole number.")
    return value


_CHECKS: Mapping[str, tuple[str, Callable[[Any, Mapping[str, Tool]], Any]]] = {
    "model": ("models", _models),
    "instructions": ("instructions", _instructions),
    "tools": ("tools", _tools),
    "model_settings": ("model_settings", _settings),
    "max_steps": ("max_steps", _max_steps),
}
"""What ``configure`` may override: the field of a plan, and what checks it."""

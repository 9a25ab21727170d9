"""Prepare a model call from the agent's options and functions. Errors of these functions become ModelErrors."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from django.db import Error
from django.utils.functional import Promise

from durable_agents.agents import Agent, Callback, Tool, deciding_function, registry
from durable_agents.callback_types import Instructions, Text
from durable_agents.database_connections import is_outage
from durable_agents.engine.runtime import Runtime
from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm.history_repair import repaired
from durable_agents.llm.types import Message
from durable_agents.logs import log_error
from durable_agents.models import Thread
from durable_agents.redaction import described

_AGENT_FUNCTION_WAITS_SECONDS = (0.2, 1.0)
"""The delays before the agent's ``configure`` or ``tool_resolver`` is called again for a tool call. A temporary error
of these functions must not use up an attempt of the tool call.
"""
T = TypeVar("T")


OVERRIDES = ("model", "instructions", "tools", "model_settings", "max_steps")
"""The options that ``configure`` can override."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The parameters of one model call."""

    models: Sequence[str]
    instructions: Text | Instructions
    tools: Mapping[str, Tool]
    provider_tools: Sequence[Mapping[str, object]]
    model_settings: Mapping[str, object]
    max_steps: int
    resolved: Collection[str] = ()
    """The names of the tools that no module declares. Workers find these tools with the agent's ``tool_resolver``."""

    @property
    def provider_tool_names(self) -> set[str]:
        """The names of the provider's own tools, as they may appear in the tool calls of an answer."""
        names: set[str] = set()
        for tool in self.provider_tools:
            names.update(str(tool[key]) for key in ("name", "type") if key in tool)
            if isinstance(function := tool.get("function"), Mapping):
                names.add(str(function.get("name")))
            if "type" not in tool:  # in Google's format, the tool's name is the only key
                names.update(tool)
        return names - self.tools.keys()


def needs_thread(agent: Agent) -> bool:
    """Return whether the agent has a function that needs the ``Thread`` object before a model call."""
    return callable(agent.instructions) or agent.configure is not None or agent.transform_messages is not None


async def plan_for(runtime: Runtime, agent: Agent, thread: Thread | None) -> Plan:
    """Return the agent's options, with the overrides that ``configure`` returns for this thread.

    Raises ModelError. Its kind says what went wrong:

    - ``unknown``: ``configure`` raised an exception.
    - ``invalid_request``: ``configure`` returned something other than overrides.
    - ``max_steps``: the run has used up its steps.
    """
    if agent.configure is None or thread is None:
        return _declared(agent)
    plan = await _configured(runtime, agent, thread)
    if thread.run_steps >= plan.max_steps:
        raise ModelError(ErrorKind.MAX_STEPS, f"configure allows {plan.max_steps} steps.", retryable=False)
    return plan


async def tools_for(runtime: Runtime, agent: Agent, thread: Thread) -> Mapping[str, Tool]:
    """Return the tools that this thread has now. ``configure`` chooses the tools. Without ``configure``, the thread has
    the agent's own tools.

    If ``configure`` fails with a temporary error, call it again. Raises ModelError if the error is permanent or does
    not go away.
    """
    if agent.configure is None:
        return agent.tools
    return (await _patiently(lambda: _configured(runtime, agent, thread))).tools


async def resolved_tool(runtime: Runtime, agent: Agent, thread: Thread, name: str) -> Tool | None:
    """Return the tool that the agent's ``tool_resolver`` returns for this name and thread, or None.

    If the resolver fails with a temporary error, call it again. Raises ModelError in these cases:

    - The resolver's error is permanent or does not go away.
    - The resolver returns a tool with another name, or something that is not a tool.
    """
    found = await _patiently(
        lambda: _call_agent_function(runtime, thread, "tool_resolver", agent.tool_resolver, name, thread)
    )
    if found is None:
        return None
    if not isinstance(found, Tool) or name not in (found.name, *found.aliases):
        raise _mistake("tool_resolver", f"returns a Tool named {name!r} or None, not {found!r}.")
    return found


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Call a function of the agent. After a temporary error, wait and call it again."""
    for seconds in _AGENT_FUNCTION_WAITS_SECONDS:
        try:
            return await ask()
        except ModelError as error:
            if not error.retryable:
                raise
        await asyncio.sleep(seconds)
    return await ask()


async def _configured(runtime: Runtime, agent: Agent, thread: Thread) -> Plan:
    # If ``configure`` creates a tool on the fly, other workers do not have the tool. Accept such a tool only if the
    # agent has a ``tool_resolver`` that can find it.
    known = registry.known_tools() | agent.tools
    overrides = await _call_agent_function(runtime, thread, "configure", agent.configure, thread)
    plan = _overridden(_declared(agent), overrides)
    undeclared = [item for item in plan.tools.values() if known.get(item.name) is not item]
    _check_undeclared(agent, undeclared)
    return replace(plan, resolved={item.name for item in undeclared})


def _declared(agent: Agent) -> Plan:
    return Plan(
        models=agent.models,
        instructions=agent.instructions,
        tools=agent.tools,
        provider_tools=agent.provider_tools,
        model_settings=agent.model_settings,
        max_steps=agent.max_steps,
    )


async def instructions_of(runtime: Runtime, plan: Plan, thread: Thread | None) -> str:
    """Return the instructions for this thread. Raises ModelError if a function of the agent fails."""
    if not callable(plan.instructions):
        return str(plan.instructions)  # the instructions may be a lazy translation
    return str(await _call_agent_function(runtime, thread, "instructions", plan.instructions, thread))


async def transformed(
    runtime: Runtime, agent: Agent, thread: Thread | None, messages: list[Message]
) -> Sequence[Message]:
    """Apply the agent's ``transform_messages`` to the history, and repair the result.

    An assistant message at the end is the beginning of an answer that the model is to continue. This message is not
    transformed and stays the last message.

    Raises ModelError if ``transform_messages`` fails.
    """
    if agent.transform_messages is None:
        return messages
    transform = agent.transform_messages
    last_answer = [message for message in messages[-1:] if message["role"] == "assistant"]
    history = copy.deepcopy(messages[: len(messages) - len(last_answer)])
    changed = await _call_agent_function(runtime, thread, "transform_messages", transform, history, thread)
    try:
        transformed_history = repaired(list(changed))
    except (TypeError, KeyError, AttributeError) as error:
        raise _mistake("transform_messages", "returns messages in the OpenAI format, a list of dicts.") from error
    if not transformed_history:
        raise _mistake("transform_messages", "returned no messages. A model needs at least one.")
    return [*transformed_history, *last_answer]


def use_current_names(messages: Sequence[Message], tools: Mapping[str, Tool]) -> None:
    """In the tool calls of these messages, replace old tool names with the current names.

    Otherwise, the model may call a tool by an old name that it reads in the history.
    """
    current = {alias: tool.name for tool in tools.values() for alias in tool.aliases if alias not in tools}
    if not current:
        return
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["function"]["name"] = current.get(call["function"]["name"], call["function"]["name"])


async def _call_agent_function(
    runtime: Runtime, thread: Thread | None, name: str, function: Callback | None, *args: object
) -> Any:
    """Call a function of the agent and return its result. Return None if the agent has no such function.

    Raises ModelError if the function raises an exception.
    """
    if function is None:
        return None
    try:
        return await runtime.call_user(function, *args)
    except Exception as error:
        extra = {} if thread is None else {"thread": thread.pk}
        log_error("a function of the agent failed", action="agent_function", function=name, **extra)
        detail = f"{name} raised {described(error)}"
        # A network error or a database outage is retryable, because it may be over by the next attempt.
        passes = isinstance(error, ConnectionError | TimeoutError) or (isinstance(error, Error) and is_outage(error))
        raise ModelError(ErrorKind.UNKNOWN, detail, retryable=passes) from error


def _mistake(name: str, sentence: str) -> ModelError:
    return ModelError(ErrorKind.INVALID_REQUEST, f"{name} {sentence}", retryable=False)


def _overridden(plan: Plan, overrides: object) -> Plan:
    """Return the plan with the overrides. Raises ModelError if the overrides are not valid."""
    if overrides is None:
        return plan
    if not isinstance(overrides, Mapping):
        raise _mistake("configure", f"returns a dict of overrides or None, not {type(overrides).__name__}.")
    unknown = sorted(str(key) for key in overrides.keys() - set(OVERRIDES))
    if unknown:
        raise _mistake("configure", f"overrides {', '.join(unknown)}: only {', '.join(OVERRIDES)} can be overridden.")
    chosen: object = overrides.get("model", plan.models)
    models = (chosen,) if isinstance(chosen, str) else tuple(chosen) if isinstance(chosen, list | tuple) else ()
    if not models or not all(isinstance(model, str) and model for model in models):
        raise _mistake("configure", "overrides model with a litellm model string or a list of them.")
    instructions = overrides.get("instructions", plan.instructions)
    if not (isinstance(instructions, str | Promise) or callable(instructions)):
        raise _mistake("configure", "overrides instructions with a text or a callable(thread).")
    tools = _tools(overrides["tools"]) if "tools" in overrides else plan.tools
    settings = overrides.get("model_settings", plan.model_settings)
    if not isinstance(settings, Mapping):
        raise _mistake("configure", "overrides model_settings with a dict.")
    max_steps = overrides.get("max_steps", plan.max_steps)
    if not isinstance(max_steps, int) or isinstance(max_steps, bool):
        raise _mistake("configure", "overrides max_steps with a whole number.")
    return replace(
        plan, models=models, instructions=instructions, tools=tools, model_settings=dict(settings), max_steps=max_steps
    )


def _tools(value: object) -> Mapping[str, Tool]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, Tool) for item in value):
        raise _mistake("configure", "overrides tools with a list of functions that have @tool above.")
    if len({item.name for item in value}) != len(value):
        raise _mistake("configure", "gives two tools of the same name.")
    return {item.name: item for item in value}


def _check_undeclared(agent: Agent, tools: Sequence[Tool]) -> None:
    """Check the tools that ``configure`` returned but no module declares. Raises ModelError."""
    if tools and agent.tool_resolver is None:
        names = ", ".join(item.name for item in tools)
        raise _mistake(
            "configure",
            f"gives tools that workers would not find: {names}. Add them to the agent's tools, or give it a "
            "tool_resolver.",
        )
    # Refuse a tool whose ``approved_by`` or ``answered_by`` is a function. Web processes call this function. They would
    # not find it, because they do not call the ``tool_resolver`` that returns the tool.
    for item in tools:
        for option in ("approved_by", "answered_by"):
            if deciding_function(getattr(item, option)):
                raise _mistake(
                    "configure",
                    f"gives the tool {item.name} a function as {option}. A tool of a tool_resolver takes a word or a "
                    "permission.",
                )

"""Hides how litellm is asked: the arguments of a call, and what a model would refuse of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from durable_agents.llm.calls import ModelRequest, provider_of
from durable_agents.llm.loading import is_known_to

TOLD_TO_CONTINUE = frozenset({"deepseek", "mistral", "codestral"})
"""Providers that go on with a message only where it says so itself (litellm: ``prefix``); Claude always does."""

THINKING = frozenset({"thinking", "reasoning_effort"})
"""Settings that let a model think before it answers."""


def arguments_of(request: ModelRequest) -> dict[str, Any]:
    httpx = importlib.import_module("httpx")
    fixed = {
        "model": request.model,
        "messages": _messages(request),
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_retries": 0,
        "num_retries": 0,
    }
    if request.tools:
        fixed["tools"] = [dict(tool) for tool in request.tools]
    timeout = httpx.Timeout(connect=10, read=60, write=30, pool=10)
    return _thinking_allowed({"timeout": timeout, **request.settings, **fixed})


def _thinking_allowed(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments without thinking where Claude would refuse it: between tool calls that it has not thought before.

    So it is when another model, or none that thinks, began the answer. Claude then answers without thinking, once.
    """
    if "claude" not in arguments["model"] or not _must_think(arguments):
        return arguments
    since_asked = takewhile(lambda message: message["role"] != "user", reversed(arguments["messages"]))
    calling = next((message for message in since_asked if message.get("tool_calls")), None)
    if calling is None or _thinks_in(calling):
        return arguments
    messages = [_without_thoughts(message) for message in arguments["messages"]]
    return {key: value for key, value in arguments.items() if key not in THINKING} | {"messages": messages}


def _must_think(arguments: Mapping[str, Any]) -> bool:
    """Whether each answer has to begin with thoughts: so the older models of Claude think, newer ones as they like."""
    if "thinking" in arguments:
        return bool(arguments["thinking"].get("type") == "enabled")
    return "reasoning_effort" in arguments and not is_known_to(arguments["model"], "supports_adaptive_thinking")


def _thinks_in(message: Mapping[str, Any]) -> bool:
    return "thinking_blocks" in message or isinstance(message["content"], list)


def _without_thoughts(message: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if key != "thinking_blocks"}
    if message["role"] == "assistant" and isinstance(message["content"], list):
        kept["content"] = [block for block in message["content"] if block["type"] != "thinking"]
    return kept


def _messages(request: ModelRequest) -> list[dict[str, Any]]:
    """The messages as litellm takes them."""
    messages = [dict(message) for message in request.messages]
    if messages and messages[-1]["role"] == "assistant" and provider_of(request.model) in TOLD_TO_CONTINUE:
        messages[-1]["prefix"] = True
    return messages

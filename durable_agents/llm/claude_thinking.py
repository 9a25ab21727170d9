"""Leave thinking out of a request that Claude would otherwise refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

from durable_agents.llm.model_catalog import listed
from durable_agents.llm.types import Message

THINKING = frozenset({"thinking", "reasoning_effort"})
"""Settings that make a model think before it answers."""


def must_not_think(model: str, settings: Mapping[str, object], messages: Sequence[Message]) -> bool:
    """Return whether Claude would refuse these messages with these settings. Claude refuses them if two conditions are
    met. The settings require each answer to begin with thinking. The tool calls since the user's last message were made
    without thinking.

    This happens when another model, or a model without thinking, began the answer. In that case, the model call is made
    without thinking.
    """
    if "claude" not in model:
        return False
    if "thinking" in settings:
        thinking = settings["thinking"]
        is_required = isinstance(thinking, Mapping) and thinking.get("type") == "enabled"
    else:  # if an effort is set, models without adaptive thinking must think
        is_required = "reasoning_effort" in settings and not listed(model).get("supports_adaptive_thinking")
    since_asked = takewhile(lambda message: message["role"] != "user", reversed(messages))
    calling = next((message for message in since_asked if message.get("tool_calls")), None)
    if calling is None or not is_required:
        return False
    return "thinking_blocks" not in calling and not isinstance(calling.get("content"), list)


def without_thoughts(message: Message) -> Message:
    """Return the message without Claude's thinking."""
    kept: Message = {**message}
    kept.pop("thinking_blocks", None)
    content = message.get("content")
    if message["role"] == "assistant" and isinstance(content, list):
        kept["content"] = [block for block in content if block["type"] != "thinking"]
    return kept

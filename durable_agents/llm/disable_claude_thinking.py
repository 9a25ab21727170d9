"""Turn off Claude's thinking in a request that Claude would otherwise refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

from durable_agents.llm.model_catalog import listed
from durable_agents.llm.types import Message

THINKING = frozenset({"thinking", "reasoning_effort"})
"""Settings that make a model think before it answers."""


def must_not_think(model: str, settings: Mapping[str, object], messages: Sequence[Message]) -> bool:
    """Return whether Claude must be called without thinking, because it would otherwise refuse these messages.

    If the settings require thinking, Claude refuses messages in which a tool call without thinking follows the user's
    last message. A tool call without thinking can come from another model that began the answer.
    """
    if "claude" not in model:
        return False
    if "thinking" in settings:
        thinking = settings["thinking"]
        is_required = isinstance(thinking, Mapping) and thinking.get("type") == "enabled"
    else:
        # With ``reasoning_effort``, a model with adaptive thinking decides for itself whether to think. Any other model
        # thinks before every answer.
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

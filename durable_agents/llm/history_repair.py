"""Repair a history that a project has changed. Every provider accepts the repaired history."""

from __future__ import annotations

from collections.abc import Sequence

from durable_agents.llm.provider_messages import CONTINUE_PROMPT
from durable_agents.llm.types import Message

LEFT_OUT = "[The result is not shown any more.]"
"""The text that replaces the result of a tool call if the project has removed the result, but not the call."""


def repaired(messages: Sequence[Message]) -> list[Message]:
    """Return the history with exactly one result after each tool call, in the order of the calls.

    Results without a call are removed. If the last message is an assistant message, ``CONTINUE_PROMPT`` is added after
    it.
    """
    # If a tool call has several results, keep the first result. In the reversed order, the first result comes last and
    # replaces the others in the dict.
    results = {message["tool_call_id"]: message for message in reversed(messages) if message["role"] == "tool"}
    kept: list[Message] = []
    for message in messages:
        if message["role"] == "tool":
            continue
        kept.append(message)
        for call in message.get("tool_calls") or ():
            left_out: Message = {"role": "tool", "tool_call_id": call["id"], "content": LEFT_OUT}
            kept.append(results.get(call["id"], left_out))
    if kept and kept[-1]["role"] == "assistant":
        kept.append({"role": "user", "content": CONTINUE_PROMPT})
    return kept

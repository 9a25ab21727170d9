"""Hides how a history that a project has changed is made one again that every provider takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from durable_agents.llm.history import CONTINUE_PROMPT

LEFT_OUT = "[The result is not shown any more.]"
"""Told to the model in place of a result that was taken out of the history, its call being left in."""

Messages = Sequence[Mapping[str, Any]]


def mended(messages: Messages) -> list[Mapping[str, Any]]:
    """The messages, in the OpenAI format, with exactly one result after each tool call, in the order of the calls, and
    no result without its call; the model's own words are not the last ones."""
    results = {message["tool_call_id"]: message for message in reversed(messages) if message["role"] == "tool"}
    found = [kept for message in messages for kept in _with_results(message, results)]
    if found and found[-1]["role"] == "assistant":
        found.append({"role": "user", "content": CONTINUE_PROMPT})
    return found


def _with_results(message: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    if message["role"] == "tool":
        return
    yield message
    for call in message.get("tool_calls") or ():
        left_out = {"role": "tool", "tool_call_id": call["id"], "content": LEFT_OUT}
        yield results.get(call["id"], left_out)

"""Convert a history to provider messages: put them in order, and add call ids and the provider's signatures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from durable_agents.llm.call_ids import CallIds
from durable_agents.llm.types import Block, Message, MessageCall, provider_of
from durable_agents.llm.user_content import user_content
from durable_agents.parts import LATE_RESULT, CallOutcome, Part, text_of

CONTINUE_PROMPT = "Please go on where you stopped."
"""Sent if the history ends with the model's own message, because most models refuse to continue such a message."""

PAUSED_CONTENT = "pausedContent"
"""The metadata key for the whole content of a step that Anthropic has paused: a list of Anthropic's blocks, including
the calls and results of Anthropic's own tools. The content is sent back unchanged, and nothing is added after it, as
the documentation of ``pause_turn`` requires.
"""

_WANTS_REASONING_BACK = frozenset({"deepseek", "moonshot", "zai", "hosted_vllm", "openai"})
"""Providers to which ``reasoning_content`` is sent back with the calls that followed the reasoning. DeepSeek and Kimi
refuse a history without this field, while others (Groq, Cerebras, Mistral) refuse a history with it. ``openai`` stands
for any server that speaks OpenAI's format. OpenAI itself returns no reasoning, so none is sent back to OpenAI.
"""

_UNNAMEABLE = re.compile(r"[^a-zA-Z0-9_-]")
"""Characters that a tool name must not contain. Providers refuse a history with such a name, even if their own model
invented the name.
"""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message of the history: a user's parts, or the steps of an assistant message."""

    role: str
    parts: Sequence[Part] = ()
    steps: Sequence[Step] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One committed step: the text and reasoning of ``model``, and the tool calls of ``model`` with their outcomes."""

    parts: Sequence[Part]
    """The text and reasoning parts, in order. Parts of other types are ignored here."""
    calls: Sequence[CallOutcome] = ()
    model: str = ""
    rendered: dict[tuple[str, int], list[Message]] = field(default_factory=dict, init=False, compare=False, repr=False)
    """The step's messages, by model and ``max_result_bytes``. They are kept so that a long history is converted only
    once and not again at each step.
    """


def openai_messages(
    instructions: str, turns: Sequence[Turn], *, max_result_bytes: int, model: str = "", prefill: str = ""
) -> list[Message]:
    """Return the history for ``model`` in the OpenAI format. Every tool call is followed by exactly one result, in the
    order of the calls.

    A provider's signatures and call ids are sent back only to the same provider. ``prefill`` is the text of an earlier
    attempt at the next answer. It becomes the last message, and the model continues that text; white space at the end
    is removed, because Anthropic refuses it. Pass ``prefill`` only for a model for which ``ModelDoor.continues`` is
    true.
    """
    ids = CallIds(model)
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    for turn in turns:
        if turn.role != "assistant":
            messages.append(late_result(turn) or {"role": turn.role, "content": user_content(turn.parts, model=model)})
        for step in turn.steps:
            messages += step_messages(step, model=model, ids=ids, max_result_bytes=max_result_bytes)
    last_steps = turns[-1].steps[-1:] if turns else ()
    is_paused = any(_family(step.model) == _family(model) and _paused_content(step) for step in last_steps)
    if messages and messages[-1]["role"] == "assistant" and not is_paused:
        messages.append({"role": "user", "content": CONTINUE_PROMPT})
    if begun := prefill.rstrip():
        messages.append({"role": "assistant", "content": begun})
    return messages


def late_result(turn: Turn) -> Message | None:
    """Return the late result of a call as a user message, or None if the turn is not a late result."""
    late = next((part["data"] for part in turn.parts if part.get("type") == LATE_RESULT), None)
    if late is None:
        return None
    # No provider takes a second result for a call, and the first result said that the call was still running.
    outcome = json.dumps(late.get("output", late.get("errorText")), ensure_ascii=False)
    what = "failed" if "errorText" in late else "has its result"
    return {"role": "user", "content": f"[The call of {late['toolName']} that was still running {what}: {outcome}]"}


def step_messages(step: Step, *, model: str, ids: CallIds, max_result_bytes: int) -> list[Message]:
    """Return one step as messages: the model's message with the tool calls, followed by the result of each call."""
    rendered = step.rendered.get((model, max_result_bytes))
    if rendered is not None and ids.take([message["tool_call_id"] for message in rendered[1:]]):
        return [_copy(message) for message in rendered]
    is_own = _family(step.model) == _family(model)
    message = answer_message(step, is_own=is_own)
    if not step.calls:
        return [message] if message["content"] else []
    calls: list[MessageCall] = []
    results: list[Message] = []
    for call in step.calls:
        call_id = ids.give(call.tool_call_id, own=call.provider_call_id if is_own else "")
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        name = _UNNAMEABLE.sub("_", call.tool_name)[:64]
        calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}})
        content = call.model_text(max_bytes=max_result_bytes)
        results.append({"role": "tool", "tool_call_id": call_id, "content": content})
    message["tool_calls"] = calls
    alone = CallIds(model)
    own_ids = [alone.give(call.tool_call_id, own=call.provider_call_id if is_own else "") for call in step.calls]
    is_plain = message.keys() == {"role", "content", "tool_calls"} and isinstance(message["content"], str | None)
    if is_plain and own_ids == [call["id"] for call in calls]:  # ids that depend on earlier steps are not kept
        step.rendered[model, max_result_bytes] = [_copy(item) for item in (message, *results)]
    return [message, *results]


def _copy(message: Message) -> Message:
    """Return a copy of the message that the project or litellm may change."""
    calls = message.get("tool_calls")
    if not calls:
        return {**message}
    return {**message, "tool_calls": [{**call, "function": {**call["function"]}} for call in calls]}


def answer_message(step: Step, *, is_own: bool) -> Message:
    """Return the model's message without its tool calls. ``is_own`` means that the same family of models wrote the
    message. The message then has the data that its provider wants back, in the fields where litellm looks for the data.
    """
    message: Message = {"role": "assistant", "content": text_of(step.parts) or None}
    if not is_own:
        return message
    if paused := _paused_content(step):
        return {**message, "content": paused}
    blocks = [block for part in step.parts if (block := claude_block(part)) is not None]
    thoughts = [block for block in blocks if block["type"] != "text"]
    if thoughts:
        in_order = blocks[: len(thoughts)] == thoughts or any("data" in block for block in thoughts)
        # Reasoning after text keeps its place only in a list of blocks, but litellm drops hidden reasoning from lists.
        return {**message, "thinking_blocks": thoughts} if in_order else {**message, "content": blocks}
    signatures = [found for part in step.parts if (found := _metadata(part, "google").get("thoughtSignature"))]
    if signatures:
        return {**message, "provider_specific_fields": {"thought_signatures": signatures}}
    reasoning = "".join(part["text"] for part in step.parts if part.get("type") == "reasoning")
    if reasoning and step.calls and provider_of(step.model) in _WANTS_REASONING_BACK:
        return {**message, "reasoning_content": reasoning}
    return message


def claude_block(part: Part) -> Block | None:
    """Return the part as a block in Anthropic's format. Return None for a text part without text, and for reasoning
    without a signature, which Anthropic would refuse.
    """
    if part.get("type") == "text":
        return {"type": "text", "text": part["text"]} if part["text"] else None
    signed = _metadata(part, "anthropic")
    if "redactedData" in signed:
        return {"type": "redacted_thinking", "data": signed["redactedData"]}
    if "signature" in signed:
        return {"type": "thinking", "thinking": part["text"], "signature": signed["signature"]}
    return None


def _family(model: str) -> str:
    """Return the provider and the family of a model: ``anthropic/claude`` for ``anthropic/claude-sonnet-4-5``."""
    return model.partition("-")[0]


def _paused_content(step: Step) -> list[Block]:
    found = (_metadata(part, "anthropic").get(PAUSED_CONTENT) for part in step.parts)
    return [block for blocks in found if isinstance(blocks, list) for block in blocks]


def _metadata(part: Part, provider: str) -> Mapping[str, object]:
    found: Mapping[str, object] = part.get("providerMetadata", {}).get(provider, {})
    return found

"""Convert a stored history to the messages that a provider reads, with call ids and the provider's signatures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from durable_agents.llm.types import Block, Message, MessageCall, provider_of
from durable_agents.llm.user_content import user_content
from durable_agents.llm.vendor_call_ids import CallIds
from durable_agents.parts import LATE_RESULT, CallOutcome, Part, text_of

CONTINUE_PROMPT = "Please go on where you stopped."
"""A user message that asks the model to continue. Most models refuse a history that ends with an assistant
message, so this user message is added to the end.
"""

PAUSED_CONTENT = "pausedContent"
"""The metadata key for the content of an answer that Anthropic has paused. The content is a list of Anthropic's blocks,
including the calls and results of Anthropic's own tools. The content must be sent back unchanged, and nothing may be
added after it (Anthropic's documentation of ``pause_turn``).
"""

_WANTS_REASONING_BACK = frozenset({"deepseek", "moonshot", "zai", "hosted_vllm", "openai"})
"""Providers that get the field ``reasoning_content`` back in assistant messages with tool calls.

- DeepSeek and Kimi refuse a history without the field.
- Groq, Cerebras and Mistral refuse a history with the field. Therefore, they are not in this set.
- ``openai`` is in this set for other servers that use OpenAI's format. OpenAI itself never sends the field, so there is
  nothing to send back to it.
"""

_UNNAMEABLE = re.compile(r"[^a-zA-Z0-9_-]")
"""Matches a character that is not allowed in a tool name. If a model makes up a name with this character, the provider
refuses a history that contains the name.
"""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message of the history: a user's parts, or the steps (model calls) of an assistant message."""

    role: str
    parts: Sequence[Part] = ()
    steps: Sequence[Step] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stored model call: the text and reasoning that ``model`` wrote, and the tool calls with their results."""

    parts: Sequence[Part]
    """The text and reasoning parts, in order. Parts of other types are ignored here."""
    calls: Sequence[CallOutcome] = ()
    model: str = ""
    rendered: dict[tuple[str, int], list[Message]] = field(default_factory=dict, init=False, compare=False, repr=False)
    """A cache of the step's messages, by model and ``max_result_bytes``. Without the cache, every model call would
    convert the whole history again.
    """


def openai_messages(
    instructions: str, turns: Sequence[Turn], *, max_result_bytes: int, model: str = "", prefill: str = ""
) -> list[Message]:
    """Return the history for ``model`` in the OpenAI format.

    Every tool call is followed by exactly one result, in the order of the calls. A provider's signatures and call ids
    are sent back only to the same provider.

    ``prefill`` is the partial answer of an earlier attempt. It becomes the last message, and the model continues it.
    Pass ``prefill`` only if ``ModelDoor.continues`` is true for the model. White space at the end of ``prefill`` is
    removed, because Anthropic refuses it.
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
    """Return a user message with the late result of a tool call, or None if the turn has no late result.

    A late result belongs to a tool call that was still open at an earlier model call.
    """
    late = next((part["data"] for part in turn.parts if part.get("type") == LATE_RESULT), None)
    if late is None:
        return None
    # Providers accept only one result for each tool call. In the history, this tool call already has a result: a note
    # that the tool call is still open. Therefore, the late result is sent as a user message.
    outcome = json.dumps(late.get("output", late.get("errorText")), ensure_ascii=False)
    what = "failed" if "errorText" in late else "has its result"
    if "changedInput" in late:
        changed = json.dumps(late["changedInput"], ensure_ascii=False)
        what = f"ran with arguments that a person changed to {changed}, and {what}"
    return {"role": "user", "content": f"[The call of {late['toolName']} that was still open {what}: {outcome}]"}


def step_messages(step: Step, *, model: str, ids: CallIds, max_result_bytes: int) -> list[Message]:
    """Return one model call as messages: the assistant message with its tool calls, then the result of each call."""
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
    # Cache the messages only if their call ids do not depend on earlier steps.
    if is_plain and own_ids == [call["id"] for call in calls]:
        step.rendered[model, max_result_bytes] = [_copy(item) for item in (message, *results)]
    return [message, *results]


def _copy(message: Message) -> Message:
    """Return a copy of the message, because the project or litellm can change what it gets. The cached message must
    stay as it is.
    """
    calls = message.get("tool_calls")
    if not calls:
        return {**message}
    return {**message, "tool_calls": [{**call, "function": {**call["function"]}} for call in calls]}


def answer_message(step: Step, *, is_own: bool) -> Message:
    """Return the assistant message of a step, without its tool calls.

    With ``is_own``, the message goes back to a model of the family that wrote it. The message then includes the
    provider's own data, such as signatures, in the fields that litellm reads.
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
        # If text comes before the reasoning, send all blocks in ``content``, which keeps their order. But litellm drops
        # redacted reasoning from ``content``, so always send redacted reasoning in ``thinking_blocks``.
        return {**message, "thinking_blocks": thoughts} if in_order else {**message, "content": blocks}
    signatures = [found for part in step.parts if (found := _metadata(part, "google").get("thoughtSignature"))]
    if signatures:
        return {**message, "provider_specific_fields": {"thought_signatures": signatures}}
    reasoning = "".join(part["text"] for part in step.parts if part.get("type") == "reasoning")
    if reasoning and step.calls and provider_of(step.model) in _WANTS_REASONING_BACK:
        return {**message, "reasoning_content": reasoning}
    return message


def claude_block(part: Part) -> Block | None:
    """Return the part as a block in Anthropic's format.

    Return None for an empty text, and for reasoning without a signature. Anthropic would refuse such blocks.
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

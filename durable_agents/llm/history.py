"""Hides what providers want of a history: the order of messages, what they signed, and how a file is shown to them."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from durable_agents.llm.calls import provider_of
from durable_agents.media import is_text
from durable_agents.parts import LATE_RESULT, CallOutcome, Part, file_base64, is_embedded, text_of

CONTINUE_PROMPT = "Please go on where you stopped."
"""Told to the model when the history ends with its own words: most models refuse to continue their own message."""

_UNNAMEABLE = re.compile(r"[^a-zA-Z0-9_-]")
"""Providers refuse a history with such a tool name, even if their own model invented it."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message of the history: a user's parts, or the steps of an assistant message."""

    role: str
    parts: Sequence[Part] = ()
    steps: Sequence[Step] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One committed step: what ``model`` said and thought, and the calls that it made, each with its outcome."""

    parts: Sequence[Part]
    """Text and reasoning in order; other parts mean nothing here."""
    calls: Sequence[CallOutcome] = ()
    model: str = ""


def openai_messages(
    instructions: str, turns: Sequence[Turn], *, max_result_bytes: int, model: str = "", prefill: str = ""
) -> list[dict[str, Any]]:
    """The history in the OpenAI format, for ``model``: every tool call is followed by exactly one result, in order.

    What a provider signed, and its ids of calls, go back to it and to nobody else. ``prefill`` is what an earlier
    attempt at the next answer has said already; it comes last, without the white space at its end (which Anthropic
    refuses), and the model goes on from there. Only for a model that ``continues``.
    """
    history = _History(turns=turns, model=model, max_result_bytes=max_result_bytes)
    messages = [{"role": "system", "content": instructions}] if instructions else []
    messages += history.messages()
    if messages and messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": CONTINUE_PROMPT})
    if begun := prefill.rstrip():
        messages.append({"role": "assistant", "content": begun})
    return messages


_WANTS_REASONING_BACK = frozenset({"deepseek", "moonshot", "zai", "hosted_vllm", "openai"})
"""Providers that take ``reasoning_content`` back with the calls that it led to; DeepSeek and Kimi refuse a history
without it, while others (Groq, Cerebras, Mistral) refuse one with it. ``openai`` stands for any server that speaks its
format: OpenAI's own tells no reasoning, so none is sent back there."""


def _told_late(turn: Turn) -> dict[str, Any] | None:
    """The result of a call that the model did not wait for; no provider takes a second result for a call."""
    late = next((part["data"] for part in turn.parts if part.get("type") == LATE_RESULT), None)
    if late is None:
        return None
    outcome = json.dumps(late.get("output", late.get("errorText")), ensure_ascii=False)
    what = "failed" if "errorText" in late else "has its result"
    return {"role": "user", "content": f"[The call of {late['toolName']} that was still running {what}: {outcome}]"}


@dataclass(frozen=True, kw_only=True)
class _History:
    """The turns of a thread as one model gets them."""

    turns: Sequence[Turn]
    model: str
    max_result_bytes: int

    def messages(self) -> list[dict[str, Any]]:
        """All of them, in order."""
        given = Counter(call.provider_call_id for turn in self.turns for step in turn.steps for call in step.calls)
        unique = {call_id for call_id, count in given.items() if call_id and count == 1}
        found: list[dict[str, Any]] = []
        for turn in self.turns:
            if turn.role == "assistant":
                found += [message for step in turn.steps for message in self._step(step, unique)]
            else:
                found.append(_told_late(turn) or {"role": turn.role, "content": _asked(turn.parts, model=self.model)})
        return found

    def _step(self, step: Step, unique: Collection[str]) -> list[dict[str, Any]]:
        text = text_of(step.parts)
        is_own = _signer(step.model) == _signer(self.model)
        kept = _kept_for_its_model(step) if is_own else {}
        if not step.calls:
            return [{"role": "assistant", "content": text, **kept}] if text else []
        ids = [
            call.provider_call_id if is_own and call.provider_call_id in unique else call.tool_call_id
            for call in step.calls
        ]
        calls = [_call(call_id, call) for call_id, call in zip(ids, step.calls, strict=True)]
        results = [
            {"role": "tool", "tool_call_id": call_id, "content": call.told_to_model(max_bytes=self.max_result_bytes)}
            for call_id, call in zip(ids, step.calls, strict=True)
        ]
        return [{"role": "assistant", "content": text or None, **kept, "tool_calls": calls}, *results]


_AUDIO_FORMATS = {"mpeg": "mp3", "x-mp3": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}
_SEEN_BY_CLAUDE = re.compile(r"image/(png|jpeg|gif|webp)|application/pdf")


def _asked(parts: Sequence[Part], *, model: str) -> str | list[dict[str, Any]]:
    """What a user said: one text, or in order the texts and the files."""
    if not any(part["type"] == "file" for part in parts):
        return text_of(parts)
    blocks = [_file(part, model=model) if part["type"] == "file" else _text(part["text"]) for part in parts]
    return [block for block in blocks if block != _text("")]


def _file(part: Part, *, model: str) -> dict[str, Any]:
    """A file as litellm takes it; as text, or as a note to the model, where the provider would refuse or lose it. One
    that is not within the part is never fetched, nor named to anybody who might."""
    media_type: str = part["mediaType"]
    kind, _, subtype = media_type.partition("/")
    if not is_embedded(part):
        return _text(_titled(part, "[A file that is not shown to you.]"))
    if is_text(media_type):
        return _text(_titled(part, base64.b64decode(file_base64(part)).decode("utf-8", "replace")))
    if "claude" in model and not _SEEN_BY_CLAUDE.fullmatch(media_type):
        return _text(_titled(part, f"[A file of type {media_type}, which cannot be shown to you.]"))
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": part["url"]}}
    if kind == "audio":
        audio = {"data": file_base64(part), "format": _AUDIO_FORMATS.get(subtype, subtype)}
        return {"type": "input_audio", "input_audio": audio}
    return {"type": "file", "file": {"file_data": part["url"], "filename": part.get("filename", "attachment")}}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _titled(part: Part, text: str) -> str:
    return f"{part['filename']}:\n{text}" if "filename" in part else text


def _call(call_id: str, call: CallOutcome) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": _UNNAMEABLE.sub("_", call.tool_name)[:64], "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _signer(model: str) -> str:
    """Provider and family of a model: ``anthropic/claude`` of ``anthropic/claude-sonnet-4-5``."""
    return model.partition("-")[0]


def _kept_for_its_model(step: Step) -> dict[str, Any]:
    """What the provider of the step wants to see again of its own, in the fields where litellm looks for it."""
    blocks = [block for part in step.parts for block in _claude_blocks(part)]
    thoughts = [block for block in blocks if block["type"] != "text"]
    if thoughts:
        in_order = blocks[: len(thoughts)] == thoughts or any("data" in block for block in thoughts)
        # Thoughts after text keep their place only in a list, from which litellm loses the hidden ones.
        return {"thinking_blocks": thoughts} if in_order else {"content": blocks}
    signatures = [found for part in step.parts if (found := _metadata(part, "google").get("thoughtSignature"))]
    if signatures:
        return {"provider_specific_fields": {"thought_signatures": signatures}}
    reasoning = "".join(part["text"] for part in step.parts if part.get("type") == "reasoning")
    if reasoning and step.calls and provider_of(step.model) in _WANTS_REASONING_BACK:
        return {"reasoning_content": reasoning}
    return {}


def _claude_blocks(part: Part) -> list[dict[str, Any]]:
    """The part as a block of Anthropic's format; none for what it did not sign."""
    if part.get("type") == "text":
        return [{"type": "text", "text": part["text"]}] if part["text"] else []
    signed = _metadata(part, "anthropic")
    if "redactedData" in signed:
        return [{"type": "redacted_thinking", "data": signed["redactedData"]}]
    if "signature" in signed:
        return [{"type": "thinking", "thinking": part["text"], "signature": signed["signature"]}]
    return []


def _metadata(part: Part, provider: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = part.get("providerMetadata", {}).get(provider, {})
    return found

"""What a model's answer becomes: chunks for browsers while it comes, and at its end the step to commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from itertools import takewhile
from typing import Any
from uuid import uuid4

from durable_agents.agents import Tool
from durable_agents.lifecycle import NewCall, StepOutcome
from durable_agents.llm import (
    CallArguments,
    CallStarted,
    Finished,
    ModelEvent,
    ReasoningDelta,
    ReasoningHidden,
    ReasoningSigned,
    TextDelta,
    TextSigned,
)
from durable_agents.parts import Chunk, Fold, Part, parse_arguments


@dataclass(kw_only=True)
class _Call:
    """A tool call as it arrives from the model."""

    tool_call_id: str
    provider_call_id: str
    tool_name: str
    is_providers: bool = False
    raw: str = ""


@dataclass(kw_only=True)
class Answer:
    """Turns the events of one model call into chunks for browsers and, at its end, into the step to commit.

    With ``seed``, the text and reasoning of an earlier attempt that the model goes on with, the step begins with these
    chunks: browsers have them already, and more text goes on in the text part that they leave open, under its id.
    """

    number: int
    tool_input_deltas: bool
    provider_tools: Collection[str] = ()
    """Names of tools that the model's vendor runs: their calls are no business of ours."""
    seed: InitVar[Iterable[Chunk]] = ()
    fold: Fold = field(default_factory=Fold)
    calls: list[_Call] = field(default_factory=list)
    open_part: tuple[str, str] | None = None
    parts_begun: int = 0
    signature: Mapping[str, Any] | None = None
    """What the provider wants back with the text that is open; it goes out with the end of it."""
    finished: Finished | None = None
    own_text: str = ""
    """The text of this attempt, without the seed's."""
    gap: str = ""
    """White space at the end of the seed. The model was not shown it, and so may say it again."""

    def __post_init__(self, seed: Iterable[Chunk]) -> None:
        for chunk in seed:
            self.fold.apply(chunk)
            kind, _, phase = chunk["type"].rpartition("-")
            if phase == "start":
                self.parts_begun += 1
                self.open_part = (kind, chunk["id"])
            elif phase == "end":
                self.open_part = None
        if self.open_part is not None and self.open_part[0] == "text":
            begun: str = self.fold.open[self.open_part[1]]["text"]
            self.gap = begun[len(begun.rstrip()) :]

    def take(self, event: ModelEvent) -> list[Chunk]:
        """The chunks that this event means; they are folded into the step as well."""
        chunks: list[Chunk] = [] if self.fold.parts else [{"type": "start-step"}]
        match event:
            case TextDelta():
                chunks += self._said("text", self._new(event.text))
            case ReasoningDelta():
                chunks += self._said("reasoning", event.text)
            case ReasoningSigned():
                chunks += self._signed(event.metadata)
            case ReasoningHidden():
                chunks += [*self._end_open(), *self._signed(event.metadata)]
            case TextSigned():
                self.signature = event.metadata
            case CallStarted():
                chunks += self._called(event)
            case CallArguments():
                chunks += self._argued(event)
            case Finished():
                self.finished = event
                chunks += self._end_open()
        for chunk in chunks:
            self.fold.apply(chunk)
        return chunks

    def _new(self, text: str) -> str:
        """The text without what it repeats of the gap."""
        self.own_text += text
        repeated = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.gap, text, strict=False)))
        self.gap = self.gap[repeated:] if repeated == len(text) else ""
        return text[repeated:]

    def _said(self, kind: str, text: str) -> list[Chunk]:
        if not text:
            return []
        begun, part_id = self._in_part(kind)
        return [*begun, {"type": f"{kind}-delta", "id": part_id, "delta": text}]

    def _signed(self, metadata: Mapping[str, Any]) -> list[Chunk]:
        """The end of the reasoning; its text may have been kept from us, but it is a part all the same."""
        begun, _ = self._in_part("reasoning")
        return [*begun, *self._end_open(metadata)]

    def _in_part(self, kind: str) -> tuple[list[Chunk], str]:
        """What leads to an open part of this kind, none where it is open already, and its id."""
        if self.open_part is not None and self.open_part[0] == kind:
            return [], self.open_part[1]
        ended = self._end_open()
        self.parts_begun += 1
        part_id = f"{kind}-{self.number}-{self.parts_begun}"
        self.open_part = (kind, part_id)
        return [*ended, {"type": f"{kind}-start", "id": part_id}], part_id

    def _end_open(self, metadata: Mapping[str, Any] | None = None) -> list[Chunk]:
        if self.open_part is None:
            return []
        kind, part_id = self.open_part
        kept = metadata or (self.signature if kind == "text" else None)
        self.open_part, self.gap, self.signature = None, "", None
        return [{"type": f"{kind}-end", "id": part_id} | ({"providerMetadata": dict(kept)} if kept else {})]

    def _called(self, event: CallStarted) -> list[Chunk]:
        call = _Call(
            tool_call_id=f"call_{uuid4().hex}",
            provider_call_id=event.provider_call_id,
            tool_name=event.tool_name[:128] or "unnamed",
            is_providers=event.tool_name in self.provider_tools,
        )
        self.calls.append(call)
        if call.is_providers:
            return self._end_open()
        start = {"type": "tool-input-start", "toolCallId": call.tool_call_id, "toolName": call.tool_name}
        return [*self._end_open(), start]

    def _argued(self, event: CallArguments) -> list[Chunk]:
        call = self.calls[event.index]
        call.raw += event.text
        if not self.tool_input_deltas or call.is_providers:
            return []
        return [{"type": "tool-input-delta", "toolCallId": call.tool_call_id, "inputTextDelta": event.text}]

    def outcome(self, tools: Mapping[str, Tool]) -> StepOutcome:
        """The whole step. Calls that cannot run with these tools carry the error that the model is told."""
        finished = self.finished or Finished(finish_reason="stop", usage=None, model="")
        calls = [_new_call(tools, call) for call in self.calls if not call.is_providers]
        ended = "stop" if finished.finish_reason == "tool_calls" else finished.finish_reason.replace("_", "-")
        inputs = {call.tool_call_id: call.arguments for call in calls}
        return StepOutcome(
            parts=[_with_input(part, inputs) for part in self.fold.parts],
            calls=calls,
            finish_reason="tool-calls" if calls else ended,
            model=finished.model,
            usage=finished.usage,
        )


def _with_input(part: Part, inputs: Mapping[str, Any]) -> Part:
    call_id = part.get("toolCallId")
    return part if call_id is None else part | {"state": "input-available", "input": inputs[call_id]}


def _new_call(tools: Mapping[str, Tool], call: _Call) -> NewCall:
    """The call as a row: arguments parsed and checked against the tool."""
    arguments = parse_arguments(call.raw)
    tool = tools.get(call.tool_name)
    return NewCall(
        tool_call_id=call.tool_call_id,
        provider_call_id=call.provider_call_id,
        tool_name=call.tool_name,
        arguments={"_raw": call.raw[:4000]} if arguments is None else arguments,
        max_attempts=tool.retry.max_attempts if tool else 1,
        timeout_seconds=tool.timeout_seconds if tool else None,
        error=_problem(tools, call, arguments),
        kind=tool.kind if tool else "sync",
        needs_approval=bool(tool and tool.needs_approval is True),
        approved_by=tool.approved_by if tool else "owner",
        answered_by=tool.answered_by if tool else "server",
    )


def _problem(tools: Mapping[str, Tool], call: _Call, arguments: dict[str, Any] | None) -> str:
    tool = tools.get(call.tool_name)
    if tool is None:
        known = ", ".join(tools) or "none"
        return f"There is no tool {call.tool_name!r}. Tools: {known}."
    if arguments is None:
        return "The arguments are not a JSON object. Call the tool again with valid JSON."
    try:
        tool.validate(arguments)
    except ValueError as error:
        return str(error)
    return ""

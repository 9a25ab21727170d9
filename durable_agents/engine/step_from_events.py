"""Build a step from the events of a model's stream.

Each event is turned into chunks for browsers when it arrives. At the end, the step is ready to commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from itertools import takewhile
from uuid import uuid4

from durable_agents.agents import Tool, find_among, stored_who
from durable_agents.lifecycle import NewCall, ResolvedTool, StepOutcome
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
from durable_agents.parts import Chunk, Fold, parse_arguments, says_nothing
from durable_agents.strictjson import Halves

CUT_CALL = (
    "Your answer was cut before it came to its end, so this call may be incomplete and did not run. "
    "Make the call again if it is still needed, with shorter arguments or fewer calls at once."
)
"""The error of a tool call that may be incomplete because the answer was cut off."""


@dataclass(kw_only=True)
class _Call:
    """A tool call as it arrives from the model."""

    tool_call_id: str
    provider_call_id: str
    tool_name: str
    is_providers: bool = False
    raw: str = ""

    @property
    def says_nothing(self) -> bool:
        """Whether no arguments have arrived yet. Some servers first send a placeholder, which does not count."""
        return says_nothing(self.raw)


_CUT = frozenset({"length", "content_filter"})
"""Finish reasons of an answer that was cut off."""


@dataclass(kw_only=True)
class Answer:
    """The answer of one model call. Turns events into chunks for browsers, and at the end into the step to commit.

    If the model continues the text of an earlier attempt, ``seed`` contains the chunks of the earlier text. Browsers
    already have these chunks, and the step begins with them.
    """

    number: int
    tool_input_deltas: bool
    provider_tools: Collection[str] = ()
    """Names of tools that the model's provider runs. Calls of these tools are ignored."""
    seed: InitVar[Iterable[Chunk]] = ()
    fold: Fold = field(default_factory=Fold)
    calls: list[_Call] = field(default_factory=list)
    open_part: tuple[str, str] | None = None
    parts_begun: int = 0
    signature: Mapping[str, object] | None = None
    """The provider's signature of the text part that is open now. It is sent with the chunk that ends the part."""
    halves: dict[tuple[str, int], Halves] = field(default_factory=dict)
    """Objects that join characters which a server has split between two pieces of a text. Each kind of text and each
    tool call has its own object.
    """
    finished: Finished | None = None
    own_text: str = ""
    """The text of this attempt, without the text of the earlier attempt that it continues."""
    saying: _Call | None = None
    """The tool call whose arguments arrived last. The value is None if text has arrived since then."""
    takes_turns: bool = False
    """Whether the arguments of several tool calls arrive interleaved. If so, each of these calls may be incomplete
    until the answer ends.
    """
    gap: str = ""
    """The white space at the end of the earlier attempt's text. The model does not see this white space when it
    continues the text, and may repeat it.
    """

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
        """Add an event to the step, and return its chunks for browsers."""
        chunks: list[Chunk] = [] if self.fold.parts else [{"type": "start-step"}]
        match event:
            case TextDelta():
                chunks += self._said("text", self._new(self._joined("text", event.text)))
            case ReasoningDelta():
                chunks += self._said("reasoning", self._joined("reasoning", event.text))
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

    def _joined(self, kind: str, text: str, *, index: int = 0) -> str:
        """Return the text with split characters joined. If the text ends with the first half of a character, hold this
        half back for the next text of the same kind.
        """
        return self.halves.setdefault((kind, index), Halves()).join(text)

    def _new(self, text: str) -> str:
        """Return the text without leading white space that is already at the end of the earlier attempt's text."""
        self.own_text += text
        if not self.gap:
            return text
        repeated = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.gap, text, strict=False)))
        self.gap = self.gap[repeated:] if repeated == len(text) else ""
        return text[repeated:]

    def _said(self, kind: str, text: str) -> list[Chunk]:
        if not text:
            return []
        self.saying = None
        begun, part_id = self._in_part(kind)
        return [*begun, {"type": f"{kind}-delta", "id": part_id, "delta": text}]

    def _signed(self, metadata: Mapping[str, object]) -> list[Chunk]:
        """Return the chunks that end the reasoning part.

        If the provider has withheld the reasoning, return the chunks of an empty part.
        """
        begun, _ = self._in_part("reasoning")
        return [*begun, *self._end_open(metadata)]

    def _in_part(self, kind: str) -> tuple[list[Chunk], str]:
        """Return the chunks that open a part of this kind, and the part's id.

        If such a part is already open, return its id and no chunks.
        """
        if self.open_part is not None and self.open_part[0] == kind:
            return [], self.open_part[1]
        ended = self._end_open()
        self.parts_begun += 1
        part_id = f"{kind}-{self.number}-{self.parts_begun}"
        self.open_part = (kind, part_id)
        return [*ended, {"type": f"{kind}-start", "id": part_id}], part_id

    def _end_open(self, metadata: Mapping[str, object] | None = None) -> list[Chunk]:
        if self.open_part is None:
            return []
        kind, part_id = self.open_part
        kept = metadata or (self.signature if kind == "text" else None)
        self.open_part, self.gap, self.signature = None, "", None
        rest = self.halves.setdefault((kind, 0), Halves()).rest()
        last: list[Chunk] = [{"type": f"{kind}-delta", "id": part_id, "delta": rest}] if rest else []
        return [*last, {"type": f"{kind}-end", "id": part_id} | ({"providerMetadata": dict(kept)} if kept else {})]

    def _called(self, event: CallStarted) -> list[Chunk]:
        call = _Call(
            tool_call_id=f"call_{uuid4().hex}",
            provider_call_id=event.provider_call_id,
            tool_name=event.tool_name[:128] or "unnamed",
            is_providers=event.tool_name in self.provider_tools,
        )
        self.calls.append(call)
        self.saying = call
        if call.is_providers:
            return self._end_open()
        start = {"type": "tool-input-start", "toolCallId": call.tool_call_id, "toolName": call.tool_name}
        return [*self._end_open(), start]

    def _argued(self, event: CallArguments) -> list[Chunk]:
        call = self.calls[event.index]
        text = self._joined("call", event.text, index=event.index)
        call.raw += text
        self.takes_turns = self.takes_turns or call is not self.calls[-1]
        self.saying = call
        if not self.tool_input_deltas or call.is_providers:
            return []
        return [{"type": "tool-input-delta", "toolCallId": call.tool_call_id, "inputTextDelta": text}]

    def outcome(self, tools: Mapping[str, Tool], *, resolved: Collection[str] = ()) -> StepOutcome:
        """Return the step to commit. A call that cannot run has an error for the model.

        ``resolved`` contains the names of tools that come from the agent's ``tool_resolver``.
        """
        finished = self.finished or Finished(finish_reason="stop", usage=None, model="")
        made = [call for call in self.calls if not call.is_providers]
        calls = [
            _new_call(tools, call, is_cut=self._is_cut(call, finished.finish_reason), resolved=resolved)
            for call in made
        ]
        inputs = {call.tool_call_id: call.arguments for call in calls}
        reason = finished.finish_reason
        # Use the AI SDK's finish reasons. An answer that was cut off keeps its reason, even if it has tool calls.
        if calls and reason not in _CUT:
            reason = "tool-calls"
        elif reason in {"tool_calls", "other"}:
            reason = "stop"
        return StepOutcome(
            parts=[
                part | {"state": "input-available", "input": inputs[part["toolCallId"]]}
                if "toolCallId" in part
                else part
                for part in self.fold.parts
            ],
            calls=calls,
            finish_reason=reason.replace("_", "-"),
            model=finished.model,
            usage=finished.usage,
            goes_on=finished.finish_reason == "pause",
        )

    def _is_cut(self, call: _Call, reason: str) -> bool:
        """Return whether this tool call may be incomplete because the answer was cut off.

        A tool call is complete if another tool call or a text follows it. If an answer was cut off, its last tool call
        counts as incomplete, even if the arguments are valid JSON: some servers close the JSON themselves. If an
        incomplete tool call ran, default values would replace the missing arguments.
        """
        is_last = call is self.saying or (self.takes_turns and self.saying is not None)
        return is_last and (reason in _CUT or (reason == "other" and call.says_nothing))


def _new_call(tools: Mapping[str, Tool], call: _Call, *, is_cut: bool, resolved: Collection[str]) -> NewCall:
    """Return the call, with its arguments parsed and checked against the tool."""
    arguments = parse_arguments(call.raw)
    tool = find_among(tools, call.tool_name)
    return NewCall(
        tool_call_id=call.tool_call_id,
        provider_call_id=call.provider_call_id,
        tool_name=call.tool_name,
        arguments={"_raw": call.raw[:4000]} if arguments is None else arguments,
        max_attempts=tool.retry.max_attempts if tool else 1,
        timeout_seconds=tool.timeout_seconds if tool else None,
        error=CUT_CALL if is_cut else _problem(tools, call, arguments),
        kind=tool.kind if tool else "sync",
        needs_approval=bool(tool and tool.needs_approval is True),
        approved_by=stored_who(tool.approved_by) if tool else "owner",
        answered_by=stored_who(tool.answered_by) if tool else "server",
        resolved=ResolvedTool(pool=tool.pool, after_crash=tool.after_death) if tool and tool.name in resolved else None,
    )


def _problem(tools: Mapping[str, Tool], call: _Call, arguments: Mapping[str, object] | None) -> str:
    tool = find_among(tools, call.tool_name)
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

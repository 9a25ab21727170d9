"""What a client of the AI SDK shows: it applies chunks by the SDK's rules, and fails where one breaks them.

Format: AI SDK, `uiMessageChunkSchema` (majors 6 and 7) and `processUIMessageStream`.
"""

from collections.abc import Iterable
from typing import Any, Self

from durable_agents.parts import Chunk, Part

TEXT = {"id": str}
CALL = {"toolCallId": str}
FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "start": ({}, {"messageId": str, "messageMetadata": dict}),
    "finish": ({}, {"finishReason": str, "messageMetadata": dict}),
    "start-step": ({}, {}),
    "finish-step": ({}, {}),
    "text-start": (TEXT, {"providerMetadata": dict}),
    "text-delta": (TEXT | {"delta": str}, {"providerMetadata": dict}),
    "text-end": (TEXT, {"providerMetadata": dict}),
    "reasoning-start": (TEXT, {"providerMetadata": dict}),
    "reasoning-delta": (TEXT | {"delta": str}, {"providerMetadata": dict}),
    "reasoning-end": (TEXT, {"providerMetadata": dict}),
    "tool-input-start": (CALL | {"toolName": str}, {}),
    "tool-input-delta": (CALL | {"inputTextDelta": str}, {}),
    "tool-input-available": (CALL | {"toolName": str, "input": object}, {}),
    "message-metadata": ({"messageMetadata": dict}, {}),
    "tool-approval-request": (CALL | {"approvalId": str}, {}),
    "tool-output-available": (CALL | {"output": object}, {"preliminary": bool}),
    "tool-output-error": (CALL | {"errorText": str}, {}),
    "tool-output-denied": (CALL, {}),
    "error": ({"errorText": str}, {}),
    "abort": ({}, {"reason": str}),
}
"""The types that both majors know, with the fields that they must and may have; the names of tools are not dynamic."""
ONLY_7: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "reset-step": ({}, {}),
    "tool-approval-response": ({"approvalId": str, "approved": bool}, {"reason": str}),
    "steering-message": ({"id": str, "parts": list}, {}),
}
REASONS_OF_7 = {"interrupted"}
REASONS = {"stop", "length", "content-filter", "tool-calls", "error", "other"}
STATES = {
    "tool-output-error": "output-error",
    "tool-output-denied": "output-denied",
    "tool-approval-request": "approval-requested",
}


class Screen:
    """One message as the client builds it from one response, beginning with what it shows already."""

    def __init__(self, parts: Iterable[Part] = (), *, knows_7: bool = False) -> None:
        self.parts: list[Part] = [dict(part) for part in parts]
        self.message_id: str | None = None
        self.metadata: dict[str, Any] = {}
        self.end: Chunk | None = None
        self.steering: list[Chunk] = []
        self._known = FIELDS | (ONLY_7 if knows_7 else {})
        self._reasons = REASONS | (REASONS_OF_7 if knows_7 else set())
        self._open: dict[str, Part] = {}
        self._used: set[str] = set()
        self._of_step: set[str] = set()
        self._is_in_step = False

    def take(self, chunks: Iterable[Chunk]) -> Self:
        """Apply chunks, in order."""
        for chunk in chunks:
            check_fields(chunk, self._known)
            assert self.end is None, "nothing follows the end"
            self._apply(chunk)
        return self

    @property
    def text(self) -> str:
        """All that is said."""
        return "".join(part["text"] for part in self.parts if part["type"] == "text")

    def tool(self) -> Part:
        """The one tool part."""
        [part] = [part for part in self.parts if "toolCallId" in part]
        return part

    def _apply(self, chunk: Chunk) -> None:
        kind = chunk["type"]
        if kind == "start":
            assert self.message_id is None, "a response is one message"
            self.message_id = chunk["messageId"]
        elif kind in {"finish", "abort", "error"}:
            assert not self._is_in_step, "a step ends before the response"
            assert not self._open, "texts end before the response"
            assert chunk.get("finishReason", "stop") in self._reasons
            self.end = chunk
        elif kind in {"start-step", "finish-step", "reset-step"}:
            self._step(kind)
        elif kind == "message-metadata":
            assert chunk["messageMetadata"].keys() == {"canDecide"}
        elif kind == "steering-message":
            assert not self._is_in_step, "it comes between steps"
            self.steering.append(chunk)
        else:
            self._part(kind, chunk)
        self.metadata |= chunk.get("messageMetadata", {})

    def _step(self, kind: str) -> None:
        assert self._is_in_step == (kind != "start-step"), "steps begin and end in turn"
        if kind == "start-step":
            self.parts.append({"type": "step-start"})
            self._of_step = set()
        elif kind == "finish-step":
            assert not self._open, "texts end before their step"
        else:
            starts = [place for place, part in enumerate(self.parts) if part["type"] == "step-start"]
            del self.parts[starts[-1] + 1 :]
            self._open.clear()
            self._used -= self._of_step
        self._is_in_step = kind != "finish-step"

    def _part(self, kind: str, chunk: Chunk) -> None:
        name, _, phase = kind.rpartition("-")
        if name in {"text", "reasoning"}:
            self._text(name, phase, chunk)
        elif kind.startswith("tool-input-"):
            self._input(kind, chunk)
        elif kind == "tool-approval-response":
            self._decision(chunk)
        else:
            self._outcome(kind, chunk)

    def _text(self, name: str, phase: str, chunk: Chunk) -> None:
        if phase == "start":
            assert self._is_in_step, "parts come within a step"
            assert chunk["id"] not in self._used, "an id is used once in a message"
            self._used.add(chunk["id"])
            self._of_step.add(chunk["id"])
            self._open[chunk["id"]] = {"type": name, "text": "", "state": "streaming"}
            self.parts.append(self._open[chunk["id"]])
            return
        part = self._open[chunk["id"]]
        part["text"] += chunk.get("delta", "")
        if phase == "end":
            self._open.pop(chunk["id"])
            part |= {"state": "done"} | ({"providerMetadata": chunk["providerMetadata"]} if len(chunk) > 2 else {})

    def _input(self, kind: str, chunk: Chunk) -> None:
        facts = {"type": f"tool-{chunk['toolName']}", "toolCallId": chunk["toolCallId"]}
        if kind == "tool-input-start":
            assert self._is_in_step, "parts come within a step"
            self.parts.append({**facts, "state": "input-streaming"})
        else:
            assert chunk["toolCallId"] in self._calls_of_step(), "version 7 looks for the part in the last step only"
            self._call(chunk).update({**facts, "state": "input-available", "input": chunk["input"]})

    def _outcome(self, kind: str, chunk: Chunk) -> None:
        part = self._call(chunk)
        part["state"] = STATES.get(kind, "output-available")
        for name in ("output", "errorText", "preliminary"):
            part.pop(name, None)
            if name in chunk:
                part[name] = chunk[name]
        if kind == "tool-approval-request":
            part["approval"] = {"id": chunk["approvalId"]}

    def _decision(self, chunk: Chunk) -> None:
        [part] = [part for part in self.parts if part.get("approval", {}).get("id") == chunk["approvalId"]]
        said = {name: chunk[name] for name in ("approved", "reason") if name in chunk}
        part |= {"state": "approval-responded", "approval": part["approval"] | said}

    def _calls_of_step(self) -> list[str]:
        begins = max(index for index, part in enumerate(self.parts) if part["type"] == "step-start")
        return [part["toolCallId"] for part in self.parts[begins:] if "toolCallId" in part]

    def _call(self, chunk: Chunk) -> Part:
        [part] = [part for part in self.parts if part.get("toolCallId") == chunk["toolCallId"]]
        return part


def check_fields(chunk: Chunk, known: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Fail for a chunk that the SDK's schema does not take, or that says more than it knows."""
    assert chunk["type"] in known, chunk
    must, may = known[chunk["type"]]
    said = {name: value for name, value in chunk.items() if name != "type"}
    assert set(must) <= set(said) <= set(must) | set(may), chunk
    for name, value in said.items():
        assert isinstance(value, (must | may)[name]), chunk

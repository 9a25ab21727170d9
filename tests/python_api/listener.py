"""A listener: what somebody shows who applies the chunks of a thread, each once, and knows nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from durable_agents.parts import Chunk, Fold, Part

ENDS = {"finish": "completed", "abort": "stopped", "error": "failed"}


@dataclass
class Listener:
    """Applies chunks by the rules of the UI message stream, and fails where one breaks them."""

    messages: dict[str, list[Part]] = field(default_factory=dict)
    fold: Fold = field(default_factory=Fold)
    status: str = ""
    is_in_step: bool = False
    cursor: str | None = None

    def take(self, news: Iterable[tuple[str, Chunk]]) -> "Listener":
        """Apply chunks in the order in which they came."""
        for cursor, chunk in news:
            self.cursor = cursor
            self._apply(chunk)
        return self

    def shown(self) -> list[tuple[str, list[Part]]]:
        """Every answer that has parts, with its id."""
        return [(name, parts) for name, parts in self.messages.items() if parts]

    def _apply(self, chunk: Chunk) -> None:
        kind = chunk["type"]
        if kind == "start":
            assert not self.is_in_step, "a step ends before another message begins"
            self.fold = Fold()
            self.messages[chunk["messageId"]] = self.fold.parts
        elif kind in ENDS:
            assert not self.is_in_step, "a step ends before the run"
            self.status = ENDS[kind]
        elif kind in {"start-step", "finish-step"}:
            assert self.is_in_step == (kind == "finish-step"), "steps begin and end in turn"
            self.is_in_step = kind == "start-step"
            self.fold.apply(chunk)
        elif kind == "reset-step":
            self._reset()
        elif kind.startswith(("tool-output-", "tool-approval-")):
            self._settle(chunk)
        else:
            assert self.is_in_step, "parts come within a step"
            self.fold.apply(chunk)

    def _reset(self) -> None:
        assert self.is_in_step, "only a step that has begun is taken back"
        starts = [place for place, part in enumerate(self.fold.parts) if part["type"] == "step-start"]
        del self.fold.parts[starts[-1] :]
        self.fold.open.clear()
        self.is_in_step = False

    def _settle(self, chunk: Chunk) -> None:
        [part] = [part for part in self.fold.parts if part.get("toolCallId") == chunk["toolCallId"]]
        kept = {name: part[name] for name in ("type", "toolCallId", "input")}
        part.clear()
        part |= kept | _settled(chunk)


def _settled(chunk: Chunk) -> dict[str, Any]:
    match chunk["type"]:
        case "tool-output-available":
            said = {name: chunk[name] for name in ("output", "preliminary") if name in chunk}
            return {"state": "output-available", **said}
        case "tool-output-error":
            return {"state": "output-error", "errorText": chunk["errorText"]}
        case "tool-output-denied":
            return {"state": "output-denied", "approval": {"id": chunk["toolCallId"], "approved": False}}
    return {"state": "approval-requested", "approval": {"id": chunk["approvalId"]}}

"""A client in Python: what a browser shows after the frames that it was sent, and nothing from anywhere else."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from durable_agents.delta_writer import Frame
from durable_agents.live.reader import Cursor
from durable_agents.parts import Chunk, Part, fold

UIMessage = dict[str, Any]
TOOL_FIELDS = {"output": "output", "error": "errorText", "preliminary": "preliminary"}


@dataclass
class Client:
    """Applies frames by the rules of the protocol, and notes what would have been shown twice."""

    messages: dict[str, UIMessage] = field(default_factory=dict)
    partial: dict[str, list[Chunk]] = field(default_factory=dict)
    message_of: dict[str, str] = field(default_factory=dict)
    next_seq: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    rev: int = 0
    status: str = ""
    stream: str = ""
    has_older: bool = False

    def take(self, frames: Iterable[Frame]) -> "Client":
        """Apply frames in the order in which they came."""
        for frame in frames:
            getattr(self, f"_{frame['type']}")(frame)
        return self

    @property
    def cursor(self) -> Cursor:
        """Where this client would go on after its connection broke."""
        return Cursor(rev=self.rev, stream=self.stream, seq=self.next_seq.get(self.stream, 0) - 1)

    def shown(self) -> list[UIMessage]:
        """The messages in order, an open answer with what has arrived of it."""
        ordered = sorted(self.messages.values(), key=lambda m: (m["position"] is None, m["position"] or 0))
        return [message | {"parts": message["parts"] + self._open_parts(message["id"])} for message in ordered]

    def _open_parts(self, message: str) -> list[Part]:
        streams = [stream for stream in self.partial if self.message_of[stream] == message]
        return [part for stream in streams for part in fold(self.partial[stream])]

    def _snapshot(self, frame: Frame) -> None:
        self.messages = {message["id"]: message for message in frame["messages"]}
        self.partial, self.next_seq, self.has_older = {}, {}, frame["hasOlder"]
        self.rev, self.status = frame["rev"], frame["status"]
        for entry in frame["streams"]:
            self.stream = entry["stream"]
            self.next_seq[entry["stream"]] = entry["seq"] + 1
            self._take_partial_out(entry)

    def _take_partial_out(self, entry: dict[str, Any]) -> None:
        """The last step of the open answer is what its deltas have said: keep it apart, as the deltas to come."""
        self.message_of[entry["stream"]] = entry["message"]
        self.partial[entry["stream"]] = []
        message = self.messages[entry["message"]]
        if entry["seq"] < 0:
            return
        starts = [place for place, part in enumerate(message["parts"]) if part["type"] == "step-start"]
        step = message["parts"][starts[-1] :]
        self.messages[entry["message"]] = message | {"parts": message["parts"][: starts[-1]]}
        self.partial[entry["stream"]] = unfolded(step)

    @property
    def lacks(self) -> dict[str, int]:
        """What this client would ask for to see what is before all that it shows."""
        oldest = min((m for m in self.messages.values() if m["position"] is not None), key=lambda m: m["position"])
        return {"before": oldest["position"], "steps": oldest.get("omitted", 0)}

    def _page(self, frame: Frame) -> None:
        for message in frame["messages"]:
            known = self.messages.get(message["id"])
            assert known is None or known.get("omitted"), "nothing comes twice"
            later = known["parts"] if known else []
            self.messages[message["id"]] = message | {"parts": message["parts"] + later}
        self.has_older = frame["hasOlder"]

    def _resumed(self, frame: Frame) -> None:
        assert frame["rev"] == self.rev

    def _thread(self, frame: Frame) -> None:
        assert frame["rev"] >= self.rev
        self.rev, self.status = frame["rev"], frame["status"]

    def _message(self, frame: Frame) -> None:
        self._see(frame)
        message = frame["message"]
        known = self.messages.get(message["id"], message)
        self.messages[message["id"]] = message | {"parts": message["parts"] or known["parts"]}

    def _removed(self, frame: Frame) -> None:
        self._see(frame)
        for message in frame["ids"]:
            self.messages.pop(message, None)

    def _step(self, frame: Frame) -> None:
        self._end(frame)
        self.messages[frame["message"]]["parts"] = [*self.messages[frame["message"]]["parts"], *frame["parts"]]

    def _stream(self, frame: Frame) -> None:
        assert frame["status"] in {"aborted", "failed", "superseded"}
        self._end(frame)

    def _end(self, frame: Frame) -> None:
        self._see(frame)
        assert frame["stream"] not in self.ended, "a stream ends once"
        self.ended.add(frame["stream"])
        self.partial.pop(frame["stream"], None)

    def _tool(self, frame: Frame) -> None:
        self._see(frame)
        [part] = [
            part
            for message in self.messages.values()
            for part in message["parts"]
            if part.get("toolCallId") == frame["tool_call_id"]
        ]
        part["state"] = "output-available" if "preliminary" in frame else STATES[frame["status"]]
        for name, target in TOOL_FIELDS.items():
            part.pop(target, None)
            if name in frame:
                part[target] = frame[name]

    def _delta(self, frame: Frame) -> None:
        stream = frame["stream"]
        assert stream not in self.ended, "no delta comes after the end of its stream"
        assert frame["seq"] == self.next_seq.get(stream, 0), "deltas come in order, each once"
        assert frame["message"] in self.messages, "a delta comes after its message"
        self.stream, self.next_seq[stream] = stream, frame["seq"] + 1
        self.message_of[stream] = frame["message"]
        self.partial.setdefault(stream, []).extend(frame["chunks"])

    def _see(self, frame: Frame) -> None:
        """Durable changes come in order, each once."""
        assert frame["rev"] > self.rev
        self.rev = frame["rev"]


STATES = {
    "completed": "output-available",
    "failed": "output-error",
    "cancelled": "output-error",
    "unknown": "output-error",
    "pending": "input-available",
    "running": "input-available",
}


def unfolded(parts: list[Part]) -> list[Chunk]:
    """Return chunks that fold into these parts of an open step."""
    chunks: list[Chunk] = [{"type": "start-step"}]
    for part in parts[1:]:
        chunks += [{"type": "text-start", "id": "t"}, {"type": "text-delta", "id": "t", "delta": part["text"]}]
    return chunks

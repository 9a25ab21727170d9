"""Add to frames what depends on the viewer: the senders of messages, and which approvals the viewer can decide.

A frame is read once for all viewers of a thread, without this information. Only the few frames that need the
information are copied and serialized for each viewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from durable_agents.actors import User
from durable_agents.delta_writer import Frame
from durable_agents.live.encoded_frame import EncodedFrame
from durable_agents.logs import log_error
from durable_agents.models import Thread, ToolCall
from durable_agents.parts import Part
from durable_agents.policies import Asker
from durable_agents.reading import PersonalView, waiting_parts
from durable_agents.transcript import UIMessage, with_sender


@dataclass(kw_only=True)
class Facts:
    """The senders of messages and the waiting approvals that occur in frames of one thread.

    ``senders`` contains the senders by message id. ``calls`` contains the tool calls that wait for an approval, by tool
    call id.
    """

    thread: Thread | None = None
    senders: dict[str, User] = field(default_factory=dict)
    calls: dict[str, ToolCall] = field(default_factory=dict)

    def concern(self, frame: Frame) -> bool:
        """Return whether this frame may differ between viewers."""
        if frame["type"] == "message":
            return frame["message"]["id"] in self.senders
        if frame["type"] == "step":
            return any(part["toolCallId"] in self.calls for part in waiting_parts(frame["parts"]))
        if frame["type"] == "tool":
            return frame["tool_call_id"] in self.calls
        return "messages" in frame and bool(self.senders or self.calls)


class PersonalFrames:
    """Makes the frames for one viewer. The methods are synchronous and may use the ORM."""

    def __init__(self, asker: Asker, facts: Facts) -> None:
        self._facts = facts
        self._view = None if facts.thread is None else PersonalView(asker, facts.thread)

    def all(self, frames: Iterable[EncodedFrame]) -> list[EncodedFrame]:
        """Return the frames for the viewer. Frames that do not depend on the viewer stay the same objects."""
        return [EncodedFrame(self.of(one.frame)) if self._facts.concern(one.frame) else one for one in frames]

    def of(self, frame: Frame) -> Frame:
        """Return the frame for the viewer. If the policy fails, log the error and return the frame unchanged."""
        if self._view is None or not self._facts.concern(frame):
            return frame
        try:
            return self._personal(frame, self._view)
        except Exception:
            log_error("the policy failed: a frame names no people", action="personal_frame", thread=frame["thread"])
            return frame

    def _personal(self, frame: Frame, view: PersonalView) -> Frame:
        if frame["type"] == "message":
            return frame | {"message": self._message(frame["message"], view)}
        if frame["type"] == "step":
            return frame | {"parts": self._parts(frame["parts"], view)}
        if frame["type"] == "tool":
            may_decide = view.can_decide(self._facts.calls[frame["tool_call_id"]])
            return frame | {"approval": frame["approval"] | {"canDecide": may_decide}}
        return frame | {"messages": [self._message(message, view) for message in frame["messages"]]}

    def _message(self, message: UIMessage, view: PersonalView) -> UIMessage:
        sender = self._facts.senders.get(message["id"])
        shown = message if sender is None else with_sender(message, view.person(sender))
        return shown | {"parts": self._parts(message["parts"], view)}

    def _parts(self, parts: Sequence[Part], view: PersonalView) -> list[Part]:
        found = list(parts)
        for number, part in enumerate(parts):
            call = self._facts.calls.get(part.get("toolCallId", ""))
            if call is not None and part.get("state") == "approval-requested":
                found[number] = part | {"approval": part["approval"] | {"canDecide": view.can_decide(call)}}
        return found

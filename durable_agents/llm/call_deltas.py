"""Assemble the tool calls of a step from the deltas of any server that speaks OpenAI's format, more or less.

In OpenAI's own streams a call begins with its id and name at an index of its own, and its arguments follow in pieces
at that index. Other servers give no index or the same one to every call, no id or the same one, the name after the id,
in pieces or with every piece, and an empty object before the real arguments. litellm's ``stream_chunk_builder`` loses
calls without ids and merges those that share an index.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from durable_agents.llm.types import CallArguments, CallStarted
from durable_agents.parts import parse_arguments, says_nothing


@dataclass(frozen=True, kw_only=True)
class CallDelta:
    """The fields of one delta of a call. An index below 0 means none; an empty text means that the field is missing."""

    index: int
    call_id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True)
class ToolNames:
    """Names of the tools that the model was given: they distinguish the pieces of one name from two names."""

    known: Collection[str] = ()

    def __contains__(self, name: str) -> bool:
        return name in self.known

    def has_beginning(self, text: str) -> bool:
        """Return whether a name begins with this text."""
        return any(name.startswith(text) for name in self.known)

    def joined(self, name: str, more: str) -> str:
        """Return the name with one more delta of it: a piece, or the whole name again."""
        if more == name and not (name not in self and self.has_beginning(name + more)):
            return name
        grows = bool(name) and more.startswith(name) and not self.has_beginning(name + more)
        return more if grows and self.has_beginning(more) else name + more


@dataclass
class Call:
    """A call as far as it is known."""

    call_id: str
    name: str = ""
    raw: str = ""
    is_begun: bool = False
    """Whether the event that begins it was emitted, so that its name is fixed."""
    sent: int = 0
    """How much of its arguments was emitted."""

    @property
    def is_whole(self) -> bool:
        """Whether its arguments may be complete: they are a JSON object, or what stands for an empty one."""
        if self.is_placeholder:
            return True
        ends = '"' if self.raw.lstrip().startswith('"') else "}"
        return self.raw.rstrip().endswith(ends) and parse_arguments(self.raw) is not None

    @property
    def is_over(self) -> bool:
        """Whether its arguments are complete and the real ones."""
        return not self.is_placeholder and self.is_whole

    @property
    def is_placeholder(self) -> bool:
        """Whether its arguments may be a placeholder."""
        return bool(self.raw.strip()) and says_nothing(self.raw)

    def has_other_id(self, delta: CallDelta) -> bool:
        """Return whether the ids of the call and of a delta differ."""
        return bool(delta.call_id and self.call_id and delta.call_id != self.call_id)


class CallDeltas:
    """Turns deltas into events, which number the calls of a step in their order."""

    def __init__(self, known_names: Collection[str] = ()) -> None:
        self.names = ToolNames(known_names)
        self.calls: list[Call] = []
        self.latest: dict[int, Call] = {}
        """The latest call at each index."""
        self.named: dict[int, Call] = {}
        """Names received at an index whose call already has its arguments: a repeated name, or the start of a new
        call."""

    def take(self, deltas: list[CallDelta]) -> list[CallStarted | CallArguments]:
        """Return the events of the deltas of one chunk."""
        seen: set[int] = set()
        for delta in deltas:
            call, is_beside = self._call_of(delta), delta.index in seen
            seen.add(delta.index)
            if call is not None and not is_beside and only_names(delta, call):
                named = self.named.setdefault(delta.index, Call(call_id=delta.call_id))
                named.name = self.names.joined(named.name, delta.name)
                continue
            if delta.index in self.named:
                call = self._add(delta.index, self.named.pop(delta.index))
            elif call is None or begins_call(delta, call, self.names, is_beside=is_beside):
                call = self._add(delta.index, Call(call_id=delta.call_id))
            call.call_id = call.call_id or delta.call_id
            if delta.name and not call.is_begun:
                call.name = self.names.joined(call.name, delta.name)
            if delta.arguments.strip() and call.is_placeholder and call.sent == 0:
                call.raw = ""
            if not (says_nothing(delta.arguments) and call.is_over):
                call.raw += delta.arguments
        return self._events()

    def text_follows(self) -> list[CallStarted | CallArguments]:
        """Return the events that were held back for calls that a text follows: they are complete."""
        self._open_named()
        return self._events(is_closed=True)

    def close(self) -> list[CallStarted | CallArguments]:
        """Return all events that were held back because more might have come. Calls without any content are dropped."""
        self._open_named()
        self.calls = [call for call in self.calls if call.is_begun or call.name or call.call_id or call.raw.strip()]
        return self._events(is_closed=True, is_over=True)

    def _call_of(self, delta: CallDelta) -> Call | None:
        """Return the call to which this piece belongs if it begins no other: the latest one at its index or, where
        there is no index and several calls are interleaved, the one with its id.
        """
        if delta.index < 0 and delta.call_id and not delta.name:
            for call in self.calls:
                if call.call_id == delta.call_id:
                    return call
        return self.latest.get(delta.index)

    def _add(self, index: int, call: Call) -> Call:
        self.calls.append(call)
        self.latest[index] = call
        return call

    def _open_named(self) -> None:
        """Add the calls in ``named``, since no arguments follow. A name that equals that of the latest call at its
        index only repeats it, and adds no call.
        """
        for index, named in self.named.items():
            if named.name != self.latest[index].name:
                self._add(index, named)
        self.named.clear()

    def _events(self, *, is_closed: bool = False, is_over: bool = False) -> list[CallStarted | CallArguments]:
        """Return the events that may be emitted: call after call, so that their numbers are their order. ``is_closed``
        says that the last call is complete, too; ``is_over`` that nothing more comes at all.
        """
        events: list[CallStarted | CallArguments] = []
        for number, call in enumerate(self.calls):
            closed = is_closed or number < len(self.calls) - 1
            # A name is complete if another call or a text follows, or, after a tool's name, arguments do.
            has_name = bool(call.name) if closed else bool(call.raw) and call.name in self.names
            if not (call.is_begun or is_over or has_name):
                break
            if not call.is_begun:
                call.is_begun = True
                events.append(CallStarted(index=number, provider_call_id=call.call_id, tool_name=call.name))
            if len(call.raw) > call.sent and (closed or not call.is_placeholder):
                events.append(CallArguments(index=number, text=call.raw[call.sent :]))
                call.sent = len(call.raw)
        return events


def only_names(delta: CallDelta, call: Call) -> bool:
    """Return whether the delta has only a name, and the call already has its arguments. If arguments follow, the name
    began another call; some servers repeat the name with every piece, including an empty last one.
    """
    has_only_name = bool(delta.name and call.name) and not delta.arguments.strip()
    return has_only_name and not call.has_other_id(delta) and call.is_over


def begins_call(delta: CallDelta, call: Call, names: ToolNames, *, is_beside: bool) -> bool:
    """Return whether the delta begins another call than the latest one at its index. ``is_beside`` says that the same
    chunk already contained a delta for this index.
    """
    is_other = call.has_other_id(delta)
    if not delta.name:
        # Some servers give each piece a new id; it continues the arguments of the same call.
        return is_other and (not delta.arguments or call.is_over)
    if is_other:
        return bool(call.name) or call.is_whole
    argues, has_argued = bool(delta.arguments.strip()), bool(call.raw.strip())
    if not call.name:
        return argues and call.is_over
    if has_argued and not call.is_whole:
        return False
    if argues and has_argued:
        return is_beside or not replaces_placeholder(delta, call, names)
    return begins_by_name(delta, call, names, is_beside=is_beside)


def replaces_placeholder(delta: CallDelta, call: Call, names: ToolNames) -> bool:
    """Return whether these are the real arguments of a call that began with a placeholder, although its id and name are
    repeated. A complete object belongs to another call, since some servers give one id to all.
    """
    if not call.is_placeholder:
        return False
    is_whole = Call(call_id="", raw=delta.arguments).is_whole
    is_same = bool(delta.call_id) and delta.name == call.name and not is_whole
    return is_same or names.has_beginning(call.name + delta.name)


def begins_by_name(delta: CallDelta, call: Call, names: ToolNames, *, is_beside: bool) -> bool:
    """Return whether the delta's name begins another call than one that has a name, where at most one of the two has
    arguments. Otherwise it is a further piece of that name, or repeats it.
    """
    argues, has_argued = bool(delta.arguments.strip()), bool(call.raw.strip())
    is_piece = names.has_beginning(call.name + delta.name)
    if is_beside:
        # Of two deltas in one chunk the second continues a name that is not a tool's yet, or becomes another tool's;
        # or it repeats the name, and exactly one of the two has arguments: the second only if it has an id.
        grows = call.name not in names and delta.name.startswith(call.name) and delta.name != call.name
        repeats = delta.name == call.name and bool(delta.call_id or argues) and argues != has_argued
        if not repeats and (has_argued or not (grows or is_piece)):
            return True
    if delta.name == call.name:
        # Without an index, only a name marks the beginning of a call.
        return delta.index < 0 and not delta.call_id and not argues
    return delta.name in names and not (delta.name.startswith(call.name) or is_piece)

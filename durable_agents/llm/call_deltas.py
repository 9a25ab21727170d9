"""Assemble the tool calls of an answer from their deltas, even if the server deviates from OpenAI's format.

In OpenAI's own streams, each call has its own index. The first delta of a call has the id and the name. The arguments
follow in pieces, with the same index. Other servers deviate in several ways:

- The index is missing, or all calls have the same index.
- The id is missing, or all calls have the same id.
- The name comes after the id, in pieces, or again with every piece of the arguments.
- An empty object comes before the real arguments.

litellm's ``stream_chunk_builder`` is not used for tool calls, because it loses tool calls without ids and merges tool
calls that share an index.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from durable_agents.llm.types import CallArguments, CallStarted
from durable_agents.parts import parse_arguments, says_nothing


@dataclass(frozen=True, kw_only=True)
class CallDelta:
    """One delta of a tool call. A missing index is negative. Any other missing field is an empty string."""

    index: int
    call_id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True)
class ToolNames:
    """The names of the tools in the request. They show whether two pieces of text are one tool name or two."""

    known: Collection[str] = ()

    def __contains__(self, name: str) -> bool:
        return name in self.known

    def has_beginning(self, text: str) -> bool:
        """Return whether a tool's name begins with this text."""
        return any(name.startswith(text) for name in self.known)

    def joined(self, name: str, more: str) -> str:
        """Add one more piece to a tool name, and return the result.

        Some servers send the name again, alone or with more characters. In this case, ``more`` replaces ``name``.
        Otherwise, ``more`` is appended to ``name``.
        """
        if more == name and not (name not in self and self.has_beginning(name + more)):
            return name
        grows = bool(name) and more.startswith(name) and not self.has_beginning(name + more)
        return more if grows and self.has_beginning(more) else name + more


@dataclass
class Call:
    """A tool call with the fields that have arrived so far."""

    call_id: str
    name: str = ""
    raw: str = ""
    is_begun: bool = False
    """Whether ``CallStarted`` was emitted for the call. If so, the call's name cannot change any more."""
    sent: int = 0
    """How many characters of the arguments were emitted."""

    @property
    def is_whole(self) -> bool:
        """Whether the arguments might be complete: they are a JSON object or an empty placeholder."""
        if self.is_placeholder:
            return True
        ends = '"' if self.raw.lstrip().startswith('"') else "}"
        return self.raw.rstrip().endswith(ends) and parse_arguments(self.raw) is not None

    @property
    def is_over(self) -> bool:
        """Whether the arguments are complete and are not an empty placeholder."""
        return not self.is_placeholder and self.is_whole

    @property
    def is_placeholder(self) -> bool:
        """Whether the arguments might be the empty placeholder that some servers send before the real arguments."""
        return bool(self.raw.strip()) and says_nothing(self.raw)

    def has_other_id(self, delta: CallDelta) -> bool:
        """Return whether the call and the delta have different ids."""
        return bool(delta.call_id and self.call_id and delta.call_id != self.call_id)


class CallDeltas:
    """Turns deltas of tool calls into events. In the events, the tool calls of an answer are numbered from 0."""

    def __init__(self, known_names: Collection[str] = ()) -> None:
        self.names = ToolNames(known_names)
        self.calls: list[Call] = []
        self.latest: dict[int, Call] = {}
        """The latest call at each index."""
        self.named: dict[int, Call] = {}
        """Possible new calls, by index. For each of them, only a name has arrived, after the latest call at the same
        index was complete. It is not known yet whether the name begins a new call or repeats the latest call's name.
        """

    def take(self, deltas: list[CallDelta]) -> list[CallStarted | CallArguments]:
        """Return the events for the deltas of one chunk."""
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
        """Return the events that were held back until now.

        Call this method when text arrives. The text shows that all earlier tool calls are complete.
        """
        self._open_named()
        return self._events(is_closed=True)

    def close(self) -> list[CallStarted | CallArguments]:
        """Return all events that were held back until now, and drop calls without content.

        Call this method when no more deltas follow.
        """
        self._open_named()
        self.calls = [call for call in self.calls if call.is_begun or call.name or call.call_id or call.raw.strip()]
        return self._events(is_closed=True, is_over=True)

    def _call_of(self, delta: CallDelta) -> Call | None:
        """Return the tool call that the delta might continue, or None.

        A delta that has an id, but no index and no name, continues the tool call with the same id, if there is one.
        Any other delta may continue the latest tool call at its index.
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
        """Turn the names in ``named`` into tool calls, because no arguments will follow for these names.

        Drop a name if the latest tool call at the same index has the same name. The server has only repeated the name.
        """
        for index, named in self.named.items():
            if named.name != self.latest[index].name:
                self._add(index, named)
        self.named.clear()

    def _events(self, *, is_closed: bool = False, is_over: bool = False) -> list[CallStarted | CallArguments]:
        """Return the events that may be emitted now, in the order of the tool calls.

        ``is_closed`` means that the last tool call is complete. All other tool calls are always complete. ``is_over``
        means that no more deltas follow.
        """
        events: list[CallStarted | CallArguments] = []
        for number, call in enumerate(self.calls):
            closed = is_closed or number < len(self.calls) - 1
            # A name is complete when another tool call or text follows. The name of a known tool is also complete when
            # arguments follow.
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
    """Return whether the delta has only a name, and comes after the complete arguments of ``call``.

    Only what follows shows whether the name begins a new tool call or repeats the name of ``call``.
    """
    has_only_name = bool(delta.name and call.name) and not delta.arguments.strip()
    return has_only_name and not call.has_other_id(delta) and call.is_over


def begins_call(delta: CallDelta, call: Call, names: ToolNames, *, is_beside: bool) -> bool:
    """Return whether the delta begins a new tool call. If not, the delta continues ``call``.

    ``is_beside`` is true if the delta's chunk contains another, earlier delta with the same index.
    """
    is_other = call.has_other_id(delta)
    if not delta.name:
        # Some servers send each piece of the arguments with a new id and without a name. Such a piece continues the
        # call.
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
    """Return whether ``call`` has only an empty placeholder so far, and the delta has its real arguments.

    If not, the delta begins a new tool call. The id alone does not decide this, because some servers give all tool
    calls the same id.
    """
    if not call.is_placeholder:
        return False
    is_whole = Call(call_id="", raw=delta.arguments).is_whole
    is_same = bool(delta.call_id) and delta.name == call.name and not is_whole
    return is_same or names.has_beginning(call.name + delta.name)


def begins_by_name(delta: CallDelta, call: Call, names: ToolNames, *, is_beside: bool) -> bool:
    """Return whether the name in the delta begins a new tool call. If not, it continues or repeats ``call.name``.

    Call this only if ``call`` has a name, and if ``call`` and ``delta`` do not both have arguments.
    """
    argues, has_argued = bool(delta.arguments.strip()), bool(call.raw.strip())
    is_piece = names.has_beginning(call.name + delta.name)
    if is_beside:
        # A second delta with the same index in one chunk usually begins a new tool call. There are two exceptions.
        # First exception: the delta extends the name of ``call``, and ``call`` has no arguments yet.
        grows = call.name not in names and delta.name.startswith(call.name) and delta.name != call.name
        # Second exception: the delta repeats the name of ``call``, and only one of ``call`` and delta has arguments.
        repeats = delta.name == call.name and bool(delta.call_id or argues) and argues != has_argued
        if not repeats and (has_argued or not (grows or is_piece)):
            return True
    if delta.name == call.name:
        # A repeated name without index, id and arguments begins a second call of the same tool.
        return delta.index < 0 and not delta.call_id and not argues
    return delta.name in names and not (delta.name.startswith(call.name) or is_piece)

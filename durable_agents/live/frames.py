"""Parse the frames that a websocket client sends into frozen dataclasses.

``static/durable_agents/websocket.schema.json`` describes the frames. All ``invalid_frame`` errors come from this
module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Annotated, Any, ClassVar, get_type_hints

from durable_agents import strictjson
from durable_agents.exceptions import InvalidFrameError, InvalidPartsError, UnknownFrameTypeError
from durable_agents.live.reader import Cursor
from durable_agents.parts import Part


@dataclass(frozen=True, kw_only=True)
class FieldRule:
    """A rule for one field: which values are accepted, how they are converted, and how an error describes them."""

    expected: str
    accepts: Callable[[Any], bool]
    convert: Callable[[Any], object] = lambda value: value
    wire_name: str | None = None
    """The field's name in the JSON, if it differs from the name in Python."""
    error: type[InvalidFrameError | InvalidPartsError] = InvalidFrameError

    def or_null(self) -> FieldRule:
        """Return a rule that also accepts null."""
        return replace(
            self,
            expected=f"{self.expected} or null",
            accepts=lambda value: value is None or self.accepts(value),
            convert=lambda value: None if value is None else self.convert(value),
        )

    def named(self, wire_name: str) -> FieldRule:
        """Return a copy of the rule for a field with this name in the JSON."""
        return replace(self, wire_name=wire_name)


def _is_whole(value: object) -> bool:
    """Return whether the value is an integer as JSON Schema defines it: 1.0 is an integer, true is not."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _is_request_id(value: object) -> bool:
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))


def _is_cursor(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _is_whole(value.get("rev"))
        and isinstance(value.get("stream"), str | None)
        and (value.get("seq") is None or _is_whole(value["seq"]))
    )


def _cursor(value: Mapping[str, Any]) -> Cursor:
    seq = value.get("seq")
    return Cursor(rev=int(value["rev"]), stream=value.get("stream") or "", seq=-1 if seq is None else int(seq))


_TEXT = FieldRule(expected="a text", accepts=lambda value: isinstance(value, str))
_WHOLE = FieldRule(expected="a whole number", accepts=_is_whole, convert=int)
_OBJECT = FieldRule(expected="an object", accepts=lambda value: isinstance(value, dict))
_FLAG = FieldRule(expected="true or false", accepts=lambda value: isinstance(value, bool))
_ERROR = FieldRule(
    expected="a text that is not empty", accepts=lambda value: isinstance(value, str) and bool(value.strip())
)
_STREAM = FieldRule(
    expected="the id of a stream", accepts=lambda value: isinstance(value, str) and strictjson.is_uuid(value)
)
_CURSOR = FieldRule(expected="an object with 'rev', and maybe 'stream' and 'seq'", accepts=_is_cursor, convert=_cursor)
_REQUEST_ID = FieldRule(expected="a text, a number or null", accepts=_is_request_id)
_PARTS = FieldRule(expected="a list of parts", accepts=lambda value: isinstance(value, list), error=InvalidPartsError)

Text = Annotated[str, _TEXT]
OptionalText = Annotated[str | None, _TEXT.or_null()]
Whole = Annotated[int, _WHOLE]
JSONObject = dict[str, object]
OptionalObject = Annotated[JSONObject | None, _OBJECT.or_null()]


_ADDRESS = frozenset({"id", "thread", "key"})
"""Fields that identify a command, its thread and its reply. They do not say what the command does."""


@dataclass(frozen=True, kw_only=True)
class ClientFrame:
    """The base class of the frames that a client sends. Every frame may have an ``id``, which the reply repeats."""

    type: ClassVar[str]

    id: Annotated[str | float | None, _REQUEST_ID] = None

    @classmethod
    def rules(cls) -> dict[str, tuple[FieldRule, bool]]:
        """Return each field's rule, and whether the field is required."""
        hints = get_type_hints(cls, include_extras=True)
        return {
            item.name: (next(iter(getattr(hints[item.name], "__metadata__", ())), _ANYTHING), item.default is MISSING)
            for item in fields(cls)
        }


@dataclass(frozen=True, kw_only=True)
class Hello(ClientFrame):
    """The first frame of a client.

    The parser accepts any version and ticket. The consumer checks them, so that it can close the websocket with a
    specific code.
    """

    type = "hello"

    version: object = 1
    ticket: object = None


@dataclass(frozen=True, kw_only=True)
class Ping(ClientFrame):
    """Requests a ``pong`` frame."""

    type = "ping"

    t: object = None


@dataclass(frozen=True, kw_only=True)
class ThreadFrame(ClientFrame):
    """A frame about one thread. ``thread`` is the thread's primary key, or the ``client_id`` that the client chose."""

    thread: Text


@dataclass(frozen=True, kw_only=True)
class Subscribe(ThreadFrame):
    """Subscribes to a thread. With a cursor, the server sends the changes since the cursor.

    Without a cursor, the server sends a snapshot of the last ``tail`` messages.
    """

    type = "subscribe"

    cursor: Annotated[Cursor | None, _CURSOR.or_null()] = None
    tail: Whole = 50


@dataclass(frozen=True, kw_only=True)
class Unsubscribe(ThreadFrame):
    """Ends a subscription. ``thread`` is the same id as in the ``subscribe`` frame."""

    type = "unsubscribe"


@dataclass(frozen=True, kw_only=True)
class Fill(ThreadFrame):
    """Requests the deltas (pieces) ``first`` to ``last`` of a streamed answer, inclusive."""

    type = "fill"

    stream: Annotated[str, _STREAM]
    first: Annotated[int, _WHOLE.named("from")]
    last: Annotated[int | None, _WHOLE.or_null().named("to")] = None


@dataclass(frozen=True, kw_only=True)
class Older(ThreadFrame):
    """Requests messages from before a position in the thread."""

    type = "older"

    before: Whole
    limit: Whole = 50
    steps: Whole = 0


@dataclass(frozen=True, kw_only=True)
class ClientCommand(ThreadFrame):
    """The base class of frames that change something. A command with an idempotency ``key`` runs only once."""

    key: OptionalText = None

    @property
    def content(self) -> JSONObject:
        """The fields that say what the command does. When a client repeats a command, these fields must be the same."""
        content = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _ADDRESS}
        # Leave out default values, because a client may send them the first time and omit them when it repeats the
        # command.
        defaults = {item.name: item.default for item in fields(self)}
        return {name: value for name, value in content.items() if value != defaults[name]}


@dataclass(frozen=True, kw_only=True)
class MessageCommand(ClientCommand):
    """The base class of commands that contain a user message."""

    prompt: OptionalText = None
    parts: Annotated[list[Part] | None, _PARTS.or_null()] = None
    metadata: Annotated[JSONObject | None, replace(_OBJECT.or_null(), error=InvalidPartsError)] = None


@dataclass(frozen=True, kw_only=True)
class Send(MessageCommand):
    """Sends a user message."""

    type = "send"

    client_id: OptionalText = None


@dataclass(frozen=True, kw_only=True)
class Edit(MessageCommand):
    """Replaces a user message."""

    type = "edit"

    message: Text


@dataclass(frozen=True, kw_only=True)
class Stop(ClientCommand):
    """Stops a run."""

    type = "stop"


@dataclass(frozen=True, kw_only=True)
class Resume(ClientCommand):
    """Continues a thread that is not running: sends ``prompt`` as a new message, or retries a stopped or failed run."""

    type = "resume"

    prompt: OptionalText = None


@dataclass(frozen=True, kw_only=True)
class Regenerate(ClientCommand):
    """Regenerates the last answer, or the answer that ``message`` names."""

    type = "regenerate"

    message: OptionalText = None


@dataclass(frozen=True, kw_only=True)
class ToolCallCommand(ClientCommand):
    """The base class of commands about one tool call."""

    tool_call_id: Text


@dataclass(frozen=True, kw_only=True)
class AddToolResult(ToolCallCommand):
    """Adds the result of a tool call. The result may be any JSON value."""

    type = "tool_result"

    result: object


@dataclass(frozen=True, kw_only=True)
class AddToolError(ToolCallCommand):
    """Adds the error of a tool call."""

    type = "tool_error"

    error: Annotated[str, _ERROR]


@dataclass(frozen=True, kw_only=True)
class Reject(ToolCallCommand):
    """Refuses a tool call that needs approval."""

    type = "reject"

    reason: OptionalText = None


@dataclass(frozen=True, kw_only=True)
class Approve(ToolCallCommand):
    """Approves a tool call, or refuses it if ``approved`` is false. ``arguments`` replaces the model's arguments."""

    type = "approve"

    approved: Annotated[bool, _FLAG] = True
    arguments: OptionalObject = None
    reason: OptionalText = None


_ALL: list[type[ClientFrame]] = [
    *(Hello, Ping, Subscribe, Unsubscribe, Fill, Older),
    *(Send, Edit, Stop, Resume, Regenerate, AddToolResult, AddToolError, Approve, Reject),
]
FRAMES = {frame_type.type: frame_type for frame_type in _ALL}
"""The frames that a client can send, by type."""


def parse(payload: Mapping[str, object]) -> ClientFrame:
    """Parse a JSON object that a client sent, and return its frame. Unknown fields are ignored.

    Raises UnknownFrameTypeError, InvalidFrameError and InvalidPartsError.
    """
    name = payload.get("type")
    frame_type = FRAMES.get(name) if isinstance(name, str) else None
    if frame_type is None:
        raise UnknownFrameTypeError(name)
    values = {}
    for field_name, (rule, is_required) in _RULES[frame_type.type].items():
        wire_name = rule.wire_name or field_name
        if wire_name not in payload:
            if is_required:
                raise InvalidFrameError(f"{wire_name!r} is missing.")
        elif rule.accepts(payload[wire_name]):
            values[field_name] = rule.convert(payload[wire_name])
        else:
            raise rule.error(f"{wire_name!r} must be {rule.expected}.")
    return frame_type(**values)  # type: ignore[arg-type]  # each value has passed its field's rule


def address(payload: Mapping[str, object]) -> JSONObject:
    """Return the ``id`` and ``thread`` of a frame, which the reply repeats. Invalid values become None."""
    request_id, thread = payload.get("id"), payload.get("thread")
    return {
        "id": request_id if _is_request_id(request_id) else None,
        "thread": thread if isinstance(thread, str) else None,
    }


_ANYTHING = FieldRule(expected="anything", accepts=lambda _: True)
# Resolve the type hints only once. Resolving them takes longer than parsing a frame.
_RULES = {frame_type.type: frame_type.rules() for frame_type in _ALL}

"""The same answers in the wire formats of three providers, so that a promise is tested for each of them."""

from collections.abc import Callable
from dataclasses import dataclass

from demo_project.model_server import Body
from tests.llm.wire import (
    DONE,
    GEMINI_USAGE,
    Wire,
    anthropic_ending,
    anthropic_event,
    anthropic_opening,
    call,
    call_block,
    gemini_event,
    says,
    stop,
    text_block,
)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """A provider's wire format: pieces of a streamed body, and the body of an error."""

    model: str
    path: str
    """What its address ends in; the library adds the rest."""
    opening: tuple[str, ...]
    text: tuple[str, ...]
    """Says "One two."."""
    called: tuple[str, ...]
    """Calls ``add`` with {"a": 1, "b": 2}; the arguments come in pieces where the provider sends pieces."""
    garbled: str
    """A chunk that is no JSON."""
    failure: str
    """An error in the middle of a stream."""
    ending: Callable[[str], tuple[str, ...]]
    """The end of an answer, by the provider's own word for its reason."""
    stop: str
    calls: str
    """The provider's words for the end of a text, and for the end of calls."""
    error: Callable[[str, str], Body]
    """The error object of a refusal, of a type and with a message."""

    def whole(self, *pieces: str, reason: str = "") -> Wire:
        """Return an answer with its proper beginning and end."""
        return Wire(pieces=(*self.opening, *pieces, *self.ending(reason or self.stop)))

    def broken(self, *pieces: str, ending: str = "whole") -> Wire:
        """Return an answer with its proper beginning and no end."""
        return Wire(pieces=(*self.opening, *pieces), ending=ending)

    def settings(self, url: str) -> dict[str, str]:
        """Return the settings with which its calls reach the server at `url`."""
        return {"api_base": url.removesuffix("/v1") + self.path}


OPENAI = Dialect(
    model="openai/x",
    path="/v1",
    opening=(),
    text=says("One ", "two."),
    called=(call(id="call_1", name="add", arguments='{"a": 1'), call(arguments=', "b": 2}')),
    garbled='data: {"choices": [{"delta": nonsense\n\n',
    failure='data: {"error": {"message": "overloaded", "type": "server_error", "code": 500}}\n\n',
    ending=lambda reason: (stop(reason), DONE),
    stop="stop",
    calls="tool_calls",
    error=lambda kind, message: {
        "type": "server_error" if kind == "error" else "invalid_request_error",
        "code": kind,
        "message": message,
    },
)
ANTHROPIC = Dialect(
    model="anthropic/claude-sonnet-4-5",
    path="",
    opening=(anthropic_opening(),),
    text=text_block("One ", "two.").events(0),
    called=call_block('{"a": 1', ', "b": 2}', call_id="toolu_1", name="add").events(0),
    garbled='event: content_block_delta\ndata: {"type": "content_block_delta", nonsense\n\n',
    failure=anthropic_event("error", error={"type": "overloaded_error", "message": "Overloaded"}),
    ending=anthropic_ending,
    stop="end_turn",
    calls="tool_use",
    error=lambda kind, message: {"type": kind, "message": message},
)
GEMINI = Dialect(
    model="gemini/gemini-3-pro-preview",
    path="",
    opening=(),
    text=(gemini_event({"text": "One "}), gemini_event({"text": "two."})),
    called=(gemini_event({"functionCall": {"name": "add", "args": {"a": 1, "b": 2}}}),),
    garbled='data: {"candidates": [nonsense\n\n',
    failure='data: {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}\n\n',
    ending=lambda reason: (gemini_event({"text": ""}, reason=reason, usageMetadata=GEMINI_USAGE),),
    stop="STOP",
    calls="STOP",
    error=lambda kind, message: {"code": 400, "status": kind, "message": message},
)
DIALECTS = {"openai": OPENAI, "anthropic": ANTHROPIC, "gemini": GEMINI}

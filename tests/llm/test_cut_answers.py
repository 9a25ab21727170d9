"""An answer that was cut, garbled or empty never passes for a whole one, whatever the model library makes of it."""

import contextlib

import pytest

from durable_agents.exceptions import ModelError
from tests.llm.conftest import Said
from tests.llm.wire import DONE, Refusal, Wire, anthropic_event, call, event, says, stop
from tests.servers.model import Call, Cut, Garbage, Reply, Stall

TEXT = Reply(text="One two three four five.", delay_seconds=0)
CALLS = Reply(calls=(Call(name="add", arguments={"a": 1234567890, "b": 1234567890}),), delay_seconds=0)
BEGUN = call(id="call_1", name="add", arguments='{"a": 1')
ERROR = 'data: {"error": {"message": "overloaded", "type": "server_error", "code": 500}}\n\n'

CUT = {
    "the connection is reset": Cut(reply=TEXT, after=3),
    "the connection is reset in the middle of a call": Cut(reply=CALLS, after=3),
    "the body ends cleanly without a finish reason": Cut(reply=TEXT, after=3, clean=True),
    "the body ends cleanly in the middle of a call": Cut(reply=CALLS, after=3, clean=True),
    "the body ends in the middle of a chunk": Wire(pieces=(*says("One "), 'data: {"choices": [{"de')),
    "the connection is reset in the middle of a chunk": Wire(pieces=(*says("One "), 'data: {"cho'), ending="torn"),
    "done without a finish reason": Wire(pieces=(*says("One "), DONE)),
    "done without a finish reason after a call": Wire(pieces=(BEGUN, DONE)),
}
GARBLED = {
    "a page of HTML with status 200": Garbage(),
    "an empty body": Garbage(text=""),
    "JSON that is no completion": Garbage(text='{"hello": "world"}'),
    "a chunk that is not JSON": Wire(pieces=(*says("One "), "data: {nonsense\n\n", *says("two"), stop(), DONE)),
    "an error object in the stream": Wire(pieces=(*says("One "), ERROR, DONE)),
    "an error object and nothing else": Wire(pieces=(ERROR,)),
    "done and nothing else": Wire(pieces=(DONE,)),
    "nothing at all": Wire(pieces=()),
}
EMPTY = {
    "neither text nor call": Wire(pieces=(stop(), DONE)),
    "empty text": Wire(pieces=(*says("", ""), stop(), DONE)),
    "reasoning and nothing else": Wire(pieces=(event({"reasoning_content": "Hm."}), stop(), DONE)),
}


@pytest.mark.parametrize("answer", [*CUT.values(), *GARBLED.values()], ids=[*CUT, *GARBLED])
def test_an_answer_that_is_not_whole_is_a_failed_attempt(server, failure, answer):
    """It may succeed another time, and it asked the provider once."""
    server.answer_with(answer)
    error = failure()
    assert (error.kind.value in {"network", "provider_5xx"}, error.retryable) == (True, True)
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", EMPTY.values(), ids=EMPTY)
def test_an_answer_that_says_nothing_is_a_failed_attempt(server, failure, answer):
    """Though it has its proper end."""
    server.answer_with(answer)
    assert (failure().kind.value, len(server.requests)) == ("provider_5xx", 1)


def test_a_stall_is_a_failed_attempt(server, failure):
    """After the time that the settings allow between two chunks."""
    server.answer_with(Stall(reply=TEXT, after=2, seconds=30))
    error = failure(settings={"timeout": 0.5})
    assert (error.kind.value, error.retryable, len(server.requests)) == ("network", True, 1)


def test_a_server_that_does_not_answer_is_a_failed_attempt(server, failure):
    """After the time that the settings allow."""
    server.answer_with(Wire(pieces=(), ending="hanging"))
    error = failure(settings={"timeout": 0.5})
    assert (error.kind.value, error.retryable, len(server.requests)) == ("network", True, 1)


def test_a_server_that_is_not_there_is_a_failed_attempt(failure):
    """A refused connection, as after a restart."""
    error = failure(settings={"api_base": "http://127.0.0.1:9/v1"})
    assert (error.kind.value in {"network", "provider_5xx"}, error.retryable) == (True, True)


USAGE = {"input_tokens": 5, "output_tokens": 1}
OPENING = (
    anthropic_event("message_start", message={"id": "m", "role": "assistant", "content": [], "usage": USAGE}),
    anthropic_event(
        "content_block_start", index=0, content_block={"type": "tool_use", "id": "t", "name": "add", "input": {}}
    ),
)
ENDING = (
    anthropic_event("content_block_stop", index=0),
    anthropic_event("message_delta", delta={"stop_reason": "tool_use"}, usage=USAGE),
    anthropic_event("message_stop"),
)
PIECE = anthropic_event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"a": 1}'})
ANTHROPIC = {
    "the body ends cleanly": Wire(pieces=(*OPENING, PIECE)),
    "the connection is reset": Wire(pieces=(*OPENING, PIECE), ending="torn"),
    "an error event": Wire(
        pieces=(*OPENING, anthropic_event("error", error={"type": "overloaded_error", "message": "Overloaded"}))
    ),
}


@pytest.mark.parametrize("answer", ANTHROPIC.values(), ids=ANTHROPIC)
def test_an_answer_of_anthropic_that_is_not_whole_is_a_failed_attempt(server, failure, answer):
    """Another provider's format, and another code path of the library."""
    server.answer_with(answer)
    error = failure(model="anthropic/claude-x", settings={"api_base": server.url.removesuffix("/v1")})
    assert (error.retryable, len(server.requests)) == (True, 1)


def test_a_garbled_chunk_of_anthropic_never_makes_a_call_with_other_arguments(server, ask):
    """The library skips it: the call then has no arguments, or the attempt fails; it is never run with half of them."""
    garbled = 'event: content_block_delta\ndata: {"type": "content_block_delta", nonsense\n\n'
    server.answer_with(Wire(pieces=(*OPENING, garbled, *ENDING)))
    with contextlib.suppress(ModelError):
        events = ask(model="anthropic/claude-x", settings={"api_base": server.url.removesuffix("/v1")})
        assert Said(events).calls == [("t", "add", "")]


def test_what_the_provider_said_goes_to_the_admin_only(server, failure):
    """The error's text is for the row; what users see is the kind's own."""
    server.answer_with(Refusal(status=401, error={"message": "Incorrect API key: key-123", "type": "auth"}))
    error = failure()
    assert "Incorrect API key" in str(error)
    assert "key" not in error.kind.safe_message.lower()

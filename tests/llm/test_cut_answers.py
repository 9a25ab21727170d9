"""An answer that was cut, garbled or empty never passes for a whole one, whatever the model library makes of it."""

import pytest

from tests.llm.wire import DONE, Refusal, Wire, call, event, says, stop
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


BROKEN = {
    "ends without its end": lambda d: d.broken(*d.text),
    "ends in the middle of a call": lambda d: d.broken(*d.called[:-1]),
    "ends before its end, all calls being there": lambda d: d.broken(*d.called),
    "ends in the middle of a chunk": lambda d: d.broken(d.text[0], d.text[-1][:20]),
    "is reset in the middle of a text": lambda d: d.broken(*d.text, ending="torn"),
    "is reset in the middle of a call": lambda d: d.broken(*d.called[:-1], ending="torn"),
    "is reset before it says anything": lambda d: d.broken(ending="torn"),
    "has a garbled chunk in its text": lambda d: d.whole(d.text[0], d.garbled, *d.text[1:]),
    "has a garbled chunk in a call": lambda d: d.whole(*d.called[:1], d.garbled, *d.called[1:], reason=d.calls),
    "has a garbled chunk instead of arguments": lambda d: d.whole(d.called[0], d.garbled, d.called[-1], reason=d.calls),
    "has a garbled chunk before its end": lambda d: d.whole(*d.text, d.garbled),
    "has an error after a text": lambda d: d.broken(*d.text, d.failure),
    "has an error after a call": lambda d: d.broken(*d.called, d.failure),
    "has an error before its end": lambda d: d.whole(*d.text, d.failure),
    "is an error": lambda d: Wire(pieces=(d.failure,)),
    "says done and nothing else": lambda d: Wire(pieces=(DONE,)),
    "has a beginning and an end only": lambda d: d.whole(),
    "has a beginning only": lambda d: d.broken(),
    "is nothing at all": lambda d: Wire(pieces=()),
    "is a page of HTML": lambda d: Garbage(),
    "is JSON of another kind": lambda d: Garbage(text='{"hello": "world"}'),
    "repeats the same chunk for ever": lambda d: d.whole(*[d.text[1]] * 150),
}


@pytest.mark.matrix("door", "answer")
@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_is_not_whole_is_a_failed_attempt_with_every_provider(server, refused, dialect, answer):
    """It may succeed another time; it asked the provider once; and nothing of it is committed."""
    error = refused(answer(dialect))
    assert (error.kind.value in {"network", "provider_5xx"}, error.retryable) == (True, True)
    assert len(server.requests) == 1


def test_a_stream_that_stalls_is_a_failed_attempt_with_every_provider(server, refused, dialect):
    """After the time that the settings allow."""
    error = refused(dialect.broken(*dialect.text, ending="hanging"), timeout=0.5)
    assert (error.kind.value, error.retryable, len(server.requests)) == ("network", True, 1)


def test_what_the_provider_said_goes_to_the_admin_only(server, failure):
    """The error's text is for the row; what users see is the kind's own."""
    server.answer_with(Refusal(status=401, error={"message": "Incorrect API key: key-123", "type": "auth"}))
    error = failure()
    assert "Incorrect API key" in str(error)
    assert "key" not in error.kind.safe_message.lower()

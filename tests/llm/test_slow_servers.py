"""A server that is slow and says so keeps its call; one that is silent, or takes too long in all, loses it."""

import json

import pytest

from demo_project.model_server import EVENT_HEADERS
from durable_agents.llm.sse_filter import EventFilter
from tests.llm.dialects import OPENAI
from tests.llm.paths import Said
from tests.llm.wire import Wire, anthropic_event, event

READ_SECONDS = 1.5
PAUSE_SECONDS = 0.2

KEEP_ALIVE = {
    "comments": ": keep-alive\n\n",
    "OpenRouter's comments": ": OPENROUTER PROCESSING\n\n",
    "comments without a text": ":\n\n",
    "blank lines": "\n",
    "blank lines with carriage returns": "\r\n\r\n",
    "empty data": "data:\n\n",
    "data of a space": "data: \n\n",
    "an event without data": "event: ping\n\n",
    "an event with empty data": "event: keepalive\ndata:\n\n",
    "Anthropic's pings": anthropic_event("ping"),
    "OpenAI's keepalive": 'data: {"type": "keepalive", "sequence_number": 3}\n\n',
    "an empty object": "data: {}\n\n",
    "null": "data: null\n\n",
    "a time to reconnect": "retry: 3000\n\n",
    "an id": "id: 1\n\n",
    "a word as data": "data: ping\n\n",
    "a word in brackets": "data: [PING]\n\n",
    "a comment as data": "data: : keep-alive\n\n",
    "a word in JSON": 'data: "ping"\n\n',
    "a number": "data: 1\n\n",
    "a time, by its event": "event: heartbeat\ndata: 12:00\n\n",
    "comments with carriage returns only": ": wait\r\r",
}


def chunk(choices):
    """Return a chunk with these choices."""
    facts = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "x", "choices": choices}
    return f"data: {json.dumps(facts)}\n\n"


EMPTY_CHUNKS = {
    "an empty delta": event({}),
    "an empty text": event({"content": ""}),
    "a role": event({"role": "assistant", "content": ""}),
    "a text of null": event({"content": None}),
    "a delta of null": chunk([{"index": 0, "delta": None, "finish_reason": None}]),
    "no delta": chunk([{"index": 0}]),
    "no choices": chunk([]),
    "choices of null": chunk(None),
}


def with_signs(dialect, sign, **facts):
    """Return an answer that begins with signs of life, and has more of them in its text."""
    begun = "".join([*dialect.opening, dialect.text[0]])
    rest = [*dialect.text[1:], *dialect.ending(dialect.stop)]
    return Wire(pieces=(*[sign] * 5, begun, *[sign] * 5, *rest), **facts)


@pytest.mark.matrix("door", "sign")
@pytest.mark.parametrize("sign", [": OPENROUTER PROCESSING\n\n", "data:\n\n", anthropic_event("ping")])
def test_signs_of_life_keep_a_call_for_longer_than_a_server_may_be_silent(server, hear, dialect, sign):
    said = Said(hear(with_signs(dialect, sign, pause_seconds=PAUSE_SECONDS), timeout=READ_SECONDS))
    assert (said.text, said.end.finish_reason, len(server.requests)) == ("One two.", "stop", 1)


@pytest.mark.matrix("door", "sign")
@pytest.mark.parametrize("sign", KEEP_ALIVE.values(), ids=KEEP_ALIVE)
def test_signs_of_life_are_no_part_of_the_answer(server, hear, dialect, sign):
    said = Said(hear(with_signs(dialect, sign)))
    assert (said.text, said.end.finish_reason, len(server.requests)) == ("One two.", "stop", 1)


@pytest.mark.matrix("door", "sign")
@pytest.mark.parametrize("model", ["openai/x", "groq/x", "mistral/x", "deepseek/x", "openrouter/x", "hosted_vllm/x"])
@pytest.mark.parametrize("sign", EMPTY_CHUNKS.values(), ids=EMPTY_CHUNKS)
def test_empty_chunks_are_no_part_of_the_answer(server, ask, model, sign):
    server.answer_with(with_signs(OPENAI, sign))
    said = Said(ask(model=model))
    assert (said.text, said.end.finish_reason, len(server.requests)) == ("One two.", "stop", 1)


def test_empty_chunks_keep_a_call_for_longer_than_a_server_may_be_silent(server, ask):
    server.answer_with(with_signs(OPENAI, EMPTY_CHUNKS["choices of null"], pause_seconds=PAUSE_SECONDS))
    assert Said(ask(settings={"timeout": READ_SECONDS})).text == "One two."


def test_a_server_that_falls_silent_after_signs_of_life_has_failed(server, refused, dialect):
    answer = dialect.broken(*dialect.text, *[": wait\n\n"] * 3, ending="hanging")
    error = refused(answer, timeout=READ_SECONDS)
    assert (error.kind.value, error.retryable, len(server.requests)) == ("network", True, 1)


def test_silence_is_bounded_by_the_setting(server, refused, dialect, settings):
    settings.DURABLE_AGENTS = {**settings.DURABLE_AGENTS, "MODEL_READ_SECONDS": 1}
    error = refused(dialect.broken(*dialect.text, ending="hanging"))
    assert (error.kind.value, error.retryable, len(server.requests)) == ("network", True, 1)


LINE_ENDS = {"line feeds": "\n", "both": "\r\n", "carriage returns": "\r"}


@pytest.mark.matrix("door", "line_end", "size")
@pytest.mark.parametrize("line_end", LINE_ENDS.values(), ids=LINE_ENDS)
@pytest.mark.parametrize("size", [1, 40, 10_000])
def test_an_answer_is_whole_with_every_line_end_of_the_format(server, hear, dialect, line_end, size):
    """A byte order mark may come first."""
    sent = "\ufeff" + "".join(with_signs(dialect, ": wait\n\n").pieces).replace("\n", line_end)
    pieces = tuple(sent[at : at + size] for at in range(0, len(sent), size))
    assert Said(hear(Wire(pieces=pieces))).text == "One two."


TYPES = ["Text/Event-Stream; Charset=UTF-8", "text/plain", "application/x-ndjson", "application/json"]


@pytest.mark.parametrize("content_type", TYPES)
def test_signs_of_life_are_known_however_the_answer_is_labelled(server, ask, content_type, monkeypatch):
    monkeypatch.setitem(EVENT_HEADERS, "Content-Type", content_type)
    server.answer_with(with_signs(OPENAI, "data:\n\n"))
    assert Said(ask()).text == "One two."


@pytest.mark.parametrize("ending", ["hanging", "torn"])
def test_an_answer_that_was_over_before_its_server_fell_silent_or_left_is_whole(server, hear, dialect, ending):
    """One call, for which the provider may not have told its usage."""
    whole = with_signs(dialect, ": wait\n\n").pieces
    pieces = whole if dialect is not OPENAI else whole[:-1]
    said = Said(hear(Wire(pieces=pieces, ending=ending), timeout=READ_SECONDS))
    assert (said.text, said.end.finish_reason, len(server.requests)) == ("One two.", "stop", 1)


@pytest.mark.parametrize("says", ["comments", "text"])
def test_a_call_that_takes_too_long_has_failed_however_much_comes(server, refused, dialect, settings, says):
    settings.DURABLE_AGENTS = {**settings.DURABLE_AGENTS, "MODEL_CALL_SECONDS": 0.8}
    piece = ": wait\n\n" if says == "comments" else dialect.text[1]
    pieces = (*dialect.opening, *dialect.text[:1], *[piece] * 50)
    error = refused(Wire(pieces=pieces, pause_seconds=0.2), timeout=READ_SECONDS)
    assert (error.kind.value, error.retryable, "MODEL_CALL_SECONDS" in str(error)) == ("network", True, True)
    assert server.wait_for_end(0) == "client left"


def test_events_are_told_from_signs_of_life_wherever_the_bytes_are_cut():
    pings = b": wait\r\n\r\nevent: ping\ndata: {}\n\n"
    text = b"data: \xf0\x9f\x99\x82\n"
    sent = pings + b'event: delta\ndata: {"a": 1}\n\n' + text + b"data: {}\n\ndata: [DONE]"
    kept = b'event: delta\ndata: {"a": 1}\n\ndata: \xf0\x9f\x99\x82\n\ndata: [DONE]'
    for size in (1, 2, 7, len(sent)):
        events = EventFilter(lambda data: None)
        told = b"".join(events.kept(sent[at : at + size]) for at in range(0, len(sent), size)) + events.rest()
        assert told.replace(b"delta{", b"delta\n{") == kept


@pytest.mark.parametrize(
    "text", [b'{"error": {"message": "no"}}\n', b"<html>\n<body>\n", b'data: {"choices": [nonsense\n\n']
)
def test_what_is_no_event_is_left_as_it_is(text):
    events = EventFilter(lambda data: None)
    assert events.kept(text) + events.rest() == text

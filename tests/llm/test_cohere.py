"""Cohere's own streaming format, version 2: text, calls, usage, and what was cut."""

import json

import pytest

from tests.llm.paths import Said
from tests.llm.wire import DONE, Wire

MODELS = ["cohere_chat/command-a-03-2025", "cohere/command-a-03-2025"]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def cohere_event(kind, **facts):
    """Return one event of a Cohere stream as it travels."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **facts})}\n\n"


def part(kind, index, **message):
    """Return an event that has a part of the message."""
    return cohere_event(kind, index=index, delta={"message": message})


def ending(reason="COMPLETE"):
    """Return the last event."""
    usage = {"billed_units": {"input_tokens": 4}, "tokens": {"input_tokens": 5, "output_tokens": 3}}
    return cohere_event("message-end", id="m", delta={"finish_reason": reason, "usage": usage})


OPENING = cohere_event("message-start", id="m", delta={"message": {"role": "assistant", "content": []}})
TEXT = (
    part("content-start", 0, content={"type": "text", "text": ""}),
    part("content-delta", 0, content={"text": "One "}),
    part("content-delta", 0, content={"text": "two."}),
    cohere_event("content-end", index=0),
)


def calling(index, name, *pieces):
    """Return the events of one call."""
    function = {"name": name, "arguments": ""}
    start = part(
        "tool-call-start", index, tool_calls={"id": f"{name}_{index}", "type": "function", "function": function}
    )
    rest = [part("tool-call-delta", index, tool_calls={"function": {"arguments": piece}}) for piece in pieces]
    return (start, *rest, cohere_event("tool-call-end", index=index))


@pytest.mark.parametrize("model", MODELS)
def test_a_text_is_read(server, ask, model):
    server.answer_with(Wire(pieces=(OPENING, *TEXT, ending(), DONE)))
    said = Said(ask(model=model))
    assert (said.text, said.end.finish_reason) == ("One two.", "stop")
    assert (said.end.usage.input_tokens, said.end.usage.output_tokens) == (5, 3)


def test_calls_are_read(server, ask):
    calls = (*calling(0, "add", '{"a": 1', ', "b": 2}'), *calling(1, "add", '{"a": 3}'))
    plan = part("tool-plan-delta", 0, tool_plan="I will add.")
    server.answer_with(Wire(pieces=(OPENING, plan, *calls, ending("TOOL_CALL"), DONE)))
    said = Said(ask(model=MODELS[0], tools=[TOOL]))
    assert said.calls == [("add_0", "add", '{"a": 1, "b": 2}'), ("add_1", "add", '{"a": 3}')]
    assert said.end.finish_reason == "tool_calls"


def test_an_answer_that_reached_its_limit_says_so(server, ask):
    server.answer_with(Wire(pieces=(OPENING, *TEXT, ending("MAX_TOKENS"), DONE)))
    assert Said(ask(model=MODELS[0])).end.finish_reason == "length"


@pytest.mark.parametrize("last", ["", DONE, "data: {nonsense\n\n", ending("ERROR")])
def test_an_answer_that_is_not_whole_is_a_failed_attempt(server, failure, last):
    server.answer_with(Wire(pieces=(OPENING, *TEXT, last) if last else (OPENING, *TEXT)))
    error = failure(model=MODELS[0])
    assert (error.kind.value in {"network", "provider_5xx"}, error.retryable) == (True, True)

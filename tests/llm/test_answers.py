"""A whole answer: text, reasoning, calls as the model made them, and what it cost."""

import asyncio
import contextlib
import json
from decimal import Decimal

import pytest

from durable_agents.llm import Finished, ReasoningDelta, TextDelta
from tests.llm.paths import Said
from tests.llm.wire import (
    DONE,
    Wire,
    anthropic_event,
    anthropic_opening,
    call,
    event,
    gemini_event,
    says,
    stop,
    text_block,
    whole,
)
from tests.servers.model import Call, Reply


def test_text_comes_in_pieces_and_ends_properly(server, ask):
    """As the provider sent it."""
    server.answer_with(Reply(text="One two three.", delay_seconds=0))
    said = Said(ask())
    assert (said.text, said.end.finish_reason, said.end.model) == ("One two three.", "stop", "openai/x")
    assert len([event for event in said.events if isinstance(event, TextDelta)]) > 1


def test_reasoning_comes_apart_from_text(server, ask):
    """And before it."""
    server.answer_with(Reply(reasoning="Let me think.", text="Done.", delay_seconds=0))
    events = ask()
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "Let me think."
    assert Said(events).text == "Done."


def test_arguments_in_pieces_are_put_together(server, ask):
    """Call by call."""
    calls = (Call(name="add", arguments={"a": 1, "b": 22222222}), Call(name="say", arguments={"word": "hello there"}))
    server.answer_with(Reply(text="Let me see.", calls=calls, delay_seconds=0))
    said = Said(ask())
    assert said.text == "Let me see."
    assert [(name, json.loads(raw)) for _, name, raw in said.calls] == [(made.name, made.arguments) for made in calls]
    assert len({provider_id for provider_id, _, _ in said.calls}) == 2


def test_a_call_without_an_id_is_not_dropped(server, ask):
    """Some providers give none."""
    server.answer_with(whole(call(name="add", arguments=""), call(arguments="{}"), reason="tool_calls"))
    assert [(name, raw) for _, name, raw in Said(ask()).calls] == [("add", "{}")]


def test_two_calls_at_the_same_index_are_two_calls(server, ask):
    """A new id opens a new call."""
    pieces = [call(0, id=f"call_{word}", name="say", arguments=json.dumps({"word": word})) for word in ("a", "b")]
    server.answer_with(whole(*pieces, reason="tool_calls"))
    assert Said(ask()).calls == [("call_a", "say", '{"word": "a"}'), ("call_b", "say", '{"word": "b"}')]


def test_an_id_that_is_repeated_with_every_piece_is_one_call(server, ask):
    """Some providers do that."""
    pieces = [call(0, id="call_a", name="say", arguments=raw) for raw in ('{"wo', 'rd": ', '"a"}')]
    server.answer_with(whole(*pieces, reason="tool_calls"))
    assert Said(ask()).calls == [("call_a", "say", '{"word": "a"}')]


def test_two_calls_with_the_same_id_at_two_indexes_are_two_calls(server, ask):
    """Ids of providers are not unique; ours are."""
    pieces = [call(index, id="same", name="say", arguments="{}") for index in range(2)]
    server.answer_with(whole(*pieces, reason="tool_calls"))
    assert Said(ask()).calls == [("same", "say", "{}")] * 2


def test_pieces_of_two_calls_in_turn_are_kept_apart(server, ask):
    """By their index."""
    opened = [call(index, id=f"call_{index}", name="say", arguments="") for index in range(2)]
    pieces = [call(index, arguments=raw) for raw in ('{"word": ', '"x"}') for index in range(2)]
    server.answer_with(whole(*opened, *pieces, reason="tool_calls"))
    assert [raw for _, _, raw in Said(ask()).calls] == ['{"word": "x"}'] * 2


def test_calls_with_the_wrong_finish_reason_are_calls(server, ask):
    """Their presence decides."""
    server.answer_with(whole(call(id="call_a", name="say", arguments="{}"), reason="stop"))
    said = Said(ask())
    assert (len(said.calls), isinstance(said.end, Finished)) == (1, True)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_ended_early_says_why(server, ask, reason):
    """It is whole all the same: the model's limit cut it, not the network."""
    server.answer_with(whole(*says("One "), reason=reason))
    assert Said(ask()).end.finish_reason == reason


def test_usage_is_counted_as_the_provider_says(server, ask):
    """With what was cached and what was thought."""
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 200,
        "total_tokens": 1200,
        "prompt_tokens_details": {"cached_tokens": 400},
        "completion_tokens_details": {"reasoning_tokens": 50},
    }
    counted = event({}, usage=usage)
    server.answer_with(Wire(pieces=(*says("Hi"), stop(), counted, DONE)))
    found = Said(ask()).end.usage
    assert (found.input_tokens, found.output_tokens) == (1000, 200)
    assert (found.cached_input_tokens, found.reasoning_tokens) == (400, 50)


def test_usage_of_anthropic_is_counted_with_what_was_cached(server, ask, at_root):
    """It comes in two pieces: the input at the beginning, the output at the end, which it repeats as it grows."""
    opening = anthropic_opening(input_tokens=500, cache_read_input_tokens=400, cache_creation_input_tokens=100)
    ending = anthropic_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 200})
    server.answer_with(Wire(pieces=(opening, *text_block("Hi").events(0), ending, anthropic_event("message_stop"))))
    found = Said(ask(model="anthropic/claude-sonnet-4-5", settings=at_root)).end.usage
    assert (found.input_tokens, found.output_tokens, found.estimated) == (1000, 200, False)
    assert (found.cached_input_tokens, found.cache_write_tokens) == (400, 100)
    assert found.cost > 0


def test_usage_of_gemini_is_counted_with_what_was_thought(server, ask, at_root):
    """It comes with every chunk, and grows; the last one counts."""
    counts = {"promptTokenCount": 1000, "cachedContentTokenCount": 400, "thoughtsTokenCount": 50}
    early, late = ({**counts, "candidatesTokenCount": n, "totalTokenCount": 1050 + n} for n in (10, 150))
    pieces = (
        gemini_event({"text": "Hi"}, usageMetadata=early),
        gemini_event({"text": ""}, reason="STOP", usageMetadata=late),
    )
    server.answer_with(Wire(pieces=pieces))
    found = Said(ask(model="gemini/gemini-2.5-flash", settings=at_root)).end.usage
    assert (found.input_tokens, found.output_tokens, found.estimated) == (1000, 200, False)
    assert (found.cached_input_tokens, found.reasoning_tokens) == (400, 50)
    assert found.cost > 0


def test_usage_that_the_provider_does_not_tell_is_not_made_up(server, ask):
    """The library counts by itself then; an estimate must not pass for the provider's word."""
    server.answer_with(whole(*says("One ", "two.")))
    assert Said(ask()).end.usage is None


def test_an_estimate_counts_question_and_answer(run, request_to, door):
    """For attempts that did not come to their end."""

    async def estimated():
        return door.estimate(request_to(model="openai/gpt-4o"), "One two three four five.")

    usage = run(estimated())
    assert (usage.estimated, usage.input_tokens > 1, usage.output_tokens) == (True, True, 6)
    assert usage.cost is not None


def test_a_known_model_has_a_cost(server, ask):
    """By the library's price list."""
    server.answer_with(Reply(text="One two three.", delay_seconds=0))
    usage = Said(ask(model="openai/gpt-4o")).end.usage
    assert isinstance(usage.cost, Decimal)
    assert Decimal(0) < usage.cost < Decimal("0.01")


def test_an_unknown_model_has_no_cost(server, ask):
    """Unknown is not free."""
    server.answer_with(Reply(text="One two three.", delay_seconds=0))
    usage = Said(ask()).end.usage
    assert (usage.cost, usage.input_tokens > 0) == (None, True)


def test_the_request_carries_messages_tools_and_settings(server, ask):
    """As they were given, and asks for the usage."""
    tool = {"type": "function", "function": {"name": "add", "description": "", "parameters": {"type": "object"}}}
    server.answer_with(Reply(text="Hi", delay_seconds=0))
    ask(tools=[tool], settings={"temperature": 0.2})
    [body] = server.requests
    assert (body["messages"], body["temperature"]) == ([{"role": "user", "content": "Hi"}], 0.2)
    assert body["tools"][0]["function"]["name"] == "add"
    assert body["stream_options"] == {"include_usage": True}


def test_a_call_that_is_cancelled_closes_its_connection(server, run, request_to, door):
    """A provider that nobody listens to stops generating."""
    server.answer_with(Reply(text="word " * 500, delay_seconds=0.02))

    async def cancelled():
        begun = asyncio.Event()

        async def read():
            async with contextlib.aclosing(door.stream(request_to())) as events:
                async for _ in events:
                    begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(cancelled())
    assert server.wait_for_end(0) == "client left"


def test_a_closed_door_can_be_opened_again(server, ask, run, door):
    """On the same loop, or on another that got its address: no connection that was closed is used again."""
    server.answer_with(Reply(text="One.", delay_seconds=0), Reply(text="Two.", delay_seconds=0))
    ask()
    run(door.aclose())
    assert Said(ask()).text == "Two."


def test_a_reader_that_leaves_early_closes_the_connection(server, run, request_to, door):
    """Also without being cancelled."""
    server.answer_with(Reply(text="word " * 500, delay_seconds=0.02))

    async def left():
        async with contextlib.aclosing(door.stream(request_to())) as events:
            async for _ in events:
                break

    run(left())
    assert server.wait_for_end(0) == "client left"

"""Calls as models make them: side by side, without ids, with the same id, of unknown tools and with bad arguments.

With every provider, from the wire to the rows that the step commits.
"""

import json

import pytest

from durable_agents import Agent, tool
from durable_agents.agents import registry
from durable_agents.engine.step_from_events import Answer
from tests.llm.dialects import ANTHROPIC, GEMINI, OPENAI
from tests.llm.paths import Said
from tests.llm.wire import call, call_block, gemini_event


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def now() -> str:
    """Tell the time."""
    return "noon"


@pytest.fixture
def caller():
    """Return an agent with two tools."""
    yield Agent("caller", model="openai/x", tools=[add, now])
    registry.remove("caller")


@pytest.fixture
def called(server, ask, caller):
    """Return a function that lets a provider make these calls, and gives the rows of the step."""

    def committed(dialect, calls):
        server.answer_with(dialect.whole(*calling(dialect, calls), reason=dialect.calls))
        answer = Answer(number=1, tool_input_deltas=False)
        for event in ask(model=dialect.model, settings=dialect.settings(server.url)):
            answer.take(event)
        return list(answer.outcome(caller.tools).calls)

    return committed


def calling(dialect, calls):
    """Return the pieces of calls, each an id, a name and the raw arguments."""
    if dialect is OPENAI:
        return [
            call(index, name=name, arguments=raw, **({"id": call_id} if call_id else {}))
            for index, (call_id, name, raw) in enumerate(calls)
        ]
    if dialect is ANTHROPIC:
        blocks = [call_block(*([raw] if raw else []), call_id=call_id, name=name) for call_id, name, raw in calls]
        return [event for index, block in enumerate(blocks) for event in block.events(index)]
    functions = [{"name": name, "args": json.loads(raw or "{}"), "id": call_id} for call_id, name, raw in calls]
    return [gemini_event(*({"functionCall": function} for function in functions))]


ADD = '{"a": 1, "b": 2}'


def test_calls_side_by_side_are_calls_of_one_step(called, dialect):
    """In their order, each with its own arguments and the id that its provider knows it by."""
    rows = called(dialect, [("c1", "add", ADD), ("c2", "add", '{"a": 3, "b": 4}'), ("c3", "now", "{}")])
    assert [(row.provider_call_id, row.tool_name, row.arguments, row.error) for row in rows] == [
        ("c1", "add", {"a": 1, "b": 2}, ""),
        ("c2", "add", {"a": 3, "b": 4}, ""),
        ("c3", "now", {}, ""),
    ]


def test_calls_with_the_same_id_are_told_apart(called, dialect):
    """By an id of ours."""
    rows = called(dialect, [("same", "add", ADD)] * 3)
    assert len({row.tool_call_id for row in rows}) == 3
    assert [(row.arguments, row.error) for row in rows] == [({"a": 1, "b": 2}, "")] * 3


def test_calls_without_an_id_are_not_lost(called, dialect):
    """The library itself would drop them."""
    rows = called(dialect, [("", "add", ADD), ("", "now", "{}")])
    assert [(row.tool_name, row.error) for row in rows] == [("add", ""), ("now", "")]
    assert all(row.tool_call_id for row in rows)


def test_a_call_without_arguments_has_none(called, dialect):
    """Which is an empty object."""
    assert [(row.arguments, row.error) for row in called(dialect, [("c1", "now", "")])] == [({}, "")]


def test_a_call_of_an_unknown_tool_is_answered_with_those_there_are(called, dialect):
    """The model is told; the others run."""
    unknown, known = called(dialect, [("c1", "subtract", ADD), ("c2", "add", ADD)])
    assert "There is no tool 'subtract'. Tools: add, now." in unknown.error
    assert known.error == ""


def test_a_call_that_does_not_fit_its_tool_is_answered_with_what_is_wrong(called, dialect):
    """As with arguments that were lost on the way: a tool that needs them never runs without."""
    missing, wrong = called(dialect, [("c1", "add", '{"a": 1}'), ("c2", "add", '{"a": 1, "b": "many"}')])
    assert "b" in missing.error
    assert "b" in wrong.error


@pytest.mark.parametrize("spoken", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
@pytest.mark.parametrize("raw", ['{"a": 1, "b": 2', "[1, 2]", "a=1", '{"a": 1}{"b": 2}', '"x"', "true"])
def test_a_call_with_bad_arguments_is_kept_and_answered(called, spoken, raw):
    """What the model wrote is kept for people, and is no JSON that a provider would refuse for ever."""
    bad, good = called(spoken, [("c1", "add", raw), ("c2", "add", ADD)])
    assert (bad.arguments, "not a JSON object" in bad.error) == ({"_raw": raw}, True)
    assert (good.arguments, good.error) == ({"a": 1, "b": 2}, "")


def test_text_before_calls_stays_text(hear, dialect):
    """Gemini has no word of its own for calls; the engine goes by the calls, not by the word."""
    later = dialect.called
    if dialect is ANTHROPIC:
        later = call_block(ADD, call_id="toolu_1", name="add").events(1)
    said = Said(hear(dialect.whole(*dialect.text, *later, reason=dialect.calls)))
    assert (said.text, said.end.finish_reason) == ("One two.", "stop" if dialect is GEMINI else "tool_calls")
    assert [(name, json.loads(raw)) for _, name, raw in said.calls] == [("add", {"a": 1, "b": 2})]


REASONS = {
    "openai: limit": (OPENAI, "length", "length"),
    "openai: filtered": (OPENAI, "content_filter", "content_filter"),
    "openai: unknown": (OPENAI, "because", "other"),
    "anthropic: limit": (ANTHROPIC, "max_tokens", "length"),
    "anthropic: filtered": (ANTHROPIC, "refusal", "content_filter"),
    "anthropic: stop sequence": (ANTHROPIC, "stop_sequence", "stop"),
    "anthropic: unknown": (ANTHROPIC, "because", "other"),
    "gemini: limit": (GEMINI, "MAX_TOKENS", "length"),
    "gemini: filtered": (GEMINI, "SAFETY", "content_filter"),
    "gemini: recited": (GEMINI, "RECITATION", "content_filter"),
    "gemini: unknown": (GEMINI, "BECAUSE", "other"),
}


@pytest.mark.parametrize("case", REASONS)
def test_a_text_ends_for_its_providers_reason(server, ask, case):
    """In the words of the OpenAI format; an unknown one is `other`."""
    spoken, given, meant = REASONS[case]
    server.answer_with(spoken.whole(*spoken.text, reason=given))
    said = Said(ask(model=spoken.model, settings=spoken.settings(server.url)))
    assert (said.text, said.end.finish_reason) == ("One two.", meant)


@pytest.mark.parametrize(("spoken", "reason"), [(OPENAI, "content_filter"), (ANTHROPIC, "refusal"), (GEMINI, "SAFETY")])
def test_a_model_that_declines_without_a_word_is_not_asked_again(server, failure, spoken, reason):
    """It would decline again."""
    server.answer_with(spoken.whole(reason=reason))
    error = failure(model=spoken.model, settings=spoken.settings(server.url))
    assert (error.kind.value, error.retryable) == ("content_policy", False)


def test_a_question_that_google_blocks_is_not_asked_again(server, failure):
    """It then answers without a candidate."""
    blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    server.answer_with(GEMINI.broken(f"data: {json.dumps(blocked)}\n\n"))
    error = failure(model=GEMINI.model, settings=GEMINI.settings(server.url))
    assert (error.kind.value, error.retryable) == ("content_policy", False)

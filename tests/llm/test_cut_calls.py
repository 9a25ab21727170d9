"""A call that the model did not come to the end of never runs, and the model is told so; whole calls before it run."""

import json

import pytest

from durable_agents import tool
from tests.llm.dialects import ANTHROPIC, GEMINI
from tests.llm.wire import anthropic, call, call_block, gemini, says, text_block, whole

pytestmark = pytest.mark.django_db

ANSWER = whole(*says("I see."))


@pytest.fixture
def ran():
    """Return the calls that have run."""
    return []


@pytest.fixture
def tools(ran):
    """Return a tool that does the worst with its defaults, and one that needs an argument."""

    @tool
    def wipe(path: str = "/", force: bool = True) -> str:
        """Delete everything below a path."""
        ran.append(("wipe", path))
        return "wiped"

    @tool
    def note(word: str) -> str:
        """Keep a word."""
        ran.append(("note", word))
        return f"noted {word}"

    return [wipe, note]


def called(name, arguments, *, index=0):
    """Return the chunks of one call, opened and then argued."""
    opened = call(index, id=f"call_{index}", name=name, arguments="")
    return (opened, call(index, arguments=arguments)) if arguments else (opened,)


CUT = {
    "nothing of the arguments": "",
    "an empty object, which may be a placeholder": "{}",
    "white space": "  ",
    "the beginning of the arguments": '{"pa',
    "a whole object, which a server may have mended": '{"path": "/h"}',
}


@pytest.mark.parametrize("arguments", CUT.values(), ids=CUT)
@pytest.mark.parametrize(("reason", "stored"), [("length", "length"), ("content_filter", "content-filter")])
def test_the_last_call_of_a_cut_answer_does_not_run(talk, tools, ran, arguments, reason, stored):
    """Its defaults would; the run goes on, so that the model can make it again."""
    talked = talk(whole(*called("wipe", arguments), reason=reason), ANSWER, tools=tools)
    assert (ran, talked.calls) == ([], [("wipe", "failed")])
    assert (talked.steps[0].finish_reason, talked.ended) == (stored, ("completed", "stop"))
    [told] = talked.told()
    assert "cut" in told
    assert "did not run" in told


def test_a_whole_call_before_the_cut_one_runs(talk, tools, ran):
    """Its arguments ended where the next call began."""
    pieces = (*called("note", '{"word": "x"}'), *called("wipe", "", index=1))
    talked = talk(whole(*pieces, reason="length"), ANSWER, tools=tools)
    assert (ran, talked.calls) == ([("note", "x")], [("note", "completed"), ("wipe", "failed")])
    assert talked.steps[0].finish_reason == "length"
    assert [told.startswith("noted x") or "cut" in told for told in talked.told()] == [True, True]


def test_calls_without_arguments_before_the_cut_one_run(talk, tools, ran):
    """A call that another one follows was whole, however little it says."""
    pieces = (*called("wipe", "{}"), *called("note", '{"wo', index=1))
    talked = talk(whole(*pieces, reason="length"), ANSWER, tools=tools)
    assert (ran, talked.calls) == ([("wipe", "/")], [("wipe", "completed"), ("note", "failed")])


def test_of_calls_that_are_written_in_turns_none_runs_when_the_answer_is_cut(talk, tools, ran):
    """None of them has come to its end."""
    pieces = (*called("wipe", ""), *called("wipe", "", index=1), call(0, arguments="{"), call(1, arguments="{"))
    pieces = (*pieces, call(0, arguments="}"))
    talk(whole(*pieces, reason="length"), ANSWER, tools=tools)
    assert ran == []


def test_a_call_that_text_follows_was_not_cut(talk, tools, ran):
    """The text was."""
    talked = talk(whole(*called("note", '{"word": "x"}'), *says("And now"), reason="length"), ANSWER, tools=tools)
    assert (ran, talked.steps[0].finish_reason) == ([("note", "x")], "length")


def test_a_whole_answer_calls_with_the_defaults(talk, tools, ran):
    """Empty arguments mean them where the model came to its end."""
    talked = talk(whole(*called("wipe", ""), reason="tool_calls"), ANSWER, tools=tools)
    assert (ran, talked.steps[0].finish_reason) == ([("wipe", "/")], "tool-calls")


def test_a_call_that_claude_did_not_end_does_not_run(talk, tools, ran):
    """Its block is closed all the same, with empty arguments."""
    cut = anthropic(text_block("Let me."), call_block(call_id="toolu_1", name="wipe"), reason="max_tokens")
    talked = talk(cut, anthropic(text_block("I see.")), dialect=ANTHROPIC, tools=tools)
    assert (ran, talked.steps[0].finish_reason, talked.ended) == ([], "length", ("completed", "stop"))


def test_a_call_that_claude_left_in_the_middle_does_not_run(talk, tools, ran):
    """Its block is closed, its arguments are not."""
    cut = anthropic(call_block('{"wo', call_id="toolu_1", name="note"), reason="max_tokens")
    talked = talk(cut, anthropic(text_block("I see.")), dialect=ANTHROPIC, tools=tools)
    assert (ran, talked.steps[0].finish_reason, talked.ended) == ([], "length", ("completed", "stop"))


def test_a_call_that_gemini_did_not_end_does_not_run(talk, tools, ran):
    """Though it came as a whole object."""
    cut = gemini(({"functionCall": {"name": "wipe", "args": {}}},), reason="MAX_TOKENS")
    talked = talk(cut, gemini(({"text": "I see."},)), dialect=GEMINI, tools=tools)
    assert (ran, talked.steps[0].finish_reason, talked.ended) == ([], "length", ("completed", "stop"))


def test_a_model_that_is_told_of_the_cut_calls_again(talk, tools, ran):
    """With the same tool, and arguments that fit."""
    again = whole(*called("note", json.dumps({"word": "short"})), reason="tool_calls")
    talked = talk(whole(*called("note", '{"word": "lo'), reason="length"), again, ANSWER, tools=tools)
    assert (ran, talked.ended) == ([("note", "short")], ("completed", "stop"))

"""Shapes of deltas that servers send and OpenAI does not: no text, call or character of theirs is lost."""

import json

import pytest

from durable_agents import tool
from tests.llm.dialects import ANTHROPIC, GEMINI
from tests.llm.paths import BEDROCK, PATHS, ollama, speaking
from tests.llm.wire import (
    anthropic,
    bedrock,
    call,
    event,
    gemini,
    says,
    text_block,
    whole,
)

pytestmark = pytest.mark.django_db

ANSWER = whole(*says("I see."))


@pytest.fixture
def ran():
    """Return the calls that have run."""
    return []


@pytest.fixture
def tools(ran):
    """Return a tool that needs a word, one that takes what it gets, and one without parameters."""

    @tool
    def say(word: str) -> str:
        """Say a word."""
        ran.append(("say", word))
        return word

    @tool
    def list_orders(limit: int = 10) -> str:
        """List orders."""
        ran.append(("list_orders", limit))
        return "none"

    @tool
    def ping() -> str:
        """Answer."""
        ran.append(("ping", None))
        return "pong"

    return [say, list_orders, ping]


def calls(*deltas):
    """Return a chunk with these deltas of calls, as they are."""
    return event({"tool_calls": list(deltas)})


def function(name=None, arguments=None, **facts):
    """Return a delta of a call; what is None is left out."""
    given = {"name": name, "arguments": arguments}
    return {"type": "function", "function": {key: value for key, value in given.items() if value is not None}, **facts}


# ------------------------------------------------------------------------------------------------------------- texts

TEXTS = {
    "a list of blocks": [{"type": "text", "text": "Hello "}],
    "a list of texts": ["Hello "],
    "a block": {"type": "text", "text": "Hello "},
    "a list within a list": [[{"type": "text", "text": "Hello "}]],
    "a text within an object": [{"type": "text", "text": {"value": "Hello "}}],
    "a text under another name": [{"type": "text", "value": "Hello "}],
    "a type of another format": [{"type": "text_delta", "text": "Hello "}],
    "a type in capitals": [{"type": "TEXT", "text": "Hello "}],
    "blocks with something else among them": [
        {"type": "text", "text": "Hel"},
        {"type": "reference", "reference_ids": [1]},
        {"type": "output_text", "text": "lo "},
    ],
}


@pytest.mark.parametrize("provider", PATHS)
def test_a_content_in_blocks_is_text(talk, provider):
    """Then one that is a string."""
    answer = whole(event({"content": TEXTS["a list of blocks"]}), *says("you"))
    assert talk(answer, dialect=speaking(provider)).text == "Hello you"


@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS)
def test_a_content_of_any_shape_is_text(talk, content):
    """Whatever is no text in it is left out."""
    assert talk(whole(event({"content": content}), *says("you"))).text == "Hello you"


@pytest.mark.parametrize("provider", PATHS)
def test_thoughts_in_blocks_are_reasoning(talk, provider):
    """As Mistral sends them; in one part, however many pieces there are."""
    pieces = [[{"type": "thinking", "thinking": [{"type": "text", "text": text}]}] for text in ("Let me ", "think.")]
    answer = whole(*(event({"content": piece}) for piece in pieces), *says("Hello"))
    talked = talk(answer, dialect=speaking(provider))
    assert (talked.reasoning, talked.text) == ("Let me think.", "Hello")
    assert [part["type"] for part in talked.parts] == ["step-start", "reasoning", "text"]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_of_any_shape_is_read(talk, field):
    """A string or blocks."""
    answer = whole(event({field: "Let me "}), event({field: [{"type": "text", "text": "think."}]}), *says("Hello"))
    assert talk(answer).reasoning == "Let me think."


# ------------------------------------------------------------------------------------------------------------- names

NAMED_LATE = {
    "the name in a later delta": [
        {"index": 0, "id": "c1", "type": "function"},
        function("list_orders", "", index=0),
        function(None, '{"limit": 3}', index=0),
    ],
    "the name after an empty one": [
        function("", "", index=0, id="c1"),
        function("list_orders", None, index=0),
        function(None, '{"limit": 3}', index=0),
    ],
    "the name in two pieces": [
        function("list_", "", index=0, id="c1"),
        function("orders", "", index=0),
        function(None, '{"limit": 3}', index=0),
    ],
    "the name in two pieces with an id each": [
        function("list_", "", index=0, id="c1"),
        function("orders", '{"limit"', index=0, id="c1"),
        function(None, ": 3}", index=0, id="c1"),
    ],
    "the name that grows": [
        function("list", "", index=0, id="c1"),
        function("list_orders", "", index=0),
        function(None, '{"limit": 3}', index=0),
    ],
    "the name with every piece": [
        function("list_orders", "", index=0, id="c1"),
        function("list_orders", '{"lim', index=0, id="c1"),
        function("list_orders", 'it": 3}', index=0, id="c1"),
    ],
    "the name after the arguments": [
        function(None, '{"limit": 3}', index=0, id="c1"),
        function("list_orders", None, index=0),
    ],
    "the id after the name": [
        function("list_orders", "", index=0),
        function(None, '{"limit": 3}', index=0, id="c1"),
    ],
    "a new id with every piece": [
        function("list_orders", "", index=0, id="c1"),
        function(None, '{"lim', index=0, id="c2"),
        function(None, 'it": 3}', index=0, id="c3"),
    ],
    "null where there is nothing": [
        {"index": 0, "id": "c1", "type": "function", "function": None},
        {"index": 0, "id": None, "type": None, "function": {"name": "list_orders", "arguments": None}},
        {"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": '{"limit": 3}'}},
    ],
    "an index that is a text": [
        function("list_orders", "", index="0", id="c1"),
        function(None, '{"limit": 3}', index="0"),
    ],
    "the name that grows by letters": [
        *(function("list_orders"[:count], "", index=0, id="c1") for count in range(1, 12)),
        function(None, '{"limit": 3}', index=0),
    ],
    "the name after blank space": [
        function(" ", "", index=0, id="c1"),
        function("list_orders ", '{"limit": 3}', index=0),
    ],
    "the name with every piece, the empty last one too": [
        function("list_orders", '{"limit": 3}', index=0, id="c1"),
        function("list_orders", "", index=0, id="c1"),
    ],
    "an id that is a number": [function("list_orders", '{"limit": 3}', index=0, id=7)],
}


@pytest.mark.parametrize("deltas", NAMED_LATE.values(), ids=NAMED_LATE)
def test_a_call_whose_name_comes_late_or_in_pieces_is_one_call(talk, tools, ran, deltas):
    """With its name whole."""
    talked = talk(whole(*map(calls, deltas), reason="tool_calls"), ANSWER, tools=tools)
    assert (ran, talked.calls) == ([("list_orders", 3)], [("list_orders", "completed")])


@pytest.mark.parametrize("deltas", NAMED_LATE.values(), ids=NAMED_LATE)
def test_a_call_whose_deltas_come_in_one_chunk_is_one_call(talk, tools, ran, deltas):
    """As a proxy that gathers chunks sends them."""
    talked = talk(whole(calls(*deltas), reason="tool_calls"), ANSWER, tools=tools)
    assert (ran, talked.calls) == ([("list_orders", 3)], [("list_orders", "completed")])


@pytest.mark.parametrize("provider", PATHS)
def test_a_late_name_is_read_with_every_provider(talk, tools, ran, provider):
    """Each has a parser of its own in the model library."""
    deltas = NAMED_LATE["null where there is nothing"]
    talk(whole(*map(calls, deltas), reason="tool_calls"), ANSWER, tools=tools, dialect=speaking(provider))
    assert ran == [("list_orders", 3)]


def test_browsers_see_a_late_name_once_and_whole(talk, tools):
    """The part has the tool's name from its beginning."""
    deltas = NAMED_LATE["the name in two pieces"]
    talked = talk(whole(*map(calls, deltas), reason="tool_calls"), ANSWER, tools=tools)
    assert [part["type"] for part in talked.parts if "toolCallId" in part] == ["tool-list_orders"]


def test_a_tool_that_nobody_knows_is_told_by_its_name(talk, tools):
    """As the model wrote it."""
    deltas = (function("delete_", "", index=0, id="c1"), function("all", "{}", index=0))
    talked = talk(whole(*map(calls, deltas), reason="tool_calls"), ANSWER, tools=tools)
    assert "There is no tool 'delete_all'" in talked.told()[0]


def test_a_call_before_a_text_comes_before_it(talk, tools):
    """In the order in which the model wrote them."""
    pieces = (calls(function("say", '{"word": "x"}', index=0, id="c1")), *says("Done."))
    talked = talk(whole(*pieces, reason="tool_calls"), ANSWER, tools=tools)
    assert [part["type"] for part in talked.parts[:3]] == ["step-start", "tool-say", "text"]


# ------------------------------------------------------------------------------------------------- calls side by side

A, B = '{"word": "a"}', '{"word": "b"}'
PARALLEL = {
    "without an index, one after the other": [[function("say", A, id="c1")], [function("say", B, id="c2")]],
    "without an index, in one chunk": [[function("say", A, id="c1"), function("say", B, id="c2")]],
    "without an index and without ids": [[function("say", A)], [function("say", B)]],
    "without an index and without ids, in one chunk": [[function("say", A), function("say", B)]],
    "without an index, with empty ids": [[function("say", A, id="")], [function("say", B, id="")]],
    "without an index, with one id": [[function("say", A, id="c")], [function("say", B, id="c")]],
    "with null as the index": [[function("say", A, id="", index=None)], [function("say", B, id="", index=None)]],
    "at one index": [[function("say", A, id="c1", index=0)], [function("say", B, id="c2", index=0)]],
    "at one index, in one chunk": [[function("say", A, id="c1", index=0), function("say", B, id="c2", index=0)]],
    "at one index, with empty ids": [[function("say", A, id="", index=0)], [function("say", B, id="", index=0)]],
    "at one index, without ids": [[function("say", A, index=0)], [function("say", B, index=0)]],
    "at one index, with one id": [[function("say", A, id="c", index=0)], [function("say", B, id="c", index=0)]],
    "at one index, with one id, in one chunk": [
        [function("say", A, id="c", index=0), function("say", B, id="c", index=0)]
    ],
    "with arguments that are an object": [
        [function("say", {"word": "a"}, id="c1")],
        [function("say", {"word": "b"}, id="c2")],
    ],
    "at one index, in pieces, with empty ids": [
        [function("say", "", id="", index=0)],
        [function(None, A, index=0)],
        [function("say", "", id="", index=0)],
        [function(None, B, index=0)],
    ],
    "at one index, in pieces, with an id each": [
        [function("say", "", id="c1", index=0)],
        [function(None, A[:5], index=0)],
        [function(None, A[5:], index=0)],
        [function("say", "", id="c2", index=0)],
        [function(None, B[:5], index=0)],
        [function(None, B[5:], index=0)],
    ],
    "at two indexes, with one id": [[function("say", A, id="c", index=0)], [function("say", B, id="c", index=1)]],
    "without an index, in turns, by their ids": [
        [function("say", A[:5], id="c1")],
        [function("say", B[:5], id="c2")],
        [function(None, A[5:], id="c1")],
        [function(None, B[5:], id="c2")],
    ],
    "at one index, with quoted arguments": [
        [function("say", json.dumps(A), index=0)],
        [function("say", json.dumps(B), index=0)],
    ],
    "at an index above the number of calls": [
        [function("say", A, id="c1", index=1)],
        [function("say", B, id="c2", index=7)],
    ],
}


@pytest.mark.parametrize("chunks", PARALLEL.values(), ids=PARALLEL)
def test_calls_side_by_side_are_as_many_calls(talk, tools, ran, chunks):
    """Both run, and the model is told of both."""
    talked = talk(whole(*(calls(*deltas) for deltas in chunks), reason="tool_calls"), ANSWER, tools=tools)
    assert (sorted(ran), talked.told()) == ([("say", "a"), ("say", "b")], ["a", "b"])


@pytest.mark.parametrize("provider", PATHS)
def test_calls_without_an_index_are_as_many_calls_with_every_provider(talk, tools, ran, provider):
    """Each has a parser of its own in the model library."""
    chunks = PARALLEL["without an index and without ids"]
    answer = whole(*(calls(*deltas) for deltas in chunks), reason="tool_calls")
    talk(answer, ANSWER, tools=tools, dialect=speaking(provider))
    assert sorted(ran) == [("say", "a"), ("say", "b")]


EMPTY = {
    "without an index": [[function("ping", "{}")], [function("ping", "{}")]],
    "at one index, with one id": [[function("ping", "{}", id="c", index=0)], [function("ping", "{}", id="c", index=0)]],
    "at one index, with an id each": [
        [function("ping", "", id="c1", index=0)],
        [function("ping", "", id="c2", index=0)],
    ],
    "without an index, an id or arguments": [[function("ping")], [function("ping")]],
    "in one chunk": [[function("ping"), function("ping")]],
}


@pytest.mark.parametrize("chunks", EMPTY.values(), ids=EMPTY)
def test_calls_without_arguments_side_by_side_are_as_many_calls(talk, tools, ran, chunks):
    """Though they look the same."""
    talk(whole(*(calls(*deltas) for deltas in chunks), reason="tool_calls"), ANSWER, tools=tools)
    assert ran == [("ping", None)] * 2


def test_two_tools_at_one_index_without_ids_are_two_calls(talk, tools, ran):
    """Their names differ, and are no two pieces of one."""
    deltas = (function("ping", "", index=0), function("list_orders", "", index=0))
    talk(whole(*map(calls, deltas), reason="tool_calls"), ANSWER, tools=tools)
    assert sorted(name for name, _ in ran) == ["list_orders", "ping"]


def test_calls_of_ollama_in_chunks_of_their_own_are_as_many_calls(talk, tools, ran):
    """It gives neither index nor id."""
    chunks = [{"tool_calls": [{"function": {"name": "say", "arguments": {"word": word}}}]} for word in ("a", "b")]
    answer = ollama({"content": "I see."}, reason="stop")
    talk(ollama(*chunks, reason="stop"), answer, model="ollama_chat/x", path="/ollama", tools=tools)
    assert sorted(ran) == [("say", "a"), ("say", "b")]


def test_calls_of_gemini_in_one_chunk_are_as_many_calls(talk, tools, ran):
    """Two parts of one candidate."""
    parts = tuple({"functionCall": {"name": "say", "args": {"word": word}}} for word in ("a", "b"))
    talk(gemini(parts), gemini(({"text": "I see."},)), dialect=GEMINI, tools=tools)
    assert sorted(ran) == [("say", "a"), ("say", "b")]


def test_a_delta_that_says_nothing_of_a_call_is_none(talk, tools):
    """Some servers end an answer with one."""
    empty = {"index": 0, "id": "", "function": {"name": "", "arguments": ""}}
    talked = talk(whole(*says("Hello"), calls(empty)), tools=tools)
    assert (talked.ended, talked.text, talked.calls) == (("completed", "stop"), "Hello", [])


def test_a_call_in_the_field_of_before_is_a_call(talk, tools, ran):
    """`function_call`, of which an answer has one."""
    pieces = [{"name": "say", "arguments": ""}, {"arguments": A[:5]}, {"arguments": A[5:]}]
    answer = whole(*(event({"function_call": piece}) for piece in pieces), reason="function_call")
    talk(answer, ANSWER, tools=tools)
    assert ran == [("say", "a")]


# ---------------------------------------------------------------------------------------------------------- arguments

NONE = {
    "null": "null",
    "blank": " \n",
    "an empty text": '""',
    "none": "",
    "an empty object": "{}",
    "null, quoted": '"null"',
    "none in Python": "None",
    "none in JavaScript": "undefined",
    "an empty object, quoted": '"{}"',
    "an empty object with a space": "{ }",
    "an empty object twice": "{}{}",
    "an empty object of PHP": "[]",
    "a byte order mark": "\ufeff{}",
}


@pytest.mark.parametrize("raw", NONE.values(), ids=NONE)
def test_arguments_that_say_nothing_are_none(talk, tools, ran, raw):
    """For a tool without parameters."""
    talk(whole(call(id="c1", name="ping", arguments=raw), reason="tool_calls"), ANSWER, tools=tools)
    assert ran == [("ping", None)]


@pytest.mark.parametrize("given", [None, {}, []], ids=repr)
def test_arguments_that_are_none_and_not_a_text_are_none(talk, tools, ran, given):
    """On the wire: null or an empty object in place of a string."""
    delta = {"index": 0, "id": "c1", "function": {"name": "ping", "arguments": given}}
    talk(whole(calls(delta), reason="tool_calls"), ANSWER, tools=tools)
    assert ran == [("ping", None)]


def test_a_tool_that_needs_arguments_is_told_of_their_lack(talk, tools, ran):
    """Nothing stands in for them."""
    talked = talk(whole(call(id="c1", name="say", arguments="null"), reason="tool_calls"), ANSWER, tools=tools)
    assert ran == []
    assert "word" in talked.told()[0]


BEFORE = {
    "without a name": [function(None, A[:5], index=0), function(None, A[5:], index=0)],
    "with id and name again": [function("say", A[:5], index=0, id="c1"), function("say", A[5:], index=0, id="c1")],
    "with the id again": [function(None, A, index=0, id="c1")],
}


@pytest.mark.parametrize("placeholder", ["{}", "null", '""', "{ }", "None", '"{}"', "[]"])
@pytest.mark.parametrize("deltas", BEFORE.values(), ids=BEFORE)
def test_a_placeholder_before_the_real_arguments_is_left_out(talk, tools, ran, deltas, placeholder):
    """As some servers open a call."""
    opening = function("say", placeholder, index=0, id="c1")
    talk(whole(*map(calls, (opening, *deltas)), reason="tool_calls"), ANSWER, tools=tools)
    assert ran == [("say", "a")]


@pytest.mark.parametrize("deltas", [["{}" + A], [A, "{}"], [A, "null"]], ids=str)
def test_a_placeholder_beside_the_real_arguments_is_left_out(talk, tools, ran, deltas):
    """In the same piece, or after them."""
    first, *rest = deltas
    pieces = (function("say", first, index=0, id="c1"), *(function(None, piece, index=0) for piece in rest))
    talk(whole(*map(calls, pieces), reason="tool_calls"), ANSWER, tools=tools)
    assert ran == [("say", "a")]


def test_arguments_with_line_breaks_in_their_texts_are_read(talk, tools, ran):
    """Models forget to escape them."""
    talk(whole(call(id="c1", name="say", arguments='{"word": "a\nb"}'), reason="tool_calls"), ANSWER, tools=tools)
    assert ran == [("say", "a\nb")]


@pytest.mark.parametrize("times", [1, 2])
def test_arguments_that_are_json_within_a_text_are_read(talk, tools, ran, times):
    """Once or twice quoted."""
    raw = A
    for _ in range(times):
        raw = json.dumps(raw)
    talk(whole(call(id="c1", name="say", arguments=raw), reason="tool_calls"), ANSWER, tools=tools)
    assert ran == [("say", "a")]


@pytest.mark.parametrize("raw", ['"a"', "[1]", "7", "true", '{"word": "a"'])
def test_arguments_that_are_no_object_are_told_to_the_model(talk, tools, ran, raw):
    """No guess at what they mean."""
    talked = talk(whole(call(id="c1", name="say", arguments=raw), reason="tool_calls"), ANSWER, tools=tools)
    assert ran == []
    assert "not a JSON object" in talked.told()[0]


# --------------------------------------------------------------------------------------------------------- characters

HIGH, LOW = "\ud83d", "\ude00"
"""The two halves of an emoji, as a server sends them that cuts texts in UTF-16."""


@pytest.mark.parametrize("provider", PATHS)
def test_an_emoji_in_two_chunks_is_one_character(talk, provider):
    """Escaped in the JSON of each."""
    answer = whole(*says(f"Hi {HIGH}", f"{LOW}!"))
    assert talk(answer, dialect=speaking(provider)).text == "Hi 😀!"


def test_an_emoji_in_two_chunks_of_reasoning_is_one_character(talk):
    """Also where it is all of a chunk."""
    pieces = [event({"reasoning_content": text}) for text in ("Hm ", HIGH, LOW, "!")]
    assert talk(whole(*pieces, *says("Hello"))).reasoning == "Hm 😀!"


def test_an_emoji_in_two_chunks_of_arguments_is_one_character(talk, tools, ran):
    """In the text of the JSON, or escaped within it."""
    for high, low in ((HIGH, LOW), ("\\ud83d", "\\ude00")):
        pieces = (call(id="c1", name="say", arguments=f'{{"word": "{high}'), call(arguments=f'{low}"}}'))
        talk(whole(*pieces, reason="tool_calls"), ANSWER, tools=tools)
    assert ran == [("say", "😀")] * 2


def test_an_emoji_in_two_chunks_reaches_browsers_whole(talk, tools):
    """As a delta of its own or with the next text, never as two marks of what cannot be shown."""
    talked = talk(whole(*says("Hi ", HIGH, LOW), *says("Hello")))
    assert talked.text == "Hi 😀Hello"


HALVES = {
    "claude": (ANTHROPIC, anthropic(text_block(f"Hi {HIGH}", f"{LOW}!"))),
    "gemini": (GEMINI, gemini(({"text": f"Hi {HIGH}"},), ({"text": f"{LOW}!"},))),
}


@pytest.mark.parametrize("case", HALVES)
def test_an_emoji_in_two_chunks_of_another_format_is_one_character(talk, case):
    """Whoever sends it."""
    dialect, answer = HALVES[case]
    assert talk(answer, dialect=dialect).text == "Hi 😀!"


def test_an_emoji_in_two_chunks_of_bedrock_is_one_character(talk):
    """Though its frames are binary, their payload is JSON."""
    assert talk(bedrock({"text": f"Hi {HIGH}"}, {"text": f"{LOW}!"}), **BEDROCK).text == "Hi 😀!"


@pytest.mark.parametrize("pieces", [(f"Hi {HIGH}", "there"), (f"Hi {LOW}there",), ("Hi ", f"{HIGH}{HIGH}", "there")])
def test_a_half_without_its_other_half_is_marked(talk, pieces):
    """No database stores it."""
    talked = talk(whole(*says(*pieces)))
    assert talked.text.replace("\ufffd", "") == "Hi there"
    assert "\ufffd" in talked.text


def test_a_half_at_the_end_of_a_text_is_marked(talk):
    """Nothing more comes."""
    assert talk(whole(*says("Hi ", HIGH))).text == "Hi \ufffd"

"""How an answer ended, by each provider's own word for it: whole, cut, withheld, broken off, paused, or unknown."""

import logging

import pytest

from durable_agents import send_message, tool
from durable_agents.llm import openai_messages
from durable_agents.llm.finish_reasons import _noted
from durable_agents.transcript import turns
from tests.llm.dialects import ANTHROPIC, GEMINI
from tests.llm.paths import PATHS, speaking
from tests.llm.wire import (
    DONE,
    Block,
    Wire,
    anthropic,
    call,
    call_block,
    event,
    gemini,
    hidden_block,
    says,
    stop,
    text_block,
    whole,
)
from tests.servers.model import Reply

pytestmark = pytest.mark.django_db

CUT = {
    "openai": {"length": "length", "max_tokens": "length", "MAX_TOKENS": "length", "SAFETY": "content-filter"},
    "mistral": {"model_length": "length", "length": "length"},
    "groq": {"length": "length", "content_filter": "content-filter"},
    "deepseek": {"length": "length", "content_filter": "content-filter"},
    "openrouter": {"length": "length", "content_filter": "content-filter"},
    "xai": {"REASON_MAX_LEN": "length", "REASON_MAX_CONTEXT": "length"},
    "vllm": {"length": "length", "sensitive": "content-filter", "content-filter": "content-filter"},
}
BROKEN = {
    "openai": ("error", "abort", "network_error"),
    "mistral": ("error",),
    "groq": ("error",),
    "deepseek": ("insufficient_system_resource",),
    "openrouter": ("error",),
    "vllm": ("abort", "error", "repetition"),
}
WHOLE = {"openai": ("stop", "eos_token", "stop_sequence", "end_turn", "COMPLETE"), "xai": ("end_turn",)}


def pairs(table):
    return [(name, word) for name, words in table.items() for word in words]


HALF = says("Half an ", "answer")


@pytest.mark.parametrize(("provider", "word"), pairs(CUT))
def test_an_answer_that_was_cut_is_kept_and_says_so(talk, provider, word):
    """Once: another call would be cut as well."""
    talked = talk(whole(*HALF, reason=word), dialect=speaking(provider))
    assert (talked.ended, talked.text) == (("completed", CUT[provider][word]), "Half an answer")
    assert len(talked.requests) == 1


@pytest.mark.parametrize(("provider", "word"), pairs(BROKEN))
def test_an_answer_that_was_broken_off_is_a_failed_attempt(talk, provider, word):
    """The next one is whole, and nothing is left of the first."""
    talked = talk(whole(*HALF, reason=word), whole(*says("All of it.")), dialect=speaking(provider))
    assert (talked.ended, talked.text) == (("completed", "stop"), "All of it.")
    assert [step.error_code in {"provider_5xx", "network"} for step in talked.steps] == [True, False]


@pytest.mark.parametrize(("provider", "word"), pairs(WHOLE))
def test_an_answer_that_came_to_its_end_is_whole(talk, provider, word):
    """Whatever the server calls that."""
    assert talk(whole(*says("Hello"), reason=word), dialect=speaking(provider)).ended == ("completed", "stop")


CLAUDE = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content-filter",
}


@pytest.mark.parametrize("word", CLAUDE)
def test_claudes_words_mean_what_its_documentation_says(talk, word):
    """Also where an answer was begun."""
    talked = talk(anthropic(text_block("Half an answer"), reason=word), dialect=ANTHROPIC)
    assert (talked.ended, talked.text) == (("completed", CLAUDE[word]), "Half an answer")


GOOGLES = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(("SAFETY", "RECITATION", "LANGUAGE", "OTHER"), "content-filter"),
    **dict.fromkeys(("BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"), "content-filter"),
}
GOOGLES_FAILURES = ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE")


@pytest.mark.parametrize("word", GOOGLES)
def test_geminis_words_mean_what_its_documentation_says(talk, word):
    """Also where an answer was begun."""
    talked = talk(gemini(({"text": "Half an answer"},), reason=word), dialect=GEMINI)
    assert (talked.ended, talked.text) == (("completed", GOOGLES[word]), "Half an answer")


@pytest.mark.parametrize("word", GOOGLES_FAILURES)
def test_what_gemini_calls_malformed_is_a_failed_attempt(talk, word):
    """The text before the broken call is no answer."""
    talked = talk(gemini(({"text": "Let me"},), reason=word), gemini(({"text": "Hello."},)), dialect=GEMINI)
    assert (talked.ended, talked.text, len(talked.requests)) == (("completed", "stop"), "Hello.", 2)


def test_a_signature_that_gemini_misses_is_not_tried_again(talk):
    """The history would be the same."""
    talked = talk(gemini(({"text": ""},), reason="MISSING_THOUGHT_SIGNATURE"), dialect=GEMINI)
    assert (talked.thread.status, talked.thread.error_code, len(talked.requests)) == ("failed", "invalid_request", 1)


def test_the_word_of_the_models_own_provider_outweighs_an_ordinary_end(talk):
    """OpenRouter tells both."""
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "native_finish_reason": "MAX_TOKENS"}
    ended = event({}, choices=[choice])
    talked = talk(Wire(pieces=(*HALF, ended, DONE)), dialect=speaking("openrouter"))
    assert talked.ended == ("completed", "length")


@pytest.mark.parametrize("code", [502, "server_error", "502", None])
def test_an_error_in_openrouters_last_chunk_is_a_failed_attempt(talk, code):
    """Its code is a number or a word, or is left out."""
    error = {"message": "Provider disconnected"} | ({} if code is None else {"code": code})
    ended = event({"content": ""}, reason="error", error=error)
    talked = talk(Wire(pieces=(*HALF, ended, DONE)), whole(*says("All of it.")), dialect=speaking("openrouter"))
    assert (talked.ended, talked.text) == (("completed", "stop"), "All of it.")


@pytest.mark.parametrize("provider", PATHS)
def test_an_answer_without_any_word_for_its_end_was_cut(talk, provider):
    """Though the server says that it is done."""
    talked = talk(Wire(pieces=(*HALF, DONE)), whole(*says("All of it.")), dialect=speaking(provider))
    assert (talked.text, talked.steps[0].error_code) == ("All of it.", "network")


@pytest.mark.parametrize("word", ["", "null"])
def test_a_word_with_every_chunk_that_says_nothing_is_none(talk, word):
    """The last chunk says how the answer ended."""
    pieces = [event({"content": text}, reason=word) for text in ("One ", "two.")]
    talked = talk(Wire(pieces=(*pieces, stop("length"), DONE)))
    assert (talked.ended, talked.text) == (("completed", "length"), "One two.")


@pytest.fixture
def unknown(caplog):
    """Return a function that gives the unknown words that were logged."""
    _noted.clear()
    caplog.set_level(logging.WARNING, "durable_agents")
    return lambda: [
        record.finish_reason for record in caplog.records if getattr(record, "action", "") == "finish_reason"
    ]


def test_an_unknown_word_after_a_text_is_an_end_and_logged_once(talk, unknown):
    """Once per process, however often it is heard."""
    for _ in range(2):
        assert talk(whole(*says("Hello"), reason="tired")).ended == ("completed", "stop")
    assert unknown() == ["tired"]


def test_an_unknown_word_without_a_text_is_a_failed_attempt(talk, unknown):
    """Never an answer that has nothing to say."""
    talked = talk(Wire(pieces=(stop("tired"), DONE)), whole(*says("Hello")))
    assert (talked.ended, talked.steps[0].error_code, unknown()) == (("completed", "stop"), "provider_5xx", ["tired"])


def test_an_unknown_word_after_the_tools_ran_is_a_failed_attempt(talk, tools):
    """Where ``stop`` would mean that there is nothing to say."""
    talked = talk(CALLS, Wire(pieces=(stop("tired"), DONE)), whole(*says("Hello")), tools=tools)
    assert (talked.ended, len(talked.requests)) == (("completed", "stop"), 3)


def test_a_server_that_makes_up_words_does_not_fill_the_log(talk, unknown, monkeypatch):
    """A number of them is enough."""
    monkeypatch.setattr("durable_agents.llm.finish_reasons.MAX_NOTED", 2)
    for number in range(4):
        talk(whole(*says("Hello"), reason=f"tired_{number}"))
    assert len(unknown()) == 2


# ----------------------------------------------------------------------------------------------------- nothing to say


@pytest.fixture
def tools():
    """Return one tool."""

    @tool
    def note(word: str = "") -> str:
        """Keep a word."""
        return f"noted {word}"

    return [note]


CALLS = whole(call(id="call_1", name="note", arguments='{"word": "x"}'), reason="tool_calls")
SILENT = {
    "no text": Wire(pieces=(stop(), DONE)),
    "an empty text": Wire(pieces=(*says("", ""), stop(), DONE)),
    "thoughts": Wire(pieces=(event({"reasoning_content": "That was all."}), stop(), DONE)),
    "a cut thought": Wire(pieces=(event({"reasoning_content": "That was"}), stop("length"), DONE)),
}


@pytest.mark.parametrize("answer", SILENT.values(), ids=SILENT)
def test_a_model_that_has_nothing_to_say_after_its_tools_ran_has_ended(talk, tools, answer):
    """One call, not four; what it thought is kept."""
    talked = talk(CALLS, answer, tools=tools)
    assert (talked.thread.status, talked.calls, len(talked.requests)) == ("completed", [("note", "completed")], 2)
    assert bool(talked.reasoning) == (answer in {SILENT["thoughts"], SILENT["a cut thought"]})


def test_claude_that_has_nothing_to_say_after_its_tools_ran_has_ended(talk, tools):
    """It sends no block at all then, as its documentation says; hidden thoughts are no words either."""
    for silent in (anthropic(), anthropic(hidden_block("b3BhcXVl"))):
        blocks = anthropic(call_block('{"word": "x"}', call_id="toolu_1", name="note"), reason="tool_use")
        talked = talk(blocks, silent, dialect=ANTHROPIC, tools=tools)
        assert (talked.thread.status, len(talked.requests)) == ("completed", 2)


def test_gemini_that_has_nothing_to_say_after_its_tools_ran_has_ended(talk, tools):
    """An empty text and its end."""
    calls = gemini(({"functionCall": {"name": "note", "args": {"word": "x"}}},))
    talked = talk(calls, gemini(), dialect=GEMINI, tools=tools)
    assert (talked.thread.status, len(talked.requests)) == ("completed", 2)


def test_a_thread_in_which_the_model_had_nothing_to_say_goes_on(talk, tools):
    """The next question is answered as ever."""
    talked = talk(CALLS, SILENT["no text"], whole(*says("Hello")), tools=tools)
    send_message(talked.thread, "And now?")
    talked.goes_on()
    assert talked.text == "Hello"
    assert talked.requests[-1]["messages"][-1] == {"role": "user", "content": "And now?"}


@pytest.mark.parametrize("answer", [SILENT["no text"], SILENT["thoughts"]], ids=["no text", "thoughts"])
def test_a_question_that_gets_no_answer_is_a_failed_attempt(talk, tools, answer):
    """Of a bounded number."""
    talked = talk(answer, tools=tools)
    assert (talked.thread.status, talked.thread.error_code, len(talked.requests)) == ("failed", "provider_5xx", 4)


def test_a_limit_that_the_thoughts_use_up_is_not_met_again_and_again(talk):
    """Each attempt would cost as much and end the same way."""
    talked = talk(SILENT["a cut thought"])
    assert (talked.thread.status, talked.thread.error_code, len(talked.requests)) == ("failed", "invalid_request", 1)


def test_a_full_context_window_before_the_first_word_is_said_so(talk):
    """By the kind of its error."""
    talked = talk(anthropic(reason="model_context_window_exceeded"), dialect=ANTHROPIC)
    assert (talked.thread.error_code, len(talked.requests)) == ("context_window_exceeded", 1)


# ----------------------------------------------------------------------------------------------------- refusals

REFUSAL = tuple(event({"refusal": text}) for text in ("I cannot ", "help with that."))


@pytest.mark.parametrize("provider", PATHS)
def test_a_refusal_is_shown_as_the_models_words(talk, provider):
    """With one call; its finish reason says what it is."""
    talked = talk(whole(*REFUSAL), dialect=speaking(provider))
    assert (talked.ended, talked.text) == (("completed", "content-filter"), "I cannot help with that.")
    assert len(talked.requests) == 1


def test_a_refusal_is_part_of_the_history(talk):
    """So that the model knows what it has said."""
    talked = talk(whole(*REFUSAL), whole(*says("Yes.")))
    send_message(talked.thread, "Something else, then?")
    talked.goes_on()
    assert talked.requests[-1]["messages"][1] == {"role": "assistant", "content": "I cannot help with that."}


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [(ANTHROPIC, anthropic(reason="refusal")), (GEMINI, gemini(({"text": ""},), reason="PROHIBITED_CONTENT"))],
    ids=["claude", "gemini"],
)
def test_a_refusal_without_words_is_a_failure_of_its_own_kind(talk, dialect, answer):
    """Asked once."""
    talked = talk(answer, dialect=dialect)
    assert (talked.thread.status, talked.thread.error_code, len(talked.requests)) == ("failed", "content_policy", 1)


# ----------------------------------------------------------------------------------------------------- pauses


def test_a_turn_that_claude_pauses_goes_on_with_the_next_call(talk):
    """The answer goes back, and the next one is part of the same message."""
    talked = talk(
        anthropic(text_block("First."), reason="pause_turn"), anthropic(text_block("Then.")), dialect=ANTHROPIC
    )
    assert (talked.ended, talked.text, len(talked.requests)) == (("completed", "stop"), "First.Then.", 2)
    said = [message for message in talked.requests[-1]["messages"] if message["role"] == "assistant"]
    assert "First." in str(said)


SEARCH = {"type": "web_search_20250305", "name": "web_search"}
FOUND = {"type": "web_search_result", "url": "https://example.com/", "title": "A", "encrypted_content": "b3BhcXVl"}
RESULT = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [FOUND]}


def searched():
    """Return the blocks of a search that Claude's vendor has made, and what Anthropic wants back of them."""
    start = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    pieces = ({"type": "input_json_delta", "partial_json": text} for text in ('{"query": ', '"weather"}'))
    blocks = (Block(start=start, deltas=tuple(pieces)), Block(start=RESULT))
    return blocks, [start | {"input": {"query": "weather"}}, RESULT]


@pytest.mark.parametrize("text", ["", "So far"])
def test_a_paused_search_of_claudes_vendor_goes_back_as_it_was(talk, text):
    """With its encrypted results, and nothing after it: else the search would begin anew."""
    blocks, wanted = searched()
    said = (text_block(text),) if text else ()
    wanted = [*wanted, *({"type": "text", "text": text} for _ in said)]
    paused = anthropic(*blocks, *said, reason="pause_turn")
    talked = talk(paused, anthropic(text_block(" it rains.")), dialect=ANTHROPIC, provider_tools=[SEARCH])
    assert (talked.ended, talked.text) == (("completed", "stop"), f"{text} it rains.")
    assert talked.requests[-1]["messages"][1:] == [{"role": "assistant", "content": wanted}]


def test_another_model_gets_the_text_of_a_paused_answer(talk):
    """The blocks are Anthropic's own."""
    blocks, _ = searched()
    paused = anthropic(*blocks, text_block("So far"), reason="pause_turn")
    talked = talk(paused, anthropic(text_block(" it rains.")), dialect=ANTHROPIC, provider_tools=[SEARCH])
    messages = openai_messages("", turns(talked.thread.pk), max_result_bytes=1000, model="openai/x")
    assert [message["content"] for message in messages[1:3]] == ["So far", " it rains."]


def test_a_turn_that_is_paused_for_ever_ends(talk):
    """By the number of steps that a run has."""
    talked = talk(anthropic(text_block("On and on."), reason="pause_turn"), dialect=ANTHROPIC, max_steps=3)
    assert (talked.thread.status, talked.thread.error_code, len(talked.requests)) == ("failed", "max_steps", 3)


def test_a_pause_is_not_the_end_of_the_turn(talk):
    """Whoever is told of turns hears of the last step only."""
    heard = []
    paused, ended = anthropic(text_block("First."), reason="pause_turn"), anthropic(text_block("Then."))
    talk(paused, ended, dialect=ANTHROPIC, on_turn_complete=lambda **facts: heard.append(facts["finish_reason"]))
    assert heard == ["stop"]


def test_a_call_with_an_end_that_nobody_knows_runs_only_where_it_says_something(talk):
    """The word may mean a cut."""
    ran = []

    @tool
    def wipe(path: str = "/") -> str:
        """Delete everything below a path."""
        ran.append(path)
        return "wiped"

    for arguments in ("{}", '{"path": "/h"}'):
        talk(
            whole(call(id="call_1", name="wipe", arguments=arguments), reason="tired"),
            whole(*says("I see.")),
            tools=[wipe],
        )
    assert ran == ["/h"]


def test_an_end_of_the_demos_server_is_whole(talk):
    """The ordinary case, beside all the others."""
    assert talk(Reply(text="Hello there.", delay_seconds=0)).ended == ("completed", "stop")

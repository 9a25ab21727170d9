"""How an answer ended at providers with formats of their own: Bedrock, Ollama, OpenAI's Responses API."""

import json

import pytest

from durable_agents import tool
from tests.llm.paths import BEDROCK, ollama
from tests.llm.wire import Wire, bedrock, bedrock_event, bedrock_exception

pytestmark = pytest.mark.django_db

WORDS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content-filter",
    "content_filtered": "content-filter",
}


@pytest.fixture
def tools():
    """Return one tool."""

    @tool
    def note(word: str = "") -> str:
        """Keep a word."""
        return f"noted {word}"

    return [note]


@pytest.mark.parametrize("word", WORDS)
def test_bedrocks_words_mean_what_its_documentation_says(talk, word):
    """Also where an answer was begun."""
    talked = talk(bedrock({"text": "Half an "}, {"text": "answer"}, reason=word), **BEDROCK)
    assert (talked.ended, talked.text) == (("completed", WORDS[word]), "Half an answer")


@pytest.mark.parametrize("word", ["malformed_model_output", "malformed_tool_use"])
def test_what_bedrock_calls_malformed_is_a_failed_attempt(talk, word):
    """The next one is whole."""
    talked = talk(bedrock({"text": "Let me"}, reason=word), bedrock({"text": "Hello."}), **BEDROCK)
    assert (talked.ended, talked.text, len(talked.requests)) == (("completed", "stop"), "Hello.", 2)


BROKEN_OFF = {
    "throttlingException": ("rate_limited", "Too many requests, please wait before trying again."),
    "modelStreamErrorException": ("provider_5xx", "The system has had an error."),
    "internalServerException": ("provider_5xx", "The system has had an error."),
    "serviceUnavailableException": ("provider_5xx", "Bedrock is unavailable."),
    "validationException": ("context_window_exceeded", "Input is too long for requested model."),
}


@pytest.mark.parametrize("name", BROKEN_OFF)
def test_bedrocks_errors_within_an_answer_have_their_kind(server, failure, name):
    """What may pass is tried again."""
    kind, message = BROKEN_OFF[name]
    begun = bedrock_event("contentBlockDelta", delta={"text": "One "}, contentBlockIndex=0)
    server.answer_with(Wire(pieces=(begun, bedrock_exception(name, message))))
    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
    settings = {**BEDROCK["settings"], **keys, "aws_bedrock_runtime_endpoint": server.url, "api_base": None}
    error = failure(model=BEDROCK["model"], settings=settings)
    assert (error.kind.value, error.retryable) == (kind, kind != "context_window_exceeded")


def test_a_call_that_bedrock_cut_does_not_run(talk, tools):
    """Its block is closed all the same, with empty arguments."""
    start = {"toolUse": {"toolUseId": "tooluse_1", "name": "note"}}
    talked = talk(bedrock(start=start, reason="max_tokens"), bedrock({"text": "I see."}), tools=tools, **BEDROCK)
    assert (talked.calls, talked.steps[0].finish_reason) == ([("note", "failed")], "length")


@pytest.mark.parametrize(("word", "stored"), [("stop", "stop"), ("length", "length")])
def test_ollamas_words_are_kept(talk, word, stored):
    """As OpenAI's."""
    talked = talk(ollama({"content": "Half"}, reason=word), model="ollama_chat/x", path="/ollama")
    assert (talked.ended, talked.text) == (("completed", stored), "Half")


def test_a_call_that_ollama_cut_does_not_run(talk, tools):
    """The model library says of every answer with a call that it came to its end."""
    cut = ollama({"tool_calls": [{"function": {"name": "note", "arguments": {}}}]}, reason="length")
    talked = talk(cut, ollama({"content": "I see."}, reason="stop"), model="ollama_chat/x", path="/o", tools=tools)
    assert (talked.calls, talked.steps[0].finish_reason) == ([("note", "failed")], "length")


def responses(*events, reason=None):
    """Return an answer of OpenAI's Responses API."""
    kind = "response.completed" if reason is None else "response.incomplete"
    response = {"id": "r", "object": "response", "created_at": 1, "model": "gpt-5", "output": [], "status": kind[9:]}
    response |= {"incomplete_details": None if reason is None else {"reason": reason}}
    response |= {"usage": {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}}
    return Wire(
        pieces=tuple(
            f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
            for event in (*events, {"type": kind, "response": response})
        )
    )


def spoken(kind, *texts):
    """Return the events of a text, or of a refusal."""
    place = {"item_id": "m", "output_index": 0, "content_index": 0}
    return [{"type": f"response.{kind}.delta", "delta": text, **place} for text in texts]


@pytest.mark.parametrize(
    ("reason", "stored"), [(None, "stop"), ("max_output_tokens", "length"), ("content_filter", "content-filter")]
)
def test_the_responses_api_says_why_an_answer_is_incomplete(talk, reason, stored):
    """In a field of its own."""
    talked = talk(responses(*spoken("output_text", "Half"), reason=reason), model="openai/responses/gpt-5")
    assert (talked.ended, talked.text) == (("completed", stored), "Half")


def test_a_refusal_in_the_responses_api_is_shown_as_the_models_words(talk):
    """With one call."""
    talked = talk(responses(*spoken("refusal", "I cannot ", "do that.")), model="openai/responses/gpt-5")
    assert (talked.ended, talked.text, len(talked.requests)) == (
        ("completed", "content-filter"),
        "I cannot do that.",
        1,
    )


def test_a_failed_response_of_the_responses_api_is_a_failed_attempt(talk):
    """The next one is whole."""
    failed = {
        "type": "response.failed",
        "response": {"id": "r", "status": "failed", "error": {"code": "server_error", "message": "Sorry."}},
    }
    broken = Wire(pieces=(*responses(*spoken("output_text", "Half")).pieces[:-1], f"data: {json.dumps(failed)}\n\n"))
    talked = talk(broken, responses(*spoken("output_text", "All.")), model="openai/responses/gpt-5")
    assert (talked.ended, talked.text) == (("completed", "stop"), "All.")

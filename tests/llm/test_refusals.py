"""What a provider refuses: the kind, whether to try again and when; asked once per attempt, whatever the answer."""

import pytest

from durable_agents.exceptions import ModelError
from tests.llm.dialects import ANTHROPIC, GEMINI, OPENAI
from tests.llm.wire import Refusal, Wire, says, stop
from tests.servers.model import Status

KINDS = {
    400: {"invalid_request"},
    401: {"auth"},
    402: {"insufficient_credits"},
    403: {"auth"},
    404: {"invalid_request"},
    408: {"network"},
    409: {"provider_5xx"},
    413: {"context_window_exceeded"},
    422: {"invalid_request"},
    429: {"rate_limited"},
    500: {"provider_5xx"},
    502: {"provider_5xx", "network"},
    503: {"provider_5xx"},
    504: {"network"},
    529: {"provider_5xx"},
}
ERROR_TYPES = {413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}
PASSING = {408, 409, 429, 500, 502, 503, 504, 529}


@pytest.mark.parametrize("status", KINDS)
def test_a_refusal_has_its_kind_and_costs_one_request(server, refused, dialect, status):
    """By HTTP status, whoever the provider; only what passes is tried again, and not by the library."""
    error = refused(Refusal(status=status, error=dialect.error(ERROR_TYPES.get(status, "error"), "Scripted failure.")))
    assert (error.kind.value in KINDS[status], error.retryable) == (True, status in PASSING)
    assert len(server.requests) == 1


SAID = {
    "openai: too long": (OPENAI, 400, "context_length_exceeded", "This model's maximum context length is 8192 tokens."),
    "anthropic: too long": (
        ANTHROPIC,
        400,
        "invalid_request_error",
        "prompt is too long: 210000 tokens > 200000 maximum",
    ),
    "gemini: too long": (
        GEMINI,
        400,
        "INVALID_ARGUMENT",
        "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "openai: policy": (OPENAI, 400, "content_policy_violation", "Rejected as a result of our safety system."),
    "anthropic: policy": (ANTHROPIC, 400, "invalid_request_error", "Output blocked by content filtering policy"),
    "openai: no credit": (
        OPENAI,
        429,
        "insufficient_quota",
        "You exceeded your current quota, check your billing details.",
    ),
    "anthropic: no credit": (
        ANTHROPIC,
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to purchase credits.",
    ),
}
MEANT = {"too long": "context_window_exceeded", "policy": "content_policy", "no credit": "insufficient_credits"}


@pytest.mark.parametrize("case", SAID)
def test_a_refusal_that_says_why_has_the_kind_of_its_reason(server, ask, case):
    """Not every 400 is the same; in the words of each provider."""
    spoken, status, kind, message = SAID[case]
    server.answer_with(Refusal(status=status, error=spoken.error(kind, message)))
    with pytest.raises(ModelError) as caught:
        ask(model=spoken.model, settings=spoken.settings(server.url))
    assert (caught.value.kind.value, caught.value.retryable) == (MEANT[case.partition(": ")[2]], False)


@pytest.mark.parametrize(("header", "seconds"), [("2", 2.0), ("0.5", 0.5), ("soon", None)])
@pytest.mark.parametrize("status", [429, 503])
def test_a_providers_wish_to_wait_is_told(refused, status, header, seconds):
    """Where it is a number of seconds."""
    assert refused(Status(status=status, headers={"Retry-After": header})).retry_after_seconds == seconds


def test_googles_wish_to_wait_is_told(server, failure):
    """It is in the body."""
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}
    error = {**GEMINI.error("RESOURCE_EXHAUSTED", "Resource exhausted."), "details": [delay]}
    server.answer_with(Refusal(status=429, error=error))
    refused = failure(model=GEMINI.model, settings=GEMINI.settings(server.url))
    assert (refused.kind.value, refused.retry_after_seconds) == ("rate_limited", 7.5)


def test_no_wish_to_wait_is_none(server, failure):
    """The agent's own backoff decides."""
    server.answer_with(Status(status=429))
    assert failure().retry_after_seconds is None


def test_an_attempt_that_fails_in_the_middle_is_not_repeated_by_the_library(server, failure):
    """Retries are rows: visible and durable."""
    server.answer_with(Wire(pieces=says("One "), ending="torn"), Wire(pieces=(*says("Two"), stop())))
    failure()
    assert len(server.requests) == 1


def test_settings_cannot_switch_the_librarys_retries_on(server, failure):
    """Nor the streaming off."""
    server.answer_with(Status(status=500))
    failure(settings={"max_retries": 3, "num_retries": 3, "stream": False})
    assert len(server.requests) == 1
    assert server.requests[0]["stream"] is True

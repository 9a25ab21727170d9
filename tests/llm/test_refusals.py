"""What a provider refuses: the kind, whether to try again and when; asked once per attempt, whatever the answer."""

import pytest

from tests.llm.wire import Refusal, Wire, says, stop
from tests.servers.model import Status

KINDS = {
    400: "invalid_request",
    401: "auth",
    402: "insufficient_credits",
    403: "auth",
    404: "invalid_request",
    408: "network",
    409: "provider_5xx",
    413: "context_window_exceeded",
    422: "invalid_request",
    429: "rate_limited",
    500: "provider_5xx",
    502: "provider_5xx",
    503: "provider_5xx",
    504: "network",
    529: "provider_5xx",
}
PASSING = {408, 409, 429, 500, 502, 503, 504, 529}


@pytest.mark.parametrize("status", KINDS)
def test_a_refusal_has_its_kind_and_costs_one_request(server, failure, status):
    """By HTTP status; only what passes is tried again, and not by the library."""
    server.answer_with(Status(status=status))
    error = failure()
    assert (error.kind.value, error.retryable) == (KINDS[status], status in PASSING)
    assert len(server.requests) == 1


SAID = {
    "context_window_exceeded": {
        "message": "This model's maximum context length is 8192 tokens.",
        "code": "context_length_exceeded",
    },
    "content_policy": {"message": "Rejected as a result of our safety system.", "code": "content_policy_violation"},
}


@pytest.mark.parametrize("kind", SAID)
def test_a_bad_request_that_says_why_has_the_kind_of_its_reason(server, failure, kind):
    """Not every 400 is the same."""
    server.answer_with(Refusal(status=400, error={"type": "invalid_request_error", **SAID[kind]}))
    error = failure()
    assert (error.kind.value, error.retryable) == (kind, False)


@pytest.mark.parametrize(
    ("message", "kind", "retryable"),
    [
        ("You exceeded your current quota, please check your plan and billing details.", "insufficient_credits", False),
        ("Quota exceeded for requests per minute.", "rate_limited", True),
    ],
)
def test_only_a_quota_that_is_used_up_is_not_tried_again(server, failure, message, kind, retryable):
    """Both come with the status of a rate limit, but one of them passes."""
    server.answer_with(Refusal(status=429, error={"message": message, "type": "quota"}))
    error = failure()
    assert (error.kind.value, error.retryable) == (kind, retryable)


@pytest.mark.parametrize(("header", "seconds"), [("2", 2.0), ("0.5", 0.5), ("soon", None)])
@pytest.mark.parametrize("status", [429, 503])
def test_a_providers_wish_to_wait_is_told(server, failure, status, header, seconds):
    """Where it is a number of seconds."""
    server.answer_with(Status(status=status, headers={"Retry-After": header}))
    assert failure().retry_after_seconds == seconds


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

"""A limit that passes is waited for, though its words speak of money; only what the vendor calls final is final."""

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from durable_agents.llm.retry_after import requested_wait
from tests.llm.dialects import ANTHROPIC, GEMINI
from tests.llm.wire import Refusal, Wire, anthropic_event, event, says
from tests.servers.model import Garbage


def openai_error(message, code=None, kind=None, **facts):
    """Return an error object in OpenAI's format."""
    return {"message": message, "code": code, "type": kind, **facts}


PER_MINUTE = openai_error(
    "Rate limit reached for gpt-4o in organization org-x on requests per min (RPM): Limit 3, Used 3, Requested 1. "
    "Please try again in 20s. Visit https://platform.openai.com/account/rate-limits to learn more. Increase your "
    "rate limit by adding a payment method to your account at https://platform.openai.com/settings/billing.",
    "rate_limit_exceeded",
    "requests",
)
FREE_TIER = (
    "You exceeded your current quota, please check your plan and billing details. * Quota exceeded for metric: x"
)
GOOGLE = {
    "code": 429,
    "status": "RESOURCE_EXHAUSTED",
    "message": FREE_TIER,
    "details": [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}],
        },
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"},
    ],
}
PASSING = {
    "openai, a minute's": ("openai/x", 429, PER_MINUTE, {}, 20),
    "openai, with the header": ("openai/x", 429, PER_MINUTE, {"Retry-After": "7"}, 7),
    "openai, in milliseconds": ("openai/x", 429, PER_MINUTE, {"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
    "openai, only words of money": ("openai/x", 429, openai_error("See /settings/billing."), {"Retry-After": "7"}, 7),
    "groq": (
        "groq/x",
        429,
        openai_error(
            "Rate limit reached for model `x` on tokens per minute (TPM): Limit 6000, Used 5900, Requested 500. Please "
            "try again in 1m4.5s. Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing",
            "rate_limit_exceeded",
            "tokens",
        ),
        {},
        64.5,
    ),
    "groq, by its headers": (
        "groq/x",
        429,
        openai_error("Rate limit reached. Upgrade at /settings/billing", "rate_limit_exceeded"),
        {
            "x-ratelimit-remaining-requests": "12",
            "x-ratelimit-reset-requests": "2h",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "7.66s",
        },
        7.66,
    ),
    "google through openai's format": ("openai/x", 429, GOOGLE, {}, 17),
    "azure": (
        "openai/x",
        429,
        openai_error(
            "Requests have exceeded the call rate limit of your pricing tier. Please retry after 11 seconds.", "429"
        ),
        {},
        11,
    ),
    "mistral": ("mistral/x", 429, openai_error("Requests rate limit exceeded. See billing.", "1300"), {}, None),
    "openrouter, upstream": (
        "openrouter/a/x",
        429,
        openai_error("Provider returned error; add credits", 429),
        {},
        None,
    ),
    "xai": (
        "xai/x",
        429,
        "Too many requests for team; purchase credits to raise your limits.",
        {"Retry-After": "3"},
        3,
    ),
}

BY_HEADERS = {
    "retry after, two values": ({"Retry-After": "7, 7"}, 7),
    "retry after, with its unit": ({"Retry-After": "7 seconds"}, 7),
    "retry after, quoted": ({"Retry-After": '"7"'}, 7),
    "a gateway's": ({"X-Retry-After": "9"}, 9),
    "the IETF's draft": ({"RateLimit-Remaining": "0", "RateLimit-Reset": "9"}, 9),
    "the IETF's newer draft": ({"RateLimit": '"default";r=0;t=9'}, 9),
    "a reset by its name": ({"X-RateLimit-Reset-After": "9"}, 9),
    "cerebras": (
        {
            "x-ratelimit-remaining-requests-day": "1000",
            "x-ratelimit-reset-requests-day": "33011",
            "x-ratelimit-remaining-tokens-minute": "0",
            "x-ratelimit-reset-tokens-minute": "11.38",
        },
        11.38,
    ),
    "mistral": ({"ratelimitbysize-remaining": "0", "ratelimitbysize-reset": "12"}, 12),
    "all of several": (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "8.64s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "2m",
        },
        120,
    ),
}


@pytest.mark.parametrize("case", BY_HEADERS)
def test_a_limit_is_waited_for_by_any_vendors_headers(server, failure, case):
    headers, seconds = BY_HEADERS[case]
    server.answer_with(Refusal(status=429, error=openai_error("Slow down; see /billing."), headers=headers))
    told = failure()
    assert (told.kind.value, told.retryable, told.retry_after_seconds) == ("rate_limited", True, seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 1 minute and 5 seconds.", 65),
        ("Please retry after 1 day.", 86_400),
        ("Rate limit of 10 per 60s exceeded. Please wait 41 seconds before retrying.", 41),
        ("Try again in 20 s.", 20),
        ("Try again in 250 milliseconds", 0.25),
        ("Please try again in 1h2m3.5s", 3723.5),
        ("请求过于频繁,请在30秒后重试", 30),
        ("{'retryDelay': {'seconds': 17, 'nanos': 5}}", 17),
        ("Limit of 10 requests per 60s; add credits.", None),
        ("try again in " + "9" * 100_000, None),
    ],
)
def test_a_wish_to_wait_is_read_in_every_wording(text, seconds):
    assert requested_wait({}, text) == seconds


IN_ANSWER = {
    "a body of JSON": (
        "openai/x",
        Garbage(text=json.dumps({"error": {"message": "No.", "code": "insufficient_quota"}})),
    ),
    "minimax, a body": (
        "openai/x",
        Garbage(text='{"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}'),
    ),
    "an error without a wrapper": (
        "openai/x",
        Wire(pieces=(*says("One "), 'data: {"object": "error", "message": "No.", "code": "insufficient_quota"}\n\n')),
    ),
    "openrouter, an error of the choice": (
        "openrouter/a/x",
        Wire(pieces=(event({}, reason="error").replace('"delta"', '"error": {"code": 402}, "delta"'),)),
    ),
    "anthropic": (
        ANTHROPIC.model,
        Wire(pieces=(*ANTHROPIC.opening, anthropic_event("error", error={"type": "billing_error", "message": "No."}))),
    ),
}


@pytest.mark.parametrize("case", IN_ANSWER)
def test_what_is_final_is_final_in_an_answer_that_began_well(server, failure, case):
    """The model library loses such an error, or its code."""
    model, answer = IN_ANSWER[case]
    server.answer_with(answer)
    told = failure(model=model, settings=ANTHROPIC.settings(server.url) if model == ANTHROPIC.model else {})
    assert (told.kind.value, told.retryable) == ("insufficient_credits", False)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "See /billing.", "code": 429}},
        {"error_code": 18, "error_msg": "Open api qps request limit reached"},
        {"base_resp": {"status_code": 1002, "status_msg": "rate limit, please retry in 7 seconds"}},
    ],
)
def test_a_limit_that_passes_is_known_in_an_answer_that_began_well(server, failure, body):
    server.answer_with(Garbage(text=json.dumps(body)))
    told = failure()
    assert (told.kind.value, told.retryable) == ("rate_limited", True)
    assert told.retry_after_seconds == (7 if "base_resp" in body else None)


@pytest.mark.parametrize("case", PASSING)
def test_a_limit_that_passes_is_waited_for_though_it_speaks_of_money(server, failure, case):
    model, status, error, headers, seconds = PASSING[case]
    server.answer_with(Refusal(status=status, error=error, headers=headers))
    told = failure(model=model)
    assert (told.kind.value, told.retryable, told.retry_after_seconds) == ("rate_limited", True, seconds)


@pytest.mark.parametrize("case", ["openai, a minute's", "groq", "google through openai's format"])
def test_a_limit_that_passes_is_waited_for_within_a_stream_too(server, failure, case):
    model, _, error, _, seconds = PASSING[case]
    server.answer_with(Wire(pieces=(*says("One "), f"data: {json.dumps({'error': error})}\n\n")))
    told = failure(model=model)
    assert (told.kind.value, told.retryable, told.retry_after_seconds) == ("rate_limited", True, seconds)


def test_googles_free_tier_is_waited_for(server, failure):
    server.answer_with(Refusal(status=429, error=GOOGLE))
    told = failure(model=GEMINI.model, settings=GEMINI.settings(server.url))
    assert (told.kind.value, told.retryable, told.retry_after_seconds) == ("rate_limited", True, 17)


def test_anthropics_limit_is_waited_for_until_its_reset(server, failure):
    """In the form of RFC 3339."""
    reset = (datetime.now(UTC) + timedelta(seconds=30)).isoformat().replace("+00:00", "Z")
    headers = {"anthropic-ratelimit-input-tokens-remaining": "0", "anthropic-ratelimit-input-tokens-reset": reset}
    error = ANTHROPIC.error("rate_limit_error", "This request would exceed the rate limit; see your billing page.")
    server.answer_with(Refusal(status=429, error=error, headers=headers))
    told = failure(model=ANTHROPIC.model, settings=ANTHROPIC.settings(server.url))
    assert (told.kind.value, 20 < told.retry_after_seconds <= 30) == ("rate_limited", True)


def test_openrouters_reset_within_its_error_is_waited_for(server, failure):
    """In milliseconds since the epoch."""
    headers = {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0"}
    headers["X-RateLimit-Reset"] = str(int(time.time() * 1000) + 40_000)
    error = openai_error("Rate limit exceeded: free-models-per-min. Add credits.", 429, metadata={"headers": headers})
    server.answer_with(Refusal(status=429, error=error))
    told = failure(model="openrouter/a/x:free")
    assert (told.kind.value, 30 < told.retry_after_seconds <= 40) == ("rate_limited", True)


FINAL = {
    "openai": ("openai/x", 429, openai_error(FREE_TIER, "insufficient_quota", "insufficient_quota")),
    "openai, by its type": ("openai/x", 429, openai_error(FREE_TIER, None, "insufficient_quota")),
    "openai, hard limit": (
        "openai/x",
        400,
        openai_error("Billing hard limit has been reached", "billing_hard_limit_reached"),
    ),
    "openai, not active": (
        "openai/x",
        429,
        openai_error("Your account is not active, please check your billing details.", "billing_not_active"),
    ),
    "deepseek": ("deepseek/x", 402, openai_error("Insufficient Balance", "invalid_request_error", "unknown_error")),
    "openrouter": (
        "openrouter/a/x",
        402,
        openai_error("This request requires more credits, or fewer max_tokens. You can only afford 2000.", 402),
    ),
    "openrouter, key": ("openrouter/a/x", 402, openai_error("Insufficient credits. Add more.", 402)),
    "moonshot": (
        "moonshot/x",
        429,
        openai_error("Your account is suspended, please check your plan.", None, "exceeded_current_quota_error"),
    ),
    "zhipu": ("openai/x", 429, openai_error("Insufficient balance or no resource package. Please recharge.", "1113")),
    "dashscope": ("openai/x", 400, openai_error("Access denied, your account is not in good standing.", "Arrearage")),
    "xai": (
        "xai/x",
        429,
        "Your team has either used all available credits or reached its monthly spending limit.",
    ),
    "xai, new": ("xai/x", 403, "Your newly created team doesn't have any credits yet."),
    "together": ("together_ai/x", 402, openai_error("Credit limit exceeded, please add credits.", "credit_limit")),
    "fireworks": (
        "fireworks_ai/x",
        412,
        openai_error("Account is suspended, possibly due to reaching the monthly spending limit."),
    ),
    "google, prepaid": ("openai/x", 429, openai_error("Your prepayment credits are depleted.", 429)),
    "google, cap": ("openai/x", 429, openai_error("Your project has exceeded its monthly spending cap.", 429)),
    "zhipu, in chinese": ("openai/x", 429, openai_error("余额不足或无可用资源包,请充值。")),
    "dashscope, in chinese": ("openai/x", 400, openai_error("您的账户已欠费,请充值后重试。")),
    "siliconflow": ("openai/x", 403, openai_error("Sorry, your account balance is insufficient", 30001)),
    "volcengine": ("openai/x", 403, openai_error("No.", "AccountOverdueError", "Forbidden")),
    "dashscope, free tier": ("openai/x", 403, openai_error("No.", "AllocationQuota.FreeTierOnly")),
    "any 402": ("hosted_vllm/x", 402, openai_error("No.")),
}


def test_the_limit_of_an_openrouter_key_is_one_of_money(server, failure):
    server.answer_with(Refusal(status=403, error=openai_error("Key limit exceeded (total limit).", 403)))
    told = failure(model="openrouter/a/x")
    assert (told.kind.value, told.retryable) == ("insufficient_credits", False)


@pytest.mark.parametrize("case", FINAL)
def test_what_the_vendor_calls_final_is_final(server, failure, case):
    """Whatever else it says: a header asks to wait, too."""
    model, status, error = FINAL[case]
    server.answer_with(Refusal(status=status, error=error, headers={"Retry-After": "7"}))
    told = failure(model=model)
    assert (told.kind.value, told.retryable, told.retry_after_seconds) == ("insufficient_credits", False, None)


@pytest.mark.parametrize("case", [case for case in FINAL if case != "any 402"])
def test_what_the_vendor_calls_final_is_final_within_a_stream(server, failure, case):
    model, _, error = FINAL[case]
    server.answer_with(Wire(pieces=(*says("One "), f"data: {json.dumps({'error': error})}\n\n")))
    told = failure(model=model)
    assert (told.kind.value, told.retryable) == ("insufficient_credits", False)


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        (
            400,
            "invalid_request_error",
            "You have reached your specified API usage limits. You will regain access on 1 May.",
        ),
        (402, "billing_error", "There is an issue with your billing or payment information."),
    ],
)
def test_anthropics_words_for_no_money_are_final(server, failure, status, kind, message):
    server.answer_with(Refusal(status=status, error=ANTHROPIC.error(kind, message)))
    told = failure(model=ANTHROPIC.model, settings=ANTHROPIC.settings(server.url))
    assert (told.kind.value, told.retryable) == ("insufficient_credits", False)


NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("1m2s", 62),
        ("6m0s", 360),
        ("2h3m", 7380),
        ("20ms", 0.02),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        ((NOW + timedelta(seconds=5)).isoformat(), 5),
        ("2026-05-01T12:00:05Z", 5),
        (str(NOW.timestamp() + 8), 8),
        (str((NOW.timestamp() + 8) * 1000), 8),
        *[(wrong, None) for wrong in ("soon", "", "nan", "inf", "-5", "1e999", "12:00")],
    ],
)
def test_a_wish_to_wait_is_read_in_every_form(wait, seconds):
    assert requested_wait({"retry-after": wait}, "", now=NOW) == seconds
    if seconds != 0:
        assert requested_wait({"x-ratelimit-reset": wait}, "", now=NOW) == seconds

"""When a failed attempt is tried again."""

import pytest

from durable_agents import Retry
from durable_agents.exceptions import ErrorKind

STEADY = {"initial_delay_seconds": 1, "max_delay_seconds": 10, "jitter": False}


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [("exponential", [1, 2, 4, 8, 10, 10]), ("linear", [1, 2, 3, 4, 5, 6]), ("constant", [1] * 6)],
)
def test_waits_grow_as_declared_up_to_the_longest(backoff, delays):
    """After the first attempt, the second, and so on."""
    retry = Retry(backoff=backoff, **STEADY)
    assert [retry.delay_seconds(attempt) for attempt in range(1, 7)] == delays


def test_a_great_many_attempts_wait_no_longer():
    """Nor do they overflow."""
    assert Retry(**STEADY).delay_seconds(100_000) == 10


def test_jitter_shortens_a_wait_by_half_at_most():
    """So that many threads do not come back together."""
    delays = {Retry(initial_delay_seconds=8, max_delay_seconds=8).delay_seconds(1) for _ in range(200)}
    assert len(delays) > 1
    assert all(4 <= delay <= 8 for delay in delays)


@pytest.mark.parametrize(("wish", "delay"), [(0.1, 1), (5, 5), (60, 60), (100_000, 300), (-1, 1)])
def test_a_providers_wish_is_a_lower_bound_up_to_five_minutes(wish, delay):
    """Also above the longest wait of our own."""
    assert Retry(**STEADY).delay_seconds(1, retry_after_seconds=wish) == delay


def test_jitter_never_comes_before_a_providers_wish():
    """It only lengthens it."""
    assert all(5 <= Retry().delay_seconds(1, retry_after_seconds=5) <= 6 for _ in range(200))


def test_only_what_may_pass_is_retryable():
    """Each kind knows."""
    retryable = {kind.value for kind in ErrorKind if kind.retryable}
    assert retryable == {"network", "rate_limited", "provider_5xx"}


def test_every_kind_has_a_text_for_users():
    """That gives nothing away."""
    assert all(kind.safe_message.endswith(".") for kind in ErrorKind)

"""What decides whether something is tried again may ask the database, sync or async, and breaks nothing."""

import logging

import pytest

from durable_agents import Fail, Retry, RetryIn, create_thread, tool
from durable_agents.models import Stream, ToolCall
from durable_agents.testing import ScriptedModel, calls, fails, run_until_idle
from tests.project.models import Booking

pytestmark = pytest.mark.django_db


def ran(*answers):
    """Run a thread of the shop to its rest; return it, and what was done."""
    with ScriptedModel(*answers):
        thread = create_thread("shop", prompt="Hello.")
        ran = run_until_idle()
    thread.refresh_from_db()
    return thread, ran


def open_or_closed(error):
    """Try again while the shop has a booking, and call the error closed when it has none."""
    return RetryIn(100) if Booking.objects.exists() else Fail("closed")


async def open_or_closed_async(error):
    """Decide the same."""
    return RetryIn(100) if await Booking.objects.aexists() else Fail("closed")


@pytest.mark.parametrize("classify", [open_or_closed, open_or_closed_async])
def test_classify_decides_by_the_database(shop, classify):
    """Also against what the error itself says."""
    shop(retry=Retry(classify=classify, max_attempts=2))
    thread, _ = ran(fails("network"))
    assert (thread.status, thread.error_code) == ("failed", "closed")
    Booking.objects.create(name="Ada")
    thread, done = ran(fails("auth"), "Hi.")
    assert thread.status == "completed"
    assert 99 < done.skipped_seconds <= 100


def test_a_classify_that_raises_decides_nothing(shop, caplog):
    """The error is what it is."""
    shop(retry=Retry(classify=lambda error: 1 / 0, max_attempts=2))
    with caplog.at_level(logging.ERROR, logger="durable_agents"):
        thread, _ = ran(fails("network"), fails("network"))
    assert (thread.error_code, Stream.objects.filter(thread=thread).count()) == ("network", 2)
    assert "ZeroDivisionError" in caplog.text


def is_booked(error, ctx, args):
    """Try again while the shop has a booking of this name and attempt."""
    return Booking.objects.filter(name=f"{args['name']} {ctx.attempt}").exists()


async def is_booked_async(error, ctx, args):
    """Decide the same."""
    return await Booking.objects.filter(name=f"{args['name']} {ctx.attempt}").aexists()


def broken(error, ctx, args):
    """Fail to decide."""
    raise KeyError


@pytest.mark.parametrize(("retry_if", "attempts"), [(None, 3), (is_booked, 2), (is_booked_async, 2), (broken, 1)])
def test_retry_if_decides_by_the_database(shop, retry_if, attempts):
    """It gets the error, the context and the arguments; one that raises says no."""

    @tool(retry=Retry(max_attempts=3, retry_if=retry_if))
    def fail(name: str) -> str:
        """Fail."""
        raise ConnectionError

    shop(tools=[fail])
    Booking.objects.create(name="Ada 1")
    thread, _ = ran(calls("fail", name="Ada"), "I see.")
    call = ToolCall.objects.get(thread=thread)
    assert (call.status, call.attempt, thread.status) == ("failed", attempts, "completed")

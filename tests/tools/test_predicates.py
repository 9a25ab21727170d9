"""Functions that decide about a call (``needs_approval``, ``retry_if``) get the arguments that the tool would get."""

import logging
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from pydantic import BaseModel, Field

from durable_agents import Agent, Retry, approve_tool_call, create_thread, tool
from durable_agents.agents import registry
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle

pytestmark = pytest.mark.django_db

SEEN: list[Any] = []
RAN: list[Any] = []
ID = "12345678-1234-5678-1234-567812345678"


class Size(Enum):
    """A size."""

    SMALL = "s"
    LARGE = "l"


class Line(BaseModel):
    """A line of an order."""

    sku: UUID
    price: Decimal = Decimal("9.99")


def over_100(ctx: Any, args: dict[str, Any]) -> bool:
    """Ask from an amount of 100 on."""
    SEEN.append(args)
    return bool(args["amount"] > 100)


@tool(needs_approval=over_100)
def pay(amount: int = 500) -> str:
    """Pay."""
    RAN.append(amount)
    return "paid"


@tool(needs_approval=over_100)
def pay_exactly(amount: Decimal) -> str:
    """Pay."""
    RAN.append(amount)
    return "paid"


@tool(needs_approval=lambda ctx, args: args["force"] is True)
def wipe(force: bool = False) -> str:
    """Delete everything."""
    RAN.append(force)
    return "wiped"


async def note(ctx: Any, args: dict[str, Any]) -> bool:
    """Keep what was seen, and ask for nothing."""
    SEEN.append(args)
    return False


@tool(needs_approval=note)
def order(
    lines: list[Line],
    size: Size,
    at: datetime,
    day: date = date(2026, 1, 2),
    within: timedelta = timedelta(days=3),
    tags: set[str] = Field(default_factory=lambda: {"new"}),  # noqa: B008 - as Pydantic has it
) -> str:
    """Order."""
    RAN.append({"lines": lines, "size": size, "at": at, "day": day, "within": within, "tags": tags})
    return "ordered"


def spoil(ctx: Any, args: dict[str, Any]) -> bool:
    """Change what was given to look at."""
    args["lines"].clear()
    return False


@tool(needs_approval=spoil)
def count(lines: list[str]) -> int:
    """Count."""
    return len(lines)


def keep_going(error: Exception, ctx: Any, args: dict[str, Any]) -> bool:
    """Try again what is worth little."""
    SEEN.append(args)
    return bool(args["amount"] < 1000 and args["size"] is Size.SMALL)


@tool(retry=Retry(max_attempts=2, retry_if=keep_going))
def charge(amount: Decimal, size: Size = Size.SMALL) -> str:
    """Charge."""
    RAN.append(amount)
    raise ConnectionError


@tool(needs_approval=lambda ctx, args: args["missing"], retry=Retry(max_attempts=3, retry_if=lambda *_: 1 / 0))
def doubtful() -> str:
    """Fail."""
    RAN.append("doubtful")
    raise ConnectionError


@pytest.fixture(autouse=True)
def _agent() -> Iterator[None]:
    SEEN.clear()
    RAN.clear()
    Agent("careful", model="openai/x", tools=[pay, pay_exactly, wipe, order, count, charge, doubtful])
    yield
    registry.remove("careful")


def asked(tool_name: str, /, **arguments: Any) -> ToolCall:
    """Let the model make a call, and return it as it then is."""
    with ScriptedModel(calls(tool_name, **arguments), *["Done."] * 3):
        create_thread("careful", prompt="Please.")
        run_until_idle()
    return ToolCall.objects.get()


def test_an_argument_that_the_model_left_out_counts_with_its_default():
    """The model sends {}: it would have paid 500 unasked."""
    call = asked("pay")
    assert (call.status, SEEN, RAN) == ("approval_requested", [{"amount": 500}], [])
    assert call.arguments == {}


@pytest.mark.parametrize("word", ["yes", "on", 1, "true", True])
def test_a_word_that_means_true_is_true(word):
    """The function gets True, too."""
    assert (asked("wipe", force=word).status, RAN) == ("approval_requested", [])


@pytest.mark.parametrize(
    ("amount", "status"), [("100.01", "approval_requested"), (500, "approval_requested"), ("99.50", "completed")]
)
def test_a_decimal_is_a_decimal(amount, status):
    """It comes as text or as a number; it is shown and stored as it came."""
    call = asked("pay_exactly", amount=amount)
    assert (call.status, call.arguments) == (status, {"amount": amount})
    assert [type(seen["amount"]) for seen in SEEN] == [Decimal]


def test_a_predicate_sees_exactly_what_the_function_gets():
    """Nested models, enums, times and sets, defaults included."""
    call = asked("order", lines=[{"sku": ID}], size="l", at="2026-01-02T03:04:05Z")
    assert call.status == "completed"
    assert SEEN == RAN
    assert SEEN[0]["lines"] == [Line(sku=UUID(ID))]
    assert (SEEN[0]["size"], SEEN[0]["tags"], SEEN[0]["day"]) == (Size.LARGE, {"new"}, date(2026, 1, 2))
    assert call.arguments == {"lines": [{"sku": ID}], "size": "l", "at": "2026-01-02T03:04:05Z"}


def test_a_predicate_that_changes_its_arguments_changes_nothing():
    """They are its own copy."""
    assert asked("count", lines=["a", "b"]).result == 2


def test_arguments_that_do_not_fit_reach_no_predicate():
    """The model is told instead."""
    call = asked("pay_exactly", amount="much")
    assert (call.status, SEEN, RAN) == ("failed", [], [])
    assert "amount" in call.error


def test_retry_if_gets_what_the_function_got():
    """Defaults included."""
    call = asked("charge", amount="12.50")
    assert [Decimal("12.50")] * 2 == RAN
    assert [{"amount": Decimal("12.50"), "size": Size.SMALL}] == SEEN
    assert (call.status, call.attempt) == ("failed", 2)


def test_retry_if_sees_the_arguments_of_the_person_who_approved():
    """Those are what ran."""
    call = asked("pay")
    root = get_user_model().objects.create(username="root", is_staff=True)
    with ScriptedModel("Done."):
        approve_tool_call(call.thread_id, call.tool_call_id, by=root, arguments={"amount": "7"})
        run_until_idle()
    call.refresh_from_db()
    assert (RAN, call.arguments, call.approved_arguments) == ([7], {}, {"amount": "7"})


def test_a_predicate_that_raises_asks_and_is_logged(caplog):
    """Nothing runs because of a bug, and somebody can find it."""
    call = asked("doubtful")
    assert (call.status, RAN) == ("approval_requested", [])
    [record] = [record for record in caplog.records if record.action == "approval"]
    assert (record.levelno, record.exc_info[0], record.tool_call) == (logging.ERROR, KeyError, call.tool_call_id)


def test_a_retry_if_that_raises_does_not_retry_and_is_logged(caplog):
    """The tool's own error stays the outcome."""
    call = asked("doubtful")
    with ScriptedModel("Done."):
        approve_tool_call(call.thread_id, call.tool_call_id, by=None)
        run_until_idle()
    assert RAN == ["doubtful"]
    [record] = [record for record in caplog.records if record.action == "retry_if"]
    assert record.exc_info[0] is ZeroDivisionError

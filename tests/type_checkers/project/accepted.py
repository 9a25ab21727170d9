"""A project's agents, with every kind of tool, every callback and every way to declare a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, assert_type
from uuid import UUID

from durable_agents import (
    Agent,
    Fail,
    Retry,
    RetryIn,
    Streaming,
    Tool,
    ToolContext,
    ToolError,
    acreate_thread,
    create_thread,
    list_messages,
    send_message,
    stream_thread,
    tool,
)
from durable_agents.models import Thread, ToolCall

# Every kind of tool, and every way to declare one.


@dataclass
class Receipt:
    number: int
    amount: Decimal


@tool
def weather(city: str, unit: Literal["c", "f"] = "c") -> dict[str, str]:
    """Return the weather."""
    if not city:
        raise ToolError("Which city?")
    return {"city": city, "unit": unit}


@tool
async def forecast(city: str, *, days: int = 3) -> list[str]:
    """Return the weather of the next days."""
    return [city] * days


@tool(atomic=True)
def refund(ctx: ToolContext, order: int) -> str:
    """Refund an order."""
    ctx.progress({"order": order})
    return f"{order} for {ctx.scope}, attempt {ctx.attempt} of {ctx.max_attempts}"


def is_transient(error: Exception, ctx: ToolContext, args: Mapping[str, object]) -> bool:
    return isinstance(error, OSError) and ctx.attempt < 3 and bool(args)


@tool(
    retry=Retry(max_attempts=5, backoff="linear", retry_if=is_transient),
    timeout_seconds=60,
    after_crash="retry",
    pool="tools",
    needs_approval=lambda ctx, args: args["amount"] > 100 and ctx.scope != "",
    approved_by="staff",
)
async def charge(ctx: ToolContext, amount: Decimal) -> Receipt:
    """Charge the customer."""
    return Receipt(number=ctx.attempt, amount=amount)


def may_approve(user: Any, call: ToolCall) -> bool:
    return bool(user.is_staff) and call.pk is not None


async def needs_approval(ctx: ToolContext, args: dict[str, object]) -> bool:
    return ctx.tool_name in args


@tool(name="ship_order", description="Ship an order.", needs_approval=needs_approval, approved_by=may_approve)
def ship(order: int) -> None: ...


@tool(needs_approval=True, approved_by=("shop.approve_refund", "other", may_approve))
def pay_back(number: int) -> None:
    """Pay an order back."""


@tool(needs_approval=True, approved_by=["staff", "other"])
def pay_back_later(number: int) -> None:
    """Pay an order back later."""


@tool(kind="deferred", timeout_seconds=None, answered_by="shop.answer_the_warehouse", aliases=["warehouse"])
def ask_the_warehouse(ctx: ToolContext, sku: str) -> None:
    """Ask the warehouse."""


@tool(kind="client")
def pick_a_date(label: str) -> str: ...


@tool(kind="client", description="Let the user pick a time.")
def pick_a_time(label: str, *, step_minutes: int = 15) -> list[str]:
    """Return a list of times."""
    ...


@tool(schema={"type": "object", "properties": {"table": {"type": "string"}}})
def query(ctx: ToolContext, **arguments: object) -> object:
    """Query a table."""
    return arguments


def lookup(number: int) -> str:
    return str(number)


def from_server(**arguments: Any) -> Any:
    return arguments


by_name = tool(lookup, name="look_up_order")
with_schema = tool(from_server, name="from_server", schema={"type": "object"}, after_crash="ask")
found_at_run_time = Tool("remote_search", from_server, schema={"type": "object"}, description="Search.")
weather_tools: list[Tool] = [weather, forecast]


# The project calls its tools as functions: they keep their signatures.


async def calls_as_functions() -> None:
    ctx = ToolContext.for_test(owner=None, scope="acme", context={"plan": 1}, on_progress=print)
    assert_type(weather("Oslo", unit="f"), dict[str, str])
    assert_type(await forecast("Oslo", days=2), list[str])
    assert_type(refund(ctx, order=7), str)
    assert_type((await charge(ctx, Decimal(5))).amount, Decimal)
    assert_type(pick_a_date("When?"), str)
    assert_type(by_name(7), str)


# Agents.


def instructions(thread: Thread) -> str:
    return f"You serve {thread.pk}."


def configure(thread: Thread) -> dict[str, object] | None:
    return {"tools": [weather], "max_steps": 3} if thread.pk else None


async def configure_later(thread: Thread) -> Mapping[str, object]:
    return {"model": ["openai/gpt-4o-mini"]}


def transform_messages(messages: list[dict[str, Any]], thread: Thread) -> list[dict[str, Any]]:
    return messages[:1] + messages[-20:]


async def title(thread: Thread) -> str:
    return str(thread.pk)


async def resolve(name: str, thread: Thread) -> Tool | None:
    return found_at_run_time if name == found_at_run_time.name else None


def classify(error: Exception) -> RetryIn | Fail | None:
    return RetryIn(5) if isinstance(error, TimeoutError) else Fail("unknown")


def on_status_change(*, thread_id: UUID, status: str, previous_status: str) -> None: ...


def on_commit_step(*, thread_id: UUID, **facts: object) -> None: ...


async def on_message_complete(*, message: Mapping[str, object], usage: dict[str, Any], **facts: object) -> None: ...


def on_turn_complete(thread_id: UUID, stream_id: UUID, finish_reason: str, **facts: Any) -> int:
    return len(finish_reason)


async def on_error(*, error: str, stream_id: UUID | None, retryable: bool, **facts: object) -> None: ...


def on_retry(**facts: object) -> None: ...


TOOLS = [weather, forecast, refund, charge, ship, ask_the_warehouse, pick_a_date, pick_a_time]

support = Agent(
    "support",
    model="anthropic/claude-haiku-4-5",
    instructions=instructions,
    tools=[*TOOLS, query, by_name, with_schema],
    model_settings={"temperature": 0.2},
    streaming=Streaming(throttle_ms=50),
    retry=Retry(max_attempts=2, classify=classify),
    public=True,
    provider_tools=[{"type": "web_search_20250305", "name": "web_search"}],
    transform_messages=transform_messages,
    configure=configure,
    tool_resolver=resolve,
    title=title,
    on_status_change=on_status_change,
    on_commit_step=on_commit_step,
    on_message_complete=on_message_complete,
    on_turn_complete=on_turn_complete,
    on_error=on_error,
    on_retry=on_retry,
)
short = Agent(
    "short",
    model=["openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"],
    instructions=lambda thread: f"You serve {thread.title}.",
    tools=(weather,),
    streaming=False,
    retry=False,
    configure=configure_later,
    title=lambda thread: str(thread.agent),
    transform_messages=lambda messages, thread: messages[-5:],
)
chosen: Sequence[Agent] = [support, short]


# Functions.


async def functions() -> None:
    thread = create_thread("support", prompt="Hello", metadata={"page": 1})
    send_message(thread, "And when?", client_id="m1")
    for message in list_messages(thread):
        print(message)
    for cursor, chunk in stream_thread(thread):
        print(cursor, chunk)
    assert_type(await acreate_thread("support"), Thread)

"""The agents of a small shop, as a project would declare them, for tests of the test kit."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import TestCase

from django.contrib.auth import get_user_model

from durable_agents import Agent, Retry, ToolContext, ToolError, stop_thread, tool
from durable_agents.agents import registry
from tests.project.models import Booking


class BusyError(Exception):
    """The shop's own error."""


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
async def weather(city: str) -> str:
    """Say what the weather is, from the shop's database."""
    await asyncio.sleep(0)
    return f"{city}: sunny, {await Booking.objects.acount()} bookings"


@tool(atomic=True)
def book(name: str) -> str:
    """Book a table."""
    Booking.objects.create(name=name)
    return f"booked for {name}"


@tool(retry=Retry(max_attempts=3, initial_delay_seconds=3600))
def flaky(ctx: ToolContext) -> str:
    """Work at the third attempt."""
    if ctx.attempt < 3:
        raise BusyError
    return f"attempt {ctx.attempt}"


@tool(after_crash="retry")
def again(ctx: ToolContext) -> str:
    """Book under this call's key; may run again."""
    Booking.objects.get_or_create(name=ctx.idempotency_key)
    return "done"


@tool
def refuse() -> str:
    """Fail with a text for the model."""
    raise ToolError("The warehouse is closed.")


@tool
def explode() -> str:
    """Fail with an error that nobody should see."""
    raise RuntimeError("a secret detail")


@tool
def break_the_database() -> str:
    """Run a statement that the database refuses."""
    get_user_model().objects.create(username="twice")
    get_user_model().objects.create(username="twice")
    return "never"


@tool
def stop(ctx: ToolContext) -> str:
    """Stop the run that this call is part of."""
    stop_thread(ctx.thread_id)
    return "stopped"


@tool(atomic=True, needs_approval=lambda ctx, args: args["amount"] > 100)
def pay(ctx: ToolContext, amount: int) -> str:
    """Pay; large amounts only when the owner agrees."""
    Booking.objects.create(name=f"paid {amount}")
    return f"paid {amount}"


@tool(kind="deferred")
def ask_the_warehouse(ctx: ToolContext, sku: str) -> None:
    """Ask; the warehouse answers when it can."""
    Booking.objects.create(name=ctx.tool_call_id)


TOOLS = [add, weather, book, flaky, again, refuse, explode, break_the_database, stop, pay, ask_the_warehouse]


@contextmanager
def opened(**options) -> Iterator[Agent]:
    """Declare the shop's agent for a while."""
    declared = {"model": "openai/gpt-x", "instructions": "You are a shop.", "tools": TOOLS, **options}
    agent = Agent(declared.pop("name", "shop"), **declared)
    try:
        yield agent
    finally:
        registry.remove(agent.name)


def open_shop(test: TestCase, **options) -> Agent:
    """Declare it until the end of a test."""
    return test.enterContext(opened(**options))

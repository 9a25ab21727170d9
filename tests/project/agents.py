"""Agents for tests with real workers. The model server is where `TEST_MODEL_URL` says."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async

from durable_agents import Agent, Retry, ToolContext, ToolError, tool
from durable_agents.crashpoints import crashpoint


def write_line(path: str, text: str) -> None:
    """Append a line, in one write, so that lines of several processes do not mix."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(text + "\n")


@tool
def note(path: str, text: str, seconds: float = 0) -> str:
    """Write a line into a file, then take some seconds."""
    write_line(path, text)
    time.sleep(seconds)
    return f"wrote {text}"


@tool(after_crash="retry")
def note_again(ctx: ToolContext, path: str, seconds: float = 0) -> str:
    """Write this call's idempotency key into a file, then take some seconds; may run again."""
    write_line(path, ctx.idempotency_key)
    time.sleep(seconds)
    return ctx.idempotency_key


@tool
async def wait(seconds: float) -> str:
    """Take some seconds without a thread."""
    await asyncio.sleep(seconds)
    return f"waited {seconds:g} s"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def refuse() -> str:
    """Fail with a text for the model."""
    raise ToolError("The warehouse is closed.")


@tool
def explode() -> str:
    """Fail with an error that nobody should see."""
    raise RuntimeError("a secret detail")


@tool
def leave() -> str:
    """Try to end the worker."""
    raise SystemExit(3)


@tool(after_crash="retry")
async def block_the_loop() -> str:
    """Never give the event loop back."""
    while True:
        time.sleep(1)  # noqa: ASYNC251 - the fault that the watchdog is for


@tool(after_crash="retry")
def die(path: str, seconds: float = 0) -> str:
    """Kill the worker after some seconds, each time."""
    write_line(path, str(os.getpid()))
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def die_before_the_call(thread: Any) -> str:
    """Kill the worker before it can ask the model."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@tool(atomic=True)
def book(name: str) -> str:
    """Book something, in one transaction with the outcome of the call."""
    from tests.project.models import Booking

    Booking.objects.create(name=name)
    crashpoint("in_user_code")
    return name


@tool(atomic=True)
def book_slowly(name: str, path: str, seconds: float = 0) -> str:
    """Book something, take some seconds, the first time only, and look at what was booked."""
    from tests.project.models import Booking

    Booking.objects.create(name=name)
    is_first = not Path(path).exists()
    write_line(path, name)
    time.sleep(seconds if is_first else 0)
    return str(Booking.objects.filter(name=name).count())


@tool(name="wait", timeout_seconds=2)
async def wait_two_seconds_at_most(seconds: float) -> str:
    """Take some seconds, two at most."""
    await asyncio.sleep(seconds)
    return f"waited {seconds:g} s"


@tool
def count_up(ctx: ToolContext, seconds: float) -> str:
    """Say how far it is, until the time is over or nobody waits any more."""
    ended = time.monotonic() + seconds
    while time.monotonic() < ended and not ctx.stop_requested:
        ctx.progress({"left": round(ended - time.monotonic(), 3)})
        time.sleep(0.01)
    return "stopped" if ctx.stop_requested else "counted"


@tool(needs_approval=True, timeout_seconds=None)
def pay(amount: int) -> str:
    """Pay an amount, once somebody has approved it."""
    return f"paid {amount}"


@tool(kind="deferred", timeout_seconds=None)
def ask_the_warehouse() -> None:
    """Ask for something whose answer comes later."""


def is_large(ctx: ToolContext, args: dict[str, Any]) -> bool:
    """Whether somebody has to approve the amount."""
    return bool(args["amount"] > 100)


@tool(needs_approval=is_large)
def spend(amount: int = 500) -> str:
    """Spend an amount."""
    note_booking(f"spent {amount}")
    return f"spent {amount}"


@tool(needs_approval=True)
def refund(amount: int) -> str:
    """Pay an amount back."""
    note_booking(f"refunded {amount}")
    return f"refunded {amount}"


@tool(needs_approval=True, approved_by="other")
def transfer(amount: int) -> str:
    """Transfer an amount; somebody else has to approve."""
    note_booking(f"transferred {amount}")
    return f"transferred {amount}"


def tools_of_cashier(thread: Any) -> dict[str, Any]:
    """Leave out the tool that the thread's metadata name."""
    return {"tools": [item for item in (spend, refund, transfer) if item.name != thread.metadata.get("without")]}


MODEL = {
    "model": "openai/test",
    "model_settings": {"api_base": os.environ.get("TEST_MODEL_URL", "http://127.0.0.1:9/v1"), "api_key": "test"},
    "retry": Retry(max_attempts=3, initial_delay_seconds=0.2, jitter=False),
    "public": True,
}

talker = Agent("talker", **MODEL)
clerk = Agent("clerk", tools=[pay, ask_the_warehouse], **MODEL)
cashier = Agent("cashier", tools=[spend, refund, transfer], configure=tools_of_cashier, **MODEL)
patient = Agent("patient", when_busy="queue", **MODEL)
TOOLS = [note, note_again, wait, add, refuse, explode, leave, block_the_loop, die, book, book_slowly]
toolbox = Agent("toolbox", tools=TOOLS, **MODEL)
_anthropic = MODEL["model_settings"] | {"api_base": MODEL["model_settings"]["api_base"].removesuffix("/v1")}
bench = Agent("bench", tools=[add, note], max_steps=10_000, **MODEL)
novelist = Agent("novelist", **MODEL | {"model": "anthropic/claude-sonnet-4-5", "model_settings": _anthropic})
llama = Agent("llama", **MODEL | {"model": "groq/llama-3.3-70b-versatile"})
cursed = Agent("cursed", **MODEL, instructions=die_before_the_call)
impatient = Agent("impatient", tools=[wait_two_seconds_at_most, count_up], **MODEL)


def note_booking(name: str) -> None:
    """Keep a line where tests of other processes find it."""
    from tests.project.models import Booking

    Booking.objects.create(name=name)


def tell_slowly(*, usage: dict[str, Any], **facts: Any) -> None:
    """Take a second to note that a message is complete."""
    time.sleep(1)
    note_booking(f"message, {usage['input_tokens'] > 0}")


async def tell_of_turn(*, finish_reason: str, **facts: Any) -> None:
    """Note that the turn is over."""
    await sync_to_async(note_booking)(f"turn, {finish_reason}")


async def tell_of_error(*, kind: str, **facts: Any) -> None:
    """Note that a run has failed."""
    await sync_to_async(note_booking)(f"error, {kind}")


informed = Agent(
    "informed",
    tools=[add],
    on_message_complete=tell_slowly,
    on_turn_complete=tell_of_turn,
    on_error=tell_of_error,
    title=lambda thread: f"Title of {thread.agent}",
    **MODEL,
)

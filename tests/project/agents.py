"""Agents for tests with real workers. The model server is where `TEST_MODEL_URL` says."""

import asyncio
import os
import time
from pathlib import Path

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


@tool(atomic=True)
def book(name: str) -> str:
    """Book something, in one transaction with the outcome of the call."""
    from tests.project.models import Booking

    Booking.objects.create(name=name)
    crashpoint("in_user_code")
    return name


MODEL = {
    "model": "openai/test",
    "model_settings": {"api_base": os.environ.get("TEST_MODEL_URL", "http://127.0.0.1:9/v1"), "api_key": "test"},
    "retry": Retry(max_attempts=3, initial_delay_seconds=0.2, jitter=False),
    "public": True,
}

talker = Agent("talker", **MODEL)
toolbox = Agent("toolbox", tools=[note, note_again, wait, add, refuse, explode, leave, block_the_loop, book], **MODEL)

"""Mistakes in a project. Each line that ends in `# wrong` must be an error, and no other line."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from durable_agents import Agent, Retry, Streaming, Tool, ToolContext, creat_thread, tool  # wrong


@tool(kind="sync")
def weather(city: str) -> str:
    return city


@tool(timeout_seconds="60")  # wrong
def slow(city: str) -> str:
    return city


@tool(kind="browser")  # wrong
def picked(city: str) -> str:
    return city


@tool(atomik=True)  # wrong
def spent(city: str) -> str:
    return city


def may_approve(user: Any) -> bool:
    return bool(user)


@tool(needs_approval=True, approved_by=may_approve)  # wrong
def approved(city: str) -> str:
    return city


@tool(needs_approval=True, approved_by=("other", 7))  # wrong
def approved_by_a_number(city: str) -> str:
    return city


@tool(needs_approval=lambda args: True)  # wrong
def checked(city: str) -> str:
    return city


def forgotten(city: str) -> str: ...  # wrong (mypy)


@tool
def also_forgotten(city: str) -> str: ...  # wrong (mypy)


@tool(kind="client")
def empty(city: str) -> str:  # wrong
    print(city)


later = tool(weather, name=5)  # wrong
weather(7)  # wrong
weather("Oslo", unit="c")  # wrong
number: int = weather("Oslo")  # wrong
remote = Tool("remote", weather, kind=1)  # wrong
retry = Retry(max_attempts="3")  # wrong
ToolContext.for_test(scope=Decimal(1))  # wrong


def configure(thread: Any) -> int:
    return int(thread.pk)


def on_status_change(*, thread_id: str, status: str, previous_status: str) -> None: ...


async def on_commit_step(*, thread_id: UUID, stream_id: UUID) -> None: ...


Agent(
    "support",
    model=7,  # wrong
    tools=[lambda city: city],  # wrong
    streaming=Streaming(throttle="100"),  # wrong
    retry=True,  # wrong
    when_busy="wait",  # wrong
    configure=configure,  # wrong
    on_status_change=on_status_change,  # wrong
    on_commit_step=on_commit_step,  # wrong
    on_error=lambda thread_id: None,  # wrong
)

"""Agents that the server of these tests and the worker, which the tests play themselves, both know."""

from typing import Any

from durable_agents import Agent, Retry, ToolContext, tool

RAN: list[str] = []
"""What tools were run with, in this process."""


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def count_to(ctx: ToolContext, number: int) -> str:
    """Count, and say how far it is."""
    ctx.progress({"at": number - 1})
    return f"counted to {number}"


@tool(needs_approval=True)
def pay(amount: int) -> str:
    """Pay; the owner is asked before."""
    RAN.append(f"paid {amount}")
    return f"paid {amount}"


@tool(needs_approval=True, approved_by="staff")
def fire(name: str) -> str:
    """Let somebody go; staff is asked before."""
    return f"fired {name}"


@tool(kind="client")
def pick_a_date(label: str) -> str:
    """Let the user pick a date."""


@tool(kind="client", answered_by="staff")
def stamp(label: str) -> str:
    """Have staff stamp it."""


@tool(kind="deferred", timeout_seconds=None)
def ask_the_warehouse(sku: str) -> str:
    """Ask; the answer comes later."""


@tool(kind="deferred", needs_approval=True, timeout_seconds=None)
def order(sku: str) -> str:
    """Order more; the owner is asked before, and the answer comes later."""


MODEL: dict[str, Any] = {
    "model": "openai/scripted",
    "model_settings": {"api_key": "test"},
    "public": True,
    "retry": Retry(max_attempts=3, initial_delay_seconds=5, jitter=False),
    "tools": [add, count_to, pay, fire, pick_a_date, stamp, ask_the_warehouse, order],
}

chatty = Agent("chatty", **MODEL)
queueing = Agent("queueing", when_busy="queue", **MODEL)
refusing = Agent("refusing", when_busy="reject", **MODEL)
interrupting = Agent("interrupting", when_busy="interrupt", **MODEL)
internal = Agent("internal", **MODEL | {"public": False})

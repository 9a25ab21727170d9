"""Functions that read the fields of models. Only mypy with the plugin of django-stubs knows the types of fields."""

from __future__ import annotations

from typing import assert_type

from durable_agents import create_thread, list_threads
from durable_agents.models import Thread, ToolCall


def configure(thread: Thread) -> dict[str, object] | None:
    return {"max_steps": 3} if thread.scope else None


async def title(thread: Thread) -> str:
    first = await thread.messages.filter(role="user").afirst()
    return first.text[:60] if first else thread.agent


def may_approve(user: object, call: ToolCall) -> bool:
    return call.tool_name == "ship"


def titles() -> list[str]:
    assert_type(create_thread("support").title, str)
    return [thread.title for thread in list_threads(scope="acme")]

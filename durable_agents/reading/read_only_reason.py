"""Say why a thread can only be read and deleted."""

from __future__ import annotations

from typing import TypedDict

from durable_agents.agents import registry
from durable_agents.chat_texts import ERRORS
from durable_agents.exceptions import AgentRemovedError
from durable_agents.models import Thread


class ReadOnlyJSON(TypedDict):
    """Why a thread can only be read and deleted: an error code, and a text for people."""

    code: str
    message: str


def read_only(thread: Thread) -> ReadOnlyJSON | None:
    """Return why the thread can only be read and deleted, with an English text. For any other thread, return None."""
    if registry.find(thread.agent) is not None:
        return None
    return {"code": AgentRemovedError.code, "message": ERRORS[AgentRemovedError.code]}

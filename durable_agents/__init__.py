"""Durable AI agents for Django: threads that survive crashes, deploys and restarts.

Everything of the public API imports from here, without the app registry and without loading anything heavy:
functions are looked up when they are first called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from durable_agents.agents import Agent, Streaming, Tool, ToolContext, tool
    from durable_agents.exceptions import (
        AgentNotFoundError,
        ApprovalExpiredError,
        DurableAgentsError,
        InvalidPartsError,
        PermissionDeniedError,
        ThreadBusyError,
        ThreadNotFoundError,
        ThrottledError,
        TooLargeError,
        ToolCallNotFoundError,
        ToolCallNotPendingError,
        ToolError,
    )
    from durable_agents.lifecycle import create_thread, delete_thread, resume_thread, send_message, stop_thread
    from durable_agents.retry import Fail, Retry, RetryIn
    from durable_agents.transcript import get_thread

_VALUES = {
    **dict.fromkeys(["Agent", "Streaming", "Tool", "ToolContext", "tool"], "agents"),
    **dict.fromkeys(["Fail", "Retry", "RetryIn"], "retry"),
    **dict.fromkeys(
        [
            "AgentNotFoundError",
            "ApprovalExpiredError",
            "DurableAgentsError",
            "InvalidPartsError",
            "PermissionDeniedError",
            "ThreadBusyError",
            "ThreadNotFoundError",
            "ThrottledError",
            "ToolCallNotFoundError",
            "ToolCallNotPendingError",
            "ToolError",
            "TooLargeError",
        ],
        "exceptions",
    ),
}
_FUNCTIONS = {
    **dict.fromkeys(["create_thread", "delete_thread", "resume_thread", "send_message", "stop_thread"], "lifecycle"),
    "get_thread": "transcript",
}

__all__ = [
    "Agent",
    "AgentNotFoundError",
    "ApprovalExpiredError",
    "DurableAgentsError",
    "Fail",
    "InvalidPartsError",
    "PermissionDeniedError",
    "Retry",
    "RetryIn",
    "Streaming",
    "ThreadBusyError",
    "ThreadNotFoundError",
    "ThrottledError",
    "TooLargeError",
    "Tool",
    "ToolCallNotFoundError",
    "ToolCallNotPendingError",
    "ToolContext",
    "ToolError",
    "create_thread",
    "delete_thread",
    "get_thread",
    "resume_thread",
    "send_message",
    "stop_thread",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name in _VALUES:
        return getattr(importlib.import_module(f"durable_agents.{_VALUES[name]}"), name)
    if name in _FUNCTIONS:
        return _deferred(name, _FUNCTIONS[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _deferred(name: str, module: str) -> Callable[..., Any]:
    """A function that finds its module when it is called: importable before the app registry is ready."""
    from django.apps import apps  # noqa: PLC0415 - keeps the import of this package free

    if apps.ready:
        function: Callable[..., Any] = getattr(importlib.import_module(f"durable_agents.{module}"), name)
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(f"durable_agents.{module}"), name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    return wraps(call)(call)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

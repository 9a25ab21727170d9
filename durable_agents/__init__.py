"""Durable AI agents for Django: chat threads that survive crashes, deploys and restarts.

Import the whole public API from here, even before Django's app registry is ready. Each module is imported when one of
its names is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from durable_agents.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from durable_agents.agents import Agent as Agent
    from durable_agents.agents import Streaming as Streaming
    from durable_agents.agents import Tool as Tool
    from durable_agents.agents import ToolContext as ToolContext
    from durable_agents.agents import tool as tool
    from durable_agents.callbacks import message_committed as message_committed
    from durable_agents.callbacks import step_finished as step_finished
    from durable_agents.callbacks import thread_status_changed as thread_status_changed
    from durable_agents.callbacks import tool_call_finished as tool_call_finished
    from durable_agents.exceptions import AgentNotFoundError as AgentNotFoundError
    from durable_agents.exceptions import AgentRemovedError as AgentRemovedError
    from durable_agents.exceptions import ApprovalExpiredError as ApprovalExpiredError
    from durable_agents.exceptions import DurableAgentsError as DurableAgentsError
    from durable_agents.exceptions import IdempotencyKeyReusedError as IdempotencyKeyReusedError
    from durable_agents.exceptions import InvalidCursorError as InvalidCursorError
    from durable_agents.exceptions import InvalidJSONObjectError as InvalidJSONObjectError
    from durable_agents.exceptions import InvalidPartsError as InvalidPartsError
    from durable_agents.exceptions import MessageNotFoundError as MessageNotFoundError
    from durable_agents.exceptions import PermissionDeniedError as PermissionDeniedError
    from durable_agents.exceptions import ThreadBusyError as ThreadBusyError
    from durable_agents.exceptions import ThreadNotFoundError as ThreadNotFoundError
    from durable_agents.exceptions import ThrottledError as ThrottledError
    from durable_agents.exceptions import TooLargeError as TooLargeError
    from durable_agents.exceptions import ToolCallNotFoundError as ToolCallNotFoundError
    from durable_agents.exceptions import ToolCallNotPendingError as ToolCallNotPendingError
    from durable_agents.exceptions import ToolChangedError as ToolChangedError
    from durable_agents.exceptions import ToolError as ToolError
    from durable_agents.exceptions import WaitTimeoutError as WaitTimeoutError
    from durable_agents.functions import *  # noqa: F403
    from durable_agents.retry import Fail as Fail
    from durable_agents.retry import Retry as Retry
    from durable_agents.retry import RetryIn as RetryIn

_VALUES = {
    "Agent": "agents",
    "Streaming": "agents",
    "Tool": "agents",
    "ToolContext": "agents",
    "tool": "agents",
    "AgentNotFoundError": "exceptions",
    "AgentRemovedError": "exceptions",
    "ApprovalExpiredError": "exceptions",
    "DurableAgentsError": "exceptions",
    "IdempotencyKeyReusedError": "exceptions",
    "InvalidCursorError": "exceptions",
    "InvalidJSONObjectError": "exceptions",
    "InvalidPartsError": "exceptions",
    "MessageNotFoundError": "exceptions",
    "PermissionDeniedError": "exceptions",
    "ThreadBusyError": "exceptions",
    "ThreadNotFoundError": "exceptions",
    "ThrottledError": "exceptions",
    "TooLargeError": "exceptions",
    "ToolCallNotFoundError": "exceptions",
    "ToolCallNotPendingError": "exceptions",
    "ToolChangedError": "exceptions",
    "ToolError": "exceptions",
    "WaitTimeoutError": "exceptions",
    "message_committed": "callbacks",
    "step_finished": "callbacks",
    "thread_status_changed": "callbacks",
    "tool_call_finished": "callbacks",
    "Fail": "retry",
    "Retry": "retry",
    "RetryIn": "retry",
}
"""Names that do not need the app registry, each with its module."""

_FUNCTIONS = [
    "add_message",
    "add_tool_error",
    "add_tool_result",
    "approve_tool_call",
    "create_thread",
    "delete_thread",
    "edit_message",
    "erase",
    "export_thread",
    "fork_thread",
    "get_thread",
    "list_messages",
    "list_messages_with_streams",
    "list_threads",
    "regenerate",
    "reject_tool_call",
    "resume_thread",
    "send_message",
    "set_tool_call_timeout",
    "settle_tool_call",
    "stop_thread",
    "stream_thread",
    "update_thread",
    "wait_for_thread",
]
"""Functions that need the app registry. The name of each function's async version begins with an ``a``."""

_LAZY = {*_FUNCTIONS, *(f"a{name}" for name in _FUNCTIONS)}

__all__ = sorted([*_VALUES, *_LAZY])  # noqa: PLE0605 - type checkers read the block above


if not TYPE_CHECKING:
    # Hide this function from type checkers. If they saw it, they would accept every name, including a misspelled one.
    def __getattr__(name: str) -> object:
        if name in _VALUES:
            return getattr(importlib.import_module(f"durable_agents.{_VALUES[name]}"), name)
        if name in _LAZY:
            from django.apps import apps  # noqa: PLC0415 - keeps the import of this package light

            return _function(name) if apps.ready else _deferred(name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _function(name: str) -> Callable[..., object]:
    function: Callable[..., object] = getattr(importlib.import_module("durable_agents.functions"), name)
    return function


def _deferred(name: str) -> Callable[..., object]:
    """Return a stand-in for the public function ``name``. It imports the real function only when it is called, so
    settings and models can import the stand-in before the app registry is ready.
    """

    def call(*args: object, **kwargs: object) -> object:
        return _function(name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"See ``durable_agents.functions.{name}``."
    return call


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

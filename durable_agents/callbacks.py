"""Call the project's callbacks and signals, inside a transaction or after it.

An error in a callback or a receiver is logged and not raised. Callbacks after a commit run at most once: if the process
dies right after the commit, they do not run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from asgiref.sync import async_to_sync
from django.db import InterfaceError, connections, transaction
from django.dispatch import Signal

from durable_agents.agents import Callback, is_async
from durable_agents.logs import log, log_error

thread_status_changed = Signal()
"""Sent after the commit of a new status, with ``thread_id``, ``status`` and ``previous_status``. The sender is the
class Thread.
"""
message_committed = Signal()
"""Sent after the commit of a user's message or of the end of an answer, with ``thread_id`` and ``message_id``. The
sender is the class Message. If a resumed run continues an answer, the signal is sent again when the answer ends again.
"""
step_finished = Signal()
"""Sent after the commit of a model's answer, with ``thread_id``, ``stream_id`` and ``usage``, a dict. The sender is the
class Stream.
"""
tool_call_finished = Signal()
"""Sent after the commit of a tool call's outcome, with ``thread_id``, ``tool_call_id`` and ``status``. The sender is
the class ToolCall.
"""


@dataclass(frozen=True, kw_only=True)
class DueCallback:
    """One of the project's callbacks, which runs after a commit."""

    name: str
    thread_id: UUID
    function: Callback
    arguments: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of the function."""

    @property
    def call(self) -> Callback:
        """The function with its arguments bound. Calling it returns a coroutine if the function is async."""
        return partial(self.function, **self.arguments)

    def log_failure(self) -> None:
        """Log the exception that is being handled."""
        log_error("a callback failed", action="callback", callback=self.name, thread=self.thread_id)


Runner = Callable[[DueCallback], None]


def call_inside(name: str, function: Callback, *, using: str, thread_id: UUID, **arguments: object) -> None:
    """Call one of the project's functions within this transaction, in a savepoint. The function's changes are rolled
    back if the function raises or if the transaction is rolled back later.

    Raises InterfaceError if the function broke the transaction, for example by closing the connection. Without this
    error Django would roll back silently.
    """
    try:
        with transaction.atomic(using=using):
            function(thread_id=thread_id, **arguments)
    except (Exception, SystemExit):
        # A callback that raises, or calls sys.exit(), must not roll back the caller's changes.
        log_error("a callback failed", action="callback", callback=name, thread=thread_id)
    if connections[using].needs_rollback:
        raise InterfaceError(f"The transaction was lost while {name} ran. {name} must not close the connection.")


def call_after_commit(name: str, function: Callback, *, using: str, thread_id: UUID, **arguments: object) -> None:
    """Call one of the project's functions after the commit of this transaction, through the runner set by
    ``run_through``.
    """
    callback = DueCallback(
        name=name, thread_id=thread_id, function=function, arguments={"thread_id": thread_id, **arguments}
    )
    # Use a lambda, not a partial: if a robust callback fails, Django logs its __qualname__, which a partial lacks.
    transaction.on_commit(lambda: deliver(callback), using=using, robust=True)


def send_after_commit(name: str, sender: type, *, using: str, thread_id: UUID, **arguments: object) -> None:
    """Send the signal of this name after the commit of this transaction, if the signal has receivers."""
    signal = _SIGNALS[name]

    def send(**facts: object) -> None:
        for receiver, answer in signal.send_robust(sender, **facts):
            if isinstance(answer, Exception):
                log(
                    logging.ERROR,
                    "a receiver of a signal failed",
                    action="signal",
                    error=answer,
                    callback=getattr(receiver, "__qualname__", receiver),
                    thread=thread_id,
                )

    if signal.has_listeners(sender):
        call_after_commit(name, send, using=using, thread_id=thread_id, **arguments)


_SIGNALS = {
    "thread_status_changed": thread_status_changed,
    "message_committed": message_committed,
    "step_finished": step_finished,
    "tool_call_finished": tool_call_finished,
}


def in_place(callback: DueCallback) -> None:
    """Run the callback immediately, in this thread. This is the default, for processes that are not workers."""
    try:
        call = callback.call
        if is_async(callback.function):
            async_to_sync(call)()
        else:
            call()
    except (Exception, SystemExit):
        callback.log_failure()


def in_own_thread(callback: DueCallback) -> None:
    """Run the callback in a new thread. A worker process uses this function while it runs no agents."""

    def run() -> None:
        in_place(callback)
        # Django closes connections at the end of a request. This thread must close its own.
        connections.close_all()

    # A daemon thread: a callback that hangs must not keep the process from ending.
    threading.Thread(target=run, daemon=True, name="durable-agents-callback").start()


_runners: list[Runner] = [in_place]


def deliver(callback: DueCallback) -> None:
    """Run the callback in the way that ``run_through`` has set for this process."""
    _runners[-1](callback)


def run_through(runner: Runner) -> Runner:
    """Let ``runner`` run the callbacks of this process from now on. Return the previous runner."""
    before = _runners.pop()
    _runners.append(runner)
    return before

"""Call the project's callbacks within a transaction or after the commit. Send signals after the commit.

Errors in callbacks and signal receivers are logged, not raised. A callback after the commit runs at most once. If the
process dies right after the commit, the callback does not run.
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
"""Sent after the commit of a user message, and after the commit that ends an answer, with ``thread_id`` and
``message_id``. The sender is the class Message. If a resumed run continues an answer, the signal is sent again when the
answer ends again.
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
    """A callback of the project that is about to run after a commit."""

    name: str
    thread_id: UUID
    function: Callback
    arguments: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of the function."""

    @property
    def call(self) -> Callback:
        """The callback as a function without parameters. If the callback is async, the function returns a coroutine."""
        return partial(self.function, **self.arguments)

    def log_failure(self) -> None:
        """Log the current exception."""
        log_error("a callback failed", action="callback", callback=self.name, thread=self.thread_id)


Runner = Callable[[DueCallback], None]


def call_inside(name: str, function: Callback, *, using: str, thread_id: UUID, **arguments: object) -> None:
    """Call a function of the project within the current transaction, in a savepoint. If the function raises an error,
    its database changes are rolled back, and the error is logged.

    Raises InterfaceError if the function has broken the transaction, for example by closing the connection. Without
    this InterfaceError, Django would roll back the whole transaction silently.
    """
    try:
        with transaction.atomic(using=using):
            function(thread_id=thread_id, **arguments)
    except (Exception, SystemExit):
        # Keep the caller's database changes if the callback raises an error or calls sys.exit().
        log_error("a callback failed", action="callback", callback=name, thread=thread_id)
    if connections[using].needs_rollback:
        raise InterfaceError(f"The transaction was lost while {name} ran. {name} must not close the connection.")


def call_after_commit(name: str, function: Callback, *, using: str, thread_id: UUID, **arguments: object) -> None:
    """Call a function of the project after the current transaction is committed (see ``deliver``)."""
    callback = DueCallback(
        name=name, thread_id=thread_id, function=function, arguments={"thread_id": thread_id, **arguments}
    )
    # Pass a lambda instead of a ``partial``. If a callback with ``robust=True`` fails, Django logs the callback's
    # ``__qualname__``, and a ``partial`` has none.
    transaction.on_commit(lambda: deliver(callback), using=using, robust=True)


def send_after_commit(name: str, sender: type, *, using: str, thread_id: UUID, **arguments: object) -> None:
    """Send the signal with this name after the current transaction is committed. If it has no receivers, do nothing."""
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
    """Run the callback at once, in the current OS thread. This is the default in processes that are not workers."""
    try:
        call = callback.call
        if is_async(callback.function):
            async_to_sync(call)()
        else:
            call()
    except (Exception, SystemExit):
        callback.log_failure()


def in_own_thread(callback: DueCallback) -> None:
    """Run the callback in a new OS thread. A worker process uses this runner for tasks other than running agents."""

    def run() -> None:
        in_place(callback)
        # Django closes connections at the end of a request. This OS thread has no request, so close them here.
        connections.close_all()

    # Use a daemon thread, so that a callback that hangs does not keep the process alive.
    threading.Thread(target=run, daemon=True, name="durable-agents-callback").start()


_runners: list[Runner] = [in_place]


def deliver(callback: DueCallback) -> None:
    """Run the callback with the runner that ``run_through`` has set for this process."""
    _runners[-1](callback)


def run_through(runner: Runner) -> Runner:
    """From now on, run the callbacks of this process with ``runner``. Return the previous runner."""
    before = _runners.pop()
    _runners.append(runner)
    return before

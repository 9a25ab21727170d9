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
"""After the commit, with ``thread_id``, ``status`` and ``previous_status``; the sender is the class Thread."""
message_committed = Signal()
"""A message is complete: a user's is stored, or an answer has ended. With ``thread_id`` and ``message_id``; the sender
is the class Message. It is sent again for an answer that a resume continued, when that ends again.
"""
step_finished = Signal()
"""A model call has its answer. With ``thread_id``, ``stream_id`` and ``usage``, a dict; the sender is the class
Stream."""
tool_call_finished = Signal()
"""A tool call has its outcome. With ``thread_id``, ``tool_call_id`` and ``status``; the sender is the class
ToolCall."""


@dataclass(frozen=True, kw_only=True)
class DueCallback:
    """A callback of the project that is due after a commit."""

    name: str
    thread_id: UUID
    function: Callback
    arguments: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of the function."""

    @property
    def call(self) -> Callback:
        """The function with its arguments; a coroutine function where it is one."""
        return partial(self.function, **self.arguments)

    def log_failure(self) -> None:
        """Log the exception that is being handled."""
        log_error("a callback failed", action="callback", callback=self.name, thread=self.thread_id)


Runner = Callable[[DueCallback], None]


def call_inside(name: str, function: Callback, *, using: str, thread_id: UUID, **arguments: object) -> None:
    """Call one of the project's functions within this transaction, in a savepoint: what it wrote is rolled back if it
    raises, and with the transaction.

    Raises InterfaceError if the function broke the transaction itself, which would otherwise seem to be committed.
    """
    try:
        with transaction.atomic(using=using):
            function(thread_id=thread_id, **arguments)
    except (Exception, SystemExit):  # sys.exit() in a callback must not roll the change back either
        log_error("a callback failed", action="callback", callback=name, thread=thread_id)
    if connections[using].needs_rollback:
        raise InterfaceError(f"The transaction was lost while {name} ran: it must not close the connection.")


def call_after_commit(name: str, function: Callback, *, using: str, thread_id: UUID, **arguments: object) -> None:
    """Call one of the project's functions after the commit of this transaction, through the runner that
    ``run_through`` has set.
    """
    callback = DueCallback(
        name=name, thread_id=thread_id, function=function, arguments={"thread_id": thread_id, **arguments}
    )
    # Not a partial: Django names a robust callback that failed in its log, and a partial has no name.
    transaction.on_commit(lambda: deliver(callback), using=using, robust=True)


def send_after_commit(name: str, sender: type, *, using: str, thread_id: UUID, **arguments: object) -> None:
    """Send the signal of this name after the commit of this transaction. Does nothing without receivers."""
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
    """Run it here and now: for a process that is not a worker."""
    try:
        call = callback.call
        if is_async(callback.function):
            async_to_sync(call)()
        else:
            call()
    except (Exception, SystemExit):
        callback.log_failure()


def in_own_thread(callback: DueCallback) -> None:
    """Run the callback in a thread of its own: for a worker process that is not in ``work``."""

    def run() -> None:
        in_place(callback)
        connections.close_all()  # connections belong to threads, and nothing else would close this one's

    # A daemon: the process does not wait for a callback when it ends, which may hang.
    threading.Thread(target=run, daemon=True, name="durable-agents-callback").start()


_runners: list[Runner] = [in_place]


def deliver(callback: DueCallback) -> None:
    """Run it in the way that this process does."""
    _runners[-1](callback)


def run_through(runner: Runner) -> Runner:
    """Let ``runner`` run what is due in this process from now on. Returns the previous runner."""
    before = _runners.pop()
    _runners.append(runner)
    return before

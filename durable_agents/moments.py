"""Hides how a project's own code is told of what happens: callbacks and signals, inside a transaction or after it.

An error in such code is logged and goes no further. What comes after a commit is told at most once: a process that dies
in between tells nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync
from django.db import InterfaceError, connections, transaction
from django.dispatch import Signal

from durable_agents.agents import Callback, is_async
from durable_agents.logs import log, log_error

thread_status_changed = Signal()
"""After the commit, with ``thread_id``, ``status`` and ``previous_status``; the sender is the class Thread."""
message_committed = Signal()
"""A message is whole: a user's is stored, or an answer has ended. With ``thread_id`` and ``message_id``; the sender is
the class Message. An answer that a resume goes on with is told of again when it ends again."""
step_finished = Signal()
"""A model call has its answer. With ``thread_id``, ``stream_id`` and ``usage``, a dict; the sender is the class
Stream."""
tool_call_finished = Signal()
"""A tool call has its outcome. With ``thread_id``, ``tool_call_id`` and ``status``; the sender is the class
ToolCall."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A function of the project's that is due, after a commit."""

    name: str
    thread_id: UUID
    function: Callback
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Its keyword arguments."""

    @property
    def call(self) -> Callback:
        """The function with its arguments; a coroutine function where it is one."""
        return partial(self.function, **self.facts)

    def log_failure(self) -> None:
        """Write the exception that is being handled."""
        log_error("a callback failed", action="callback", callback=self.name, thread=self.thread_id)


Runner = Callable[[Moment], None]


def call_inside(name: str, function: Callback, *, using: str, thread_id: UUID, **facts: Any) -> None:
    """Call a function of the project's within this transaction, in a savepoint: what it wrote is rolled back where it
    raises, and with the transaction.

    Raises InterfaceError where the transaction itself is lost with it, which would else seem to be committed.
    """
    try:
        with transaction.atomic(using=using):
            function(thread_id=thread_id, **facts)
    except (Exception, SystemExit):
        log_error("a callback failed", action="callback", callback=name, thread=thread_id)
    if connections[using].needs_rollback:
        raise InterfaceError(f"The transaction was lost while {name} ran: it must not close the connection.")


def call_after_commit(name: str, function: Callback, *, using: str, thread_id: UUID, **facts: Any) -> None:
    """Call a function of the project's when this transaction is committed; where, the process decides."""
    moment = Moment(name=name, thread_id=thread_id, function=function, facts={"thread_id": thread_id, **facts})
    # Not a partial: Django names a robust callback that failed in its log, and a partial has no name.
    transaction.on_commit(lambda: deliver(moment), using=using, robust=True)


def send_after_commit(name: str, sender: type, *, using: str, thread_id: UUID, **facts: Any) -> None:
    """Send the signal of this name when this transaction is committed. Nothing is done where nobody listens."""
    signal = _SIGNALS[name]
    if signal.has_listeners(sender):
        send = partial(_send, signal, sender)
        call_after_commit(name, send, using=using, thread_id=thread_id, **facts)


_SIGNALS = {
    "thread_status_changed": thread_status_changed,
    "message_committed": message_committed,
    "step_finished": step_finished,
    "tool_call_finished": tool_call_finished,
}


def _send(signal: Signal, sender: type, **facts: Any) -> None:
    for receiver, answer in signal.send_robust(sender, **facts):
        if isinstance(answer, Exception):
            told = {"callback": getattr(receiver, "__qualname__", receiver), "thread": facts["thread_id"]}
            log(logging.ERROR, "a receiver of a signal failed", action="signal", error=answer, **told)


def in_place(moment: Moment) -> None:
    """Run it here and now: what a process does that is no worker."""
    try:
        call = moment.call
        if is_async(moment.function):
            async_to_sync(call)()
        else:
            call()
    except (Exception, SystemExit):
        moment.log_failure()


def in_own_thread(moment: Moment) -> None:
    """Run it beside what this process does: what a worker does while it is not at work."""

    def run() -> None:
        in_place(moment)
        connections.close_all()

    threading.Thread(target=run, daemon=True, name="durable-agents-moment").start()


_runners: list[Runner] = [in_place]


def deliver(moment: Moment) -> None:
    """Have it run as this process does that."""
    _runners[-1](moment)


def run_through(runner: Runner) -> Runner:
    """From now on this process runs what is due by ``runner``. Returns how it did before."""
    before = _runners.pop()
    _runners.append(runner)
    return before

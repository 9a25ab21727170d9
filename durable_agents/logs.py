"""Hides how log records carry facts: a constant message, and every fact as an attribute of the record.

The keys ``action``, ``thread``, ``stream``, ``attempt``, ``fence`` and ``tool_call`` are stable. ``thread`` is the id
of the conversation; formatters that print it as a number, ``%(thread)d``, still get the number of the operating-system
thread, which ``logging`` keeps under the same name. Never message content, never secrets, in tracebacks neither.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

from durable_agents.redaction import redacted

logger = logging.getLogger("durable_agents")


class _ThreadId(str):
    """A conversation's id that formats as the operating-system thread's number where a number is asked for."""

    __slots__ = ("number",)
    number: int

    def __int__(self) -> int:
        return self.number

    def __format__(self, spec: str) -> str:
        return format(self.number, spec) if spec.endswith("d") else super().__format__(spec)


def log(level: int, message: str, /, *, action: str, error: BaseException | None = None, **facts: Any) -> None:
    """Write one record with these facts; ``error`` adds its traceback."""
    _write(level, message, action, error, facts)


def log_error(message: str, /, *, action: str, **facts: Any) -> None:
    """Write the exception that is being handled, with its traceback."""
    _write(logging.ERROR, message, action, sys.exc_info()[1], facts)


def _write(level: int, message: str, action: str, error: BaseException | None, facts: dict[str, Any]) -> None:
    if not logger.isEnabledFor(level):
        return
    file, line, function, _ = logger.findCaller(stacklevel=3)  # whoever has called one of the functions above
    info: Any = (type(error), error, error.__traceback__) if error is not None else None
    record = logger.makeRecord(logger.name, level, file, line, message, (), info, function)
    if "thread" in facts:
        conversation = _ThreadId(facts.pop("thread"))
        conversation.number = record.thread or 0
        facts["thread"] = conversation
    _without_secrets(record)
    record.__dict__.update({"action": action, **{name: _plain(value) for name, value in facts.items()}})
    logger.handle(record)


def _without_secrets(record: logging.LogRecord) -> None:
    """A traceback that shows a key is kept as a text without it: handlers would show its frames and causes anew."""
    if record.exc_info:
        told = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        safe = redacted(told)
        if safe != told:
            record.exc_info, record.exc_text = None, safe


def _plain(value: object) -> object:
    return value if isinstance(value, int | _ThreadId) else str(value)

"""Log with constant messages. All variable facts are attributes of the log record.

The attributes ``action``, ``thread``, ``stream``, ``attempt``, ``fence`` and ``tool_call`` are stable. ``thread`` is
the id of a conversation, although ``logging`` itself uses this name for the number of the OS thread. A formatter with
``%(thread)d`` still prints the number of the OS thread. Message content and secrets are never logged, not even in
tracebacks.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback

from durable_agents.redaction import redacted

logger = logging.getLogger("durable_agents")


class _ThreadId(str):
    """The id of a conversation, as a string.

    With the format ``%d``, the number of the OS thread that wrote the log record is shown instead.
    """

    __slots__ = ("number",)
    number: int

    def __int__(self) -> int:
        return self.number

    def __format__(self, spec: str) -> str:
        return format(self.number, spec) if spec.endswith("d") else super().__format__(spec)


def log(level: int, message: str, /, *, action: str, error: BaseException | None = None, **facts: object) -> None:
    """Write one log record with these facts. With ``error``, add its traceback."""
    _write(level, message, action, error, facts)


def log_error(message: str, /, *, action: str, **facts: object) -> None:
    """Log the current exception with its traceback."""
    _write(logging.ERROR, message, action, sys.exc_info()[1], facts)


class Repeated:
    """A log message for a problem that can occur a thousand times a second. The message is logged immediately the first
    time, and then at most once a minute.

    The attribute ``times`` of the record counts how often the problem has occurred since the last record. All methods
    are thread-safe.
    """

    SECONDS = 60.0

    def __init__(self, message: str, *, action: str, level: int = logging.WARNING) -> None:
        self._message = message
        self._action = action
        self._level = level
        self._lock = threading.Lock()
        self._told_at: float | None = None
        self._times = 0
        self._facts: dict[str, object] = {}

    def note(self, problem: BaseException | str, **facts: object) -> None:
        """Count the problem once more. Log it unless the last record is less than a minute old."""
        with self._lock:
            self._times += 1
            text = problem if isinstance(problem, str) else f"{type(problem).__name__}: {problem}".rstrip(": ")
            self._facts = {"problem": text, **facts}
        self.tell()

    def tell(self) -> None:
        """Log what has occurred since the last record, unless that record is less than a minute old.

        Call this method regularly, also while the problem does not occur. Otherwise, the last occurrences might never
        be logged.
        """
        with self._lock:
            now = time.monotonic()
            if not self._times or (self._told_at is not None and now - self._told_at < self.SECONDS):
                return
            facts, self._times, self._told_at = self._facts | {"times": self._times}, 0, now
        log(self._level, self._message, action=self._action, error=None, **facts)


def _write(level: int, message: str, action: str, error: BaseException | None, facts: dict[str, object]) -> None:
    if not logger.isEnabledFor(level):
        return
    # The record must name the caller of the logging function, not this module.
    file, line, function, _ = logger.findCaller(stacklevel=3)
    info = (type(error), error, error.__traceback__) if error is not None else None
    record = logger.makeRecord(logger.name, level, file, line, message, (), info, function)
    if "thread" in facts:
        conversation = _ThreadId(facts.pop("thread"))
        conversation.number = record.thread or 0
        facts["thread"] = conversation
    if record.exc_info:
        shown = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        safe = redacted(shown)
        if safe != shown:
            # Remove the exception. Otherwise, log handlers would format its traceback again, with the secrets.
            record.exc_info, record.exc_text = None, safe
    plain = {name: value if isinstance(value, int | _ThreadId) else str(value) for name, value in facts.items()}
    record.__dict__.update({"action": action, **plain})
    logger.handle(record)

"""Log with a constant message, and every fact as an attribute of the record.

The keys ``action``, ``thread``, ``stream``, ``attempt``, ``fence`` and ``tool_call`` are stable. ``thread`` is the id
of the conversation; formatters that print it as a number, ``%(thread)d``, still get the number of the operating-system
thread, which ``logging`` keeps under the same name. Message content and secrets are never logged, nor do they appear
in tracebacks.
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
    """A conversation's id that formats as the operating-system thread's number where a number is asked for."""

    __slots__ = ("number",)
    number: int

    def __int__(self) -> int:
        return self.number

    def __format__(self, spec: str) -> str:
        return format(self.number, spec) if spec.endswith("d") else super().__format__(spec)


def log(level: int, message: str, /, *, action: str, error: BaseException | None = None, **facts: object) -> None:
    """Write one record with these facts; ``error`` adds its traceback."""
    _write(level, message, action, error, facts)


def log_error(message: str, /, *, action: str, **facts: object) -> None:
    """Log the exception that is being handled, with its traceback."""
    _write(logging.ERROR, message, action, sys.exc_info()[1], facts)


class Repeated:
    """A problem that may recur a thousand times a second: logged at once, then once a minute at most.

    ``times`` of a record says how often it has happened since the previous record. For use from any thread.
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
        """Count one more occurrence."""
        with self._lock:
            self._times += 1
            text = problem if isinstance(problem, str) else f"{type(problem).__name__}: {problem}".rstrip(": ")
            self._facts = {"problem": text, **facts}
        self.tell()

    def tell(self) -> None:
        """Log the occurrences that were not logged yet, if it is time. Call it also after recovery."""
        with self._lock:
            now = time.monotonic()
            if not self._times or (self._told_at is not None and now - self._told_at < self.SECONDS):
                return
            facts, self._times, self._told_at = self._facts | {"times": self._times}, 0, now
        log(self._level, self._message, action=self._action, error=None, **facts)


def _write(level: int, message: str, action: str, error: BaseException | None, facts: dict[str, object]) -> None:
    if not logger.isEnabledFor(level):
        return
    file, line, function, _ = logger.findCaller(stacklevel=3)  # the caller of one of the functions above
    info = (type(error), error, error.__traceback__) if error is not None else None
    record = logger.makeRecord(logger.name, level, file, line, message, (), info, function)
    if "thread" in facts:
        conversation = _ThreadId(facts.pop("thread"))
        conversation.number = record.thread or 0
        facts["thread"] = conversation
    if record.exc_info:
        shown = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        safe = redacted(shown)
        if safe != shown:  # as a text without the secrets: handlers would format the frames and causes again
            record.exc_info, record.exc_text = None, safe
    plain = {name: value if isinstance(value, int | _ThreadId) else str(value) for name, value in facts.items()}
    record.__dict__.update({"action": action, **plain})
    logger.handle(record)

"""Simulate a worker's crash in a test.

The crash ends ``run_until_idle`` immediately. The next ``run_until_idle`` recovers the rows of the crashed worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from durable_agents import crashpoints

POINTS = crashpoints.POINTS
"""The points in a worker's code at which ``crash_at`` can simulate a crash.

- ``claimed``: the worker has claimed a row, and has not begun to run it.
- ``answered``: the model's answer is complete, but its step is not committed.
- ``step_committed``: the step is committed, together with its tool calls.
- ``tool_ended``: a tool that is not atomic has returned, but its outcome is not stored.
- ``tool_committed``: the outcome of a tool that is not atomic is stored.
- ``atomic_begun``: the transaction of an atomic tool is open, but its function was not called.
- ``atomic_ran``: the function of an atomic tool has returned, but its outcome is not written.
- ``atomic_settled``: the outcome of an atomic tool is written, but not committed.
- ``atomic_committed``: the changes and the outcome of an atomic tool are committed.

A step is one model call. An atomic tool runs in the transaction that also stores its outcome.
"""


class SimulatedCrash(BaseException):
    """The exception that simulates a worker's crash.

    It derives from BaseException, so that ``except Exception`` does not catch it.
    """

    def __init__(self, point: str = "") -> None:
        super().__init__(point)
        self.point = point


_dying: list[Callable[[SimulatedCrash], None]] = []
"""Functions to call when a crash is simulated. Each of them ends a running ``run_until_idle``."""


@contextmanager
def mortal(die: Callable[[SimulatedCrash], None]) -> Iterator[None]:
    """Call ``die`` when a crash is simulated within the block."""
    _dying.append(die)
    try:
        yield
    finally:
        _dying.remove(die)


def crash(point: str = "") -> NoReturn:
    """Simulate a worker's crash at this line.

    Call this function in a tool, or write ``does(crash)`` in a scripted answer.
    """
    error = SimulatedCrash(point)
    # Report the crash before raising it, because a bare ``except`` in the project might swallow the exception.
    for die in _dying:
        die(error)
    raise error


@contextmanager
def crash_at(point: str, *, nth: int = 1) -> Iterator[None]:
    """Simulate a crash when a worker reaches a point in its code (see ``POINTS``) for the ``nth`` time in the block.

    ``run_until_idle`` then raises SimulatedCrash. The exception ends the block, and ``crash_at`` catches it. Changes
    that were committed before the crash are kept. The next ``run_until_idle`` recovers the rows, as a new worker
    does.

    Raises AssertionError if the worker reaches the point fewer than ``nth`` times.
    """
    passed = 0

    def reached(name: str) -> None:
        nonlocal passed
        passed += name == point
        if name == point and passed == nth:
            crash(point)

    crashpoints.rehearse(reached)
    try:
        yield
    except SimulatedCrash as error:
        if error.point != point:
            raise
    finally:
        crashpoints.rehearse(None)
    if passed < nth:
        raise AssertionError(
            f"The worker reached {point!r} {passed} times, not {nth} times. Points: {', '.join(POINTS)}."
        )

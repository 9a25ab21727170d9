"""Hides how a worker's death is played within a test: the run ends on the spot, and what it held is reaped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from durable_agents import crashpoints

POINTS = crashpoints.POINTS
"""Names of the points where a worker can be made to die (``crash_at``).

- ``claimed``: a row is won, nothing is done with it.
- ``answered``: the model's answer is whole, its step is not committed.
- ``step_committed``: the step is committed, with the tool calls it made.
- ``tool_ended``: a tool that is not atomic has had its effect, its outcome is not stored.
- ``tool_committed``: the outcome of such a tool is stored.
- ``atomic_begun``: inside the transaction of an atomic tool, before its function.
- ``atomic_ran``: its function has returned, its outcome is not written.
- ``atomic_settled``: its outcome is written, not committed.
- ``atomic_committed``: function and outcome are committed.
"""


class SimulatedCrash(BaseException):
    """The worker died here. No ``except Exception`` catches it, as none catches SIGKILL."""

    def __init__(self, point: str = "") -> None:
        super().__init__(point)
        self.point = point


_dying: list[Callable[[SimulatedCrash], None]] = []
"""Whoever is running just now, and so dies."""


@contextmanager
def mortal(die: Callable[[SimulatedCrash], None]) -> Iterator[None]:
    """A block in which a crash is told to ``die``, since user code may swallow the exception."""
    _dying.append(die)
    try:
        yield
    finally:
        _dying.remove(die)


def crash(point: str = "") -> NoReturn:
    """Let the worker die here: for tools, and in a script as ``does(crash)``."""
    error = SimulatedCrash(point)
    for die in _dying:
        die(error)
    raise error


@contextmanager
def crash_at(point: str, *, nth: int = 1) -> Iterator[None]:
    """A block in which the worker dies at a point (see ``POINTS``) when it comes there for the ``nth`` time.

    The block ends there: ``run_until_idle`` raises SimulatedCrash, which goes no further than this block. What was
    committed before stays; the next ``run_until_idle`` recovers as a new worker does. Raises AssertionError where the
    point was not reached.
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
            f"The worker came to {point!r} {passed} times, not {nth} times. Points: {', '.join(POINTS)}."
        )

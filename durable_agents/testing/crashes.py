"""Simulate a worker's death within a test: the run ends on the spot, and the rows that it held are reaped."""

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
    """The simulated death of the worker. No ``except Exception`` catches it, as none catches SIGKILL."""

    def __init__(self, point: str = "") -> None:
        super().__init__(point)
        self.point = point


_dying: list[Callable[[SimulatedCrash], None]] = []
"""The functions that end the current runs."""


@contextmanager
def mortal(die: Callable[[SimulatedCrash], None]) -> Iterator[None]:
    """Call ``die`` when a crash is simulated within the block."""
    _dying.append(die)
    try:
        yield
    finally:
        _dying.remove(die)


def crash(point: str = "") -> NoReturn:
    """Kill the simulated worker here: for tools, and in a script as ``does(crash)``."""
    error = SimulatedCrash(point)
    # Said before it is raised: a ``finally`` or a bare ``except`` of user code may swallow the exception.
    for die in _dying:
        die(error)
    raise error


@contextmanager
def crash_at(point: str, *, nth: int = 1) -> Iterator[None]:
    """Kill the simulated worker within the block when it reaches a point (see ``POINTS``) for the ``nth`` time.

    The block ends there: ``run_until_idle`` raises SimulatedCrash, which does not leave this block. What was committed
    before stays; the next ``run_until_idle`` recovers as a new worker does. Raises AssertionError if the point was
    not reached.
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

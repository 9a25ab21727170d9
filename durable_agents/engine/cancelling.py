"""Hides how our own cancellation of a task is told from one that a function has let out by itself."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


def is_cancelled() -> bool:
    """Whether somebody has asked the task that runs here to end, so that a ``CancelledError`` is for us."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def cancelled_by_us_only(error: Exception) -> Iterator[None]:
    """Raise ``error`` where a ``CancelledError`` comes out that nobody has asked for."""
    try:
        yield
    except asyncio.CancelledError as cancelled:
        if is_cancelled():
            raise
        raise error from cancelled

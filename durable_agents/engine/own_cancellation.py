"""Distinguish cancellation of a task by the engine from a ``CancelledError`` that user code raised by itself."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


def is_cancelled() -> bool:
    """Return whether cancellation of the current task was requested. If it was, a ``CancelledError`` comes from the
    engine.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def cancelled_by_us_only(error: Exception) -> Iterator[None]:
    """Raise ``error`` in place of a ``CancelledError`` that the engine did not request."""
    try:
        yield
    except asyncio.CancelledError as cancelled:
        if is_cancelled():
            raise
        raise error from cancelled

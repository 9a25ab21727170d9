"""Distinguish cancellation of a task by the engine from a ``CancelledError`` that user code raised by itself."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


def is_cancelled() -> bool:
    """Return whether the engine has requested the cancellation of the current task. Any other ``CancelledError`` comes
    from user code or a library.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def cancelled_by_us_only(error: Exception) -> Iterator[None]:
    """Replace a ``CancelledError`` that the engine did not request with ``error``."""
    try:
        yield
    except asyncio.CancelledError as cancelled:
        if is_cancelled():
            raise
        raise error from cancelled

"""Find out whether the engine cancelled a task, or user code raised a ``CancelledError`` by itself."""

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
    """Raise ``error`` in place of a ``CancelledError`` that the engine did not request."""
    try:
        yield
    except asyncio.CancelledError as cancelled:
        if is_cancelled():
            raise
        raise error from cancelled

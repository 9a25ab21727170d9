"""Find out whether a ``CancelledError`` comes from the engine or from user code."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


def is_cancelled() -> bool:
    """Return whether the engine has cancelled the current task.

    If not, a ``CancelledError`` comes from user code or a library.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def cancelled_by_us_only(error: Exception) -> Iterator[None]:
    """If a ``CancelledError`` leaves this block and does not come from the engine, raise ``error`` instead."""
    try:
        yield
    except asyncio.CancelledError as cancelled:
        if is_cancelled():
            raise
        raise error from cancelled

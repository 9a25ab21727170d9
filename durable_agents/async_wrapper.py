"""Make the async version of a function that uses the ORM."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

P = ParamSpec("P")
R = TypeVar("R")


def async_version(function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return the coroutine function ``a<name>`` that does the same, with the same arguments, result and errors.

    It runs where Django runs all sync code of a request or test (``thread_sensitive``), so on the same database
    connection and, where sync code has begun one there, in the same transaction.
    """
    in_thread = sync_to_async(function, thread_sensitive=True)

    @functools.wraps(function)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> R:
        return await in_thread(*args, **kwargs)

    name = function.__name__
    awaited.__name__ = awaited.__qualname__ = f"a{name}"
    awaited.__doc__ = f"``{name}`` for coroutines: await it.\n\n{inspect.getdoc(function) or ''}".rstrip()
    return awaited

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
    """Return a coroutine function ``a<name>`` with the same arguments, result and errors as ``function``.

    It calls ``function`` in the thread where Django runs all sync code of a request or test (``thread_sensitive``). So
    the call uses the same database connection, and takes part in a transaction that sync code has begun there.
    """
    in_thread = sync_to_async(function, thread_sensitive=True)

    @functools.wraps(function)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> R:
        return await in_thread(*args, **kwargs)

    name = function.__name__
    awaited.__name__ = awaited.__qualname__ = f"a{name}"
    awaited.__doc__ = f"The async version of ``{name}``.\n\n{inspect.getdoc(function) or ''}".rstrip()
    return awaited

"""Make async versions of functions that use the ORM."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

P = ParamSpec("P")
R = TypeVar("R")


def async_version(function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return a coroutine function named ``a<name>`` with the arguments, result and errors of ``function``.

    ``function`` runs in the OS thread in which Django runs all sync code of a request or test (``thread_sensitive``).
    It therefore uses the same database connection as the sync code, and can take part in a transaction that the sync
    code has opened.
    """
    in_thread = sync_to_async(function, thread_sensitive=True)

    @functools.wraps(function)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> R:
        return await in_thread(*args, **kwargs)

    name = function.__name__
    awaited.__name__ = awaited.__qualname__ = f"a{name}"
    awaited.__doc__ = f"The async version of ``{name}``.\n\n{inspect.getdoc(function) or ''}".rstrip()
    return awaited

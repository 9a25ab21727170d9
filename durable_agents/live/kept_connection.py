"""Keep the database connection of the websockets open while any websocket is open.

Channels runs the database work of all websockets of a process in one thread, and closes the connection after each call,
unless ``CONN_MAX_AGE`` says otherwise. With PostgreSQL, a new connection takes longer than most of the queries.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Coroutine
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db import connections

P = ParamSpec("P")
R = TypeVar("R")

KEEP_SECONDS = 10.0
"""The time after which an unused connection is closed at the next call."""

_users: set[object] = set()


def in_database(function: Callable[P, R]) -> Callable[P, Coroutine[object, object, R]]:
    """Return a coroutine function that calls ``function`` in the thread for database work."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        finally:
            for connection in connections.all(initialized_only=True) if _users else ():
                if connection.close_at is not None:
                    connection.close_at = time.monotonic() + KEEP_SECONDS
                # The server may have closed the connection before the next call.
                connection.health_check_enabled = True  # type: ignore[attr-defined]

    kept: Callable[P, Coroutine[object, object, R]] = database_sync_to_async(call)
    return kept


def keep_for(user: object) -> None:
    """Keep the connection open until ``let_go`` is called for this user, a websocket."""
    _users.add(user)


async def let_go(user: object) -> None:
    """Note that this websocket has ended. After the last one, close the connection if ``CONN_MAX_AGE`` is 0."""
    _users.discard(user)
    if not _users:
        await database_sync_to_async(_close_kept)()


def _close_kept() -> None:
    for connection in connections.all(initialized_only=True):
        has_checks = connection.settings_dict["CONN_HEALTH_CHECKS"]
        connection.health_check_enabled = has_checks  # type: ignore[attr-defined]
        if connection.settings_dict["CONN_MAX_AGE"] == 0:
            connection.close_at = time.monotonic()  # Channels closes it after this call

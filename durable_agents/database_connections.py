"""Recognise errors that break a database connection, replace broken connections, and keep forked processes from sharing
connections.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from django.db import (
    DataError,
    Error,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    connections,
)

_OF_OTHERS = {"40001", "40P01", "55P03"}
"""PostgreSQL's error codes for a serialisation failure, a deadlock and a lock that is not available."""


def sqlstate(error: Error) -> str:
    """Return PostgreSQL's code for an error, or an empty string if the error has no code."""
    cause = error.__cause__
    # The attribute is called ``sqlstate`` in psycopg 3 and ``pgcode`` in psycopg 2.
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""


def is_passing(error: Error) -> bool:
    """Return whether a retry on the same connection may succeed, because a concurrent transaction interfered or SQLite
    was locked.
    """
    return sqlstate(error) in _OF_OTHERS or (isinstance(error, OperationalError) and "locked" in str(error))


def is_outage(error: Error) -> bool:
    """Return whether the cause of the error is the database or the connection, and not the values of the statement.

    The server may also refuse a correct statement: during a migration a column is missing, or after a failover the role
    lacks a privilege. Errors that the driver raises without asking the server are bugs in this package.
    """
    if isinstance(error, IntegrityError | DataError):
        return False
    return not isinstance(error, ProgrammingError | NotSupportedError) or bool(sqlstate(error))


def discard_after(error: BaseException, *, using: str | None = None) -> None:
    """Close this thread's connections if they may have caused the error. With ``using``, close only the connection of
    this alias.

    Testing a connection would not help: a connection that was opened while the database was read-only stays read-only,
    but still answers ``SELECT 1``. Connections in a transaction are not closed.
    """
    if isinstance(error, Error) and not isinstance(error, IntegrityError) and not is_passing(error):
        discard(using=using)


@contextmanager
def discarding(*, using: str | None = None) -> Iterator[None]:
    """Call ``discard_after`` if a database error ends the block."""
    try:
        yield
    except Error as error:
        discard_after(error, using=using)
        raise


def discard(*, using: str | None = None) -> None:
    """Close this thread's connections, without returning them to a pool. The next statement opens a new connection."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block or using not in {None, connection.alias}:
            continue
        pooled = connection.vendor == "postgresql" and connection.settings_dict["OPTIONS"].get("pool")
        if pooled and connection.connection is not None:
            with suppress(Exception):
                # Whatever broke this connection may have broken the other connections of the pool, too.
                connection.connection._pool.drain()
            with suppress(Exception):
                # The pool discards a closed connection instead of lending it again.
                connection.connection.close()
        with suppress(Exception):
            connection.close()


def close_all() -> None:
    """Close all of this thread's connections, even if closing one of them raises. Call this function at the end of a
    thread.
    """
    for connection in connections.all(initialized_only=True):
        with suppress(Exception):
            connection.close()


def close_pools() -> None:
    """Close this thread's connections and the pools of this process, before the process forks.

    A pool has threads, which a child does not inherit, and sockets, which two processes cannot share. Django's
    ``close_all`` is not enough: it gives connections back to the pool.
    """
    close_all()
    for connection in connections.all(initialized_only=True):
        pools: dict[str, Pool] = getattr(connection, "_connection_pools", {})
        pool = pools.pop(connection.alias, None)
        if pool is not None:
            with suppress(Exception):
                pool.close(timeout=POOL_SECONDS)


class Pool(Protocol):
    """A pool of Django's connections to PostgreSQL."""

    def close(self, timeout: float) -> None:
        """Close the pool's connections and end its threads."""


POOL_SECONDS = 2.0
"""How long ``close_pools`` waits for the threads of a pool."""
_inherited: list[object] = []
"""Objects that a forked child must not touch. The list keeps them from being finalized."""


def _abandon_inherited() -> None:
    """In a forked child, forget the parent's connections and pools without closing them.

    Closing a connection here would make the server end the parent's session. Closing a pool could block for ever on a
    lock: the thread that holds the lock exists only in the parent.
    """
    for connection in connections.all(initialized_only=True):
        pools: dict[str, Pool] = getattr(connection, "_connection_pools", {})
        if not pools:
            # Without a pool, the code that forks must close the connections itself, as Django requires.
            continue
        _inherited.append((dict(pools), connection.connection))
        pools.clear()
        connection.connection = None


os.register_at_fork(after_in_child=_abandon_inherited)

"""Recognise errors that break a database connection, replace such connections, and share none across a fork."""

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
"""PostgreSQL's error codes for a transaction that failed because of a concurrent transaction: serialisation failure,
deadlock, lock not available.
"""


def sqlstate(error: Error) -> str:
    """Return PostgreSQL's code for an error, or an empty string if the error has no code."""
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""  # psycopg 3, and 2


def is_passing(error: Error) -> bool:
    """Return whether a retry on this connection may succeed, because the transaction failed due to a concurrent
    transaction or because SQLite is locked.
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
    """Close this thread's connections if they may have caused the error; with ``using``, only the one of this alias.

    A session that was opened while the database was read-only stays read-only, although it still answers ``SELECT 1``.
    A broken session therefore cannot be recognised, and a new session costs only milliseconds. A connection in a
    transaction is left to the code that opened the transaction.
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
    """Close this thread's connections so that no pool keeps them. The next statement opens a new connection."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block or using not in {None, connection.alias}:
            continue
        pooled = connection.vendor == "postgresql" and connection.settings_dict["OPTIONS"].get("pool")
        if pooled and connection.connection is not None:
            with suppress(Exception):
                connection.connection._pool.drain()  # the other connections of the pool are as old
            with suppress(Exception):
                connection.connection.close()  # the pool does not take back a closed connection
        with suppress(Exception):  # a broken connection may raise even here
            connection.close()


def close_all() -> None:
    """Close this thread's connections at the end of the thread. If one cannot be closed, the others still are."""
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
"""Objects that a forked child must not touch, kept so that they are never finalized."""


def _abandon_inherited() -> None:
    """In a forked child, forget the parent's connections and pools without closing them.

    Closing a connection here would make the server end the parent's session. Closing a pool could wait for ever for a
    lock, held by a thread that does not exist in the child.
    """
    for connection in connections.all(initialized_only=True):
        pools: dict[str, Pool] = getattr(connection, "_connection_pools", {})
        if not pools:
            continue  # without a pool, the code that forks closes connections, as Django requires
        _inherited.append((dict(pools), connection.connection))
        pools.clear()
        connection.connection = None


os.register_at_fork(after_in_child=_abandon_inherited)

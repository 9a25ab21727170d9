"""Handle broken database connections: recognise errors of the connection, and replace broken connections.

This module also ensures that a forked process does not share connections with its parent.
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
from django.db.backends.base.base import BaseDatabaseWrapper

_OF_OTHERS = {"40001", "40P01", "55P03"}
"""PostgreSQL's error codes for a serialisation failure, a deadlock and a lock that is not available."""
_CANCELLED = "57014"
"""PostgreSQL's error code for a statement that was cancelled, for example because of ``statement_timeout``."""


def sqlstate(error: Error) -> str:
    """Return PostgreSQL's code (SQLSTATE) for an error, or an empty string."""
    cause = error.__cause__
    # psycopg 3 calls the code ``sqlstate``, and psycopg 2 calls it ``pgcode``.
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""


def is_passing(error: Error) -> bool:
    """Return whether a retry on the same connection might succeed, because a concurrent transaction interfered or
    SQLite was locked.
    """
    return sqlstate(error) in _OF_OTHERS or (isinstance(error, OperationalError) and "locked" in str(error))


def is_blocked(error: Error) -> bool:
    """Return whether PostgreSQL ended the statement after a conflict with another transaction, a deadlock, a lock
    timeout or a statement timeout. Statements for other rows might succeed.
    """
    return sqlstate(error) in _OF_OTHERS | {_CANCELLED}


def is_outage(error: Error) -> bool:
    """Return whether the error comes from the state of the database or the connection, and not from the statement.

    - An IntegrityError or a DataError comes from the statement.
    - A ProgrammingError or a NotSupportedError with an error code comes from the server. It counts as an outage,
      because the statement may be correct. For example, a column may be missing during a migration.
    - A ProgrammingError or a NotSupportedError without a code comes from the driver. It is no outage, but a bug in this
      package.
    - Any other database error counts as an outage.
    """
    if isinstance(error, IntegrityError | DataError):
        return False
    return not isinstance(error, ProgrammingError | NotSupportedError) or bool(sqlstate(error))


def discard_after(error: BaseException, *, using: str | None = None) -> None:
    """Close this OS thread's database connections if one of them might have caused the error. With ``using``, close
    only the connection with this alias.

    Connections in a transaction stay open.

    A test query would not find every unusable connection. For example, a connection that was opened while the database
    was read-only stays read-only, but answers ``SELECT 1``.
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
    """Close this OS thread's connections instead of returning them to a connection pool.

    The next query opens a new connection.
    """
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block or using not in {None, connection.alias}:
            continue
        if is_pooled(connection) and connection.connection is not None:
            with suppress(Exception):
                # Replace the pool's other connections, because they might be broken for the same reason.
                connection.connection._pool.drain()
            with suppress(Exception):
                # Close the psycopg connection. Django's ``close`` would only return it to the pool.
                connection.connection.close()
        with suppress(Exception):
            connection.close()


def is_pooled(connection: BaseDatabaseWrapper) -> bool:
    """Return whether closing this connection only returns it to Django's connection pool."""
    return connection.vendor == "postgresql" and bool(connection.settings_dict["OPTIONS"].get("pool"))


def close_all() -> None:
    """Close all of this OS thread's connections, even if closing one of them fails.

    Call this at the end of an OS thread.
    """
    for connection in connections.all(initialized_only=True):
        with suppress(Exception):
            connection.close()


def close_pools() -> None:
    """Close this OS thread's connections and this process's connection pools before the process forks.

    A forked child does not inherit the OS threads of a connection pool, and two processes cannot share the pool's
    sockets. Closing a connection only returns it to its pool, so the pools are closed too.
    """
    close_all()
    for connection in connections.all(initialized_only=True):
        pools: dict[str, Pool] = getattr(connection, "_connection_pools", {})
        pool = pools.pop(connection.alias, None)
        if pool is not None:
            with suppress(Exception):
                pool.close(timeout=POOL_SECONDS)


class Pool(Protocol):
    """Django's connection pool for PostgreSQL."""

    def close(self, timeout: float) -> None:
        """Close the pool's connections and end the pool's OS threads."""


POOL_SECONDS = 2.0
"""How long ``close_pools`` waits until the OS threads of a connection pool have ended."""
_inherited: list[object] = []
"""The parent's connections and pools, in a forked child. They stay in this list so that Python never finalizes them."""


def _abandon_inherited() -> None:
    """In a forked child, forget the parent's connections and connection pools without closing them.

    Closing a connection would end the parent's database session. Closing a pool could wait forever for a lock, because
    the OS thread that holds the lock exists only in the parent.
    """
    for connection in connections.all(initialized_only=True):
        pools: dict[str, Pool] = getattr(connection, "_connection_pools", {})
        if not pools:
            # Without a pool, nothing is left to do: as usual in Django, the connection was closed before the fork.
            continue
        _inherited.append((dict(pools), connection.connection))
        pools.clear()
        connection.connection = None


os.register_at_fork(after_in_child=_abandon_inherited)

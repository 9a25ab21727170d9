"""Database connections: recognise errors that break one, replace it, and never share one across a fork."""

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
"""PostgreSQL's codes for a transaction refused because of a concurrent one: serialisation failure, deadlock, lock not
available.
"""


def sqlstate(error: Error) -> str:
    """Return PostgreSQL's code of an error, an empty string where it has none."""
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""  # psycopg 3, and 2


def is_passing(error: Error) -> bool:
    """Whether a retry on this connection may succeed: the transaction was refused because of a concurrent one, or
    SQLite is locked.
    """
    return sqlstate(error) in _OF_OTHERS or (isinstance(error, OperationalError) and "locked" in str(error))


def is_outage(error: Error) -> bool:
    """Whether the database or the connection is the reason, not the values of the statement.

    The server's own refusals of well-formed statements count: during a migration a column is missing, after a failover
    the role lacks a right. Errors that the driver raises before it asks the server are mistakes of ours.
    """
    if isinstance(error, IntegrityError | DataError):
        return False
    return not isinstance(error, ProgrammingError | NotSupportedError) or bool(sqlstate(error))


def discard_after(error: BaseException, *, using: str | None = None) -> None:
    """Close this thread's connections, or the one of an alias, after an error that may come from them.

    A session that was opened while the database was read-only stays read-only, and still answers ``SELECT 1``: a good
    session cannot be told from a bad one, and a new one costs milliseconds. Connections in a transaction are left to
    the code that opened it.
    """
    if isinstance(error, Error) and not isinstance(error, IntegrityError) and not is_passing(error):
        discard(using=using)


@contextmanager
def discarding(*, using: str | None = None) -> Iterator[None]:
    """Close the connections of this thread, or the one of an alias, where a database error ends the block."""
    try:
        yield
    except Error as error:
        discard_after(error, using=using)
        raise


def discard(*, using: str | None = None) -> None:
    """Close connections so that no pool keeps them; the next statement opens a new one."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block or using not in {None, connection.alias}:
            continue
        pooled = connection.vendor == "postgresql" and connection.settings_dict["OPTIONS"].get("pool")
        if pooled and connection.connection is not None:
            with suppress(Exception):
                connection.connection._pool.drain()  # its siblings are as old as it is
            with suppress(Exception):
                connection.connection.close()  # what is closed does not go back into the pool
        with suppress(Exception):  # a broken one cannot even be closed in order
            connection.close()


def close_all() -> None:
    """Close this thread's connections at its end. A broken one does not keep the others open."""
    for connection in connections.all(initialized_only=True):
        with suppress(Exception):
            connection.close()


def close_pools() -> None:
    """Close this thread's connections and the pools of this process, before it forks: a pool has threads, which a child
    does not have, and sockets, which two processes cannot share. Django's ``close_all`` gives connections back to it.
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
        """Close its connections and end its threads."""


POOL_SECONDS = 2.0
"""How long a fork waits for the threads of a pool."""
_inherited: list[object] = []
"""Objects that a forked child must not touch, kept so that they are never finalized."""


def _abandon_inherited() -> None:
    """Leave the parent's connections and pools to the parent, in a forked child.

    Closing them here would tell the server to end the parent's sessions, and a lock of a pool may be held by a thread
    that does not exist here.
    """
    for connection in connections.all(initialized_only=True):
        pools: dict[str, Pool] = getattr(connection, "_connection_pools", {})
        if not pools:
            continue  # without a pool the forking code closes them, as Django requires
        _inherited.append((dict(pools), connection.connection))
        pools.clear()
        connection.connection = None


os.register_at_fork(after_in_child=_abandon_inherited)

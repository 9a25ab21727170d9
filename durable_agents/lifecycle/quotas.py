"""Enforce ``MAX_RUNNING_PER_OWNER``, including when two runs start concurrently."""

from __future__ import annotations

import hashlib

from django.db import connections

from durable_agents.conf import config
from durable_agents.exceptions import TooManyRunningError
from durable_agents.models import Thread


def admit(thread: Thread, *, using: str) -> None:
    """Raise TooManyRunningError if the thread's owner already has ``MAX_RUNNING_PER_OWNER`` running threads. The caller
    holds the thread's lock.

    For a thread without an owner, the threads of its scope are counted. A thread without an owner and without a scope
    has no limit.
    """
    limit = config().max_running_per_owner
    if limit is None or (thread.owner_id is None and not thread.scope):
        return
    whose = {"owner_id": thread.owner_id} if thread.owner_id is not None else {"owner": None, "scope": thread.scope}
    take_turn(f"durable_agents.running {whose}", using=using)
    if Thread.objects.using(using).running().filter(**whose).exclude(pk=thread.pk).count() >= limit:
        raise TooManyRunningError(limit)


def take_turn(name: str, *, using: str) -> None:
    """Wait until every earlier transaction that called this function with the same name has ended.

    PostgreSQL uses a transaction-level advisory lock, because a scope has no row to lock. SQLite has only one writer at
    a time, so nothing is needed.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        return
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key])

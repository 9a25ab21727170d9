"""Enforce ``MAX_RUNNING_PER_OWNER``, including when two runs start concurrently."""

from __future__ import annotations

import hashlib

from django.db import connections

from durable_agents.conf import config
from durable_agents.exceptions import TooManyRunningError
from durable_agents.models import Thread


def admit(thread: Thread, *, using: str) -> None:
    """Check under the thread's lock that its owner may begin another run; raise TooManyRunningError where they have as
    many as ``MAX_RUNNING_PER_OWNER`` allows.

    Threads without an owner count by their scope; those with neither have no limit.
    """
    limit = config().max_running_per_owner
    if limit is None or (thread.owner_id is None and not thread.scope):
        return
    whose = {"owner_id": thread.owner_id} if thread.owner_id is not None else {"owner": None, "scope": thread.scope}
    take_turn(f"durable_agents.running {whose}", using=using)
    if Thread.objects.using(using).running().filter(**whose).exclude(pk=thread.pk).count() >= limit:
        raise TooManyRunningError(limit)


def take_turn(name: str, *, using: str) -> None:
    """Wait until no other transaction of this name is between its check and its commit. On PostgreSQL by an advisory
    lock of the transaction, since a scope has no row to lock; SQLite has one writer at a time anyway.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        return
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key])

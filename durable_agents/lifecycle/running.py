"""Hides how many runs an owner may have at once, and that of two beginnings at the same time not both pass."""

from __future__ import annotations

import hashlib

from django.db import connections

from durable_agents.conf import config
from durable_agents.exceptions import TooManyRunningError
from durable_agents.models import Thread


def admit(thread: Thread, *, using: str) -> None:
    """Let the thread begin a run, under its lock; raises TooManyRunningError where its owner has as many as
    ``MAX_RUNNING_PER_OWNER`` allows.

    Threads without an owner count by their scope; those with neither have no limit.
    """
    limit = config().max_running_per_owner
    if limit is None or (thread.owner_id is None and not thread.scope):
        return
    whose = {"owner_id": thread.owner_id} if thread.owner_id is not None else {"owner": None, "scope": thread.scope}
    _take_turn(f"durable_agents.running {whose}", using=using)
    if Thread.objects.using(using).running().filter(**whose).exclude(pk=thread.pk).count() >= limit:
        raise TooManyRunningError(limit)


def _take_turn(name: str, *, using: str) -> None:
    """Wait until nobody else of this name is between looking and its commit. On PostgreSQL by a lock of the
    transaction's, since a scope has no row to lock; SQLite has one writer at a time anyway."""
    connection = connections[using]
    if connection.vendor != "postgresql":
        return
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key])

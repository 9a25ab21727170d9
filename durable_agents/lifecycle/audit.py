"""Audit log: one entry for each state change that a person or the project's own code causes.

Entries are written in the transaction of the change, and outlive the thread.
"""

from __future__ import annotations

from uuid import UUID

from django.db.models import Exists, OuterRef

from durable_agents.actors import Actor, User
from durable_agents.lifecycle.transaction import Locked, database
from durable_agents.models import AuditEntry, Thread, seconds_from_now
from durable_agents.strictjson import clean, content_hash


def record(
    action: str,
    thread_id: UUID | None,
    by: Actor | User | None,
    *,
    subject: str = "",
    arguments: object = None,
    using: str | None = None,
    locked: Locked | None = None,
) -> None:
    """Add an entry to the audit log, inside the transaction of the change.

    ``by`` is an actor, a user, or None for the project itself; ``subject`` names the message, call or thread that was
    changed. Of the ``arguments`` only a hash is kept. ``using`` is the database; by default that of the threads. With
    ``locked`` the entry is written with the other rows of its transition.
    """
    actor = Actor.of(by)
    entry = AuditEntry(
        thread_id=thread_id,
        action=action,
        user_id=actor.user_id,
        scope="" if actor.user is not None else actor.scope or "",
        via=actor.via,
        subject=subject[:200],
        arguments_hash="" if arguments is None else content_hash(clean(arguments)),
    )
    if locked is None:
        entry.save(using=using or database(), force_insert=True)
        return
    entry.at = locked.now
    locked.writes.insert(entry)


def record_deletion(thread: Thread, *, origin: object, using: str) -> None:
    """Add the entry of a thread that is deleted, by ``thread.deleted_by``; where it is deleted with another row, as
    with its owner, nobody is named. ``origin`` is the row or queryset whose ``delete`` was called, as Django gives it.
    """
    is_itself = origin is None or isinstance(origin, Thread) or getattr(origin, "model", None) is Thread
    by = thread.deleted_by if is_itself else Actor(via="cascade", is_person=False)
    record("delete_thread", thread.pk, by, using=using)


def prune_audit(days: float) -> int:
    """Delete the entries of deleted threads after ``days`` days. Returns the number of entries deleted."""
    entries = AuditEntry.objects.using(database()).filter(at__lt=seconds_from_now(-days * 86_400))
    gone = entries.filter(~Exists(Thread.objects.using(database()).filter(pk=OuterRef("thread_id"))))
    return int(gone.delete()[0])


def forget(*, owner: User | None, scope: str | None, threads: list[UUID]) -> None:
    """Remove the entries of erased threads, and the user from all other entries if that is the erased person."""
    entries = AuditEntry.objects.using(database())
    for start in range(0, len(threads), 500):  # SQLite limits the parameters of a statement
        entries.filter(thread_id__in=threads[start : start + 500]).delete()
    if owner is None:
        entries.filter(user=None, scope=scope).update(scope="")
    elif scope is None:
        entries.filter(user=owner).update(user=None)

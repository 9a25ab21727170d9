"""Audit log: one entry for each state change that a person or the project's own code causes.

An entry is written in the transaction of the change. Entries outlive their thread.
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

    ``by`` is an actor, a user, or None for the project itself. ``subject`` names the message, call or thread that was
    changed. Only a hash of ``arguments`` is kept. ``using`` is the database and defaults to the database of the
    threads. If ``locked`` is given, the entry is written together with the other rows of its transition.
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
    """Add the entry for a deleted thread. The entry names the person in ``thread.deleted_by``. If the thread is deleted
    because another row is deleted, for example its owner, the entry names nobody. ``origin`` is the row or queryset
    whose ``delete`` was called, as Django passes it to signal receivers.
    """
    is_itself = origin is None or isinstance(origin, Thread) or getattr(origin, "model", None) is Thread
    by = thread.deleted_by if is_itself else Actor(via="cascade", is_person=False)
    record("delete_thread", thread.pk, by, using=using)


def prune_audit(days: float) -> int:
    """Delete entries that are older than ``days`` days and whose thread is deleted. Return the number of entries
    deleted.
    """
    entries = AuditEntry.objects.using(database()).filter(at__lt=seconds_from_now(-days * 86_400))
    gone = entries.filter(~Exists(Thread.objects.using(database()).filter(pk=OuterRef("thread_id"))))
    return int(gone.delete()[0])


def forget(*, owner: User | None, scope: str | None, threads: list[UUID]) -> None:
    """Delete the entries of erased threads. If a whole owner or a whole scope was erased, also remove that owner or
    scope from all other entries.
    """
    entries = AuditEntry.objects.using(database())
    # SQLite limits the number of parameters of a statement.
    for start in range(0, len(threads), 500):
        entries.filter(thread_id__in=threads[start : start + 500]).delete()
    if owner is None:
        entries.filter(user=None, scope=scope).update(scope="")
    elif scope is None:
        entries.filter(user=owner).update(user=None)

"""Audit log: one entry for each state change that a person or the project's own code causes.

An entry is written in the same transaction as the change. Entries are kept when their thread is deleted.
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
    """Add an entry to the audit log. The caller runs this in the transaction of the change.

    ``by`` is an actor, a user, or None for the project's own code. ``subject`` identifies the changed message, call or
    thread. Only a hash of ``arguments`` is stored. ``using`` is a database alias, by default the database of the
    threads. With ``locked``, the entry is written together with the other rows of the transition that holds this lock.
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
    """Add the audit entry for a deleted thread.

    The entry names the user in ``thread.deleted_by``. It names no user if the thread was deleted by a cascade, for
    example with its owner. ``origin`` is the model instance or queryset whose ``delete`` was called, as in Django's
    ``post_delete`` signal.
    """
    is_itself = origin is None or isinstance(origin, Thread) or getattr(origin, "model", None) is Thread
    by = thread.deleted_by if is_itself else Actor(via="cascade", is_person=False)
    record("delete_thread", thread.pk, by, using=using)


def prune_audit(days: float) -> int:
    """Delete entries that are older than ``days`` days and belong to deleted threads. Return the number of entries
    deleted.
    """
    entries = AuditEntry.objects.using(database()).filter(at__lt=seconds_from_now(-days * 86_400))
    gone = entries.filter(~Exists(Thread.objects.using(database()).filter(pk=OuterRef("thread_id"))))
    return int(gone.delete()[0])


def forget(*, owner: User | None, scope: str | None, threads: list[UUID]) -> None:
    """Delete the audit entries of these erased threads.

    - Only ``owner`` is given: the user is also removed from all other entries.
    - Only ``scope`` is given: the scope is also removed from all other entries that name no user.
    - Both are given: all other entries stay unchanged.
    """
    entries = AuditEntry.objects.using(database())
    # SQLite limits the number of parameters of a statement.
    for start in range(0, len(threads), 500):
        entries.filter(thread_id__in=threads[start : start + 500]).delete()
    if owner is None:
        entries.filter(user=None, scope=scope).update(scope="")
    elif scope is None:
        entries.filter(user=owner).update(user=None)

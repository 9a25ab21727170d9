"""Transitions that delete threads, or everything of an owner or scope, with all their data."""

from __future__ import annotations

from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from durable_agents.actors import Actor, User, scope_digest, user_digest
from durable_agents.conf import config
from durable_agents.exceptions import ThreadNotFoundError
from durable_agents.lifecycle.audit import forget, record, record_deletion
from durable_agents.lifecycle.transaction import database, id_of, log_transition, only_row, transact, transition
from durable_agents.models import (
    ENDED_LEASE,
    Attachment,
    Command,
    Delta,
    Message,
    Stream,
    StreamState,
    Thread,
    ToolCall,
)
from durable_agents.notifications import notify_clients


def delete_thread(thread: Thread | UUID | str, *, by: Actor | User | None = None) -> None:
    """Delete a thread with all its data. Its workers lose their claims and stop.

    The audit log names ``by`` as the user who deleted the thread. Raises ThreadNotFoundError.
    """
    if not remove_thread(id_of(thread), by=by):
        raise ThreadNotFoundError(thread)


@transition
def remove_thread(thread_id: UUID, *, by: Actor | User | None = None) -> bool:
    """Delete a thread with all its data, and notify browsers. Return whether the thread existed."""
    using = database()
    with transact():
        row = only_row(Thread.objects.using(using).filter(pk=thread_id))
        if row is None:
            return False
        row.deleted_by = by
        row.delete(using=using)
        notify_clients(thread_id, using=using)
    log_transition("delete_thread", thread=thread_id)
    return True


@transition
def delete_if_idle(thread: Thread | UUID | str, *, days: float) -> bool:
    """Delete a thread that is not running and has not changed for ``days`` days. Return whether it was deleted. A
    locked thread is skipped.
    """
    with transact():
        idle = Thread.objects.using(database()).idle(days).filter(pk=id_of(thread))
        if not list(idle.select_for_update(skip_locked=True).values_list("pk")):
            return False
        delete_thread(thread)
    return True


@receiver(pre_delete, sender=Thread)
def _empty_thread(instance: Thread, using: str, origin: object = None, **_: object) -> None:
    """Delete a thread's rows before Django deletes the thread. This runs for every kind of deletion, also by cascade.

    The function waits for open transactions of the thread, adds the audit entry, and deletes the rows.
    ``USAGE_ON_DELETE`` decides whether usage is kept.

    Django chooses the rows to delete before it calls this function. A row that is inserted later would make the
    deletion fail, so this function deletes all rows of the thread.
    """
    # If the row is gone, another transaction has deleted the thread and has written the audit entry.
    if list(Thread.objects.using(using).filter(pk=instance.pk).select_for_update().values_list("pk")):
        record_deletion(instance, origin=origin, using=using)
    streams = Stream.objects.using(using).filter(thread=instance)
    calls = ToolCall.objects.using(using).filter(thread=instance)
    # Lock the rows, so that no worker adds deltas or outcomes in the meantime.
    for rows in (streams, calls):
        list(rows.select_for_update().order_by("pk").values_list("pk"))
    Delta.objects.using(using).filter(stream__thread=instance).delete()
    calls.delete()
    if config().usage_on_delete == "drop":
        streams.delete()
    else:
        streams.open().update(state=StreamState.ABORTED, finish_reason="deleted", finished_at=Now(), **ENDED_LEASE)
        streams.update(thread=None, message=None, parts=[], text="", error_detail="")
    Message.objects.using(using).filter(thread=instance).delete()
    Attachment.objects.using(using).filter(thread=instance).delete()
    Command.objects.using(using).filter(thread=instance).delete()


def erase(*, owner: User | None = None, scope: str | None = None, by: Actor | User | None = None) -> int:
    """Delete all data of an owner, of a scope, or of an owner within a scope: threads, usage, audit entries and unsent
    files. Return the number of threads deleted.

    ``by`` is the user who erases. The audit log records this user, but not what was erased. Threads are deleted one by
    one. If an error stops the deletion, call ``erase`` again to delete the rest.

    Raises ValueError if neither owner nor scope is given, because that would erase everything.
    """
    if owner is None and not scope:
        raise ValueError("erase() needs an owner, a scope or both.")
    whose = (Q() if owner is None else Q(owner=owner)) & (Q() if scope is None else Q(scope=scope))
    # Read all ids first. SQLite cannot delete rows while a query still reads them.
    threads = list(Thread.objects.using(database()).filter(whose).order_by("pk").values_list("pk", flat=True))
    erased = sum(map(remove_thread, threads))
    _remove_rest(whose, owner=owner, scope=scope, threads=threads, by=by)
    log_transition("erase", threads=erased)
    return erased


@transition
def _remove_rest(
    whose: Q, *, owner: User | None, scope: str | None, threads: list[UUID], by: Actor | User | None
) -> None:
    """Delete the rows of an erased owner or scope that belong to no thread. Also remove the owner or scope from the
    audit log.
    """
    with transact():
        Stream.objects.using(database()).filter(whose, thread=None).delete()
        Attachment.objects.using(database()).unsent().filter(whose).delete()
        forget(owner=owner, scope=scope, threads=threads)
        if owner is None:
            _forget_commands(scope_digest(scope))
        elif scope is None:
            # Keep what the user did in other people's threads, but remove the user from those rows.
            Message.objects.using(database()).filter(sender=owner).update(sender=None)
            calls = ToolCall.objects.using(database())
            calls.filter(approval_decided_by=owner).update(approval_decided_by=None)
            calls.filter(answered_by_user=owner).update(answered_by_user=None)
            _forget_commands(user_digest(getattr(owner, "pk", owner)))
        record("erase", None, by)


def _forget_commands(caller: str) -> None:
    """Delete the answers that are stored for a caller's websocket commands. These answers contain the name of the
    sender and the text of the message.

    If a client repeats one of these commands, the command runs again.
    """
    Command.objects.using(database()).filter(caller=caller).delete()

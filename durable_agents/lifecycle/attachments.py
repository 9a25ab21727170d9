"""Attach files to messages, and delete files when their rows are deleted.

A file is stored before the transition begins, never while the thread's row is locked, and it is deleted after a commit.
The transition itself writes only rows.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

from django.db import DatabaseError, Error, transaction
from django.db.models.signals import post_delete
from django.dispatch import receiver

from durable_agents import attachment_storage
from durable_agents.actors import User
from durable_agents.database_connections import is_outage
from durable_agents.exceptions import InvalidPartsError, ThrottledError, UnsupportedMediaTypeError
from durable_agents.lifecycle.quotas import take_turn
from durable_agents.lifecycle.transaction import Locked, database, log_transition, transact, transition
from durable_agents.models import Attachment, Thread
from durable_agents.parts import Part, attachment_id, embedded_files, file_base64

MAX_UNSENT = 100
"""The maximum number of uploaded files of a sender that are not in a message yet. Unsent files are deleted a day after
the upload.
"""

Sender = tuple[User | None, str]
"""The owner and scope of a sender. Together they identify the files that the sender has uploaded."""

NewFiles = Mapping[UUID, Attachment]
"""The files that were embedded in a message, by id. They are stored, but their rows are not inserted yet."""
NO_FILES: NewFiles = MappingProxyType({})


@contextmanager
def store_files(*lists: object) -> Iterator[tuple[list[Any], NewFiles]]:
    """Store the files that are embedded in message parts as ``data:`` URLs. Yield the lists of parts, in which the URLs
    of the stored files replace the ``data:`` URLs. Also yield the unsaved attachments of these files. The transition
    that stores the messages has to save them.

    When the block ends, each file whose attachment was not saved is deleted. If the caller's transaction is rolled back
    later, its files are deleted after the rollback. A value in ``lists`` that is not a list is yielded unchanged.
    Raises InvalidPartsError and TooLargeError.
    """
    embedded = [embedded_files(parts) if isinstance(parts, list) else {} for parts in lists]
    if not any(embedded):
        yield list(lists), NO_FILES
        return
    new_files: dict[UUID, Attachment] = {}
    with _kept_if_committed(new_files):
        with_urls: list[Any] = [list(parts) if isinstance(parts, list) else parts for parts in lists]
        found = [(of_list, item) for of_list, by_index in enumerate(embedded) for item in by_index.items()]
        for of_list, (index, part) in found:
            data = base64.b64decode(file_base64(part))
            try:
                row = attachment_storage.store(data, claimed=part["mediaType"], filename=part.get("filename", ""))
            except UnsupportedMediaTypeError as error:
                raise InvalidPartsError(str(error)) from error
            new_files[row.pk] = row
            with_urls[of_list][index] = attachment_storage.part_of(row)
        yield with_urls, new_files


@contextmanager
def _kept_if_committed(stored: Mapping[UUID, Attachment]) -> Iterator[None]:
    """Keep the files whose rows the block inserts, and delete the other files when the block ends. If it is unknown
    which rows were inserted, keep all files until ``prune_unsent`` runs, because the commit may have succeeded although
    the database's answer was lost.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Error) and is_outage(error):
            raise
        with suppress(DatabaseError):
            _keep_written(stored)
        raise
    _keep_written(stored)


def _keep_written(stored: Mapping[UUID, Attachment]) -> None:
    kept = set(Attachment.objects.using(database()).filter(pk__in=stored).values_list("pk", flat=True))
    for key, row in stored.items():
        if key in kept:
            attachment_storage.keep_if_committed(row.place, using=database())
        else:
            attachment_storage.discard(row.place)


def upload(data: bytes, *, claimed: str, filename: str, owner: User | None = None, scope: str = "") -> Attachment:
    """Store a file for its sender until a message carries it.

    Raises UnsupportedMediaTypeError. Raises ThrottledError if the sender has ``MAX_UNSENT`` files that no message
    carries; concurrent uploads are counted too.
    """
    # Check before the file is stored. ``_insert`` checks again, under a lock.
    _check_unsent(owner, scope)
    row = attachment_storage.store(data, claimed=claimed, filename=filename, owner=owner, scope=scope)
    with _kept_if_committed({row.pk: row}):
        _insert(row)
    log_transition("upload", attachment=row.pk, bytes=row.size)
    return row


@transition
def _insert(row: Attachment) -> None:
    with transact():
        # Uploads of one sender take turns. Otherwise concurrent uploads would all be counted before any of them is
        # stored.
        take_turn(f"durable_agents.unsent {row.owner_id} {row.scope}", using=database())
        _check_unsent(row.owner, row.scope)
        row.save(using=database(), force_insert=True)


def _check_unsent(owner: User | None, scope: str) -> None:
    if Attachment.objects.using(database()).unsent().filter(owner=owner, scope=scope).count() >= MAX_UNSENT:
        raise ThrottledError(
            f"You have {MAX_UNSENT} files that no message carries. Send them, or come back tomorrow.",
            retry_after_seconds=3600,
        )


def bound(locked: Locked, parts: list[Part], *, sender: Sender | None, new_files: NewFiles = NO_FILES) -> list[Part]:
    """Move the attachments of a user's message to this thread. Return the parts of the message, with the URL, type and
    filename of each attachment taken from its row.

    A message may carry files that were embedded in it, files of its thread, and files that its sender has uploaded and
    not sent yet. ``sender`` defaults to the owner and scope of the thread. Raises InvalidPartsError for any other
    attachment.
    """
    keys = [key for part in parts if (key := attachment_id(part))]
    if not keys:
        return parts
    owner, scope = sender or (None, "")
    whose = (getattr(owner, "pk", None), scope) if sender else (locked.thread.owner_id, locked.thread.scope)
    thread, attachments = locked.thread, Attachment.objects.using(database())
    rows = {row.pk: row for row in attachments.select_for_update(no_key=True).filter(pk__in=keys).order_by("pk")}
    uploaded = [row for row in rows.values() if row.thread_id is None and (row.owner_id, row.scope) == whose]
    new = [new_files[key] for key in dict.fromkeys(keys) if key in new_files.keys() - rows.keys()]
    for row in [*uploaded, *new]:
        row.thread, row.owner_id, row.scope = thread, thread.owner_id, thread.scope
    attachments.bulk_update(uploaded, ["thread", "owner", "scope"])
    attachments.bulk_create(new)
    rows |= {row.pk: row for row in new}
    for key in keys:
        if key not in rows or rows[key].thread_id != thread.pk:
            raise InvalidPartsError(
                f"There is no attachment {key} that this message may carry. Upload the file (POST attachments/). "
                "If a message of another thread carries it already, upload it once more."
            )
    return [attachment_storage.part_of(rows[key]) if (key := attachment_id(part)) else part for part in parts]


def copied_parts(parts: list[Part], copies: Mapping[UUID, UUID]) -> list[Part]:
    """Return the parts of a message with each attachment replaced by its copy. An attachment without a copy stays as it
    is.
    """
    keys = [(part, attachment_id(part)) for part in parts]
    return [
        {**part, "url": attachment_storage.url_of(copies[key])} if key and key in copies else part for part, key in keys
    ]


def copy_attachments(messages: Iterable[list[Part]], *, source: Thread, into: Thread) -> dict[UUID, UUID]:
    """Copy the attachment rows of these messages from the thread ``source`` to the thread ``into``. The stored files
    are shared. Return the id of each copy, by the id of the original. Call this function under the lock of ``source``,
    so that the files are not deleted meanwhile.
    """
    keys = {key for parts in messages for part in parts if (key := attachment_id(part))}
    if not keys:
        return {}
    rows = list(Attachment.objects.using(database()).filter(thread=source, pk__in=keys))
    copies = {row.pk: uuid4() for row in rows}
    for row in rows:
        row.pk, row.thread, row.owner_id, row.scope = copies[row.pk], into, into.owner_id, into.scope
    Attachment.objects.using(database()).bulk_create(rows)
    return copies


@receiver(post_delete, sender=Attachment)
def _forget_file(instance: Attachment, using: str, **_: object) -> None:
    """Delete the file of a deleted row after the commit, unless another row refers to the same file."""
    place = instance.place
    # This is a lambda and not a partial: Django logs the name of a robust callback that fails, and a partial has no
    # name.
    transaction.on_commit(lambda: attachment_storage.discard_unused(place, using=using), using=using, robust=True)


def prune_unsent() -> int:
    """Delete files that were uploaded more than a day ago and that no message carries. Return the number of files
    deleted.
    """
    using = database()
    with transact():
        forgotten = Attachment.objects.using(using).forgotten(attachment_storage.FORGOTTEN_SECONDS)
        # A transaction may be attaching one of these files to a message now. It has locked the row of the file, so that
        # row is skipped.
        keys = list(forgotten.select_for_update(skip_locked=True).order_by("pk").values_list("pk", flat=True))
        Attachment.objects.using(using).filter(pk__in=keys).delete()
    return len(keys)

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
"""The maximum number of files that a sender has uploaded but not sent in a message yet. Unsent files are deleted a day
after the upload.
"""

Sender = tuple[User | None, str]
"""The owner and scope of a sender. Together they identify the files that the sender has uploaded."""

NewFiles = Mapping[UUID, Attachment]
"""The files that were embedded in a message, by id. They are stored, but their rows are not inserted yet."""
NO_FILES: NewFiles = MappingProxyType({})


@contextmanager
def store_files(*lists: object) -> Iterator[tuple[list[Any], NewFiles]]:
    """Store the files that are embedded in message parts as ``data:`` URLs.

    Each argument is a list of parts, or any other value. The context manager yields two items:

    - The arguments, with the URLs of the stored files instead of the ``data:`` URLs. Values that are not lists stay
      unchanged.
    - A dict of unsaved attachment rows, by id. The transition that stores the messages saves these rows.

    When the block ends, files without a saved row are deleted. If the caller's transaction rolls back later, the files
    are deleted at that time. Raises InvalidPartsError and TooLargeError.
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
    """When the block ends, keep the files whose rows were inserted, and delete the others.

    If the database fails during the block, keep all files, because the commit may have succeeded. ``prune_unsent``
    deletes the unused ones later.
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
    """Store an uploaded file, and return its row. The file is not part of a message yet.

    Raises UnsupportedMediaTypeError. Raises ThrottledError if the sender already has ``MAX_UNSENT`` uploaded files that
    are in no message. Concurrent uploads cannot exceed this limit.
    """
    # Check before the file is stored. ``_insert`` checks again under a lock.
    _check_unsent(owner, scope)
    row = attachment_storage.store(data, claimed=claimed, filename=filename, owner=owner, scope=scope)
    with _kept_if_committed({row.pk: row}):
        _insert(row)
    log_transition("upload", attachment=row.pk, bytes=row.size)
    return row


@transition
def _insert(row: Attachment) -> None:
    with transact():
        # Only one upload of a sender runs this code at a time. Otherwise, concurrent uploads could all pass the check
        # before any of them is saved.
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
    """Assign the files of a user's message to this thread. Return the parts, with each file's URL, type and filename
    taken from its row.

    Each file must be one of these:

    - a file that was embedded in the message (``new_files``);
    - a file of this thread;
    - a file that ``sender`` has uploaded and not sent yet. ``sender`` defaults to the owner and scope of the thread.

    Raises InvalidPartsError for any other file.
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
    """Return the parts with each attachment replaced by its copy. ``copies`` maps original ids to the ids of the
    copies. An attachment without a copy stays as it is.
    """
    keys = [(part, attachment_id(part)) for part in parts]
    return [
        {**part, "url": attachment_storage.url_of(copies[key])} if key and key in copies else part for part, key in keys
    ]


def copy_attachments(messages: Iterable[list[Part]], *, source: Thread, into: Thread) -> dict[UUID, UUID]:
    """Copy the attachment rows of these messages from ``source`` to ``into``. A copy shares the stored file with its
    original. Return a dict from original ids to the ids of the copies.

    The caller holds the lock of ``source``, so that nobody deletes the files during the copy.
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
    """After the commit, delete the file of a deleted row, unless another row uses the same file."""
    place = instance.place
    # Use a lambda here. If the callback fails, Django logs the callback's name, and a ``partial`` has no name.
    transaction.on_commit(lambda: attachment_storage.discard_unused(place, using=using), using=using, robust=True)


def prune_unsent() -> int:
    """Delete files that were uploaded more than a day ago and are in no message. Return the number of files deleted."""
    using = database()
    with transact():
        forgotten = Attachment.objects.using(using).forgotten(attachment_storage.FORGOTTEN_SECONDS)
        # Skip locked rows: another transaction may be adding the file of such a row to a message.
        keys = list(forgotten.select_for_update(skip_locked=True).order_by("pk").values_list("pk", flat=True))
        Attachment.objects.using(using).filter(pk__in=keys).delete()
    return len(keys)

"""How files come with a message and go with their rows. The bytes are stored before an arrow is drawn, never while a
thread is held, and are taken away after the commit; only rows are written in between."""

from __future__ import annotations

import base64
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar
from uuid import UUID, uuid4

from django.db import DatabaseError, InterfaceError, OperationalError, transaction
from django.db.models.signals import post_delete
from django.dispatch import receiver

from durable_agents import files
from durable_agents.exceptions import InvalidPartsError, UnsupportedMediaTypeError
from durable_agents.lifecycle.locking import Locked, arrow, database, log_arrow, transact
from durable_agents.models import Attachment, Thread
from durable_agents.parts import Part, attachment_id, embedded_files, file_base64

P = ParamSpec("P")
R = TypeVar("R")

Sender = tuple[Any, str]
"""Owner and scope of whoever sends: of what they have uploaded, and no other."""

_arriving: ContextVar[Mapping[UUID, Attachment]] = ContextVar("_arriving", default=MappingProxyType({}))
"""What came within the message that is being sent: stored, and still without rows."""


def with_files(function: Callable[P, R]) -> Callable[P, R]:
    """Have files that come within the ``parts`` of a message, or of ``messages``, stored before the arrow is drawn: it
    gets parts that name them by their URLs. See ``taken_in``."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)
        messages = list(given.arguments.get("messages", ()))
        with taken_in(given.arguments.get("parts"), *map(_parts_of, messages)) as (parts, *others):
            if "parts" in given.arguments:
                given.arguments["parts"] = parts
            if messages:
                told = zip(messages, others, strict=True)
                given.arguments["messages"] = [{**message, "parts": some} for message, some in told]
            return function(*given.args, **given.kwargs)

    return drawn


def _parts_of(message: Mapping[str, Any]) -> Any:
    return message.get("parts", message.get("content"))


@contextmanager
def taken_in(*lists: Any) -> Iterator[list[Any]]:
    """The parts of messages with every file that is within them (``data:`` URLs) stored, and named by its URL.

    Files that no message carries in the end are taken away again: at once where none was sent, and where a transaction
    of the caller's is rolled back, then. What is no list is given back as it is. Raises InvalidPartsError and
    TooLargeError.
    """
    embedded = [embedded_files(parts) if isinstance(parts, list) else {} for parts in lists]
    if not any(embedded):
        yield list(lists)
        return
    arrived: dict[UUID, Attachment] = {}
    with _kept_if_committed(arrived):
        given = [
            [_stored(found[index], arrived) if index in found else part for index, part in enumerate(parts)]
            if found
            else parts
            for parts, found in zip(lists, embedded, strict=True)
        ]
        token = _arriving.set(arrived)
        try:
            yield given
        finally:
            _arriving.reset(token)


def _stored(part: Part, arrived: dict[UUID, Attachment]) -> Part:
    data = base64.b64decode(file_base64(part))
    try:
        row = files.store(data, claimed=part["mediaType"], filename=part.get("filename", ""))
    except UnsupportedMediaTypeError as error:
        raise InvalidPartsError(str(error)) from error
    arrived[row.pk] = row
    return files.part_of(row)


@contextmanager
def _kept_if_committed(stored: Mapping[UUID, Attachment]) -> Iterator[None]:
    """The files of rows that the block writes stay, those of other rows go at its end. Where the database cannot say
    which are written, all stay until the leftovers are cleaned up: a commit may take place whose answer is lost."""
    try:
        yield
    except (OperationalError, InterfaceError):
        raise
    except BaseException:
        with suppress(DatabaseError):
            _keep_written(stored)
        raise
    _keep_written(stored)


def _keep_written(stored: Mapping[UUID, Attachment]) -> None:
    written = set(Attachment.objects.using(database()).filter(pk__in=stored).values_list("pk", flat=True))
    for key, row in stored.items():
        if key in written:
            files.keep_if_committed(row.place, using=database())
        else:
            files.discard(row.place)


def upload(data: bytes, *, claimed: str, filename: str, owner: Any = None, scope: str = "") -> Attachment:
    """Keep a file for its sender, until a message carries it. Raises UnsupportedMediaTypeError."""
    row = files.store(data, claimed=claimed, filename=filename, owner=owner, scope=scope)
    with _kept_if_committed({row.pk: row}):
        _insert(row)
    log_arrow("upload", attachment=row.pk, bytes=row.size)
    return row


@arrow
def _insert(row: Attachment) -> None:
    with transact():
        row.save(using=database(), force_insert=True)


def bound(locked: Locked, parts: list[Part], *, sender: Sender | None) -> list[Part]:
    """The parts of a user's message with their attachments made this thread's, and told as their rows have them.

    A message may carry what came with it, what its sender has uploaded and no message carries, and what its thread has
    already. ``sender`` is by default who owns the thread. Raises InvalidPartsError for any other attachment.
    """
    named = [key for part in parts if (key := attachment_id(part))]
    if not named:
        return parts
    owner, scope = sender or (None, "")
    whose = (getattr(owner, "pk", None), scope) if sender else (locked.thread.owner_id, locked.thread.scope)
    rows = _rows(locked, named, whose=whose)
    for key in named:
        if key not in rows:
            raise InvalidPartsError(
                f"There is no attachment {key} that this message may carry. Upload the file (POST attachments/), once "
                "more where a message of another thread carries it already."
            )
    return [files.part_of(rows[key]) if (key := attachment_id(part)) else part for part in parts]


def _rows(locked: Locked, named: Sequence[UUID], *, whose: tuple[Any, str]) -> dict[UUID, Attachment]:
    """The rows that may be carried, in the thread from now on."""
    thread, arriving = locked.thread, _arriving.get()
    rows = Attachment.objects.using(database())
    found = {row.pk: row for row in rows.select_for_update(no_key=True).filter(pk__in=named).order_by("pk")}
    uploaded = [row for row in found.values() if row.thread_id is None and (row.owner_id, row.scope) == whose]
    arrived = [arriving[key] for key in dict.fromkeys(named) if key in arriving.keys() - found.keys()]
    for row in [*uploaded, *arrived]:
        row.thread, row.owner_id, row.scope = thread, thread.owner_id, thread.scope
    rows.bulk_update(uploaded, ["thread", "owner", "scope"])
    rows.bulk_create(arrived)
    found |= {row.pk: row for row in arrived}
    return {key: row for key, row in found.items() if row.thread_id == thread.pk}


def copied_parts(parts: list[Part], copies: Mapping[UUID, UUID]) -> list[Part]:
    """The parts of a message with other attachments in the place of these; those without a copy stay."""
    keys = [(part, attachment_id(part)) for part in parts]
    return [{**part, "url": files.url_of(copies[key])} if key and key in copies else part for part, key in keys]


def copy_attachments(messages: Iterable[list[Part]], *, source: Thread, into: Thread) -> dict[UUID, UUID]:
    """Rows of its own for a thread, for the files that these messages of another one carry; the stored files are the
    same. Returns the new id of each. Call it under the lock of ``source``, which keeps its files from going."""
    named = {key for parts in messages for part in parts if (key := attachment_id(part))}
    if not named:
        return {}
    rows = list(Attachment.objects.using(database()).filter(thread=source, pk__in=named))
    copies = {row.pk: uuid4() for row in rows}
    for row in rows:
        row.pk, row.thread, row.owner_id, row.scope = copies[row.pk], into, into.owner_id, into.scope
    Attachment.objects.using(database()).bulk_create(rows)
    return copies


@receiver(post_delete, sender=Attachment)
def _forget_file(instance: Attachment, using: str, **_: object) -> None:
    """A row is deleted, by whatever way: its file goes after the commit, unless another row has it."""
    place = instance.place
    # Not a partial: Django names a robust callback that failed in its log, and a partial has no name.
    transaction.on_commit(lambda: files.discard_unused(place, using=using), using=using, robust=True)


def prune_unsent() -> int:
    """Delete what was uploaded yesterday and no message carries. Returns how many files."""
    using = database()
    with transact():
        forgotten = Attachment.objects.using(using).forgotten(files.FORGOTTEN_SECONDS)
        keys = list(forgotten.select_for_update(skip_locked=True).order_by("pk").values_list("pk", flat=True))
        Attachment.objects.using(using).filter(pk__in=keys).delete()
    return len(keys)

"""Hides where the bytes of attachments are: in the project's storage, which may be far away and may fail.

Rows are ``lifecycle``'s. A stored file never changes, so what was read may be kept; it has no row until the transaction
that writes one is committed, and none once its last row is gone.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Iterator
from datetime import timedelta
from threading import Lock
from typing import Any
from uuid import UUID

from django.core.files.base import ContentFile
from django.core.files.storage import Storage
from django.db import transaction
from django.urls import NoReverseMatch, reverse
from django.utils.timezone import now

from durable_agents.logs import log_error
from durable_agents.media import clean_name, media_type_of
from durable_agents.models import ATTACHMENTS, Attachment
from durable_agents.parts import Part, attachment_id, file_base64, file_part, file_size, is_embedded

FORGOTTEN_SECONDS = 86_400.0
"""How long a file may be in the storage before a message carries it."""
MAX_KEPT_BYTES = 32 * 1024 * 1024
"""What a process keeps of what it has read."""


def storage() -> Storage:
    """The storage of attachments."""
    found: Storage = Attachment._meta.get_field("file").storage
    return found


def url_of(attachment_id: UUID) -> str:
    """The path of an attachment where this project has mounted the app; one of no meaning where it has not."""
    try:
        return reverse("durable_agents:attachment", args=[attachment_id])
    except NoReverseMatch:
        return f"attachments/{attachment_id}/"


def part_of(attachment: Attachment) -> Part:
    """The part of a message that carries it."""
    return file_part(attachment.media_type, url_of(attachment.pk), attachment.filename)


def store(data: bytes, *, claimed: str, filename: str, **facts: Any) -> Attachment:
    """Put a file into the storage. Returns its row, which is not saved yet and has these ``facts``.

    ``claimed`` is the media type that its sender names. Raises UnsupportedMediaTypeError.
    """
    name = clean_name(filename)
    media_type = media_type_of(data, claimed=claimed, filename=name)
    made = Attachment(media_type=media_type, filename=name, size=len(data), **facts)
    made.file.save(name, ContentFile(data), save=False)
    return made


def discard(name: str) -> None:
    """Take a file out of the storage. Where that fails, it is logged and the file stays."""
    _recent.drop(name)
    try:
        storage().delete(name)
    except Exception:
        log_error("a file could not be deleted", action="discard", file=name)


def discard_unused(name: str, *, using: str) -> None:
    """Take a file out of the storage unless a row has it. After a commit, by whoever deleted a row."""
    if not Attachment.objects.using(using).filter(file=name).exists():
        discard(name)


def keep_if_committed(name: str, *, using: str) -> None:
    """Have a stored file taken out again if the transaction that is on is rolled back."""
    transaction.on_commit(_Undo(name).call_off, using=using)


class _Undo:
    """Takes a file away when it is forgotten, which is all that Django does with what was to follow a commit that never
    came: nobody is told of a rollback."""

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def call_off(self) -> None:
        """The file stays."""
        self._name = None

    def __del__(self) -> None:
        if self._name is not None:
            discard(self._name)


class _Recent:
    """Contents that were read last, up to so many bytes in all."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def find(self, name: str) -> bytes | None:
        """What was read under this name."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def keep(self, name: str, data: bytes) -> None:
        """Remember it, and forget what was asked for least lately."""
        with self._lock:
            self._kept[name] = data
            while sum(map(len, self._kept.values())) > self._max_bytes:
                self._kept.popitem(last=False)

    def drop(self, name: str) -> None:
        """Forget it."""
        with self._lock:
            self._kept.pop(name, None)


_recent = _Recent(MAX_KEPT_BYTES)


def read(attachment: Attachment) -> bytes | None:
    """The bytes of an attachment, never more than its row says; None where the storage has no such file. Raises
    whatever the storage raises when it cannot tell."""
    name = attachment.place
    known = _recent.find(name)
    if known is None:
        try:
            with storage().open(name) as file:
                known = bytes(file.read(attachment.size))
        except FileNotFoundError:
            return None
        _recent.keep(name, known)
    return known


def says_the_same(stored: Part, given: Part) -> bool:
    """Whether a part that a user sends now says what a stored one says, both checked: the same text, or the same file,
    be it named by whatever address or within the part."""
    key, other = attachment_id(stored), attachment_id(given)
    if key is None or other is not None:
        return key == other if key or other else stored == given
    if not is_embedded(given):
        return False
    row = Attachment.objects.filter(pk=key).first()
    return row is not None and row.size == file_size(given) and read(row) == base64.b64decode(file_base64(given))


def leftovers() -> Iterator[str]:
    """Names of files that have been in the storage for a day and that no row has: their process died before it
    committed one. Raises NotImplementedError where the storage cannot list what it has."""
    directories, _ = _listed(ATTACHMENTS)
    for directory in directories:
        names = {f"{ATTACHMENTS}/{directory}/{name}" for name in _listed(f"{ATTACHMENTS}/{directory}")[1]}
        known = Attachment.objects.filter(file__in=names).values_list("file", flat=True)
        yield from (name for name in sorted(names - set(known)) if _is_old(name))


def _listed(path: str) -> tuple[list[str], list[str]]:
    try:
        return storage().listdir(path)
    except FileNotFoundError:
        return [], []


def _is_old(name: str) -> bool:
    return storage().get_modified_time(name) < now() - timedelta(seconds=FORGOTTEN_SECONDS)

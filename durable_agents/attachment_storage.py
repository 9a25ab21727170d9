"""Store and read the content of attachments in the project's storage, which can be slow and can fail.

A stored file never changes, so it can be cached. ``lifecycle`` writes the attachment rows. A file is stored before its
row is committed. It is deleted only after the deletion of its last row is committed.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from threading import Lock
from uuid import UUID

from django.core.files.base import ContentFile
from django.core.files.storage import Storage
from django.db import transaction
from django.urls import NoReverseMatch, reverse
from django.utils.timezone import now

from durable_agents.logs import log_error
from durable_agents.media_types import clean_name, media_type_of
from durable_agents.models import ATTACHMENTS, Attachment
from durable_agents.parts import Part, attachment_id, file_base64, file_part, file_size, is_embedded

FORGOTTEN_SECONDS = 86_400.0
"""How long the storage keeps a file that was uploaded but not sent in a message."""
MAX_KEPT_BYTES = 32 * 1024 * 1024
"""How many bytes of files a process caches."""


def storage() -> Storage:
    found: Storage = Attachment._meta.get_field("file").storage
    return found


def url_of(attachment_id: UUID) -> str:
    """Return the URL path of an attachment. If the project does not include the app's URLs, return a
    placeholder.
    """
    try:
        return reverse("durable_agents:attachment", args=[attachment_id])
    except NoReverseMatch:
        return f"attachments/{attachment_id}/"


def part_of(attachment: Attachment) -> Part:
    """Return the message part for an attachment."""
    return file_part(attachment.media_type, url_of(attachment.pk), attachment.filename)


def store(data: bytes, *, claimed: str, filename: str, **facts: object) -> Attachment:
    """Save a file in the storage, and return an unsaved ``Attachment`` for it. ``facts`` are the row's other fields.

    ``claimed`` is the media type that the sender declares. Raises UnsupportedMediaTypeError as ``media_type_of`` does.
    """
    name = clean_name(filename)
    media_type = media_type_of(data, claimed=claimed, filename=name)
    made = Attachment(media_type=media_type, filename=name, size=len(data), **facts)
    made.file.save(name, ContentFile(data), save=False)
    return made


def discard(name: str) -> None:
    """Delete a file from the storage. If this fails, log the error and leave the file."""
    _recent.drop(name)
    try:
        storage().delete(name)
    except Exception:
        log_error("a file could not be deleted", action="discard", file=name)


def discard_unused(name: str, *, using: str) -> None:
    """Delete a file unless a row still uses it. Call this function after the deletion of a row is committed."""
    if not Attachment.objects.using(using).filter(file=name).exists():
        discard(name)


def keep_if_committed(name: str, *, using: str) -> None:
    """Delete the stored file if the current transaction rolls back."""
    transaction.on_commit(_Undo(name).call_off, using=using)


class _Undo:
    """Deletes a file if a transaction is rolled back.

    Django has commit callbacks, but no rollback callbacks. ``call_off`` is registered as a commit callback, and keeps
    the file. After a rollback, Django forgets the callback, so Python deletes this object. ``__del__`` then deletes the
    file.
    """

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def call_off(self) -> None:
        """Keep the file: the transaction was committed."""
        self._name = None

    def __del__(self) -> None:
        if self._name is not None:
            discard(self._name)


class _Recent:
    """A cache of recently read files with a limited total size."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def find(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it is not cached."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def keep(self, name: str, data: bytes) -> None:
        """Cache the content of a file. If the cache exceeds its limit, evict the least recently used files."""
        with self._lock:
            self._kept[name] = data
            while sum(map(len, self._kept.values())) > self._max_bytes:
                self._kept.popitem(last=False)

    def drop(self, name: str) -> None:
        with self._lock:
            self._kept.pop(name, None)


_recent = _Recent(MAX_KEPT_BYTES)


def read(attachment: Attachment) -> bytes | None:
    """Return the content of an attachment, or None if the file is missing. Other errors of the storage are raised."""
    name = attachment.place
    known = _recent.find(name)
    if known is None:
        try:
            with storage().open(name) as file:
                # Read at most ``attachment.size`` bytes. The size is within the limit, but the file may be larger.
                known = bytes(file.read(attachment.size))
        except FileNotFoundError:
            return None
        _recent.keep(name, known)
    return known


def same_content(stored: Sequence[Part], given: Sequence[Part]) -> bool:
    """Return whether the parts that a user sends have the same texts and files as the stored parts.

    A user sends a file either embedded in a part or as a URL of a stored attachment. Both lists must be validated
    already.
    """
    return len(stored) == len(given) and all(map(_is_same_part, stored, given))


def _is_same_part(stored: Part, given: Part) -> bool:
    key, other = attachment_id(stored), attachment_id(given)
    if key is None or other is not None:
        return key == other if key or other else stored == given
    if not is_embedded(given):
        return False
    row = Attachment.objects.filter(pk=key).first()
    return row is not None and row.size == file_size(given) and read(row) == base64.b64decode(file_base64(given))


def leftovers() -> Iterator[str]:
    """Yield the names of stored files that are at least a day old and have no row. The process that stored such a
    file died before it committed a row.

    Raises NotImplementedError if the storage cannot list files.
    """
    directories, _ = _listed(ATTACHMENTS)
    for directory in directories:
        names = {f"{ATTACHMENTS}/{directory}/{name}" for name in _listed(f"{ATTACHMENTS}/{directory}")[1]}
        known = Attachment.objects.filter(file__in=names).values_list("file", flat=True)
        # Leave out newer files: their rows might not be committed yet.
        oldest = now() - timedelta(seconds=FORGOTTEN_SECONDS)
        yield from (name for name in sorted(names - set(known)) if storage().get_modified_time(name) < oldest)


def _listed(path: str) -> tuple[list[str], list[str]]:
    try:
        return storage().listdir(path)
    except FileNotFoundError:
        return [], []

"""``manage.py agents_prune``: delete threads that have not changed for a given number of days (retention)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import ProtectedError, RestrictedError

from durable_agents import attachment_storage, lifecycle
from durable_agents.models import Command as StoredCommand
from durable_agents.models import Delta, Thread, ThreadQuerySet

BATCH = 200


class Command(BaseCommand):
    """Deletes each thread that has not changed for the given number of days, with everything that belongs to it. A
    thread with an unfinished run is never deleted. The usage of a deleted thread is deleted only if
    ``USAGE_ON_DELETE`` is "drop".

    The command also deletes:

    - Files that were uploaded more than a day ago but never sent in a message.
    - Deltas, and stored answers to clients' commands, when they are no longer needed.
    - Audit entries of the given age whose thread was deleted.

    The command can be interrupted and run again.
    """

    help = "Delete threads at rest that have not changed for some days, and data that is no longer needed."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options of this command."""
        parser.add_argument("--older-than", type=_days, required=True, metavar="DAYS", help="A number above 0.")
        parser.add_argument(
            "--leftover-files",
            action="store_true",
            help="Also delete files that have been in the storage for a day without a row, because their process died. "
            "Do not use this if another project or database keeps attachments in the same place.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Only print how many threads would be deleted.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Delete threads in batches, with a short transaction for each thread, and print what was deleted."""
        days = options["older_than"]
        threads = Thread.objects.using(lifecycle.database()).idle(days)
        others = [Delta.objects.using(lifecycle.database()), StoredCommand.objects.using(lifecycle.database())]
        if options["dry_run"]:
            self.stdout.write(f"{threads.count()} threads would be deleted.")
            return
        before = [rows.count() for rows in others]
        deleted = protected = 0
        for thread_id in _ids(threads):
            try:
                deleted += lifecycle.delete_if_idle(thread_id, days=days)
            except (ProtectedError, RestrictedError):  # a model of the project refers to the thread
                protected += 1
        lifecycle.prune()
        lifecycle.prune_audit(days)
        if options["leftover_files"]:
            try:
                names = list(attachment_storage.leftovers())
            except NotImplementedError as error:
                raise CommandError("The storage of attachments cannot list what it has.") from error
            for name in names:
                attachment_storage.discard(name)
            self.stdout.write(self.style.SUCCESS(f"Deleted {len(names)} files without a row."))
        # Running threads might have added more rows than the command has deleted. In this case, report 0.
        deltas, commands = (max(count - rows.count(), 0) for count, rows in zip(before, others, strict=True))
        self.stdout.write(self.style.SUCCESS(f"Deleted {deleted} threads, {deltas} deltas, {commands} stored answers."))
        if protected:
            text = f"{protected} threads were kept, because rows of your models refer to them and protect them."
            self.stdout.write(self.style.WARNING(text))


def _days(text: str) -> float:
    """Parse a number of days. It must be above 0 and at most 36,525 (a century)."""
    try:
        days = float(text)
    except ValueError:
        days = 0
    if not 0 < days <= 36_525:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days above 0.")
    return days


def _ids(threads: ThreadQuerySet) -> Iterator[UUID]:
    """Yield the ids of threads in ascending order, read in batches."""
    # Do not use ``iterator()``, because its cursor would stay open while threads are deleted. On SQLite, an
    # open cursor keeps a read transaction open. On PostgreSQL, a connection pooler would lose the cursor.
    rows = threads.order_by("pk").values_list("pk", flat=True)
    batch = list(rows[:BATCH])
    while batch:
        yield from batch
        batch = list(rows.filter(pk__gt=batch[-1])[:BATCH])

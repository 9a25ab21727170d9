"""``manage.py agents_prune``: retention. Threads that nobody has touched for long are deleted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import ProtectedError, RestrictedError

from durable_agents import files, lifecycle
from durable_agents.models import Command as StoredCommand
from durable_agents.models import Delta, Thread

BATCH = 200


class Command(BaseCommand):
    """Deletes threads at rest that nothing has changed for so many days, with all that belongs to them, and files that
    were uploaded yesterday and not sent.

    Running threads stay, however old. What the model calls have cost stays as well unless ``USAGE_ON_DELETE`` is
    "drop". Deltas and answers to commands that nobody needs any more go too. May be interrupted and run again.
    """

    help = "Delete threads at rest that have not changed for so many days, and what nobody needs any more."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add what is special to this command."""
        parser.add_argument("--older-than", type=_days, required=True, metavar="DAYS", help="A number above 0.")
        parser.add_argument(
            "--leftover-files",
            action="store_true",
            help="Delete files too that have been in the storage for a day without a row: whoever stored them died. "
            "Only where no other project or database keeps attachments in the same place.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Only say how many threads would go.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Delete in batches, one short transaction a thread, and print what went."""
        days = options["older_than"]
        if options["dry_run"]:
            count = Thread.objects.using(lifecycle.database()).idle(days).count()
            self.stdout.write(f"{count} threads would be deleted.")
            return
        commands = StoredCommand.objects.using(lifecycle.database()).count()
        deltas = Delta.objects.using(lifecycle.database()).count()
        deleted = protected = 0
        for thread_id in _idle(days):
            try:
                deleted += lifecycle.delete_if_idle(thread_id, days=days)
            except (ProtectedError, RestrictedError):
                protected += 1
        lifecycle.prune()
        if options["leftover_files"]:
            self._discard_leftovers()
        gone_deltas = deltas - Delta.objects.using(lifecycle.database()).count()
        gone_commands = commands - StoredCommand.objects.using(lifecycle.database()).count()
        self._report(deleted, protected, max(gone_deltas, 0), max(gone_commands, 0))

    def _discard_leftovers(self) -> None:
        try:
            names = list(files.leftovers())
        except NotImplementedError as error:
            raise CommandError("The storage of attachments cannot list what it has.") from error
        for name in names:
            files.discard(name)
        self.stdout.write(self.style.SUCCESS(f"Deleted {len(names)} files without a row."))

    def _report(self, deleted: int, protected: int, deltas: int, commands: int) -> None:
        self.stdout.write(self.style.SUCCESS(f"Deleted {deleted} threads, {deltas} deltas, {commands} stored answers."))
        if protected:
            self.stdout.write(
                self.style.WARNING(f"{protected} threads were kept: rows of yours refer to them and protect them.")
            )


def _days(text: str) -> float:
    """A number of days above 0, at most a century."""
    try:
        days = float(text)
    except ValueError:
        days = 0
    if not 0 < days <= 36_525:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days above 0.")
    return days


def _idle(days: float) -> Iterator[UUID]:
    """Ids of such threads, the oldest id first, a batch at a time."""
    rows = Thread.objects.using(lifecycle.database()).idle(days).order_by("pk").values_list("pk", flat=True)
    batch = list(rows[:BATCH])
    while batch:
        yield from batch
        batch = list(rows.filter(pk__gt=batch[-1])[:BATCH])

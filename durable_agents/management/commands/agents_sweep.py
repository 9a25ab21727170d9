"""``manage.py agents_sweep``: recover the rows of dead workers now, instead of waiting for the scheduled sweep."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from durable_agents import engine


class Command(BaseCommand):
    """Releases the rows that dead workers held, and tells workers that other rows are due. The command can be run at
    any time, and more than once.
    """

    help = "Reap the rows that dead workers held, and notify workers of due rows."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run ``engine.sweep`` once."""
        engine.sweep()
        if options["verbosity"] > 0:
            self.stdout.write(self.style.SUCCESS("Swept."))

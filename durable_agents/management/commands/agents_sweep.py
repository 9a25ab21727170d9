"""``manage.py agents_sweep``: run now the sweep that the workers' schedule runs."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from durable_agents import engine


class Command(BaseCommand):
    """Gives back what dead workers held and notifies workers of due rows. Running it at any time, or twice, does no
    harm.
    """

    help = "Reap what dead workers held, and ring the workers for what is due."

    def handle(self, *args: Any, **options: Any) -> None:
        """Sweep once."""
        engine.sweep()
        if options["verbosity"] > 0:
            self.stdout.write(self.style.SUCCESS("Swept."))

"""``manage.py agents_doctor``: report problems that keep agents from running, with a hint for each."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from durable_agents.management.diagnosis import Level, examine

EXIT_CODES: dict[Level, int] = {"ok": 0, "warning": 1, "error": 2}


class Command(BaseCommand):
    """Checks the package, settings, database, broker, periodic sweep, channel layer, workers and models. To check that
    the database accepts writes, the command stores one row and deletes it again. It changes nothing else.

    The exit code is 2 if there is an error, and 0 if not. With ``--fail-level warning``, it is 1 if there are warnings
    but no errors. The command calls no model, and imports litellm only with ``--models``.
    """

    help = "Check what agents need to run: database, broker, schedule, channel layer, workers, models."
    requires_system_checks = ()  # the command reports the messages of system checks itself

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options of this command."""
        parser.add_argument("--json", action="store_true", help="Print one JSON object: status and findings.")
        parser.add_argument("--models", action="store_true", help="Ask litellm about the models (imports it: seconds).")
        parser.add_argument(
            "--fail-level",
            choices=["error", "warning"],
            default="error",
            help="The lowest level for which the exit code is not 0: error (2, the default) or warning (1).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the checks, print the findings, and exit with the code for the worst finding."""
        findings = examine(models=options["models"])
        status = max((finding.level for finding in findings), key=EXIT_CODES.__getitem__)
        if options["json"]:
            self.stdout.write(json.dumps({"status": status, "findings": [asdict(item) for item in findings]}))
        else:
            styles = {"ok": self.style.SUCCESS, "warning": self.style.WARNING, "error": self.style.ERROR}
            for finding in findings:
                level = styles[finding.level](f"{finding.level:8}")
                self.stdout.write(f"{level} {finding.area:14} {finding.text}")
                if finding.hint:
                    self.stdout.write(f"{'':9}{'':15}-> {finding.hint}")
        if EXIT_CODES[status] >= EXIT_CODES[options["fail_level"]]:
            sys.exit(EXIT_CODES[status])

"""``manage.py agents_types``: write TypeScript types for the public agents and their tools."""

from __future__ import annotations

from pathlib import Path

from django.core.management.base import BaseCommand, CommandError, CommandParser

from durable_agents.agents import registry
from durable_agents.exceptions import AgentNotFoundError
from durable_agents.management.typescript import TypeScript


class Command(BaseCommand):
    """Writes one TypeScript module. It contains, for each agent, the arguments and results of its tools."""

    help = "Write TypeScript types for the tools of all public agents, or of the named agents."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options of this command."""
        parser.add_argument("agents", nargs="*", metavar="AGENT", help="Agents, by default all public ones.")
        parser.add_argument("-o", "--output", metavar="FILE", help="Write to this file instead of the terminal.")
        parser.add_argument(
            "--check", action="store_true", help="Write nothing. Fail if the file's content is not up to date."
        )

    def handle(self, *args: object, **options: object) -> None:
        """Write the module. Raises CommandError for an unknown agent, or if ``--check`` finds a difference."""
        names = options["agents"]
        try:
            chosen = [registry.get(name) for name in names] if isinstance(names, list) else []
        except AgentNotFoundError as error:
            raise CommandError(str(error)) from error
        text = TypeScript().module(chosen or [agent for agent in registry.all() if agent.public])
        output = options["output"]
        if options["check"]:
            if not output:
                raise CommandError("--check needs --output FILE: the file to compare with.")
            path = Path(str(output))
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                raise CommandError(f"{path} is not up to date. Write it again: manage.py agents_types -o {path}")
        elif output:
            Path(str(output)).write_text(text, encoding="utf-8")
        else:
            self.stdout.write(text, ending="")

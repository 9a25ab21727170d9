"""``manage.py agents_worker``: run the workers, and with ``--reload`` start them again whenever the code changes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from django.apps import apps
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from django.utils import autoreload

from durable_agents.conf import config

PROCESS_SECONDS = 5
"""How long to wait for the end of a cluster's processes, in addition to ``drain_seconds``."""


class Command(BaseCommand):
    """Runs django-q2's cluster. With ``--reload``, it runs the cluster in a child process and watches the files."""

    help = "Run the workers, as qcluster does. With --reload, start them again whenever the code changes."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options of this command."""
        parser.add_argument("-n", "--name", help="The name of the cluster, if it is not the one in Q_CLUSTER.")
        parser.add_argument("--reload", action="store_true", help="Start new workers when a file changes.")

    def handle(self, *args: object, **options: object) -> None:
        """Run until a signal arrives."""
        if not options["reload"]:
            call_command("qcluster", cluster_name=options["name"])
            return
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        workers = ReloadedWorkers(self)
        autoreload.file_changed.connect(workers.on_change, dispatch_uid="agents_worker")
        reloader = autoreload.get_reloader()
        for folder in _code_folders():
            reloader.watch_dir(folder, "**/*.py")
        with contextlib.suppress(KeyboardInterrupt):
            try:
                workers.start()
                # Watch the files. Django expects the OS thread that loads the apps as the argument.
                reloader.run(threading.main_thread())
            finally:
                workers.stop()


class ReloadedWorkers:
    """A cluster in a child process.

    The parent process watches the files, because a file with a syntax error ends the child process.
    """

    def __init__(self, command: BaseCommand) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the cluster."""
        arguments = [argument for argument in autoreload.get_child_arguments() if argument != "--reload"]
        child = self._child = subprocess.Popen(arguments)
        threading.Thread(target=self._report_end, args=(child,), daemon=True).start()

    def on_change(self, *, file_path: Path, **_: object) -> bool:
        """Start a new cluster, and tell the old one to end. The old cluster finishes its rows, and claims no new ones.

        Return True, so that Django does not end this process.
        """
        self._command.stdout.write(f"{file_path} changed, starting the workers again.")
        self._command.stdout.flush()
        old = self._child
        self.start()
        _terminate(old)
        return True

    def stop(self) -> None:
        """Stop the cluster, and wait until its processes have released their rows."""
        child, self._child = self._child, None
        _terminate(child)
        if child is not None:
            try:
                child.wait(config().drain_seconds + PROCESS_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()

    def _report_end(self, child: subprocess.Popen[bytes]) -> None:
        child.wait()
        if child is self._child:
            self._command.stderr.write("The workers have ended. They start again when a file changes.")


def _code_folders() -> set[Path]:
    """Return the folders of the project's own apps, and the folder of its settings. New modules in these folders are
    watched, too.
    """
    installed = [Path(folder) for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]
    folders = {Path(item.path) for item in apps.get_app_configs()}
    project = sys.modules.get(os.environ["DJANGO_SETTINGS_MODULE"])
    if project is not None and project.__file__:
        folders.add(Path(project.__file__).parent)
    return {folder for folder in folders if not any(folder.is_relative_to(place) for place in installed)}


def _terminate(child: subprocess.Popen[bytes] | None) -> None:
    if child is not None and child.poll() is None:
        child.terminate()

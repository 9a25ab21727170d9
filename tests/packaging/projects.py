"""New projects for the tests of the wheel: made far from this checkout, in virtual environments of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Project:
    """A Django project in a folder, with the Python of its own environment."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.python = python
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PYTHON"))}
        self.env["PYTHONUNBUFFERED"] = "1"
        self.pins = ROOT / "requirements" / "pins.txt"

    def install(self, wheel: Path, extras: str, *others: str) -> None:
        """Put the wheel with these extras, and other packages, into the environment."""
        package = f"django-durable-agents[{extras}] @ {wheel.resolve().as_uri()}"
        run(uv(), "pip", "install", "--quiet", "--python", self.python, "--constraint", self.pins, package, *others)

    def paste(self, name: str, lines: str) -> None:
        """Put lines at the end of a file, which need not be there yet."""
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(lines)

    def manage(self, *arguments: str, **extra: str) -> str:
        """Run a command of the project; return what it says."""
        return run(self.python, "manage.py", *arguments, cwd=self.folder, env=self.env | extra)

    def shell(self, code: str) -> str:
        """Run some lines of Python in the project."""
        return self.manage("shell", "--no-imports", "-c", code).strip()

    @contextlib.contextmanager
    def running(self, *command: str, **extra: str) -> Iterator[Callable[[], str]]:
        """A server of the project, ended with all its children; yields a function that tells what it has said."""
        log = self.folder / f"{command[1].strip('-').replace('/', '-')}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [self.python, *command],
                cwd=self.folder,
                env=self.env | extra,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield lambda: log.read_text(encoding="utf-8", errors="replace")
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                process.wait()


def uv() -> str:
    """The uv of this environment, else of the machine."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else str(shutil.which("uv"))


def run(*command: str | Path, **options: Any) -> str:
    """Run a command to its end; return what it says, or end with all of it."""
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=180, **options
    )
    if ended.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {ended.returncode}:\n{ended.stdout}")
    return ended.stdout


def until(condition: Callable[[], Any], what: Callable[[], str] | str, *, seconds: float = 40) -> Any:
    """Wait for something to come true and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"Not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.1)
    return found


def answers(port: int) -> bool:
    """Whether somebody listens at this port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_port() -> int:
    """Return a port that nobody uses just now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])

"""Keep the demo's processes running and stop them together.

Each process leads a process group, so that its child processes can be killed as well. A guard process (see
`orphan_reaper`) stops all groups if the supervisor is killed.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from . import orphan_reaper

ROOT = Path(__file__).resolve().parent.parent
MAX_DEATHS = 5
DEATHS_WINDOW_SECONDS = 60


class ProcessFailedError(Exception):
    """A program stops again and again, so another restart would not help."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to run, and the file descriptors that it inherits."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    fds: Sequence[int] = ()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the program in a session of its own, so that Ctrl-C in this terminal does not reach it."""
        return subprocess.Popen(
            self.command,
            cwd=ROOT,
            env=self.env,
            pass_fds=self.fds,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


class Child:
    """A program that is kept running, and the times at which it stopped recently."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process = program.start()
        self.deaths: deque[float] = deque(maxlen=MAX_DEATHS)

    @property
    def group(self) -> int:
        """The id of the child's process group."""
        return self.process.pid

    def is_dead(self) -> bool:
        """Return whether the child's process has ended. If so, collect its exit status."""
        return self.process.poll() is not None

    def revive(self) -> None:
        """Start the program again. Raises `ProcessFailedError` if it has stopped for the fifth time within a minute."""
        orphan_reaper.kill([self.group])
        self.deaths.append(time.monotonic())
        if len(self.deaths) == MAX_DEATHS and self.deaths[-1] - self.deaths[0] < DEATHS_WINDOW_SECONDS:
            raise ProcessFailedError(f"The {self.program.name} stopped {MAX_DEATHS} times within a minute.")
        self.process = self.program.start()


class Supervisor:
    """A context manager that keeps the demo's processes running, and stops all of them on exit."""

    def __init__(self, report: Callable[[str], object]) -> None:
        self.report = report
        self.children: list[Child] = []
        self.guard, self.leash = start_guard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, program: Program) -> None:
        """Start `program` and keep it running."""
        self.children.append(Child(program))
        self.tell_guard()

    def watch(self, stopping: Event, *, seconds: float = float("inf")) -> None:
        """Restart programs that stop, until `stopping` is set or `seconds` have passed. Raises `ProcessFailedError` if
        a program keeps stopping.
        """
        deadline = time.monotonic() + seconds
        while not stopping.wait(0.2) and time.monotonic() < deadline:
            for child in self.children:
                if child.is_dead():
                    self.revive(child)
            if self.guard.poll() is not None:
                os.close(self.leash)
                self.guard, self.leash = start_guard()
                self.tell_guard()

    def revive(self, child: Child) -> None:
        """Restart a child that has stopped, and report this."""
        self.report(f"The {child.program.name} stopped (exit code {child.process.returncode}); starting it again.")
        child.revive()
        self.tell_guard()

    def stop(self) -> None:
        """Stop every process, and wait until all have ended. This takes at most about nine seconds."""
        orphan_reaper.end([child.group for child in self.children], reap=self.reap)
        for child in self.children:
            child.process.wait()
        self.children.clear()
        self.tell_guard()
        os.close(self.leash)
        self.guard.wait()

    def reap(self) -> None:
        """Collect the exit status of each child that has ended."""
        for child in self.children:
            child.is_dead()

    def tell_guard(self) -> None:
        """Send the current process groups to the guard process. If the guard is dead, do nothing, because `watch`
        starts a new guard and sends the groups again.
        """
        with contextlib.suppress(BrokenPipeError):
            os.write(self.leash, " ".join(str(child.group) for child in self.children).encode() + b"\n")


def start_guard() -> tuple[subprocess.Popen[bytes], int]:
    """Start the guard process. Return it, and the write end of a pipe to it.

    The operating system closes the pipe when this process ends, even after a crash. The guard then stops the demo.
    """
    theirs, ours = os.pipe()
    command = [sys.executable, "-m", "demo_project.orphan_reaper"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=theirs, start_new_session=True)
    os.close(theirs)
    return process, ours

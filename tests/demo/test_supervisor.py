"""The demo's processes are kept running while they can be, and none outlives the command."""

import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import psutil
import pytest

from demo_project import orphan_reaper
from demo_project.supervisor import MAX_DEATHS, ProcessFailedError, Program, Supervisor

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""
SLEEP = "import time; time.sleep(60)"


def program(code: str, *arguments: str) -> Program:
    """Return a program that runs `code`."""
    return Program(name="sleeper", command=[sys.executable, "-c", code, *arguments], env=dict(os.environ))


def wait_for_text(path: Path) -> str:
    """Return the text of a file that another process is about to write."""
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return path.read_text()


def test_a_program_that_keeps_dying_is_given_up():
    """The person reads why, rather than the same line for ever."""
    said: list[str] = []
    with Supervisor(said.append) as supervisor:
        supervisor.start(program("raise SystemExit(3)"))
        with pytest.raises(ProcessFailedError, match="sleeper"):
            supervisor.watch(Event(), seconds=30)
    assert said == ["The sleeper stopped (exit code 3); starting it again."] * MAX_DEATHS


def test_a_program_that_died_once_is_started_again():
    """And nothing that it started stays behind."""
    said: list[str] = []
    with Supervisor(said.append) as supervisor:
        supervisor.start(program(SLEEP))
        first = supervisor.children[0].group
        os.kill(first, 9)
        supervisor.watch(Event(), seconds=1)
        assert supervisor.children[0].group != first
        assert not supervisor.children[0].is_dead()
    assert len(said) == 1


def test_what_ignores_the_request_to_stop_is_killed_with_its_children(tmp_path):
    """After the grace, the whole group goes."""
    noted = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", STUBBORN, str(noted)], start_new_session=True)
    grandchild = psutil.Process(int(wait_for_text(noted)))
    orphan_reaper.end([process.pid], grace_seconds=0.3, reap=process.poll)
    assert process.wait(5) == -9
    psutil.wait_procs([grandchild], timeout=5)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_a_guard_that_died_is_replaced_and_told_the_groups():
    """The promise to end everything does not hang on one process."""
    with Supervisor(lambda _: None) as supervisor:
        supervisor.start(program(SLEEP))
        first = supervisor.guard.pid
        supervisor.guard.kill()
        supervisor.watch(Event(), seconds=1)
        assert supervisor.guard.pid != first
        assert supervisor.guard.poll() is None

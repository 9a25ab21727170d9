"""Real worker processes for tests: `manage.py qcluster` on the test database, watched by its log."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil

from durable_agents.models import Stream, Thread, ToolCall

ROOT = Path(__file__).resolve().parent.parent
READY = re.compile(r"^([\d.]+) INFO Process-\w+ ready for work at (\d+)", re.MULTILINE)
CLAIM = re.compile(r"^([\d.]+) INFO claim thread=(\w+)", re.MULTILINE)


class Cluster:
    """One `manage.py qcluster`, in a process group of its own. `alive` are those that were not stopped or killed."""

    alive: ClassVar[set["Cluster"]] = set()

    def __init__(self, env: dict[str, str], user: str | None = None, **extra: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the cluster is used
        self.process = subprocess.Popen(
            [*(as_user(user) if user else []), sys.executable, "manage.py", "qcluster"],
            cwd=ROOT,
            env=env | extra,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.alive.add(self)

    @property
    def log(self) -> str:
        """Everything that the cluster has printed."""
        descriptor = self._log.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers that have said that they are ready, the dead left out."""
        return [int(pid) for _, pid in READY.findall(self.log) if is_alive(int(pid))]

    @property
    def ready_at(self) -> float:
        """When the first worker said that it was ready for work, by its own line in the log."""
        return min(float(time) for time, _ in READY.findall(self.log))

    def claimed_at(self, thread: Thread) -> float:
        """When a worker of this cluster first won a row of the thread, by its own line in the log."""
        short = str(thread.pk)[:8]
        return min(float(time) for time, claimed in CLAIM.findall(self.log) if claimed == short)

    def wait_until_ready(self, count: int) -> "Cluster":
        """Wait until that many workers are ready."""
        until(lambda: len(self.workers) >= count, seconds=120, what=lambda: f"{count} ready workers: {self.log}")
        return self

    def processes(self) -> list[psutil.Process]:
        """The cluster's main process and everything below it."""
        try:
            main = psutil.Process(self.process.pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def group(self) -> list[int]:
        """Process ids of all that live in the cluster's process group, orphans among them."""
        return [pid for pid in psutil.pids() if is_alive(pid) and group_of(pid) == self.process.pid]

    def kill_all(self) -> None:
        """SIGKILL every process at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self.alive.discard(self)

    def stop(self) -> None:
        """SIGTERM to the main process; SIGKILL to what is left after half a minute. A stopped one: nothing."""
        alive = self.processes()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        _, left = psutil.wait_procs(alive, timeout=5)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(10)  # else Python warns of a process that nobody has waited for
        self.alive.discard(self)
        self._log.close()


def as_user(name: str) -> list[str]:
    """Return what a command begins with that a user runs whom limits bind, and who may read this checkout."""
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={name}", "--regid=nogroup", "--clear-groups", *may_read]


def is_alive(pid: int) -> bool:
    """Whether the process lives; one that is dead and not yet buried does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def group_of(pid: int) -> int | None:
    """Return the process group, None where the process has gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


@contextlib.contextmanager
def running(env: dict[str, str], *, workers: int = 2, user: str | None = None, **extra: str) -> Iterator[Cluster]:
    """A cluster of ready workers, run by this user, stopped at the end."""
    cluster = Cluster(env, user, TEST_WORKERS=str(workers), **extra)
    try:
        yield cluster.wait_until_ready(workers)
    finally:
        cluster.stop()


def until(condition: Callable[[], Any], *, seconds: float = 30, what: Callable[[], str] | str = "") -> Any:
    """Wait for a condition and return its value; fail the test when it does not come true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.05)
    return value


def at_rest(*threads: Thread, seconds: float = 30) -> list[Thread]:
    """Wait until these threads are at rest; return them as they then are, in this order."""
    ids = [thread.pk for thread in threads]

    def rested() -> bool:
        return not Thread.objects.running().filter(pk__in=ids).exists()

    until(rested, seconds=seconds, what=lambda: str(list(Thread.objects.running().filter(pk__in=ids).values())))
    rows = Thread.objects.in_bulk(ids)
    return [rows[pk] for pk in ids if pk in rows]


def text_in(path: Path) -> str:
    """What a tool has written into a file so far."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def holder_of(thread: Thread) -> int:
    """Process id of the worker that holds a row of this thread, once one does."""

    def owners() -> list[str]:
        streams = Stream.objects.held().filter(thread=thread).values_list("lease_owner", flat=True)
        calls = ToolCall.objects.held().filter(thread=thread).values_list("lease_owner", flat=True)
        return [*streams, *calls]

    return int(until(owners, what="a holder")[0].split(":")[-2])

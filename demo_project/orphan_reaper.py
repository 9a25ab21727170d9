"""Stop the demo's processes when the command that started them has ended, even if the command was killed.

`python -m demo_project.orphan_reaper` reads its standard input. Each line is a complete list of process group ids; only
the last line counts. The input closes when the command ends, even after `kill -9`. Then this process stops every group
in the last line. It runs in its own session, so that signals to the command's group or terminal do not reach it.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

PROC = Path("/proc")
GRACE_SECONDS = 8.5  # the whole demo must end within 10 seconds


def is_alive(group: int) -> bool:
    """Return whether any process of `group` still runs; zombie processes do not count."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # PermissionError on macOS: only zombies are left
        return False
    return not PROC.is_dir() or any(state != "Z" for state in states(group))


def states(group: int) -> Iterator[str]:
    """Yield the state of each process of `group`, from the files `/proc/*/stat`. Their format is "pid (name) state
    parent group ..."; see proc(5).
    """
    for file in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process may have ended in the meantime
            state, _, its_group, *_ = file.read_text().rpartition(")")[2].split()
            if int(its_group) == group:
                yield state


def end(
    groups: Sequence[int], *, grace_seconds: float = GRACE_SECONDS, reap: Callable[[], object] = lambda: None
) -> None:
    """Stop `groups` one after the other, the last one first. Kill the groups that still run after `grace_seconds`.

    The workers were started last, so they stop first. They can release their rows while the other processes still run.

    `reap` is called during the wait, to collect the exit status of the caller's dead children. On systems without
    `/proc`, a child could otherwise count as alive.
    """
    deadline = time.monotonic() + grace_seconds
    for group in reversed(groups):
        with contextlib.suppress(ProcessLookupError):
            os.kill(group, signal.SIGTERM)
        while is_alive(group) and time.monotonic() < deadline:
            time.sleep(0.05)
            reap()
    kill(groups)


def kill(groups: Iterable[int]) -> None:
    """Kill every process of `groups` with SIGKILL."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def main() -> None:
    """Read process groups from standard input. When the input closes, stop the groups in the last line."""
    groups: list[int] = []
    for line in sys.stdin:
        groups = [int(group) for group in line.split()]
    end(groups)


if __name__ == "__main__":
    main()

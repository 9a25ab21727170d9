"""End the demo's processes when the command that started them has ended, for whatever reason.

`python -m demo_project.orphan_reaper` reads lines of process group ids from its standard input; each line replaces the
line before. The input ends when the command ends, even after `kill -9`. Then this process ends every group of the last
line. It runs in a session of its own, so that signals to the command's group or terminal do not reach it.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

PROC = Path("/proc")
GRACE_SECONDS = 8.5  # the whole demo promises to be gone after 10


def is_alive(group: int) -> bool:
    """Return whether any process of `group` still runs; zombie processes do not count."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS refuses if only zombies are left
        return False
    return not PROC.is_dir() or any(state != "Z" for state in states(group))


def states(group: int) -> Iterator[str]:
    """Yield the state of each process of `group`, from the files of proc(5): "pid (name) state parent group ..."."""
    for file in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has ended in the meantime
            state, _, its_group, *_ = file.read_text().rpartition(")")[2].split()
            if int(its_group) == group:
                yield state


def end(
    groups: Sequence[int], *, grace_seconds: float = GRACE_SECONDS, reap: Callable[[], object] = lambda: None
) -> None:
    """Stop `groups` one after the other, the last first, and kill those that still run after `grace_seconds`.

    The workers were started last, so they can release their rows while the model and the web server still run. `reap`
    is called while waiting; it collects the caller's own dead children, which would count as alive.
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
    """Kill every process of `groups` at once."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def main() -> None:
    """Read groups from standard input; when it closes, end the groups of the last line."""
    groups: list[int] = []
    for line in sys.stdin:
        groups = [int(group) for group in line.split()]
    end(groups)


if __name__ == "__main__":
    main()

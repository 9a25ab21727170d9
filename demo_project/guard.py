"""Ends the demo's processes when the command that started them is gone, however it went.

`python -m demo_project.guard` reads lines of process group ids from its standard input, each line replacing the one
before. The input ends when the command does, even by `kill -9`; then the guard ends every group of the last line.
It runs in a session of its own, so that what is aimed at the command's group or terminal does not reach it.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable

GRACE_SECONDS = 8.8  # a worker gives what it holds 8 seconds; the whole demo promises to be gone after 10


def is_alive(group: int) -> bool:
    """Return whether a process of `group` is left."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
        return False
    return True


def end(
    groups: Iterable[int], *, grace_seconds: float = GRACE_SECONDS, reap: Callable[[], object] = lambda: None
) -> None:
    """Ask the leader of each group to stop, and kill what is left of the groups after `grace_seconds`.

    `reap` is called while waiting; it collects the caller's own dead children, which would count as alive.
    """
    left = set(groups)
    for group in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(group, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        reap()
        left = {group for group in left if is_alive(group)}
    kill(left)


def kill(groups: Iterable[int]) -> None:
    """Kill every process of `groups` at once."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def main() -> None:
    """Follow the groups named on standard input; end the last ones named when it closes."""
    groups: list[int] = []
    for line in sys.stdin:
        groups = [int(group) for group in line.split()]
    end(groups)


if __name__ == "__main__":
    main()

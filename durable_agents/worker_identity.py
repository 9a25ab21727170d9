"""Name the process that holds a lease, and find out whether a process on this machine is dead."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


def me() -> str:
    """Return the name of this process for leases: boot id, pid namespace, pid and start time, joined by colons."""
    return f"{_machine()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(holder: str) -> bool:
    """Return whether the process with this name is certainly dead.

    The result is False for a process in another container, on another host, or from before a reboot. In these cases, it
    is not possible to find out whether the process is dead, so its lease must expire first.
    """
    machine, _, rest = holder.rpartition(":")
    machine, _, pid = machine.rpartition(":")
    if machine != _machine() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # A process with this pid exists, and belongs to another user. If it has another start time, the pid was reused.
        return _started(int(pid)) != rest
    # A zombie is dead, although its parent has not noticed yet. A different start time means that the pid was reused.
    return _stat(int(pid))[:1] in (["Z"], ["X"]) or _started(int(pid)) != rest


@cache
def _machine() -> str:
    """Return an id of the running kernel and the pid namespace. Within the namespace, a pid identifies one process."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{(_PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:
        return f"{socket.gethostname()}:0"


def _started(pid: int) -> str:
    """Return the start time of a process in clock ticks since boot. If the system does not provide it, return an empty
    string.
    """
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the process name (see proc(5)). Return an empty list if the file cannot
    be read.
    """
    # The process name is in parentheses. It may itself contain spaces and parentheses.
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

"""Name the process that holds a lease, and tell whether a holder on the same machine is dead."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


def me() -> str:
    """Return the name of this process as a lease owner: boot id, pid namespace, pid and start time, joined by
    colons.
    """
    return f"{_machine()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(holder: str) -> bool:
    """Whether the process of this name is certainly dead. A process of another boot, container or host never counts as
    gone: its lease has to expire.
    """
    machine, _, rest = holder.rpartition(":")
    machine, _, pid = machine.rpartition(":")
    if machine != _machine() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's process
        return _started(int(pid)) != rest
    # A zombie is dead, but its parent has not waited for it yet. Another start time: the pid was given away again.
    return _stat(int(pid))[:1] in (["Z"], ["X"]) or _started(int(pid)) != rest


@cache
def _machine() -> str:
    """Return the running kernel and, within it, the pid namespace: where a pid means the same process."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{(_PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:
        return f"{socket.gethostname()}:0"


def _started(pid: int) -> str:
    """Return the start time of a process in clock ticks since boot; empty if the system does not provide it."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """Fields 3 and on of /proc/PID/stat (proc(5)); the name before them may hold spaces and parentheses."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

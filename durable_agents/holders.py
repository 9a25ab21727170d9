"""Hides how the holder of a lease is named, and how another process of the same machine knows that it is gone."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


def me() -> str:
    """Name of this process as a lease owner: boot id, pid namespace, pid and start time, joined by colons."""
    return f"{_machine()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(holder: str) -> bool:
    """Whether the process of this name certainly lives no more. A process of another boot, container or host is
    never gone by this measure: its lease has to run out."""
    machine, _, rest = holder.rpartition(":")
    machine, _, pid = machine.rpartition(":")
    if machine != _machine() or not pid.isdigit():
        return False
    return not _lives(int(pid)) or _started(int(pid)) != rest


@cache
def _machine() -> str:
    """The running kernel and, within it, the pid namespace: where a pid means the same process."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{(_PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:
        return f"{socket.gethostname()}:0"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) not in {"Z", "X"}


def _state(pid: int) -> str:
    return _stat(pid)[0] if _stat(pid) else ""


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty where the system does not tell."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """Fields 3 and on of /proc/PID/stat (proc(5)); the name before them may hold spaces and parentheses."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

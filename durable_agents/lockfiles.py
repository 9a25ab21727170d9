"""Open and lock files that all processes of one user on one machine share.

When a process dies, the kernel frees its locks.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path


def folder() -> Path:
    """Return the folder for files that all processes of this user on this machine share. Create it if needed."""
    path = Path(tempfile.gettempdir()) / f"durable-agents-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def open_lock(name: str) -> int:
    """Open the lock file with this name, and return its file descriptor. Only one descriptor at a time can lock the
    file.
    """
    safe = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)
    # With O_CLOEXEC, a program that a tool starts does not inherit the lock. Otherwise, the program could keep the lock
    # after the worker dies.
    return os.open(folder() / safe, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def take(descriptor: int) -> bool:
    """Try to lock the file without waiting. Return whether the file was locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)

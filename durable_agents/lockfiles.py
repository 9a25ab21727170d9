"""Lock files that processes of one machine and user share; the kernel frees a lock when its holder dies."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path


def folder() -> Path:
    """Return the folder that the processes of this machine and user share; it exists."""
    path = Path(tempfile.gettempdir()) / f"durable-agents-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def open_lock(name: str) -> int:
    """Return a descriptor of the file of this name, opened anew: a lock on it excludes every other descriptor."""
    safe = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)
    # Closed on exec: a program that a tool starts would hold the lock for longer than its worker.
    return os.open(folder() / safe, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def take(descriptor: int) -> bool:
    """Lock the file without waiting. Return whether that succeeded."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free(descriptor: int) -> None:
    """Unlock the file."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)

"""Lock files that processes of one machine and user share; the kernel frees the locks of a dead process."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path


def folder() -> Path:
    """Return the folder that the processes of this machine and user share. Create it if it does not exist."""
    path = Path(tempfile.gettempdir()) / f"durable-agents-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def open_lock(name: str) -> int:
    """Open the lock file of this name and return its descriptor. Only one descriptor of a file can be locked at a
    time.
    """
    safe = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)
    # Close the file on exec. Without O_CLOEXEC, a program that a tool starts would keep the lock after the worker has
    # died.
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

"""Hides where the files are that processes of one machine and user lock, and what the kernel frees when one dies."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path


def open_lock(name: str) -> int:
    """A descriptor of the file of this name, its own open file: what it locks is locked for every other one."""
    folder = Path(tempfile.gettempdir()) / f"durable-agents-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    safe = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)
    return os.open(folder / safe, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def take(descriptor: int) -> bool:
    """Lock it, without waiting. Returns whether it is locked now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free(descriptor: int) -> None:
    """Unlock it."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)

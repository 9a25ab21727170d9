"""A small file system of the test's own, which it may fill to the last byte.

def test_something(small_disk):
    with small_disk.full(): ...
"""

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

MEGABYTES = 16
BLOCK = bytes(4096)


@dataclass(frozen=True)
class SmallDisk:
    """A mounted file system with nothing else on it."""

    folder: Path

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no room during the block."""
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(BLOCK)
        assert self.is_full()
        try:
            yield
            assert self.is_full(), "the fault has ended too early"
        finally:
            filler.unlink()

    def is_full(self) -> bool:
        """Whether a new file gets no room."""
        probe = self.folder / "probe"
        try:
            probe.write_bytes(BLOCK)
        except OSError as error:
            return error.errno == errno.ENOSPC
        finally:
            probe.unlink(missing_ok=True)
        return False


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """Return a mounted, empty file system in memory; skip the test where mounting is not permitted."""
    with tempfile.TemporaryDirectory(prefix="durable-agents-disk-") as name:
        command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=0777", "tmpfs", name]
        try:
            mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("no mount is installed")
        if mounted.returncode != 0:
            pytest.skip(f"mounting is not permitted (user {os.getuid()}): {mounted.stderr.strip()}")
        try:
            yield SmallDisk(Path(name))
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)

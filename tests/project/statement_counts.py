"""Counts of the statements that a process runs, where another process can read them: for the benchmarks.

`TEST_COUNT_STATEMENTS` names a folder; each process has a file there, named by its id, with two numbers: statements and
transactions that were begun by a statement, as on SQLite.
"""

import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db.backends.signals import connection_created

FORMAT = struct.Struct("qq")
_files: dict[int, mmap.mmap] = {}


def install(folder: str) -> None:
    """Count on every connection that is opened from now on."""

    def count(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        file = file_of_this_process(folder)
        statements, begun = FORMAT.unpack_from(file)
        begins = sql.startswith("BEGIN")
        is_control = begins or sql.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK"))
        FORMAT.pack_into(file, 0, statements + (not is_control), begun + begins)
        return execute(sql, params, many, context)

    def wrap(connection: Any, **_: Any) -> None:
        connection.execute_wrappers.append(count)

    connection_created.connect(wrap, weak=False)


def file_of_this_process(folder: str) -> mmap.mmap:
    """Return the numbers of this process; a forked one has its own."""
    pid = os.getpid()
    if pid not in _files:
        descriptor = os.open(Path(folder) / str(pid), os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(descriptor, FORMAT.size)
        _files[pid] = mmap.mmap(descriptor, FORMAT.size)
        os.close(descriptor)
    return _files[pid]


def totals(folder: Path) -> dict[str, int]:
    """Return what all processes have counted."""
    pairs = [FORMAT.unpack(path.read_bytes()) for path in folder.iterdir()]
    return {"statements": sum(pair[0] for pair in pairs), "transactions": sum(pair[1] for pair in pairs)}

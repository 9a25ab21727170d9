"""Write the problems of workers to local files, because the database might be unreachable. The command
``agents_doctor`` reads these files.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from durable_agents import lockfiles, worker_identity


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Why a worker process cannot work, as stored in a file."""

    holder: str
    """The name under which the process holds leases."""
    cluster: str
    kind: str
    detail: str
    since: float
    """Seconds since 1970, by this machine's clock."""

    @property
    def seconds(self) -> float:
        """How long the process has been unable to work, in seconds."""
        return max(0.0, time.time() - self.since)


def post(notice: Notice, *, project: str) -> None:
    """Write the notice to a file. It replaces an earlier notice of this process and kind."""
    path = _path(notice.kind, project=project)
    # Write a temporary file and rename it, so that no reader sees half a notice.
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(asdict(notice)), encoding="utf-8")
    new.replace(path)


def remove(kind: str, *, project: str) -> None:
    """Delete this process's notice of this kind, if there is one."""
    _path(kind, project=project).unlink(missing_ok=True)


def posted(*, project: str) -> Iterator[Notice]:
    """Yield the notices of live worker processes of this user on this machine. Delete the files of dead processes."""
    for path in sorted(lockfiles.folder().glob(f"notice-{_key(project)}-*.json")):
        with suppress(OSError, ValueError, TypeError):
            notice = Notice(**json.loads(path.read_text(encoding="utf-8")))
            if worker_identity.is_gone(notice.holder):
                path.unlink(missing_ok=True)
            else:
                yield notice


def _path(kind: str, *, project: str) -> Path:
    return lockfiles.folder() / f"notice-{_key(project)}-{os.getpid()}-{kind}.json"


def _key(project: str) -> str:
    return hashlib.sha256(project.encode()).hexdigest()[:16]

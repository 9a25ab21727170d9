"""Write the problems of workers to files on their machine, for ``agents_doctor``. The database may be the problem."""

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
    """The reason why a worker process cannot work."""

    holder: str
    """The name of the process as a lease owner."""
    cluster: str
    kind: str
    detail: str
    since: float
    """Seconds since 1970, by this machine's clock."""

    @property
    def seconds(self) -> float:
        """For how many seconds the process has not been able to work."""
        return max(0.0, time.time() - self.since)


def post(notice: Notice, *, project: str) -> None:
    """Write the notice to a file. It replaces an earlier notice of the same process and kind."""
    path = _path(notice.kind, project=project)
    # Write to another file and rename it, so that nobody reads half a notice.
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(asdict(notice)), encoding="utf-8")
    new.replace(path)


def remove(kind: str, *, project: str) -> None:
    """Remove the notice of this kind of this process, if there is one."""
    _path(kind, project=project).unlink(missing_ok=True)


def posted(*, project: str) -> Iterator[Notice]:
    """Yield the notices of this user's processes on this machine, and remove the notices of dead processes."""
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

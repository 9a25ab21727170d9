"""Report problems that keep this process from working. They go to the log, a file and, when possible, the database."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from durable_agents import lifecycle, worker_identity, worker_problem_files
from durable_agents.database_connections import close_all, discard
from durable_agents.logs import log
from durable_agents.redaction import described
from durable_agents.worker_problem_files import Notice

PATIENCE_SECONDS = 10.0
STORE_SECONDS = 10.0


class Attempts:
    """The health of one operation that this process repeats, such as claiming rows.

    The OS thread that runs the operation calls ``begin``, ``succeed`` and ``fail``. Because an attempt may hang, other
    OS threads call ``publish`` and ``store`` every second or two.
    """

    def __init__(self, kind: str, cluster: str) -> None:
        self.kind = kind
        self._cluster = cluster
        self._failing_since: float | None = None
        self._detail = ""
        self._published: Notice | None = None
        self._unstored: Notice | None = None
        self._stored_at = 0.0

    @property
    def are_failing(self) -> bool:
        """Whether the last attempt has not succeeded: it has failed, or it is still running."""
        return self._failing_since is not None

    def begin(self) -> None:
        """Record the start of an attempt."""
        if self._failing_since is None:
            self._failing_since = time.time()

    def succeed(self) -> None:
        """Record a success."""
        self._failing_since, self._detail = None, ""

    def fail(self, error: BaseException | str) -> None:
        """Record a failure."""
        self._detail = error if isinstance(error, str) else described(error)

    def publish(self) -> None:
        """If the operation has failed for ten seconds, log this once, and write a file about the problem.

        When the operation works again, log the recovery and delete the file.
        """
        since = self._failing_since
        if since is not None and time.time() - since >= PATIENCE_SECONDS:
            notice = Notice(
                holder=worker_identity.me(),
                cluster=self._cluster,
                kind=self.kind,
                detail=self._detail or "the database has not answered",
                since=since,
            )
            if self._published is None:
                log(
                    logging.ERROR,
                    "this worker cannot go on",
                    action="worker_stuck",
                    kind=self.kind,
                    reason=notice.detail,
                    seconds=round(notice.seconds),
                )
            if self._published != notice:
                with suppress(OSError):
                    worker_problem_files.post(notice, project=lifecycle.project())
            self._published = self._unstored = notice
        elif self._published is not None and since is None:
            log(logging.INFO, "this worker can go on", action="worker_recovered", kind=self.kind)
            self._published = None
            with suppress(OSError):
                worker_problem_files.remove(self.kind, project=lifecycle.project())

    def store(self) -> None:
        """Store a published problem in the database. When the problem is over, store its end as well.

        If the database fails, the next call tries again.
        """
        notice, is_over = self._unstored, self._published is None
        if notice is None or (not is_over and time.monotonic() - self._stored_at < STORE_SECONDS):
            return
        self._stored_at = time.monotonic()
        try:
            lifecycle.note_problem(notice, is_over=is_over)
        except Exception as error:
            log(logging.DEBUG, "a problem was not stored", action="worker_stuck", reason=type(error).__name__)
            discard()
        else:
            if is_over:
                self._unstored = None
        finally:
            close_all()

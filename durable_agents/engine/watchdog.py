"""End a worker process whose event loop stands still: it can no longer extend its leases."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time

from django.db import connections

from durable_agents import lifecycle
from durable_agents.conf import config
from durable_agents.engine.process_limits import start
from durable_agents.engine.worker import Worker
from durable_agents.lifecycle import Claim
from durable_agents.logs import log, log_error

EXIT_CODE = 70
LOOK_SECONDS = 1.0


def watch(worker: Worker) -> None:
    """Watch this worker's loop from a thread, for the life of the process."""
    start(threading.Thread(target=_watch, args=(worker,), daemon=True, name="durable-agents-watchdog"))


def _watch(worker: Worker) -> None:
    """End the process if the loop stands still at two looks in a row: a process that was itself stopped and continued
    gets the time to turn once. The row that blocks it is recorded long before, while this process still has its lease.
    """
    stood, blamed = 0, None
    while True:
        time.sleep(LOOK_SECONDS)
        worker.claim_health.publish()
        worker.lease_health.publish()
        standing = time.monotonic() - worker.turned_at if worker.is_working else 0.0
        if standing > config().lease_seconds / 3:
            blamed = _blame(worker, blamed)
        stood = stood + 1 if standing > config().lease_seconds else 0
        if stood >= 2:
            row: dict[str, object] = {}
            if blamed is not None:
                row = {"thread": blamed.thread_id, "row": blamed.row_id, "fence": blamed.fence}
            standstill = "the event loop stands still: this worker ends itself"
            log(logging.CRITICAL, standstill, action="watchdog", error=None, **row)
            os._exit(EXIT_CODE)  # the loop would not see an exception, nor would a normal exit return from it


def _blame(worker: Worker, blamed: Claim | None) -> Claim | None:
    """Record which row blocks the loop, once, so that only that row pays for it."""
    claim = None
    try:
        claim = worker.held.claim_of(asyncio.current_task(worker.runtime.loop))
        if claim is not None and claim != blamed:
            lifecycle.blame(claim)
    except Exception:
        log_error("the blocking row was not recorded", action="watchdog")
    finally:
        connections.close_all()
    return claim or blamed

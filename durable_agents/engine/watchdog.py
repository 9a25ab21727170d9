"""End a worker process whose event loop is blocked, because such a process cannot extend its leases."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time

from django.db import connections

from durable_agents import lifecycle
from durable_agents.conf import config
from durable_agents.engine.resource_errors import start
from durable_agents.engine.worker import Worker
from durable_agents.lifecycle import Claim
from durable_agents.logs import log, log_error

EXIT_CODE = 70
LOOK_SECONDS = 1.0


def watch(worker: Worker) -> None:
    """Start an OS thread that watches this worker's event loop until the process ends."""
    start(threading.Thread(target=_watch, args=(worker,), daemon=True, name="durable-agents-watchdog"))


def _watch(worker: Worker) -> None:
    """End the process if two successive checks find that its event loop is blocked.

    One check is not enough, because a process that was suspended needs some time to run its event loop again.

    The row that blocks the loop is recorded earlier: after a third of the lease time, while the leases are still valid.
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
            # ``os._exit`` ends the process. An exception in this OS thread, or ``sys.exit()``, would end only the OS
            # thread.
            os._exit(EXIT_CODE)


def _blame(worker: Worker, blamed: Claim | None) -> Claim | None:
    """Record which row blocks the event loop, and return the claim of this row. If the process ends, only this row
    becomes a suspect (a row whose earlier workers died).

    ``blamed`` is the claim that the previous call recorded, or None. If the same row still blocks, nothing is recorded.
    If no row blocks, return ``blamed``.
    """
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

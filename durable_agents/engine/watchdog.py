"""Ends a worker process whose event loop stands still: nobody could extend its leases any more."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any

from django.db import connections

from durable_agents import lifecycle
from durable_agents.conf import config
from durable_agents.engine.worker import Engine
from durable_agents.logs import log, log_error

EXIT_CODE = 70
LOOK_SECONDS = 1.0


def watch(engine: Engine) -> None:
    """Watch this engine's loop from a thread, for the life of the process."""
    threading.Thread(target=_watch, args=(engine,), daemon=True, name="durable-agents-watchdog").start()


def _watch(engine: Engine) -> None:
    """Two looks in a row must find the loop standing: a process that was itself stopped and continued is given the
    time to turn once."""
    stood = 0
    while True:
        time.sleep(LOOK_SECONDS)
        stands = engine.is_working and time.monotonic() - engine.turned_at > config().lease_seconds
        stood = stood + 1 if stands else 0
        if stood >= 2:
            _end(engine)


def _end(engine: Engine) -> None:
    """Record which row blocks the loop, so that it alone pays for it, and end the process."""
    claim = engine.claim_of(asyncio.current_task(engine.loop))
    facts: dict[str, Any] = (
        {} if claim is None else {"thread": claim.thread_id, "row": claim.row_id, "fence": claim.fence}
    )
    log(logging.CRITICAL, "the event loop stands still: this worker ends itself", action="watchdog", **facts)
    try:
        if claim is not None:
            lifecycle.blame(claim)
        connections.close_all()
    except Exception:
        log_error("the blocking row was not recorded", action="watchdog")
    finally:
        os._exit(EXIT_CODE)

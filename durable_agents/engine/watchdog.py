"""Ends a worker process whose event loop stands still: nobody could extend its leases any more."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any, NoReturn

from django.db import connections

from durable_agents import lifecycle
from durable_agents.conf import config
from durable_agents.engine.worker import Engine
from durable_agents.lifecycle import Claim
from durable_agents.logs import log, log_error

EXIT_CODE = 70
LOOK_SECONDS = 1.0


def watch(engine: Engine) -> None:
    """Watch this engine's loop from a thread, for the life of the process."""
    threading.Thread(target=_watch, args=(engine,), daemon=True, name="durable-agents-watchdog").start()


def _watch(engine: Engine) -> None:
    """Two looks in a row must find the loop standing: a process that was itself stopped and continued is given the
    time to turn once. The row that blocks it is recorded long before, while its lease is still this process's."""
    stood, blamed = 0, None
    while True:
        time.sleep(LOOK_SECONDS)
        standing = time.monotonic() - engine.turned_at if engine.is_working else 0.0
        if standing > config().lease_seconds / 3:
            blamed = _blame(engine, blamed)
        stood = stood + 1 if standing > config().lease_seconds else 0
        if stood >= 2:
            _end(blamed)


def _blame(engine: Engine, blamed: Claim | None) -> Claim | None:
    """Record which row blocks the loop, once, so that it alone pays for it."""
    claim = None
    try:
        claim = engine.claim_of(asyncio.current_task(engine.loop))
        if claim is not None and claim != blamed:
            lifecycle.blame(claim)
    except Exception:
        log_error("the blocking row was not recorded", action="watchdog")
    finally:
        connections.close_all()
    return claim or blamed


def _end(claim: Claim | None) -> NoReturn:
    facts: dict[str, Any] = (
        {} if claim is None else {"thread": claim.thread_id, "row": claim.row_id, "fence": claim.fence}
    )
    log(logging.CRITICAL, "the event loop stands still: this worker ends itself", action="watchdog", **facts)
    os._exit(EXIT_CODE)

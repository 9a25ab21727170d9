"""Store what processes have counted about live delivery."""

from __future__ import annotations

import logging

from durable_agents import worker_identity
from durable_agents.lifecycle.transaction import database, transact, transition
from durable_agents.live_delivery_counts import Period, delivery_counts
from durable_agents.logs import log
from durable_agents.models import DeliveryReport, seconds_from_now
from durable_agents.utc_times import Now


def store_delivery_counts() -> None:
    """Store this process's counts of live delivery. Never raises.

    Nothing is stored if the counts have not changed, or if they were stored a few seconds ago. If the database fails, a
    later call of this function stores the counts.
    """
    period = delivery_counts().take()
    if period is None:
        return
    try:
        _store(period)
    except Exception as error:
        delivery_counts().put_back()
        log(logging.DEBUG, "delivery was not reported", action="report_delivery", reason=type(error).__name__)


@transition
def _store(period: Period) -> None:
    """Insert or update the database row with the counts of this period."""
    row = DeliveryReport(
        id=period.id,
        holder=worker_identity.me()[:200],
        since=seconds_from_now(-period.seconds),
        seen_at=Now(),
        counts=period.counts,
    )
    with transact():
        DeliveryReport.objects.using(database()).bulk_create(
            [row], update_conflicts=True, unique_fields=["id"], update_fields=["seen_at", "counts"]
        )

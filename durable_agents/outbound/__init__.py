"""Hides django-q2 and the channel layer: the only door to either.

Everything that leaves here is a hint. A doorbell that cannot be rung is logged and never raised: the rows are due
all the same, and the next claim or the sweep finds them.
"""

from durable_agents.outbound.browsers import (
    group_of,
    layer_crosses_processes,
    publish,
    publish_through,
    ring_browsers,
)
from durable_agents.outbound.cluster import cluster_is_stopping, harden
from durable_agents.outbound.workers import (
    answer_doorbells_here,
    ring_cluster,
    ring_workers,
    schedule_sweep,
)

__all__ = [
    "answer_doorbells_here",
    "cluster_is_stopping",
    "group_of",
    "harden",
    "layer_crosses_processes",
    "publish",
    "publish_through",
    "ring_browsers",
    "ring_cluster",
    "ring_workers",
    "schedule_sweep",
]

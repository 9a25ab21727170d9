"""Send no notifications during tests, so that neither a broker nor a channel layer is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from durable_agents import notifications
from durable_agents.conf import cluster_of, config

_depth = 0


@contextmanager
def notifications_muted() -> Iterator[None]:
    """Within the block, send no notifications to workers and clients. Rows are still written and become due."""
    global _depth  # noqa: PLW0603 - it counts nested blocks, and only one thread at a time enters them
    _depth += 1
    clusters = {cluster_of(pool) for pool in config().pools}
    for cluster in clusters:
        notifications.receive_notifications_here(cluster, _ignore)
    notifications.publish_through(_ignore)
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            for cluster in clusters:
                notifications.receive_notifications_here(cluster, None)
            notifications.publish_through(None)


def _ignore(*_: object) -> None:
    pass

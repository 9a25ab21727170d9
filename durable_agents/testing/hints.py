"""Hides how tests keep doorbells from leaving the process: no broker and no channel layer is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from durable_agents import outbound
from durable_agents.conf import cluster_of, config

_depth = 0


@contextmanager
def muted() -> Iterator[None]:
    """A block in which doorbells are rung for nobody. Rows say what is due all the same."""
    global _depth  # noqa: PLW0603 - blocks nest, in one thread at a time
    _depth += 1
    clusters = {cluster_of(pool) for pool in config().pools}
    for cluster in clusters:
        outbound.answer_doorbells_here(cluster, _ignore)
    outbound.publish_through(_ignore)
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            for cluster in clusters:
                outbound.answer_doorbells_here(cluster, None)
            outbound.publish_through(None)


def _ignore(*_: object) -> None:
    pass

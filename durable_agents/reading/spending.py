"""Hides how what a thread has used is told apart: by the attempts at its model calls, which are the ledger.

Every attempt that reached a worker counts, whatever became of it. Answers that were added or copied cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, Sum

from durable_agents.models import Stream, StreamQuerySet, Thread

_SUMMED = ("input_tokens", "output_tokens", "cached_input_tokens", "cost")


@dataclass(frozen=True, kw_only=True)
class ModelUsage:
    """What all attempts at one model have used in a thread; ``cost`` is None where no price is known."""

    model: str
    attempts: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cost: Decimal | None
    usage_estimated: bool
    """Whether a count of at least one of them is an estimate."""


def attempts(thread: Thread) -> StreamQuerySet:
    """The attempts of a thread, without content."""
    streams = Stream.objects.filter(thread=thread, started_at__isnull=False).select_related("message")
    return streams.defer("parts", "text", "error_detail", "message__parts", "message__text", "message__metadata")


def usage_by_model(thread: Thread) -> list[ModelUsage]:
    """One entry for each model that has used anything, the dearest first. One query, however many attempts."""
    spent = Stream.objects.filter(thread=thread, started_at__isnull=False).exclude(model="").order_by()
    sums = {f"sum_of_{name}": Sum(name) for name in _SUMMED}
    counts = {"attempts": Count("pk"), "estimated": Count("pk", filter=Q(usage_estimated=True))}
    found = [_of_model(row) for row in spent.values("model").annotate(**counts, **sums)]
    return sorted(found, key=lambda used: (-(used.cost or 0), -used.input_tokens - used.output_tokens, used.model))


def _of_model(row: Mapping[str, Any]) -> ModelUsage:
    sums = {name: row[f"sum_of_{name}"] for name in _SUMMED}
    return ModelUsage(model=row["model"], attempts=row["attempts"], usage_estimated=bool(row["estimated"]), **sums)

"""Report the usage of a thread by model. The usage is stored with each attempt at a model call.

Every attempt that a worker has started counts, whatever its outcome. Answers that were added or copied cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, Sum

from durable_agents.lifecycle import database
from durable_agents.models import Message, Stream, StreamQuerySet, Thread

_COUNTED = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cachedInputTokens": "cached_input_tokens",
    "reasoningTokens": "reasoning_tokens",
}
"""The AI SDK's names of token counts, mapped to the names of our model fields."""
_SUMMED = ("input_tokens", "output_tokens", "cached_input_tokens", "cost")


@dataclass(frozen=True, kw_only=True)
class UsageByModel:
    """The usage of all attempts in a thread with one model; ``cost`` is None if no price is known."""

    model: str
    attempts: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cost: Decimal | None
    usage_estimated: bool
    """Whether a token count of at least one attempt is an estimate."""


def attempts(thread: Thread) -> StreamQuerySet:
    """Return the attempts that workers have begun in a thread. The content of the attempts is not loaded."""
    streams = Stream.objects.filter(thread=thread, started_at__isnull=False).select_related("message")
    return streams.defer("parts", "text", "error_detail", "message__parts", "message__text", "message__metadata")


def usage_by_model(thread: Thread) -> list[UsageByModel]:
    """Return one entry for each model with usage, the most expensive first. This takes one query, however many
    attempts there are.
    """
    spent = Stream.objects.filter(thread=thread, started_at__isnull=False).exclude(model="").order_by()
    # An annotation must not have the name of a model field.
    sums = {f"sum_of_{name}": Sum(name) for name in _SUMMED}
    counts = {"attempts": Count("pk"), "estimated": Count("pk", filter=Q(usage_estimated=True))}
    rows: Iterable[Mapping[str, Any]] = spent.values("model").annotate(**counts, **sums)
    usages = [
        UsageByModel(
            model=row["model"],
            attempts=row["attempts"],
            usage_estimated=bool(row["estimated"]),
            **{name: row[f"sum_of_{name}"] for name in _SUMMED},
        )
        for row in rows
    ]
    return sorted(usages, key=lambda used: (-(used.cost or 0), -used.input_tokens - used.output_tokens, used.model))


def usage_metadata(answer: Message) -> dict[str, object]:
    """Return the metadata of an answer for AI SDK clients: the model of its last attempt and the usage of all its
    attempts.
    """
    attempts = Stream.objects.using(database()).filter(message=answer)
    used = attempts.aggregate(**{name: Sum(name) for name in (*_COUNTED.values(), "cost")})
    counted = {theirs: used[ours] or 0 for theirs, ours in _COUNTED.items()}
    counted["totalTokens"] = counted["inputTokens"] + counted["outputTokens"]
    if used["cost"] is not None:
        counted["cost"] = format(used["cost"], "f")
    model = attempts.exclude(model="").order_by("-number").values_list("model", flat=True).first()
    return ({"model": model} if model else {}) | {"usage": counted}

"""Report the usage of a thread by model. The usage is stored with each attempt at a model call.

Every attempt that a worker has started counts, even if it failed. Answers that a fork has copied, or that were added
without a run, have no usage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, Sum
from django.db.models.functions import Now

from durable_agents.lifecycle import database
from durable_agents.models import Message, Stream, StreamQuerySet, StreamState, Thread

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
    """The usage of all attempts in a thread with one model. ``cost`` is None if no price is known."""

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
    """Return one entry for each model, the most expensive first. This takes one query, however many attempts there
    are.
    """
    spent = Stream.objects.filter(thread=thread, started_at__isnull=False).exclude(model="").order_by()
    # Django does not allow an annotation with the name of a model field.
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


@dataclass(frozen=True, kw_only=True)
class CacheUse:
    """How many of the input tokens of a model came from the provider's prompt cache."""

    model: str
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int


def cache_use_by_model(*, within: timedelta, min_call_tokens: int) -> list[CacheUse]:
    """Return one entry for each model, sorted by the model's name.

    Only model calls that ended less than ``within`` ago count. These model calls do not count:

    - the first model call of each thread
    - model calls with fewer than ``min_call_tokens`` input tokens, because providers do not cache short inputs
    - model calls with estimated usage
    """
    calls = Stream.objects.using(database()).filter(state=StreamState.FINISHED, usage_estimated=False, number__gt=1)
    recent = calls.filter(finished_at__gt=Now() - within, input_tokens__gte=min_call_tokens).exclude(model="")
    names = ("input_tokens", "cached_input_tokens", "cache_write_tokens")
    sums = {f"sum_of_{name}": Sum(name) for name in names}
    rows: Iterable[Mapping[str, Any]] = recent.order_by("model").values("model").annotate(**sums)
    return [CacheUse(model=row["model"], **{name: row[f"sum_of_{name}"] for name in names}) for row in rows]


def usage_metadata(answer: Message) -> dict[str, object]:
    """Return the metadata of an answer for AI SDK clients: its last model, and the usage of all attempts."""
    attempts = Stream.objects.using(database()).filter(message=answer)
    used = attempts.aggregate(**{name: Sum(name) for name in (*_COUNTED.values(), "cost")})
    counted = {theirs: used[ours] or 0 for theirs, ours in _COUNTED.items()}
    counted["totalTokens"] = counted["inputTokens"] + counted["outputTokens"]
    if used["cost"] is not None:
        counted["cost"] = format(used["cost"], "f")
    model = attempts.exclude(model="").order_by("-number").values_list("model", flat=True).first()
    return ({"model": model} if model else {}) | {"usage": counted}

"""Times in JSON values."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any


def is_now(text: str, *, seconds: float = 60) -> bool:
    """Whether a time that was written is an instant, and a moment ago."""
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None, f"{text} has no offset"
    return abs((datetime.now(UTC) - moment).total_seconds()) < seconds


def moments_in(value: Any) -> Iterator[str]:
    """Yield every time in a JSON value, by the names of the fields."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        if isinstance(inner, str) and isinstance(name, str) and name.endswith(("_at", "At")):
            yield inner
        else:
            yield from moments_in(inner)

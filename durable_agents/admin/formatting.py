"""Format values for the admin as escaped text. Long values are truncated."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db.models import JSONField, Model, TextField
from django.utils.html import format_html
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

from durable_agents.models import Thread, Usage
from durable_agents.times import instant

MAX_CHARS = 10_000

Show = Callable[[Any], str]


def cut(text: str, *, max_chars: int = MAX_CHARS) -> str:
    """Return the text. If it is long, return its beginning and its length."""
    if len(text) <= max_chars:
        return text
    return _("%(beginning)s… (cut: %(length)s characters in all)") % {
        "beginning": text[:max_chars],
        "length": f"{len(text):,}",
    }


def pretty(value: object, *, max_chars: int = MAX_CHARS) -> str:
    """Return a JSON value as readable text. A string stays unchanged; any other value becomes indented JSON."""
    if isinstance(value, str):
        return cut(value, max_chars=max_chars)
    # Encode piece by piece: a result may have megabytes, but the page shows only its beginning.
    text = ""
    for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
        text += piece
        if len(text) > max_chars:
            return _("%(beginning)s… (cut)") % {"beginning": text[:max_chars]}
    return text


def brief(value: object, *, max_chars: int = 80) -> str:
    """Return a value or a text on one short line."""
    text = value if isinstance(value, str) else pretty(value, max_chars=2 * max_chars)
    line = " ".join(text.split())
    return line if len(line) <= max_chars else f"{line[:max_chars]}…"


def called(thread: Thread) -> str:
    """Return the title of the thread; if the title is empty, return the beginning of the thread's id."""
    return brief(thread.title, max_chars=40) or f"{thread.pk!s:.8}…"


def readable(model: type[Model], *names: str) -> list[str | Show]:
    """Return the fields for an admin page. A JSON or text field becomes a function that formats its value with
    ``pretty``, because the value may be long.
    """
    long = {field.name for field in model._meta.concrete_fields if isinstance(field, JSONField | TextField)}
    return [_long(name) if name in long else name for name in names]


def _long(name: str) -> Show:
    @admin.display(description=name.replace("_", " "))
    def show(row: Model) -> str:
        value = getattr(row, name)
        return "-" if value in (None, "") else format_html('<pre class="da-value">{}</pre>', pretty(value))

    return show


def badge(value: str, label: str) -> str:
    """Return a status as a coloured label. The colour adds no information to the text."""
    return format_html('<span class="da-badge da-{}">{}</span>', value, label)


def age(moment: datetime) -> str:
    """Return the time since this moment, in the largest unit."""
    return timesince(moment, depth=1)


def tokens(row: Thread | Usage) -> str:
    """Return the numbers of input and output tokens; an empty string if both are zero."""
    return f"{row.input_tokens:,} / {row.output_tokens:,}" if row.input_tokens or row.output_tokens else ""


def all_tokens(row: Thread | Usage) -> str:
    """Return the total number of tokens as text."""
    return f"{row.input_tokens + row.output_tokens:,}"


def money(cost: Decimal | None) -> str:
    """Return an amount of US dollars with four decimal places. An amount that would be shown as zero gets more decimal
    places. If the cost is not known, return an empty string.
    """
    if cost is None:
        return ""
    return f"${cost:,.4f}" if cost >= Decimal("0.0001") or not cost else f"${cost.normalize():f}"


def seconds(start: datetime | None, end: datetime | None) -> str:
    """Return the duration in seconds; an empty string if one of the times is missing."""
    return f"{(instant(end) - instant(start)).total_seconds():,.1f} s" if start and end else ""


def joined(*texts: str) -> str:
    """Join texts on one line, without the empty ones."""
    return " · ".join(text for text in texts if text)

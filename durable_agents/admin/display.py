"""Hides how values are shown: as text that cannot do anything, cut where it would fill the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db.models import Field, JSONField, Model, TextField
from django.utils.html import format_html
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

from durable_agents.models import Thread

MAX_CHARS = 10_000

Show = Callable[[Any], str]


def cut(text: str, *, max_chars: int = MAX_CHARS) -> str:
    """The text, or its beginning and how long it is."""
    if len(text) <= max_chars:
        return text
    return _("%(beginning)s… (cut: %(length)s characters in all)") % {
        "beginning": text[:max_chars],
        "length": f"{len(text):,}",
    }


def pretty(value: Any, *, max_chars: int = MAX_CHARS) -> str:
    """A JSON value to be read: text as it is, anything else indented."""
    if isinstance(value, str):
        return cut(value, max_chars=max_chars)
    written = ""
    for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
        written += piece
        if len(written) > max_chars:
            return _("%(beginning)s… (cut)") % {"beginning": written[:max_chars]}
    return written


def brief(value: Any, *, max_chars: int = 80) -> str:
    """A value or a text on one short line."""
    text = value if isinstance(value, str) else pretty(value, max_chars=2 * max_chars)
    line = " ".join(text.split())
    return line if len(line) <= max_chars else f"{line[:max_chars]}…"


def called(thread: Thread) -> str:
    """A thread by its title, or the beginning of its id."""
    return brief(thread.title, max_chars=40) or f"{thread.pk!s:.8}…"


def readable(model: type[Model], *names: str) -> list[str | Show]:
    """The fields as a page shows them: values that may be long by ``pretty``, the others by Django."""
    return [_long(model, name) if isinstance(_field(model, name), JSONField | TextField) else name for name in names]


def _field(model: type[Model], name: str) -> Field[Any, Any] | None:
    return next((field for field in model._meta.concrete_fields if field.name == name), None)


def _long(model: type[Model], name: str) -> Show:
    @admin.display(description=name.replace("_", " "))
    def show(row: Model) -> str:
        value = getattr(row, name)
        return "-" if value in (None, "") else format_html('<pre class="da-value">{}</pre>', pretty(value))

    return show


def badge(value: str, label: str) -> str:
    """A status as a coloured word; the colour says nothing that the word does not."""
    return format_html('<span class="da-badge da-{}">{}</span>', value, label)


def age(moment: datetime) -> str:
    """How long ago, in the largest unit."""
    return timesince(moment, depth=1)


def tokens(row: Any) -> str:
    """What went in and what came out; nothing where nothing was used."""
    return f"{row.input_tokens:,} / {row.output_tokens:,}" if row.input_tokens or row.output_tokens else ""


def all_tokens(row: Any) -> str:
    """What was used, in and out together."""
    return f"{row.input_tokens + row.output_tokens:,}"


def money(cost: Decimal | None) -> str:
    """US dollars, to the hundredth of a cent, or further where that would be nothing; empty where it is not known."""
    if cost is None:
        return ""
    return f"${cost:,.4f}" if cost >= Decimal("0.0001") or not cost else f"${cost.normalize():f}"


def seconds(start: datetime | None, end: datetime | None) -> str:
    """How long it took."""
    return f"{(end - start).total_seconds():,.1f} s" if start and end else ""


def joined(*facts: str) -> str:
    """Several facts on one line, without those that are empty."""
    return " · ".join(fact for fact in facts if fact)

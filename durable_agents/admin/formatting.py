"""Format values for the admin as escaped text. Long values are truncated."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db.models import JSONField, Model, TextField
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

from durable_agents.models import Thread, Usage
from durable_agents.utc_times import instant

MAX_CHARS = 10_000

Show = Callable[[Any], str]


def cut(text: str, *, max_chars: int = MAX_CHARS) -> str:
    """Return the text. If it is longer than ``max_chars``, return its beginning and a note with its full length."""
    if len(text) <= max_chars:
        return text
    return _("%(beginning)s… (cut: %(length)s characters in all)") % {
        "beginning": text[:max_chars],
        "length": number_format(len(text), force_grouping=True),
    }


def pretty(value: object, *, max_chars: int = MAX_CHARS) -> str:
    """Return a JSON value as text: a string as it is, and any other value as indented JSON. Long text is cut."""
    if isinstance(value, str):
        return cut(value, max_chars=max_chars)
    # A result can have several megabytes, but the page shows only its beginning. Encode the result in pieces, and
    # stop when there is enough text.
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
    """Return the title of the thread. If it has no title, return the beginning of its id."""
    return brief(thread.title, max_chars=40) or f"{thread.pk!s:.8}…"


def readable(model: type[Model], *names: str) -> list[str | Show]:
    """Return the fields for an admin page. Each JSON or text field is replaced by a function that formats its value
    with ``pretty``, because the value may be long.
    """
    long = {field.name: field for field in model._meta.concrete_fields if isinstance(field, JSONField | TextField)}
    return [_long(long[name]) if name in long else name for name in names]


def _long(field: JSONField[object, object] | TextField[object, object]) -> Show:
    @admin.display(description=field.verbose_name)
    def show(row: Model) -> str:
        value = getattr(row, field.name)
        return "-" if value in (None, "") else format_html('<pre class="da-value">{}</pre>', pretty(value))

    return show


def badge(value: str, label: str) -> str:
    """Return a status as a coloured label. The text of the label says the same as its colour."""
    return format_html('<span class="da-badge da-{}">{}</span>', value, label)


def age(moment: datetime) -> str:
    """Return the time since ``moment`` in words, in its largest unit only, such as "3 hours"."""
    return timesince(moment, depth=1)


def tokens(row: Thread | Usage) -> str:
    """Return the numbers of input and output tokens; an empty string if both are zero."""
    if not (row.input_tokens or row.output_tokens):
        return ""
    return " / ".join(number_format(number, force_grouping=True) for number in (row.input_tokens, row.output_tokens))


def all_tokens(row: Thread | Usage) -> str:
    """Return the total number of tokens as text."""
    return number_format(row.input_tokens + row.output_tokens, force_grouping=True)


def money(cost: Decimal | None) -> str:
    """Return an amount of US dollars with four decimal places, or an empty string for None. A small amount gets more
    decimal places, so that it is not shown as zero.
    """
    if cost is None:
        return ""
    if cost >= Decimal("0.0001") or not cost:
        return f"${number_format(cost, 4, force_grouping=True)}"
    return f"${number_format(f'{cost.normalize():f}')}"


def seconds(start: datetime | None, end: datetime | None) -> str:
    """Return the duration in seconds; an empty string if one of the times is missing."""
    if not (start and end):
        return ""
    return f"{number_format(f'{(instant(end) - instant(start)).total_seconds():.1f}', force_grouping=True)} s"


def joined(*texts: str) -> str:
    """Join the texts on one line. Leave out empty texts."""
    return " · ".join(text for text in texts if text)

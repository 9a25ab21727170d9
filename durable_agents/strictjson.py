"""Hides how JSON from outside is read, bounded in depth and every number finite, and what of it no database stores.

To read it lets every text through: what is stored is cleaned where it is stored, and ids are looked at there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class TooDeepError(ValueError):
    """The text nests arrays and objects deeper than allowed."""


def read(text: str, *, max_depth: int) -> Any:
    """The value of a JSON text.

    Raises ValueError where it is no JSON, has NaN, an infinity or a number that overflows to one, and TooDeepError
    where it nests more than ``max_depth`` levels.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise TooDeepError(f"it nests more than {max_depth} levels deep") from error
    if is_deeper_than(max_depth, value):
        raise TooDeepError(f"it nests more than {max_depth} levels deep")
    return value


def is_storable(text: str) -> bool:
    """Whether every database stores the text: PostgreSQL knows neither NUL nor lone surrogates."""
    return _UNSTORABLE.search(text) is None


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID, in any of its notations."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def clean(value: Any) -> Any:
    """The value with U+FFFD for what no database stores in every string of it, and null for NaN and infinities."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def is_deeper_than(limit: int, value: Any) -> bool:
    """Whether arrays and objects nest more than ``limit`` levels; level by level, so that no depth can hurt."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        level = [child for item in level for child in _children(item) if isinstance(child, dict | list)]
        if not level:
            return False
    return bool(level)


def _children(item: dict[str, Any] | list[Any]) -> Any:
    return item.values() if isinstance(item, dict) else item


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number

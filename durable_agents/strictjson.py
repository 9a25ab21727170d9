"""Parse untrusted JSON, and clean JSON values for the database.

``read`` limits the depth, and refuses NaN and infinity. The strings that it returns can contain characters that a
database cannot store. Before the strings are stored, content is cleaned and ids are checked.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import TypeAlias, overload
from uuid import UUID

from django.utils.functional import Promise

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""A JSON value, as ``read`` and ``clean`` return it."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_MAX_DIGITS = 4300
"""Python's limit for the number of digits when it converts between integers and text."""
_MAX_NUMBER = 10**_MAX_DIGITS


_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""A pattern that finds the strings in a JSON text. The text may end within a string. Matching takes linear time."""


class TooDeepError(ValueError):
    """Arrays and objects are nested too deeply."""


class TooManyValuesError(ValueError):
    """The text has too many values."""


def read(text: str, *, max_depth: int, max_values: int | None = None, is_strict: bool = True) -> JSON:
    """Parse a JSON text. Without ``is_strict``, strings are allowed to contain line breaks.

    Raises ValueError for invalid JSON, NaN, infinity, and numbers that overflow to infinity. Raises TooDeepError for
    more than ``max_depth`` levels of arrays and objects. Raises TooManyValuesError for more than about ``max_values``
    values. Values are counted before parsing, because an empty list takes two bytes of text but 64 bytes of memory.
    """
    if max_values is not None and has_more_values_than(max_values, text):
        raise TooManyValuesError(f"it has more than {max_values} values")
    try:
        value: JSON = json.loads(text, parse_constant=_refuse, parse_float=_finite, strict=is_strict)
    except RecursionError as error:
        raise TooDeepError(f"it nests more than {max_depth} levels deep") from error
    if is_deeper_than(max_depth, value):
        raise TooDeepError(f"it nests more than {max_depth} levels deep")
    return value


def has_more_values_than(limit: int, text: str) -> bool:
    """Return whether a JSON text has more than about ``limit`` values, without parsing it."""
    # This fast estimate also counts commas and brackets in strings. It can be too high, but never too low.
    if _values(text) <= limit:
        return False
    # A value has at most two strings: its key and, if the value is a text, the value itself. So a JSON text with more
    # than ``2 * limit`` strings has more than ``limit`` values.
    if (text.count('"') - text.count('\\"')) // 2 > 2 * limit:
        return True
    return _values(_STRING.sub("", text)) > limit


def _values(text: str) -> int:
    """Return an estimate of the number of values in the text."""
    return text.count(",") + text.count("[") + text.count("{")


def is_deeper_than(limit: int, value: object) -> bool:
    """Return whether arrays and objects are nested more than ``limit`` levels deep. A loop checks one level at a time,
    because recursion could exhaust the stack.
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        children = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return bool(level)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def is_storable(text: str) -> bool:
    """Return whether every database can store the text. PostgreSQL can store neither NUL nor lone surrogates."""
    # Do not use a regular expression: it takes ten times as long, and the text can have a million characters.
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_uuid(text: str) -> bool:
    """Return whether the text is a UUID in any notation that Python accepts."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


@overload
def clean(value: str | Promise) -> str: ...


@overload
def clean(value: Mapping[str, object]) -> dict[str, JSON]: ...


@overload
def clean(value: object) -> JSON: ...


def clean(value: object) -> JSON:
    """Convert a value to JSON that every database can store.

    In texts and keys, U+FFFD replaces NUL and lone surrogates. NaN and infinity become None. These get their usual JSON
    form: lazy translations, enum members, sets, bytes, dates, decimals, dataclasses, Pydantic models, and keys that are
    not strings. Raises TypeError for anything else.
    """
    # Check for the exact type ``str`` first: the check is fast, and strings are common.
    while type(value) is not str and isinstance(value, Enum):
        value = value.value
    if type(value) is str or isinstance(value, str | Promise):
        return _UNSTORABLE.sub("\ufffd", str(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        # Refuse very long integers. Python does not convert them to text, because that takes quadratic time.
        if value is not None and abs(value) >= _MAX_NUMBER:
            raise TypeError(f"a number has more than {_MAX_DIGITS} digits")
        return value
    if isinstance(value, Mapping):
        return {
            _UNSTORABLE.sub("\ufffd", key) if type(key) is str else _key(key): clean(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return clean(plain(value))


def _key(key: object) -> str:
    """Convert a dict key as ``json.dumps`` does. Keys that ``json.dumps`` rejects become texts."""
    cleaned = key if isinstance(key, tuple) else clean(key)
    if cleaned is None or isinstance(cleaned, bool | int | float):
        return json.dumps(cleaned)
    return _UNSTORABLE.sub("\ufffd", str(cleaned))


def plain(value: object) -> object:
    """Convert a value to a type that ``clean`` accepts. Sets become sorted lists: equal sets give equal lists."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, AbstractSet):
        return sorted((clean(item) for item in value), key=repr)
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    if hasattr(value, "model_dump"):
        # With ``mode="python"``, Pydantic leaves dates and similar values unchanged. ``clean`` converts them later.
        return value.model_dump(mode="python", by_alias=True)
    if type(value).__module__.startswith("django.db.models") or hasattr(value, "_meta"):
        raise TypeError(
            f"a {type(value).__name__} is not a JSON value. Pass its values (a dict), not the instance or queryset."
        )
    if isinstance(value, Sequence | ValuesView | Iterator):
        return list(value)
    from pydantic_core import to_jsonable_python  # noqa: PLC0415 - most values do not need it

    try:
        return to_jsonable_python(value)
    except ValueError as error:
        raise TypeError(f"a {type(value).__name__} is not a JSON value: {error}") from error


def content_hash(value: object) -> str:
    """Return the SHA-256 of a JSON value in hex. The order of the keys does not matter."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass
class Halves:
    """Joins characters that were split between two pieces of a streamed text.

    Some servers split a text in the middle of a character such as an emoji, which has two UTF-16 code units. In Python,
    each half is then a lone surrogate.
    """

    held: str = ""

    def join(self, text: str) -> str:
        """Return the next piece of text with split characters joined. If it ends with half a character, keep that half
        for the next piece.
        """
        if not self.held and text.isascii():
            return text
        text = self.held + text
        self.held = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        whole = text[: len(text) - len(self.held)]
        return _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), whole)

    def rest(self) -> str:
        """Return the half character that is left after the last piece, or an empty string."""
        rest, self.held = self.held, ""
        return rest


def as_jsonb(value: JSON) -> JSON:
    """Return a value as PostgreSQL returns it from a ``jsonb`` column. Keys are sorted by length, then by their bytes.
    Large numbers have no exponent. The value must come from ``clean``.
    """
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return {key: as_jsonb(value[key]) for key in keys}
    if isinstance(value, list):
        return [as_jsonb(item) for item in value]
    if isinstance(value, float):
        # Adding 0.0 turns -0.0 into 0.0: ``jsonb`` has no negative zero.
        return int(Decimal(repr(value))) if abs(value) >= _EXPONENT_FROM else value + 0.0
    return value


_EXPONENT_FROM = 1e16
"""From this value on, Python writes a float with an exponent. ``jsonb`` writes all digits instead, and Python then
reads an integer.
"""

"""Parse how long a provider asks clients to wait. The wait can be in a header, or in the body or text of an error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_UNITS = {
    0.000_001: "us µs μs",  # Go's durations have the micro sign (U+00B5) or the letter mu (U+03BC)
    0.001: "ms msec msecs millisecond milliseconds 毫秒",
    1.0: "s sec secs second seconds 秒 秒钟",
    60.0: "m min mins minute minutes 分 分钟",
    3600.0: "h hr hrs hour hours 小时",
    86_400.0: "d day days 天",
}
_SECONDS = {unit: seconds for seconds, units in _UNITS.items() for unit in units.split()}
_ONE = rf"\d{{1,9}}(?:\.\d{{1,9}})?\s{{0,3}}(?:{'|'.join(sorted(_SECONDS, key=len, reverse=True))})(?![a-z])"
_DURATION = re.compile(rf"{_ONE}(?:[\s,]{{0,3}}(?:and\s)?{_ONE}){{0,4}}", re.IGNORECASE)
_RUN_TOGETHER = re.compile(r"(?<=[a-z])(?=\d)", re.IGNORECASE)
"""Matches the position between two parts of a duration in Go's notation, for example between ``1m`` and ``4.5s`` in
``1m4.5s``.
"""
_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([^\W\d_]+)")
_IN_TEXT = (
    # OpenAI, Groq, Google, Azure, Moonshot: "try again in 7.5s"; GitHub: "wait 41 seconds before retrying"
    re.compile(
        r"(?:again|retry|retrying|wait)\s(?:(?:in|after|for|at least|about|another)\s){0,3}"
        rf"(?P<wait>{_DURATION.pattern})",
        re.IGNORECASE,
    ),
    re.compile(rf"(?P<wait>{_DURATION.pattern})\s?钟?[之以]?后"),
    re.compile(rf"retryDelay\W+(?P<wait>{_ONE})", re.IGNORECASE),  # Google's RetryInfo with a text value
    re.compile(r"retryDelay\W+seconds\W+(?P<wait>\d+)", re.IGNORECASE),  # Google's RetryInfo with an object value
)
_IETF = re.compile(r";\s*t=(\d+)")
"""Matches the seconds until the reset, in the header ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers)."""
FROM_EPOCH = 1e9
"""The limit between durations and Unix times. A number up to this value is a duration in seconds. A larger number is a
Unix time in seconds. A number above a thousand times this value is a Unix time in milliseconds (OpenRouter).
"""


def requested_wait(headers: Mapping[str, str], text: str, *, now: datetime | None = None) -> float | None:
    """Return how many seconds the provider asks to wait before the next attempt. Return None if it does not say.

    The names in ``headers`` must be in lower case. For a time in the past, the result is 0.
    """
    now = now or datetime.now(UTC)
    for name, value in headers.items():  # OpenAI and Azure send ``retry-after-ms``
        if name.endswith("retry-after-ms") and (milliseconds := _number(value)) is not None:
            return milliseconds / 1000
    waits = [value for name, value in headers.items() if name.endswith("retry-after")]
    waits += [found.group("wait") for form in _IN_TEXT for found in form.finditer(_spaced(text))]
    for wait in waits:
        seconds = _seconds(wait, now=now)
        if seconds is not None:
            return seconds
    return until_reset(headers, now=now)


def until_reset(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Return the seconds until rate limits are reset, or None if the headers do not say.

    The headers are those of OpenAI, Groq, Cerebras, Mistral, Anthropic, OpenRouter and an IETF draft. A vendor can have
    several limits, each with headers of its own.

    - If limits are used up, return the time until all of these limits are reset.
    - Otherwise, return the reset time of a limit without a header for the remaining amount. Of several limits, use the
      most general one. Its header has the shortest name.
    - Otherwise, return the reset time in the IETF header ``RateLimit``.
    """
    resets = {name: value for name, value in headers.items() if "ratelimit" in name and "reset" in name}
    known = {name: seconds for name, value in resets.items() if (seconds := _seconds(value, now=now)) is not None}
    left = {name: headers.get(name.replace("reset", "remaining")) for name in known}
    exhausted = [seconds for name, seconds in known.items() if _number(left[name] or "") == 0]
    if exhausted:
        return max(exhausted)
    for name in sorted(known, key=len):
        if left[name] is None:
            return known[name]
    found = _IETF.search(headers.get("ratelimit", ""))
    return float(found.group(1)) if found else None


def _seconds(wait: str, *, now: datetime) -> float | None:
    """Return the seconds to wait, or None if the text cannot be parsed. The text has one of these forms:

    - a number
    - a duration such as ``1m2.5s`` or ``2 minutes``
    - a Unix time
    - a time in the format of HTTP or RFC 3339

    If a header has several values, the first value counts.
    """
    for value in (wait, wait.partition(",")[0]):  # try the whole text first, because a date contains a comma
        text = value.strip().strip("\"'").strip()
        number = _number(text)
        if number is not None:
            moment = number / 1000 if number > FROM_EPOCH * 1000 else number
            return max(0.0, moment - now.timestamp()) if number > FROM_EPOCH else number
        if _DURATION.fullmatch(_spaced(text)):
            return sum(float(count) * _SECONDS[unit.lower()] for count, unit in _COUNT.findall(_spaced(text)))
        for parse in (datetime.fromisoformat, parsedate_to_datetime):
            with suppress(ValueError, TypeError):
                time = parse(text)
                return max(0.0, ((time if time.tzinfo else time.replace(tzinfo=UTC)) - now).total_seconds())
    return None


def _spaced(text: str) -> str:
    return _RUN_TOGETHER.sub(" ", text)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None

"""Hides how often a caller may come: the rates of ``THROTTLES``, counted in the project's default cache.

Every view of the API counts ``requests``; the views, websocket frames and the chat endpoint count ``sends`` for
whatever starts or steers a run. Signed-in callers are told apart by their id, others by their address, as REST
framework sees it (``NUM_PROXIES``).

A period begins with a caller's first request and has one counter, which the cache itself raises: however many come at
once, and however high the rate, no more get in and two numbers are kept.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any
from urllib.parse import quote

from django.core.cache import cache
from rest_framework.throttling import BaseThrottle

from durable_agents.conf import config
from durable_agents.exceptions import RequestsThrottledError, SendsThrottledError, ThrottledError
from durable_agents.logs import log_error

LIMITS: Mapping[str, tuple[type[ThrottledError], str]] = {
    "requests": (RequestsThrottledError, "requests"),
    "sends": (SendsThrottledError, "messages and other beginnings of runs"),
}
"""For each key of ``THROTTLES`` the error of whoever exceeds it, and what is counted."""

_PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RATE = re.compile(r"([1-9][0-9]{0,8})/([smhd])[a-z]*")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """At most ``count`` in ``seconds``."""

    count: int
    seconds: int


def rate_of(text: Any) -> Rate:
    """The rate in REST framework's syntax: a number, a slash, and a word that begins with s, m, h or d.

    Raises ValueError for anything else.
    """
    found = _RATE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is no rate such as '600/min'.")
    return Rate(count=int(found[1]), seconds=_PERIODS[found[2]])


def count(limit: str, asker: Any) -> None:
    """Count one of this ``limit``, ``requests`` or ``sends``, for whoever asks.

    ``asker`` is a request of Django's or REST framework's, or what policies are shown of a websocket. Raises
    RequestsThrottledError or SendsThrottledError for one too many, which does not count.

    Without a rate for this limit nothing is counted; nor with one that the system checks complain of, or while the
    cache does not answer, which is logged: nobody is locked out by that.
    """
    throttles = config().throttles
    text = throttles.get(limit) if isinstance(throttles, Mapping) else None
    if text is None:
        return
    try:
        rate = rate_of(text)
        seconds = _seconds_to_wait(f"durable_agents.{limit}.{_caller(asker)}", rate)
    except Exception:
        log_error("a request could not be counted", action="throttle", limit=limit)
        return
    if seconds:
        error, what = LIMITS[limit]
        again = f"Wait {ceil(seconds)} s, then try again."
        raise error(f"At most {rate.count} {what} in {rate.seconds} s. {again}", retry_after_seconds=seconds)


def _caller(asker: Any) -> str:
    """Whose counter it is: the id of a user, or what stands for an address, which may hold what no key can."""
    if asker.user is not None and asker.user.is_authenticated:
        return f"user.{quote(str(asker.user.pk))}"
    ident = str(BaseThrottle().get_ident(asker))
    return f"address.{hashlib.sha256(ident.encode()).hexdigest()[:32]}"


def _seconds_to_wait(key: str, rate: Rate) -> float:
    """Count one; until the end of the period where it was one too many, else 0."""
    now, key = time.time(), f"{key}.{rate.seconds}"
    end = float(cache.get_or_set(key, now + rate.seconds, rate.seconds) or 0)
    if _raised(f"{key}.{end:.6f}", rate.seconds) <= rate.count:
        return 0
    return max(end - now, 0.001)


def _raised(key: str, seconds: int) -> int:
    """The counter, raised by one; 1 where the cache keeps nothing."""
    cache.add(key, 0, seconds)
    try:
        number = int(cache.incr(key))
    except ValueError:
        return 1
    cache.touch(key, seconds)  # where raising is reading and writing, the cache forgets for how long
    return number

"""Throttle callers: count their requests in the default cache, and reject requests above a rate in ``THROTTLES``.

The rate ``requests`` limits all API requests. The rate ``sends`` limits everything that starts or steers a run, over
any interface. Signed-in callers are counted by user id, all others by IP address. Behind ``NUM_PROXIES`` proxies, the
address that connected to the outermost proxy is used.

For each caller and rate, the cache stores two numbers: the end of the current period, and a counter. A period begins
with the first request after the previous period. The cache increments the counter atomically, so concurrent requests
cannot exceed the rate.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from typing import Protocol, cast
from urllib.parse import quote

from django.core.cache import cache
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from durable_agents.actors import User
from durable_agents.conf import config, number_of_proxies
from durable_agents.exceptions import RequestsThrottledError, SendsThrottledError, ThrottledError
from durable_agents.logs import log_error

LIMITS: Mapping[str, tuple[type[ThrottledError], str]] = {
    "requests": (RequestsThrottledError, "requests"),
    "sends": (SendsThrottledError, "messages and other beginnings of runs"),
}
"""For each key of ``THROTTLES``: the error for exceeding it, and what is counted."""

_PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RATE = re.compile(r"([1-9][0-9]{0,8})/([smhd])[a-z]*")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A rate: at most ``count`` uses within ``seconds`` seconds."""

    count: int
    seconds: int


class Caller(Protocol):
    """A Django or REST framework request, or a websocket's caller."""

    @property
    def user(self) -> User | None:
        """The user, or None if the project has no users."""

    @property
    def META(self) -> Mapping[str, object]:  # noqa: N802 - Django's name
        """The connection's address and the headers of proxies, named as in Django's ``HttpRequest.META``."""


def rate_of(text: object) -> Rate:
    """Parse a rate in REST framework's syntax, such as ``10/min``: a number, a slash, and a word that begins with s, m,
    h or d.

    Raises ValueError for anything else.
    """
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a rate such as '600/min'.")
    return Rate(count=int(match[1]), seconds=_PERIODS[match[2]])


def count(limit: str, caller: Caller) -> None:
    """Count one use of ``limit`` (``requests`` or ``sends``) by this caller.

    Raises RequestsThrottledError or SendsThrottledError if the rate is exceeded. A rejected use does not prolong the
    wait.

    If no rate is set, nothing is counted. If the rate is invalid or the cache fails, the use is allowed, and the error
    is logged. A system check reports an invalid rate.
    """
    throttles = config().throttles
    text = throttles.get(limit) if isinstance(throttles, Mapping) else None
    if text is None:
        return
    try:
        rate = rate_of(text)
        seconds = _seconds_to_wait(f"durable_agents.{limit}.{key_of(caller)}", rate)
    except Exception:
        log_error("a request could not be counted", action="throttle", limit=limit)
        return
    if seconds:
        error, what = LIMITS[limit]
        again = f"Wait {ceil(seconds)} s, then try again."
        raise error(f"At most {rate.count} {what} in {rate.seconds} s. {again}", retry_after_seconds=seconds)


def key_of(caller: Caller) -> str:
    """Return the part of the cache key for this caller: the user's id, or a hash of the address. The address is hashed
    because it can contain characters that are not allowed in cache keys.
    """
    if caller.user is not None and caller.user.is_authenticated:
        return f"user.{quote(str(caller.user.pk))}"
    # Without ``NUM_PROXIES``, REST framework uses the whole ``X-Forwarded-For`` header. Callers could then evade the
    # limit by sending a new value each time.
    if number_of_proxies() is None:
        address = str(caller.META.get("REMOTE_ADDR", ""))
    else:
        address = str(BaseThrottle().get_ident(cast("Request", caller)))
    return f"address.{hashlib.sha256(network_of(address).encode()).hexdigest()[:32]}"


def network_of(address: str) -> str:
    """Return the part of an address that identifies a caller.

    The port is removed: some proxies add it, and it differs for each connection. An IPv6 address becomes its /64
    network, because a caller can use every address in that network.
    """
    bare = _PORT.sub(r"\1", address.strip()).strip("[]")
    try:
        parsed = ip_address(bare.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or ip_network((parsed, SITE_BITS), strict=False))
    return str(parsed)


SITE_BITS = 64
_PORT = re.compile(r"^(\[.*\]|[\d.]+):\d+$")


def _seconds_to_wait(key: str, rate: Rate) -> float:
    """Count one use. Return the seconds until the end of the period if the rate is exceeded, otherwise 0."""
    now, key = time.time(), f"{key}.{rate.seconds}"
    # The first process sets the end of the period. All others read it.
    end = float(cache.get_or_set(key, now + rate.seconds, rate.seconds) or 0)
    counter = f"{key}.{end:.6f}"
    cache.add(counter, 0, rate.seconds)
    try:
        number = int(cache.incr(counter))
    except ValueError:
        # The counter was just added, but it is missing. This cache stores nothing, like Django's dummy cache.
        return 0
    # Some cache backends remove the expiry when they increment a value, so set it again.
    cache.touch(counter, rate.seconds)
    return max(end - now, 0.001) if number > rate.count else 0

"""Throttle callers: count the rates of ``THROTTLES`` in the project's default cache.

Every view of the API counts ``requests``; the views, websocket frames and the chat endpoint count ``sends`` for
whatever starts or steers a run. Signed-in callers are distinguished by their id, others by their address: that of the
connection, or behind ``NUM_PROXIES`` proxies the one that the outermost of them saw.

A period begins with a caller's first request and has one counter, which the cache itself increments: however many
requests come at once, and however high the rate, no more get in and two numbers are kept.
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
    """At most ``count`` in ``seconds``."""

    count: int
    seconds: int


class Caller(Protocol):
    """A Django or REST framework request, or the object that policies get for a websocket."""

    @property
    def user(self) -> User | None:
        """Who calls, or None if the project has no users."""

    @property
    def META(self) -> Mapping[str, object]:  # noqa: N802 - Django's name
        """The address, and what proxies say about it."""


def rate_of(text: object) -> Rate:
    """Parse a rate in REST framework's syntax: a number, a slash, and a word that begins with s, m, h or d.

    Raises ValueError for anything else.
    """
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no rate such as '600/min'.")
    return Rate(count=int(match[1]), seconds=_PERIODS[match[2]])


def count(limit: str, caller: Caller) -> None:
    """Count one use of this ``limit``, ``requests`` or ``sends``, by ``caller``.

    Raises RequestsThrottledError or SendsThrottledError if that exceeds the rate. A rejected use does not prolong the
    wait.

    If this limit has no rate, or an invalid one, which the system checks report, nothing is counted. Nor is it while
    the cache fails, which is logged: callers are not locked out by that.
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
    """Return the part of the cache key that identifies the caller: the id of the user, or a hash of the address, which
    may contain characters that are not allowed in cache keys.
    """
    if caller.user is not None and caller.user.is_authenticated:
        return f"user.{quote(str(caller.user.pk))}"
    # ``X-Forwarded-For`` counts only as far as proxies are known to have written it: REST framework takes all of it
    # where ``NUM_PROXIES`` is not set, and a caller can make up a new one each time.
    if number_of_proxies() is None:
        address = str(caller.META.get("REMOTE_ADDR", ""))
    else:
        address = str(BaseThrottle().get_ident(cast("Request", caller)))
    return f"address.{hashlib.sha256(network_of(address).encode()).hexdigest()[:32]}"


def network_of(address: str) -> str:
    """Return what stays the same of a caller's address: without the port, which some proxies add to it and which is new
    with each connection, and of IPv6 the network of a site, in which a caller may take any number of addresses.
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
    """Count one use; return the seconds until the period ends if that exceeds the rate, else 0."""
    now, key = time.time(), f"{key}.{rate.seconds}"
    # Whichever process comes first sets the end of the period; all others read it.
    end = float(cache.get_or_set(key, now + rate.seconds, rate.seconds) or 0)
    counter = f"{key}.{end:.6f}"
    cache.add(counter, 0, rate.seconds)
    try:
        number = int(cache.incr(counter))
    except ValueError:  # the cache stores nothing
        return 0
    cache.touch(counter, rate.seconds)  # where raising is reading and writing, the cache forgets for how long
    return max(end - now, 0.001) if number > rate.count else 0

"""List the Redis servers in the settings of the broker, the channel layers and caches. No connection is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit

from durable_agents.conf import caches, channel_layers, q_cluster

OTHER_BROKERS = frozenset({"orm", "sqs", "iron_mq", "mongo", "disque_nodes", "broker_class"})
"""Keys of ``Q_CLUSTER`` that select a broker other than Redis."""


@dataclass(frozen=True, kw_only=True)
class RedisServer:
    """A Redis server as configured by a setting."""

    setting: str
    """The setting, such as ``Q_CLUSTER["redis"]``."""
    host: str
    """The host name or address; empty for a socket file."""
    has_password: bool
    socket_timeout: float | None
    """The number of seconds that redis-py waits for an answer, from the setting or from redis-py's default. None means
    no limit.
    """

    @property
    def is_on_this_host(self) -> bool:
        """Whether the host name or address shows that only this machine can reach the server."""
        if self.host in {"", "localhost"}:
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def redis_servers() -> Iterator[RedisServer]:
    """Yield the Redis servers of the broker, and then those of each channel layer."""
    cluster = q_cluster()
    if not any(cluster.get(key) for key in OTHER_BROKERS):
        if alias := cluster.get("django_redis"):
            yield from _servers_of(alias)  # django-q2 uses the Redis server of this cache
        else:
            yield from _servers('Q_CLUSTER["redis"]', cluster.get("redis") or {})
    for alias, layer in channel_layers().items():
        if str(layer.get("BACKEND", "")).startswith("channels_redis."):
            setting = f'CHANNEL_LAYERS["{alias}"]'
            for host in layer.get("CONFIG", {}).get("hosts", ["redis://localhost:6379"]):
                yield from _servers(setting, host)


def cache_servers(alias: str) -> Iterator[RedisServer]:
    """Yield the servers of a cache. If its backend is not Redis, yield nothing."""
    if "redis" in str(caches().get(alias, {}).get("BACKEND", "redis")).lower():
        yield from _servers_of(alias)


def _servers_of(alias: str) -> Iterator[RedisServer]:
    cache = caches().get(alias, {})
    locations = cache.get("LOCATION", "")
    # Django's cache uses redis-py's names for its options. django-redis uses the same names in capital letters.
    options = {name.lower(): value for name, value in cache.get("OPTIONS", {}).items()}
    known = {name: options[name] for name in ("password", "socket_timeout") if name in options}
    for location in [locations] if isinstance(locations, str) else locations:
        yield from _servers(f'CACHES["{alias}"]', {**known, "address": location})


def _servers(setting: str, given: object) -> Iterator[RedisServer]:
    """Yield the servers of one entry: a URL, a host with its port, or a dict of redis-py's arguments."""
    arguments: Mapping[str, Any] = given if isinstance(given, Mapping) else {"address": given}
    has_password = bool(arguments.get("password"))
    is_file = "unix_socket_path" in arguments or "path" in arguments  # a socket file has no host
    pair = ("" if is_file else arguments.get("host", "localhost"), arguments.get("port", 6379))
    for address in arguments.get("sentinels") or [arguments.get("address") or pair]:
        url = urlsplit(address) if isinstance(address, str) else None
        in_url = url is not None and bool(url.password or parse_qs(url.query).get("password"))
        yield RedisServer(
            setting=setting,
            host=str(address[0]) if url is None else url.hostname or "",
            has_password=has_password or in_url,
            socket_timeout=_socket_timeout(address, arguments),
        )


def _socket_timeout(address: object, arguments: Mapping[str, Any]) -> float | None:
    """Return the socket timeout in seconds, or None for no limit. As in redis-py, the URL takes precedence over the
    arguments. If neither has a timeout, redis-py's default applies.
    """
    default = None
    with suppress(PackageNotFoundError, ValueError):  # redis-py has a default timeout since version 8
        default = 5.0 if int(version("redis").partition(".")[0]) >= 8 else None
    in_url = parse_qs(urlsplit(address).query).get("socket_timeout") if isinstance(address, str) else None
    given = in_url[0] if in_url else arguments.get("socket_timeout", default)
    try:
        return None if given is None else float(given)
    except (TypeError, ValueError):
        return None

"""Hides where configuration comes from: the one reader of ``django.conf.settings``.

``config()`` gives the ``DURABLE_AGENTS`` setting as one typed, frozen value with every default beside its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from django.conf import global_settings, settings
from django.core.signals import setting_changed
from django.http import HttpRequest
from django.http.request import split_domain_port, validate_host

AUTH_USER_MODEL: str = settings.AUTH_USER_MODEL


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """A named share of capacity: at most ``limit`` rows held at once over all processes, worked by ``cluster``."""

    cluster: str | None = None
    limit: int = 100


def _default_pools() -> dict[str, PoolConfig]:
    return {"agents": PoolConfig(limit=100), "tools": PoolConfig(limit=50)}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The keys of ``DURABLE_AGENTS`` in lower case. Durations carry their unit in the name."""

    policy: str = "durable_agents.policies.OwnerPolicy"
    default_agent: str | None = None
    pools: Mapping[str, PoolConfig] = field(default_factory=_default_pools)
    processes: int | None = None
    """Worker processes of one cluster that may sit in ``work`` at once; None: all but one, at least one."""
    streams_per_process: int = 100
    tool_threads: int = 8
    work_seconds: float = 30
    linger_seconds: float = 60
    lease_seconds: float = 30
    drain_seconds: float = 8
    crash_limit: int = 10
    unknown_code_grace_seconds: float = 600
    atomic_warn_seconds: float = 1
    flush_ms: int = 50
    max_running_per_owner: int | None = None
    throttles: Mapping[str, str] | None = None
    max_body_bytes: int = 256 * 1024
    max_chat_body_bytes: int = 10 * 1024 * 1024
    max_text_chars: int = 32_000
    max_tool_result_bytes: int = 64 * 1024
    max_attachment_bytes: int = 10 * 1024 * 1024
    max_frame_bytes: int = 256 * 1024
    max_json_depth: int = 32
    usage_on_delete: str = "keep"
    model_door: str = "durable_agents.llm.LiteLLMDoor"
    ai_sdk_dialect: str = "6"

    def pool(self, name: str) -> PoolConfig:
        """The pool of this name; one that nobody configured has the default limit."""
        return self.pools.get(name, PoolConfig())

    def pools_of(self, cluster: str) -> list[str]:
        """Names of the pools that workers of ``cluster`` serve."""
        return [name for name in self.pools if cluster_of(name) == cluster]


@cache
def config() -> Config:
    """The project's configuration. Unknown keys are left to the system checks."""
    given = _raw()
    values: dict[str, Any] = {item.name: given[key] for item in fields(Config) if (key := item.name.upper()) in given}
    if "pools" in values:
        values["pools"] = _default_pools() | {name: _pool(name, pool) for name, pool in values["pools"].items()}
    return Config(**values)


def unknown_keys() -> list[str]:
    """Keys of ``DURABLE_AGENTS`` that mean nothing here, for the system checks."""
    known = {item.name.upper() for item in fields(Config)}
    return sorted(key for key in _raw() if key not in known)


def given_settings() -> Any:
    """``DURABLE_AGENTS`` as the project wrote it, whatever it is, for the system checks."""
    return getattr(settings, "DURABLE_AGENTS", None)


def asgi_application() -> str | None:
    """The project's ``ASGI_APPLICATION`` setting, where it has one."""
    return getattr(settings, "ASGI_APPLICATION", None)


def project_package() -> str:
    """The package that the project's root URLconf is in, such as ``mysite``."""
    return str(getattr(settings, "ROOT_URLCONF", "mysite.urls")).rpartition(".")[0] or "mysite"


def q_cluster() -> Mapping[str, Any]:
    """The project's ``Q_CLUSTER`` setting, as it stands."""
    return getattr(settings, "Q_CLUSTER", {})


def channel_layers() -> Mapping[str, Any]:
    """The project's ``CHANNEL_LAYERS`` setting, as it stands."""
    return getattr(settings, "CHANNEL_LAYERS", {})


def default_cache() -> str:
    """The dotted path of the default cache's backend."""
    return str(settings.CACHES.get("default", {}).get("BACKEND", ""))


def has_caches() -> bool:
    """Whether the project has a ``CACHES`` setting of its own."""
    return bool(settings.CACHES != global_settings.CACHES)


def default_cluster() -> str:
    """Name of the cluster that serves pools with no cluster of their own: django-q2's default queue."""
    given = q_cluster()
    return str(given.get("cluster_name") or given.get("name") or "default")


def cluster_of(pool: str) -> str:
    """Name of the django-q2 cluster whose workers serve ``pool``."""
    return config().pool(pool).cluster or default_cluster()


def _raw() -> Mapping[str, Any]:
    given = given_settings()
    return given if isinstance(given, Mapping) else {}


def _pool(name: str, given: Mapping[str, Any]) -> PoolConfig:
    default = _default_pools().get(name, PoolConfig())
    return PoolConfig(cluster=given.get("cluster"), limit=int(given.get("limit", default.limit)))


def _forget(*, setting: str, **_: object) -> None:
    if setting in {"DURABLE_AGENTS", "Q_CLUSTER"}:
        config.cache_clear()


setting_changed.connect(_forget)


def origin_is_allowed(headers: Mapping[str, str]) -> bool:
    """Whether a websocket with these headers may come from where it comes from.

    A browser always names its origin, which must be one of ``ALLOWED_HOSTS``; without an origin the socket is no
    browser's and may not lean on a browser's cookies.
    """
    origin = headers.get("origin")
    if origin is None:
        return "cookie" not in headers
    hosts = settings.ALLOWED_HOSTS or ([".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
    try:
        host, _ = split_domain_port(urlsplit(origin).netloc)
    except ValueError:
        return False
    return bool(host) and validate_host(host, hosts)


def user_of_headers(headers: Mapping[str, str]) -> Any | None:
    """The user whom the project's REST authentication finds in an ``Authorization`` header; None where none is."""
    if "authorization" not in headers:
        return None
    from rest_framework.exceptions import APIException  # noqa: PLC0415 - only for sockets without a session
    from rest_framework.request import Request  # noqa: PLC0415
    from rest_framework.settings import api_settings  # noqa: PLC0415

    request = HttpRequest()
    request.META["HTTP_AUTHORIZATION"] = headers["authorization"]
    authenticators = [made() for made in api_settings.DEFAULT_AUTHENTICATION_CLASSES]  # type: ignore[operator]
    try:
        user = Request(request, authenticators=authenticators).user
    except APIException:
        return None
    return user if user.is_authenticated else None

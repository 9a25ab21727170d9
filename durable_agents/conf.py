"""Read the project's settings. No other module reads ``django.conf.settings``.

``config()`` returns the ``DURABLE_AGENTS`` setting, with defaults, as a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from django.conf import global_settings, settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest

from durable_agents.actors import User

AUTH_USER_MODEL: str = settings.AUTH_USER_MODEL


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """The configuration of a pool. Pools divide the workers' capacity.

    ``cluster`` is the django-q2 cluster whose workers serve the pool; None means the default cluster. At most ``limit``
    calls of the pool run at the same time, over all workers; None means no limit.
    """

    cluster: str | None = None
    limit: int | None = None


def _default_pools() -> dict[str, PoolConfig]:
    return {"agents": PoolConfig(), "tools": PoolConfig()}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The values of ``DURABLE_AGENTS``. Each field is named after its key, in lower case. Names of durations end in
    their unit.
    """

    policy: str = "durable_agents.policies.OwnerPolicy"
    default_agent: str | None = None
    pools: Mapping[str, PoolConfig] = field(default_factory=_default_pools)
    processes: int | None = None
    """The maximum number of worker processes of one cluster that run agents at the same time.

    None means all but one process, which stays free for the project's other tasks. If there is only one process, it
    runs agents and other tasks.
    """
    streams_per_process: int = 500
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
    max_history_bytes: int = 10 * 1024 * 1024
    max_attachment_bytes: int = 10 * 1024 * 1024
    max_frame_bytes: int = 256 * 1024
    websocket_threads: int = 3
    max_sockets_per_user: int = 20
    max_subscriptions: int = 50
    max_streams_per_user: int = 20
    max_json_depth: int = 32
    usage_on_delete: str = "keep"
    owner_on_delete: str = "cascade"
    model_door: str = "auto"
    model_read_seconds: float = 60
    model_call_seconds: float = 1800
    ai_sdk_dialect: str = "6"
    max_wait_seconds: float = 300
    approval_keys: Sequence[str] | None = None
    """The first key signs approvals; all keys verify them. None means ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``."""
    trusted_origins: Sequence[str] = ()

    def pool(self, name: str) -> PoolConfig:
        """Return the configuration of this pool. An unconfigured pool has no limit."""
        return self.pools.get(name, PoolConfig())

    def pools_of(self, cluster: str) -> list[str]:
        """Return the names of the pools that the workers of this cluster serve."""
        return [name for name in self.pools if cluster_of(name) == cluster]


@cache
def config() -> Config:
    """Return the project's configuration. Unknown keys are ignored here; a system check reports them."""
    given = _raw()
    values: dict[str, Any] = {item.name: given[key] for item in fields(Config) if (key := item.name.upper()) in given}
    if "pools" in values:
        values["pools"] = pools = _default_pools()
        for name, pool in given["POOLS"].items():
            limit = pool.get("limit")
            pools[name] = PoolConfig(cluster=pool.get("cluster"), limit=None if limit is None else int(limit))
    return Config(**values)


def unknown_keys() -> list[str]:
    """Return the keys of ``DURABLE_AGENTS`` that are not names of settings."""
    known = {item.name.upper() for item in fields(Config)}
    return sorted(key for key in _raw() if key not in known)


def uses_time_zones() -> bool:
    """Return the ``USE_TZ`` setting."""
    return bool(settings.USE_TZ)


def given_settings() -> object:
    """Return ``DURABLE_AGENTS`` unchanged, for the system checks. It may have any type."""
    return getattr(settings, "DURABLE_AGENTS", None)


def approval_keys() -> Sequence[str | bytes]:
    """Return the keys that sign approvals. The first key makes new signatures; all keys verify signatures. The default
    is SECRET_KEY and its fallbacks.
    """
    return config().approval_keys or [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]


def asgi_application() -> str | None:
    """Return the ``ASGI_APPLICATION`` setting, or None."""
    return getattr(settings, "ASGI_APPLICATION", None)


def project_package() -> str:
    """Return the package of the project's root URLconf, such as ``mysite``."""
    return str(getattr(settings, "ROOT_URLCONF", "mysite.urls")).rpartition(".")[0] or "mysite"


def q_cluster() -> Mapping[str, Any]:
    return getattr(settings, "Q_CLUSTER", {})


def channel_layers() -> Mapping[str, Any]:
    return getattr(settings, "CHANNEL_LAYERS", {})


def caches() -> Mapping[str, Any]:
    given: Mapping[str, Any] = settings.CACHES
    return given


def default_cache() -> str:
    """Return the dotted path of the default cache backend."""
    return str(settings.CACHES.get("default", {}).get("BACKEND", ""))


def session_cookie_name() -> str:
    """Return the name of Django's session cookie."""
    return str(settings.SESSION_COOKIE_NAME)


def csrf_header() -> str:
    """Return the name of Django's CSRF header in ``HttpRequest.META``."""
    return str(settings.CSRF_HEADER_NAME)


def number_of_proxies() -> int | None:
    """Return REST framework's ``NUM_PROXIES``, or None if it is not set."""
    from rest_framework.settings import api_settings  # noqa: PLC0415 - REST framework reads its settings at import

    number: int | None = api_settings.NUM_PROXIES
    return number


def default_permissions() -> list[str]:
    """Return the names of the permission classes that REST framework uses by default."""
    from rest_framework.settings import api_settings  # noqa: PLC0415 - as above

    # The list contains classes, but type checkers expect strings. Therefore, use ``getattr`` instead of ``__name__``.
    return [getattr(permission, "__name__", "") for permission in api_settings.DEFAULT_PERMISSION_CLASSES]


def allowed_hosts() -> list[str]:
    return list(settings.ALLOWED_HOSTS)


def csrf_trusted_origins() -> list[str]:
    """Return the ``CSRF_TRUSTED_ORIGINS`` setting."""
    return list(settings.CSRF_TRUSTED_ORIGINS)


def knows_scheme_from_proxy() -> bool:
    """Return whether Django reads the scheme from a proxy's header (``SECURE_PROXY_SSL_HEADER``)."""
    return settings.SECURE_PROXY_SSL_HEADER is not None


def trusts_forwarded_port() -> bool:
    """Return whether Django reads the port from a proxy's ``X-Forwarded-Port`` header (``USE_X_FORWARDED_PORT``)."""
    return bool(settings.USE_X_FORWARDED_PORT)


def has_caches() -> bool:
    """Return whether the project sets ``CACHES``."""
    return bool(settings.CACHES != global_settings.CACHES)


def default_cluster() -> str:
    """Return the django-q2 cluster that serves pools without a configured cluster."""
    given = q_cluster()
    return str(given.get("cluster_name") or given.get("name") or "default")


def cluster_of(pool: str) -> str:
    """Return the django-q2 cluster whose workers serve this pool."""
    return config().pool(pool).cluster or default_cluster()


def _raw() -> Mapping[str, Any]:
    given = given_settings()
    return given if isinstance(given, Mapping) else {}


@receiver(setting_changed)
def _forget(*, setting: str, **_: object) -> None:
    if setting in {"DURABLE_AGENTS", "Q_CLUSTER"}:
        config.cache_clear()


def user_of_headers(headers: Mapping[str, str]) -> User | None:
    """Return the user whom REST framework authenticates by the ``Authorization`` header, or None."""
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

"""Decide from which origins a websocket may be opened, as Django's CSRF check does for forms.

Browsers send cookies with websockets that any page opens, and neither CSRF tokens nor CORS protect them: the ``Origin``
header is all there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.http.request import split_domain_port
from django.utils.http import is_same_domain

from durable_agents.conf import config, trusts_forwarded_port

ANY = "*"
_PORTS = {"http": ":80", "https": ":443"}


class Handshake(HttpRequest):
    """A websocket's handshake as Django sees a request, with host and scheme by the project's settings for proxies."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        super().__init__()
        self.method = "GET"
        self.path = self.path_info = str(scope.get("path", "/"))
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if "_" in name:  # would pass for the header with a hyphen, which a proxy may have to set
                continue
            key = f"HTTP_{name.upper().replace('-', '_')}"
            self.META[key] = f"{self.META[key]},{value}" if key in self.META else value
        host, port = scope.get("server") or ("unknown", 0)
        self.META |= {"SERVER_NAME": str(host), "SERVER_PORT": str(port or 0)}
        # Daphne omits the scheme, which means ws. If daphne itself serves TLS, only the port shows that it is wss.
        self._is_secure = scope.get("scheme", "wss" if port == 443 else "ws") in {"wss", "https"}

    def _get_scheme(self) -> str:
        """See HttpRequest, which calls this unless SECURE_PROXY_SSL_HEADER decides."""
        return "https" if self._is_secure else "http"


def is_allowed(scope: Mapping[str, object]) -> bool:
    """Whether a websocket may come from its origin: the site's own scheme, host and port, or one of
    ``TRUSTED_ORIGINS``. A client without an origin is no browser, and may not rely on a browser's cookies.
    """
    request = Handshake(scope)
    if ANY in config().trusted_origins:
        return True
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        return "HTTP_COOKIE" not in request.META
    return origin in set(own_origins(request)) or any(matches(origin, trusted) for trusted in config().trusted_origins)


def own_origins(request: Handshake) -> Iterator[str]:
    """Return the site's own origins, as browsers write them: without the port where it is the scheme's default."""
    try:
        host = request.get_host().lower()
    except DisallowedHost:
        return
    scheme = str(request.scheme)
    yield f"{scheme}://{host.removesuffix(_PORTS[scheme])}"
    if trusts_forwarded_port() and "HTTP_X_FORWARDED_PORT" in request.META and not split_domain_port(host)[1]:
        yield f"{scheme}://{host}:{request.get_port()}".removesuffix(_PORTS[scheme])


def matches(origin: str, trusted: str) -> bool:
    """Whether an origin equals this one, or is below it where it begins with ``*.``, as in ``CSRF_TRUSTED_ORIGINS``."""
    if "*" not in trusted:
        return origin == trusted
    try:
        given, wanted = urlsplit(origin), urlsplit(trusted)
    except ValueError:
        return False
    return given.scheme == wanted.scheme and is_same_domain(given.netloc, wanted.netloc.lstrip("*"))

"""Decide from which origins a websocket may be opened. Django's CSRF check decides the same for forms.

Any page can open a websocket to this site, and the browser then sends this site's cookies. CSRF tokens and CORS do not
protect websockets, so the ``Origin`` header must be checked.
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
    """A websocket's handshake as a Django request. Its host and scheme follow the project's proxy settings."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        super().__init__()
        self.method = "GET"
        self.path = self.path_info = str(scope.get("path", "/"))
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            # Ignore headers with an underscore. Otherwise, a client could send ``X_Forwarded_Host``, which has the same
            # key in ``META`` as the proxy's header ``X-Forwarded-Host``.
            if "_" in name:
                continue
            key = f"HTTP_{name.upper().replace('-', '_')}"
            self.META[key] = f"{self.META[key]},{value}" if key in self.META else value
        host, port = scope.get("server") or ("unknown", 0)
        self.META |= {"SERVER_NAME": str(host), "SERVER_PORT": str(port or 0)}
        # Daphne leaves out the scheme. If Daphne itself serves TLS, only the port shows that the scheme is wss.
        self._is_secure = scope.get("scheme", "wss" if port == 443 else "ws") in {"wss", "https"}

    def _get_scheme(self) -> str:
        """Return the scheme of the connection. Django calls this method if no proxy header has the scheme."""
        return "https" if self._is_secure else "http"


def is_allowed(scope: Mapping[str, object]) -> bool:
    """Return whether a websocket may be opened from its origin.

    The header ``Origin`` must contain the site's own origin (scheme, host and port), or one of ``TRUSTED_ORIGINS``. A
    client without this header is not a browser, and may connect only if it sends no cookies.
    """
    request = Handshake(scope)
    if ANY in config().trusted_origins:
        return True
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:
        return "HTTP_COOKIE" not in request.META
    return origin in set(own_origins(request)) or any(matches(origin, trusted) for trusted in config().trusted_origins)


def own_origins(request: Handshake) -> Iterator[str]:
    """Yield the site's own origins as browsers write them, without the scheme's default port."""
    try:
        host = request.get_host().lower()
    except DisallowedHost:
        return
    scheme = str(request.scheme)
    yield f"{scheme}://{host.removesuffix(_PORTS[scheme])}"
    if trusts_forwarded_port() and "HTTP_X_FORWARDED_PORT" in request.META and not split_domain_port(host)[1]:
        yield f"{scheme}://{host}:{request.get_port()}".removesuffix(_PORTS[scheme])


def matches(origin: str, trusted: str) -> bool:
    """Return whether an origin matches a trusted origin. As in ``CSRF_TRUSTED_ORIGINS``, a host with ``*.`` also
    matches all subdomains.
    """
    if "*" not in trusted:
        return origin == trusted
    try:
        given, wanted = urlsplit(origin), urlsplit(trusted)
    except ValueError:
        return False
    return given.scheme == wanted.scheme and is_same_domain(given.netloc, wanted.netloc.lstrip("*"))

"""Read a websocket's ASGI scope: its headers, and the caller as policies get it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import AnonymousUser

from durable_agents.conf import user_of_headers

Scope = Mapping[str, Any]
"""The ASGI connection scope."""


class SocketAsker:
    """The caller of a websocket: its user, session and headers, and its address where REST framework looks for it."""

    def __init__(self, scope: Scope) -> None:
        """Take the session's user, or else the one that the headers authenticate. Reads the database."""
        self.headers = headers_of(scope)
        self.session = scope.get("session")
        self.user = scope.get("user") or AnonymousUser()
        if not self.user.is_authenticated:
            self.user = user_of_headers(self.headers) or AnonymousUser()
        # Django's user is lazy: without this, the event loop would read the database when it is first looked at.
        getattr(self.user, "pk", None)
        self.META = {
            "REMOTE_ADDR": (scope.get("client") or [""])[0],
            "HTTP_X_FORWARDED_FOR": self.headers.get("x-forwarded-for"),
        }


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers by lower-case name; a header that was sent twice has both values, as in a request."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers

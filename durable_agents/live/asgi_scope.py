"""Read the headers and the caller from a websocket's ASGI scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import AnonymousUser

from durable_agents.conf import user_of_headers

Scope = Mapping[str, Any]
"""The ASGI connection scope."""


class SocketAsker:
    """The client of a websocket, as policies see it. Like an HTTP request, it has ``user``, ``session`` and
    ``headers``.

    ``META`` contains the client's address, because Django REST framework looks for the address there.
    """

    def __init__(self, scope: Scope) -> None:
        """Take the user from the session. If nobody is signed in, authenticate with the headers. Reads the database."""
        self.headers = headers_of(scope)
        self.session = scope.get("session")
        self.user = scope.get("user") or AnonymousUser()
        if not self.user.is_authenticated:
            self.user = user_of_headers(self.headers) or AnonymousUser()
        # Django loads the user on first access. Load it here, so that the event loop never has to read the database.
        getattr(self.user, "pk", None)
        self.META = {
            "REMOTE_ADDR": (scope.get("client") or [""])[0],
            "HTTP_X_FORWARDED_FOR": self.headers.get("x-forwarded-for"),
        }


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers as a dict with lower-case names.

    The values of a repeated header are joined with a comma, as in a Django request.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers

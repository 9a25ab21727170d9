"""Send a strict Content-Security-Policy with every response of the demo.

Pages load the site's own files and nothing else, and no script or style that stands in the page itself. Django 6 can
do the same with `SECURE_CSP` and a middleware of its own; the demo also runs on Django 5.2.
"""

import secrets
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

HEADER = "Content-Security-Policy"
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",  # uploaded images too: the app serves them
    "connect-src": "'self'",  # the API, and the websocket of the same host and port
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
TRUSTED_TYPES = {"require-trusted-types-for": "'script'", "trusted-types": "'none'"}
DEBUG_STATUSES = {404, 500}


@sync_and_async_middleware
def content_security_policy(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Add the policy to responses that have none of their own, as downloads have."""
    if iscoroutinefunction(get_response):

        async def async_middleware(request: HttpRequest) -> HttpResponseBase:
            waiting: Awaitable[HttpResponseBase] = get_response(request)
            return protected(request, await waiting)

        return async_middleware
    return lambda request: protected(request, get_response(request))


def offer_nonce(request: HttpRequest) -> None:
    """Allow the page one inline script, its import map: its template reads the nonce, and the policy names it."""
    request.csp_nonce = secrets.token_urlsafe(16)  # type: ignore[attr-defined]


def protected(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Return `response` with the policy that `request` calls for, unless it has one already."""
    response.headers.setdefault(HEADER, "; ".join(f"{name} {value}" for name, value in policy(request, response)))
    return response


def policy(request: HttpRequest, response: HttpResponseBase) -> list[tuple[str, str]]:
    """Return the directives for a response, by name.

    Django's admin builds HTML from strings, and Django's debug pages have their styles inside; nothing else of the
    policy is relaxed for them.
    """
    directives = dict(POLICY)
    if request.resolver_match is None or request.resolver_match.app_names[:1] != ["admin"]:
        directives |= TRUSTED_TYPES
    nonce = getattr(request, "csp_nonce", None)
    if nonce is not None:
        directives["script-src"] += f" 'nonce-{nonce}'"
    if settings.DEBUG and response.status_code in DEBUG_STATUSES:
        directives["style-src"] += " 'unsafe-inline'"
    return list(directives.items())

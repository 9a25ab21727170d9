"""Send a strict Content-Security-Policy with every response of the demo.

Pages may load only the site's own files. Scripts and styles inside a page are not allowed. Django 6 can do the same
with `SECURE_CSP` and its own middleware, but the demo also runs on Django 5.2.
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
    # Images that users upload are allowed too, because this site serves them.
    "img-src": "'self'",
    # This allows requests to the API, and the websocket on the same host and port.
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
TRUSTED_TYPES = {"require-trusted-types-for": "'script'", "trusted-types": "'none'"}
DEBUG_STATUSES = {404, 500}


@sync_and_async_middleware
def content_security_policy(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Add the policy to every response without a policy. Downloads, for example, already have their own policy."""
    if iscoroutinefunction(get_response):

        async def async_middleware(request: HttpRequest) -> HttpResponseBase:
            waiting: Awaitable[HttpResponseBase] = get_response(request)
            return protected(request, await waiting)

        return async_middleware
    return lambda request: protected(request, get_response(request))


def offer_nonce(request: HttpRequest) -> None:
    """Create a nonce that allows the page's only inline script, its import map. The template adds the nonce to the
    script, and the middleware adds it to the policy.
    """
    request.csp_nonce = secrets.token_urlsafe(16)  # type: ignore[attr-defined]


def protected(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Return `response` with the policy for `request`, unless the response already has a policy."""
    response.headers.setdefault(HEADER, "; ".join(f"{name} {value}" for name, value in policy(request, response)))
    return response


def policy(request: HttpRequest, response: HttpResponseBase) -> list[tuple[str, str]]:
    """Return the directives for a response, as pairs of name and value.

    Two kinds of pages have a weaker policy. On pages of Django's admin, trusted types are not required, because the
    admin builds HTML from strings. Django's debug pages may use inline styles.
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

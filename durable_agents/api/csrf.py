"""Protect visitors from cross-site request forgery. A visitor is not signed in; the policy identifies visitors by their
session alone.

REST framework checks the CSRF token of signed-in callers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import RequestDataTooBig
from django.http import HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.middleware.csrf import get_token
from rest_framework.authentication import CSRFCheck, SessionAuthentication
from rest_framework.exceptions import ParseError, PermissionDenied, UnsupportedMediaType
from rest_framework.request import Request

from durable_agents.conf import csrf_header, session_cookie_name
from durable_agents.exceptions import TooLargeError

_OF_BODIES = (ParseError, UnsupportedMediaType, TooLargeError, RequestDataTooBig, MultiPartParserError)


def check_visitor(request: Request) -> None:
    """Require Django's CSRF token from a visitor who has a session, as REST framework does from a signed-in user.

    A request without a session cookie cannot act in a visitor's name, so it needs no token. But a request from
    another site is refused, because its response would replace the visitor's session with a new session.
    Raises PermissionDenied.
    """
    needs_token = session_cookie_name() in request.COOKIES
    if not needs_token and "HTTP_ORIGIN" in request.META:
        # This runs only Django's Origin check, which has no public method. tests/policies/test_visitors.py fails if
        # Django changes the check. The full CSRF check would refuse every visitor's first request, because the CSRF
        # cookie is not set yet.
        verified = CSRFCheck(lambda _: HttpResponse())._origin_verified  # type: ignore[attr-defined]
        needs_token = not verified(request._request)
    if needs_token:
        SessionAuthentication().enforce_csrf(request)


@contextmanager
def token_before_body(request: Request) -> Iterator[None]:
    """Convert an error about the body to PermissionDenied, if the request has no header with a CSRF token.

    REST framework's CSRF check parses the body to look for a token in a form. Without this conversion, an invalid body
    would be reported before the missing token.
    """
    try:
        yield
    except _OF_BODIES as error:
        if csrf_header() in request.META:
            raise
        raise PermissionDenied("CSRF Failed: Send the CSRF token in its header.") from error


def send_token(request: Request) -> None:
    """Set the CSRF cookie on the response. A visitor has not signed in, so no login page has set this cookie."""
    get_token(request._request)

"""Protect visitors from cross-site request forgery. A visitor is a caller whom a policy identifies by the session
alone.

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

    For a visitor without a session, there is nothing to forge. Then only requests from pages of other sites are
    refused, because the response would replace the visitor's session with a new one. Raises PermissionDenied.
    """
    needs_token = session_cookie_name() in request.COOKIES
    if not needs_token and "HTTP_ORIGIN" in request.META:
        # Django has no public method for this half of its check; tests/policies/test_visitors.py fails if the method
        # changes. The whole check would refuse the first request of every visitor, who has no CSRF cookie yet.
        verified = CSRFCheck(lambda _: HttpResponse())._origin_verified  # type: ignore[attr-defined]
        needs_token = not verified(request._request)
    if needs_token:
        SessionAuthentication().enforce_csrf(request)


@contextmanager
def token_before_body(request: Request) -> Iterator[None]:
    """Raise PermissionDenied for a request without a token in its header, even if the body is invalid too. To look for
    a token in a form, REST framework's check parses the body, whatever its type.
    """
    try:
        yield
    except _OF_BODIES as error:
        if csrf_header() in request.META:
            raise
        raise PermissionDenied("CSRF Failed: Send the CSRF token in its header.") from error


def send_token(request: Request) -> None:
    """Send the CSRF cookie with the response, because no sign-in has set it for a visitor."""
    get_token(request._request)

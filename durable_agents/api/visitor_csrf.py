"""Protect visitors from cross-site request forgery. A visitor is not signed in; the policy recognises a visitor only by
the session.

This module is needed because REST framework checks the CSRF token of signed-in callers only.
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

_FAILED = "CSRF Failed"
"""The first words of every error detail about a CSRF token, from REST framework's ``SessionAuthentication``."""
_OF_BODIES = (ParseError, UnsupportedMediaType, TooLargeError, RequestDataTooBig, MultiPartParserError)


def check_visitor(request: Request) -> None:
    """Check Django's CSRF token if the visitor's request has a session cookie or comes from another site.

    A request with a session cookie acts in the visitor's name, so it needs a token.

    A request from another site needs a token although it has no session cookie. The visitor's browser may keep a
    session cookie but leave it out of cross-site requests. The response to an unchecked request would set a new session
    cookie, which would overwrite the cookie in the browser. The visitor's session would be lost.

    Raises PermissionDenied.
    """
    needs_token = session_cookie_name() in request.COOKIES
    if not needs_token and "HTTP_ORIGIN" in request.META:
        # Django has no public method that checks only the Origin header. The full CSRF check would refuse every
        # visitor's first request, because the CSRF cookie is not set yet. If Django changes this private method,
        # tests/policies/test_visitors.py fails.
        verified = CSRFCheck(lambda _: HttpResponse())._origin_verified  # type: ignore[attr-defined]
        needs_token = not verified(request._request)
    if needs_token:
        SessionAuthentication().enforce_csrf(request)


@contextmanager
def token_before_body(request: Request) -> Iterator[None]:
    """Replace an error about the body by PermissionDenied if the request has no header with a CSRF token.

    If the header is missing, REST framework's CSRF check parses the body to look for a token in a form. An invalid body
    then raises an error. The client gets PermissionDenied instead, because the missing token is the first problem.
    """
    try:
        yield
    except _OF_BODIES as error:
        if csrf_header() in request.META:
            raise
        raise PermissionDenied(f"{_FAILED}: Send the CSRF token in its header.") from error


def is_csrf_failure(detail: str) -> bool:
    """Return whether the detail of an error is about a CSRF token that is missing or wrong."""
    return detail.startswith(_FAILED)


def send_token(request: Request) -> None:
    """Set the CSRF cookie on the response. A visitor has not signed in, so no login page has set this cookie."""
    get_token(request._request)

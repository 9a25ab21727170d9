"""Protect visitors from cross-site request forgery.

A visitor is a caller who is not signed in, and whom the policy recognises only by the session. REST framework checks
the CSRF token of signed-in callers only, so this module checks the token of visitors.
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
"""REST framework's ``SessionAuthentication`` begins every error detail about a CSRF token with these words."""
_OF_BODIES = (ParseError, UnsupportedMediaType, TooLargeError, RequestDataTooBig, MultiPartParserError)


def check_visitor(request: Request) -> None:
    """Check the CSRF token of a visitor's request if the request needs one. Raises PermissionDenied.

    - A request with a session cookie needs a token, because it acts in the visitor's name.
    - A request from another site needs a token even without a session cookie. The browser may have a session cookie,
      but not send it from other sites. The response to an unchecked request would replace this cookie, and the visitor
      would lose the session.
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
    """Raise PermissionDenied if the body cannot be read in this block and the CSRF header is missing.

    Without the header, REST framework looks for the CSRF token in the body. If the body is invalid as well, the client
    should first learn about the missing token.
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

"""Handle the exceptions of the API: the response to every error is ``{"code", "detail"}``.

``code`` is stable and meant for programs; ``detail`` is a text for people. If the code has a translation in the user's
language, ``detail`` is this translation. The detail of a CSRF failure is always in English.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import Error
from django.http import Http404
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions
from rest_framework.response import Response

from durable_agents.api.visitor_csrf import is_csrf_failure
from durable_agents.chat_texts import localized
from durable_agents.database_connections import discard_after, is_outage
from durable_agents.exceptions import DatabaseUnavailableError, DurableAgentsError, TooLargeError
from durable_agents.logs import log_error
from durable_agents.strictjson import clean


class CallerError(exceptions.APIException):
    """A ``DurableAgentsError`` as a REST framework exception."""

    def __init__(self, error: DurableAgentsError) -> None:
        super().__init__(str(error), error.code)
        self.status_code = error.status_code or self.status_code
        self.default_code = error.code
        self.wait: float | None = getattr(error, "retry_after_seconds", None)


def answer(error: Exception, context: Mapping[str, object]) -> Response | None:
    """Return the response to an exception that a view of this API raised; None for an internal error.

    Nothing is rolled back here, because each state change has its own transaction.
    """
    problem = _translated(error)
    if not isinstance(problem, exceptions.APIException):
        return None
    # ``get_codes()`` returns a dict for a validation error of several fields.
    codes = problem.get_codes()
    code = codes if isinstance(codes, str) else problem.default_code
    headers = {}
    # Set the headers WWW-Authenticate and Retry-After here. REST framework's exception handler would set them, but this
    # function replaces it.
    challenge = getattr(problem, "auth_header", None)
    if challenge:
        headers["WWW-Authenticate"] = challenge
    wait_seconds = getattr(problem, "wait", None)
    if wait_seconds is not None:
        headers["Retry-After"] = str(ceil(wait_seconds))
    # The error text may quote the request. Replace lone surrogates, because UTF-8 cannot encode them.
    detail = clean(_text(problem.detail))
    # Do not translate the text of a CSRF error. Only the original text says what the client has to send.
    data = {"code": code, "detail": detail if is_csrf_failure(detail) else localized(code, detail)}
    return Response(data, status=problem.status_code, headers=headers)


def _translated(error: Exception) -> Exception:
    """Convert an error with a known HTTP status to a REST framework exception. Return any other error unchanged."""
    if isinstance(error, Error) and is_outage(error):
        log_error("the database does not answer", action="request")
        # A connection that was opened during a failover can stay read-only. Close it; the next query opens a new one.
        discard_after(error)
        error = DatabaseUnavailableError()
    if isinstance(error, RequestDataTooBig):
        error = TooLargeError("The request is too large.")
    if isinstance(error, DurableAgentsError) and error.status_code is not None:
        return CallerError(error)
    if isinstance(error, Http404):
        return exceptions.NotFound()
    if isinstance(error, SuspiciousOperation | MultiPartParserError):
        return exceptions.ParseError(f"The body is not acceptable: {error}")
    if isinstance(error, PermissionDenied):
        return exceptions.PermissionDenied()
    return error


def _text(detail: object) -> str:
    """Join REST framework's nested lists and dicts of texts into one text."""
    if isinstance(detail, dict):
        texts = [(str(name), _text(item)) for name, item in detail.items()]
        return "; ".join(text if name in {"detail", "non_field_errors"} else f"{name}: {text}" for name, text in texts)
    if isinstance(detail, list | tuple):
        return "; ".join(_text(item) for item in detail)
    return str(detail)

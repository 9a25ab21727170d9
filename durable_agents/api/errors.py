"""Hides the many ways in which a request can fail: every error leaves as ``{"code", "detail"}``.

``code`` is stable and for programs, ``detail`` is one text for people.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.http import Http404
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions
from rest_framework.response import Response

from durable_agents.exceptions import DurableAgentsError, ThrottledError, TooLargeError
from durable_agents.strictjson import clean


class CallerError(exceptions.APIException):
    """An error of this package in the terms of REST framework."""

    def __init__(self, error: DurableAgentsError) -> None:
        super().__init__(str(error), error.code)
        self.status_code = error.status_code or self.status_code
        self.default_code = error.code
        self.wait = error.retry_after_seconds if isinstance(error, ThrottledError) else None


def answer(error: Exception, context: dict[str, Any]) -> Response | None:
    """The response to an exception raised in one of our views; None for one that is nobody's fault but ours.

    There is nothing to roll back: what an arrow wrote before it failed is undone already.
    """
    problem = _translated(error)
    if not isinstance(problem, exceptions.APIException):
        return None
    data = {"code": _code(problem), "detail": clean(_text(problem.detail))}
    return Response(data, status=problem.status_code, headers=dict(_headers(problem)))


def _headers(problem: exceptions.APIException) -> Iterator[tuple[str, str]]:
    """How to sign in, or how long to wait."""
    challenge = getattr(problem, "auth_header", None)
    if challenge:
        yield "WWW-Authenticate", challenge
    wait_seconds = getattr(problem, "wait", None)
    if wait_seconds is not None:
        yield "Retry-After", str(ceil(wait_seconds))


def _translated(error: Exception) -> Exception:
    """The error as one of REST framework's, where it is the caller's."""
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


def _code(error: exceptions.APIException) -> str:
    """The code of the error itself; errors of many fields have the one of their kind."""
    codes = error.get_codes()
    return codes if isinstance(codes, str) else error.default_code


def _text(detail: Any) -> str:
    """One text out of REST framework's texts, lists and dicts of them."""
    if isinstance(detail, dict):
        return "; ".join(_named(str(name), item) for name, item in detail.items())
    if isinstance(detail, list | tuple):
        return "; ".join(_text(item) for item in detail)
    return str(detail)


def _named(name: str, detail: Any) -> str:
    text = _text(detail)
    return text if name in {"detail", "non_field_errors"} else f"{name}: {text}"

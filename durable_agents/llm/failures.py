"""Hides how litellm fails: the meaning of each of its errors, by class, status and text."""

from __future__ import annotations

import re

from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.redaction import described

_KIND_BY_CLASS = (  # subclasses first: several of litellm's errors derive from each other
    ("ContextWindowExceededError", ErrorKind.CONTEXT_WINDOW_EXCEEDED),
    ("ContentPolicyViolationError", ErrorKind.CONTENT_POLICY),
    ("BudgetExceededError", ErrorKind.INSUFFICIENT_CREDITS),
    ("AuthenticationError", ErrorKind.AUTH),
    ("PermissionDeniedError", ErrorKind.AUTH),
    ("RateLimitError", ErrorKind.RATE_LIMITED),
    ("Timeout", ErrorKind.NETWORK),
    ("APIConnectionError", ErrorKind.NETWORK),
)
_KIND_BY_STATUS = {
    400: ErrorKind.INVALID_REQUEST,
    401: ErrorKind.AUTH,
    402: ErrorKind.INSUFFICIENT_CREDITS,
    403: ErrorKind.AUTH,
    404: ErrorKind.INVALID_REQUEST,
    408: ErrorKind.NETWORK,
    409: ErrorKind.PROVIDER_5XX,
    413: ErrorKind.CONTEXT_WINDOW_EXCEEDED,
    422: ErrorKind.INVALID_REQUEST,
    429: ErrorKind.RATE_LIMITED,
}


_BY_TEXT = (
    (
        ErrorKind.RATE_LIMITED,
        re.compile(r"insufficient_quota|billing|credit", re.IGNORECASE),
        ErrorKind.INSUFFICIENT_CREDITS,
    ),
    (ErrorKind.INVALID_REQUEST, re.compile("credit balance", re.IGNORECASE), ErrorKind.INSUFFICIENT_CREDITS),
    (ErrorKind.INVALID_REQUEST, re.compile("request_too_large"), ErrorKind.CONTEXT_WINDOW_EXCEEDED),
)
"""Kinds of which only the text tells that they are others: by kind, a text in them, the kind that they are."""
_RETRY_DELAY = re.compile(r"retryDelay\W+(\d+(?:\.\d+)?)s")
"""Google's wish to wait, within the text of its error."""


def model_error(error: Exception) -> ModelError:
    """The same failure in this package's words: by class first, then by HTTP status, then by text."""
    cause = _cause(error)
    kind = _kind(cause)
    changed = (other for known, text, other in _BY_TEXT if known is kind and text.search(str(cause)))
    kind = next(changed, kind)
    return ModelError(
        kind,
        described(error)[:4000],
        retryable=kind.retryable,
        retry_after_seconds=_retry_after_seconds(cause),
    )


def _cause(error: Exception) -> Exception:
    """What litellm has wrapped: an answer that broke off, or that never began."""
    original = getattr(error, "original_exception", None)
    return original if isinstance(original, Exception) else error


def _kind(error: Exception) -> ErrorKind:
    names = {base.__name__ for base in type(error).__mro__}
    for name, kind in _KIND_BY_CLASS:
        if name in names:
            return kind
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return ErrorKind.NETWORK if isinstance(error, OSError) else ErrorKind.UNKNOWN
    if status >= 500:
        return ErrorKind.NETWORK if "MidStreamFallbackError" in names else ErrorKind.PROVIDER_5XX
    return _KIND_BY_STATUS.get(status, ErrorKind.UNKNOWN)


def _retry_after_seconds(error: Exception) -> float | None:
    headers = getattr(error, "litellm_response_headers", None) or {}
    told = _RETRY_DELAY.search(str(error))
    try:
        return float(headers.get("retry-after") or (told.group(1) if told else ""))
    except ValueError:
        return None

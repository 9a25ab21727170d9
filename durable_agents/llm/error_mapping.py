"""Translate errors of providers and HTTP clients to ModelError, by their code, class, status and text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm.error_classification import (
    CONTEXT_CODES,
    CONTEXT_TEXTS,
    CREDIT_CODES,
    CREDIT_TEXTS,
    POLICY_CODES,
    POLICY_TEXTS,
    RATE_CODES,
    RATE_TEXTS,
    SUSPECTED_CONTEXT_TEXTS,
    SUSPECTED_CREDIT_TEXTS,
    SUSPECTED_RATE_TEXTS,
)
from durable_agents.llm.retry_after import requested_wait
from durable_agents.redaction import described, redacted

# Class names of errors from litellm and aiohttp. A subclass comes before its base class.
_KIND_BY_CLASS = (
    ("ContextWindowExceededError", ErrorKind.CONTEXT_WINDOW_EXCEEDED),
    ("ContentPolicyViolationError", ErrorKind.CONTENT_POLICY),
    ("BudgetExceededError", ErrorKind.INSUFFICIENT_CREDITS),
    ("AuthenticationError", ErrorKind.AUTH),
    ("PermissionDeniedError", ErrorKind.AUTH),
    ("RateLimitError", ErrorKind.RATE_LIMITED),
    ("Timeout", ErrorKind.NETWORK),
    ("APIConnectionError", ErrorKind.NETWORK),
    ("ClientConnectionError", ErrorKind.NETWORK),
    ("ClientPayloadError", ErrorKind.NETWORK),
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
    424: ErrorKind.PROVIDER_5XX,  # 424 is Bedrock's status for a failure of the model
    429: ErrorKind.RATE_LIMITED,
}
_CODE = re.compile(r"""['"](?:code|vendor_code|type|__type|status|reason)\\?['"]\s*:\s*\\?['"]?([A-Za-z0-9_.-]+)""")
_IN_BODY = re.compile(r"""['"](x-ratelimit-[\w-]+|retry-after)['"]\s*:\s*['"]?([^'",}]+)""", re.IGNORECASE)
"""Matches rate-limit headers in the body of an error. OpenRouter sends them there, in ``metadata.headers``."""
_FINAL_ANYWAY = frozenset({ErrorKind.AUTH, ErrorKind.INVALID_REQUEST})
_OF_CONNECTION = frozenset({"TransportError", "ClientConnectionError", "ClientPayloadError"})
"""Names of base classes of connection errors in httpx and aiohttp. Neither library is imported here, because a process
might use only one of them.
"""
_VAGUE = frozenset({ErrorKind.NETWORK, ErrorKind.PROVIDER_5XX, ErrorKind.UNKNOWN})
"""Kinds that say little about the cause of an error. For these kinds, the provider's codes and texts are examined,
too. litellm invents a status for an error within a stream, and this status leads to one of these kinds.
"""
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
"""Matches a JSON escape of a character. litellm's errors contain the provider's JSON, in which non-Latin characters can
be escaped.
"""
MAX_TEXT_CHARS = 20_000
"""At most this many characters of an error are read. Only HTML pages and errors that repeat the request are longer."""


def model_error(error: Exception, *, sent: str = "") -> ModelError:
    """Return a ModelError for an error of a provider or of an HTTP client.

    ``sent`` is the text of an error that the provider sent within an answer, after status 200.
    """
    report = Report(errors=tuple(chain_of(error)), sent=sent)
    kind = report.kind()
    wait = requested_wait(report.headers, report.text) if kind.retryable else None
    text = f"{described(error)} {redacted(sent)}".rstrip()
    return ModelError(kind, text[:4000], retryable=kind.retryable, retry_after_seconds=wait)


def is_of_connection(error: Exception) -> bool:
    """Return whether the error is a connection failure, such as a timeout or a closed connection.

    The data that arrived before such a failure is valid.
    """
    for cause in chain_of(error):
        names = {base.__name__ for base in type(cause).__mro__}
        if isinstance(cause, TimeoutError | ConnectionError) or names & _OF_CONNECTION:
            return True
    return False


def chain_of(error: Exception) -> Iterator[Exception]:
    """Yield the error and its causes.

    litellm wraps or converts the original error, and sometimes loses the provider's code. The causes still have the
    code.
    """
    waiting: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, Exception) and cause not in seen:
            seen.append(cause)
            yield cause
            waiting += [getattr(cause, "original_exception", None), cause.__cause__, cause.__context__]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The codes, statuses, headers and texts of a failed call, collected from an exception and its causes."""

    errors: tuple[Exception, ...]
    """The exception and its causes. litellm's exception comes first, and the HTTP client's exception comes last."""
    sent: str = ""

    @cached_property
    def text(self) -> str:
        """The texts and bodies of all errors. The last text is ``sent``, the error that arrived within the answer."""
        bodies = (getattr(error, "body", None) for error in self.errors)
        texts = [*map(str, self.errors), *(str(body) for body in bodies if body), self.sent]
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), "\n".join(text[:MAX_TEXT_CHARS] for text in texts))

    @cached_property
    def codes(self) -> frozenset[str]:
        """The codes and types in the provider's error, in lower case."""
        given = (getattr(error, "code", None) for error in self.errors)
        found = {*_CODE.findall(self.text), *(code for code in given if isinstance(code, str))}
        return frozenset(code.lower() for code in found)

    @cached_property
    def statuses(self) -> frozenset[int]:
        """The HTTP statuses of the errors. A provider's code from 400 to 599 also counts as a status."""
        given = {status for error in self.errors if isinstance(status := getattr(error, "status_code", None), int)}
        return frozenset(given | {int(code) for code in self.codes if re.fullmatch("[45]\\d\\d", code)})

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers of the error response, with names in lower case."""
        found: dict[str, str] = {}
        for error in reversed(self.errors):
            own = (getattr(place, "headers", None) for place in (getattr(error, "response", None), error))
            for given in (*own, getattr(error, "litellm_response_headers", None)):
                found |= {str(name).lower(): str(value) for name, value in dict(given or {}).items()}
        return found | {name.lower(): value for name, value in _IN_BODY.findall(self.text)}

    def kind(self) -> ErrorKind:
        """Return the kind of the failure.

        If the provider's codes or texts report a problem with the balance, rate limits or the length of the history,
        return the kind of this problem. Codes and texts are more reliable than the class and the status of the error.
        """
        if 402 in self.statuses or self.codes & CREDIT_CODES or CREDIT_TEXTS.search(self.text):
            return ErrorKind.INSUFFICIENT_CREDITS
        if RATE_TEXTS.search(self.text):
            return ErrorKind.RATE_LIMITED
        if self.codes & CONTEXT_CODES or CONTEXT_TEXTS.search(self.text):
            return ErrorKind.CONTEXT_WINDOW_EXCEEDED
        kind = kind_by_class(self.errors)
        if kind in _VAGUE:
            return self.kind_within_answer() or kind
        if kind in _FINAL_ANYWAY and SUSPECTED_CREDIT_TEXTS.search(self.text):
            return ErrorKind.INSUFFICIENT_CREDITS
        return self.kind_of_invalid() if kind is ErrorKind.INVALID_REQUEST else kind

    def kind_of_invalid(self) -> ErrorKind:
        """Return the kind of error for a request that the provider refused as invalid."""
        if self.codes & POLICY_CODES or POLICY_TEXTS.search(self.text):
            return ErrorKind.CONTENT_POLICY
        if SUSPECTED_CONTEXT_TEXTS.search(self.text):
            return ErrorKind.CONTEXT_WINDOW_EXCEEDED
        return ErrorKind.INVALID_REQUEST

    def kind_within_answer(self) -> ErrorKind | None:
        """Return the kind of an error that has no HTTP status of its own.

        The provider's codes and text determine the kind. Return None if they do not show the kind.
        """
        if self.codes & RATE_CODES or 429 in self.statuses:
            return ErrorKind.RATE_LIMITED
        if not self.sent:
            return None
        if SUSPECTED_RATE_TEXTS.search(self.sent):
            return ErrorKind.RATE_LIMITED
        statuses = sorted(int(code) for code in _CODE.findall(self.sent) if re.fullmatch("4\\d\\d", code))
        return next((_KIND_BY_STATUS[status] for status in statuses if status in _KIND_BY_STATUS), None)


def kind_by_class(errors: tuple[Exception, ...]) -> ErrorKind:
    """Return the kind of the first error whose class or status is known.

    If litellm's exception contains an original exception, look at the original first. litellm's exception might say
    only that the stream broke off.
    """
    first = getattr(errors[0], "original_exception", None)
    ordered = [first, *errors] if isinstance(first, Exception) else [*errors]
    known = (kind for error in ordered if (kind := kind_of(error)) is not ErrorKind.UNKNOWN)
    return next(known, ErrorKind.UNKNOWN)


def kind_of(error: Exception) -> ErrorKind:
    """Return the kind of one error by the name of its class. If the name is not known, use the status."""
    if isinstance(error, ModelError):
        return error.kind
    # Compare classes by name, because litellm's errors have the same names as the openai errors that they wrap.
    names = {base.__name__ for base in type(error).__mro__}
    for name, kind in _KIND_BY_CLASS:
        if name in names:
            return kind
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return ErrorKind.NETWORK if isinstance(error, OSError) else ErrorKind.UNKNOWN
    if status >= 500:
        is_of_network = status == 504 or "MidStreamFallbackError" in names
        return ErrorKind.NETWORK if is_of_network else ErrorKind.PROVIDER_5XX
    return _KIND_BY_STATUS.get(status, ErrorKind.UNKNOWN)

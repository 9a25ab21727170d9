"""Hides which errors an operation can answer: by what is in its path, what it takes, and what it says itself.

Each is a status, a stable code, what it means, and a ``detail`` as it may read.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from durable_agents import exceptions
from durable_agents.api.operations import Operation
from durable_agents.exceptions import DurableAgentsError

_ID = "5f3c1b0e-8a4d-4f6b-9c27-1d2e3f405162"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One error: its ``meaning`` is for whoever reads the schema, ``detail`` an example of what callers read."""

    status: int
    code: str
    meaning: str
    detail: str


_UNKNOWN_CALLER = [
    Problem(
        status=status,
        code=code,
        meaning=meaning if status == 401 else f"{meaning} So where the project looks for a session first.",
        detail=detail,
    )
    for status in (401, 403)
    for code, meaning, detail in (
        ("not_authenticated", "Nobody is signed in.", "Authentication credentials were not provided."),
        ("authentication_failed", "The credentials are not accepted.", "Invalid token."),
    )
]
_INVALID = Problem(
    status=400,
    code="invalid",
    meaning="A field or parameter is missing or wrong; the detail names it.",
    detail="title: Ensure this field has no more than 200 characters.",
)
_OF_BODIES = [
    _INVALID,
    Problem(
        status=400,
        code="parse_error",
        meaning="The body is not strict JSON.",
        detail="The body is not JSON: Expecting value: line 1 column 1 (char 0).",
    ),
    Problem(
        status=400,
        code="too_deep",
        meaning="The body nests deeper than MAX_JSON_DEPTH.",
        detail="The body is not acceptable: it nests more than 32 deep.",
    ),
    Problem(
        status=415,
        code="unsupported_media_type",
        meaning="The body is of a type that is not taken here.",
        detail='Unsupported media type "text/plain" in request.',
    ),
]
_THROTTLED = Problem(
    status=429,
    code="throttled",
    meaning="More requests than the project's own limits allow.",
    detail="Request was throttled. Expected available in 42 seconds.",
)
_DETAILS = {
    "agent_required": str(exceptions.AgentRequiredError()),
    "agent_not_found": str(exceptions.AgentNotFoundError("suport")),
    "approval_expired": str(exceptions.ApprovalExpiredError("call_7Qe2")),
    "attachment_not_found": str(exceptions.AttachmentNotFoundError(_ID)),
    "asgi_required": str(exceptions.AsgiRequiredError()),
    "invalid_cursor": "The cursor is invalid.",
    "invalid_parts": "A user message cannot have a part of type 'reasoning'; allowed: text, file.",
    "message_not_found": str(exceptions.MessageNotFoundError("msg-12")),
    "permission_denied": "You may not approve tool call 'call_7Qe2'.",
    "requests_throttled": "At most 600 requests in 60 s. Wait 42 s, then try again.",
    "sends_throttled": "At most 30 messages and other beginnings of runs in 60 s. Wait 42 s, then try again.",
    "thread_busy": str(exceptions.ThreadBusyError(_ID)),
    "thread_not_found": str(exceptions.ThreadNotFoundError(_ID)),
    "too_large": "The request has more than 262144 bytes.",
    "too_many_running": str(exceptions.TooManyRunningError(3)),
    "tool_call_not_found": str(exceptions.ToolCallNotFoundError("call_7Qe2")),
    "tool_call_not_pending": str(exceptions.ToolCallNotPendingError("call_7Qe2", "completed")),
}
_NAMED_IN_PATH = {
    "thread_id": exceptions.ThreadNotFoundError,
    "message_id": exceptions.MessageNotFoundError,
    "tool_call_id": exceptions.ToolCallNotFoundError,
    "attachment_id": exceptions.AttachmentNotFoundError,
}


def problems_of(operation: Operation, path: str) -> list[Problem]:
    """The errors of an operation, by status and code, each once."""
    found = {(problem.status, problem.code): problem for problem in _problems(operation, path)}
    return [found[key] for key in sorted(found)]


def _problems(operation: Operation, path: str) -> Iterator[Problem]:
    yield from _UNKNOWN_CALLER
    yield of_error(exceptions.PermissionDeniedError)
    yield from (of_error(error) for name, error in _NAMED_IN_PATH.items() if f"{{{name}}}" in path)
    if operation.body:
        yield from _OF_BODIES
        yield of_error(exceptions.TooLargeError)
    if operation.query:
        yield _INVALID
    if operation.is_paged or (operation.query and "cursor" in operation.query().fields):
        yield of_error(exceptions.InvalidCursorError)
    yield from (of_error(error) for error in operation.raises)
    yield _THROTTLED
    yield of_error(exceptions.RequestsThrottledError)
    if operation.sends:
        yield of_error(exceptions.SendsThrottledError)
        yield of_error(exceptions.TooManyRunningError)


def of_error(error: type[DurableAgentsError]) -> Problem:
    """An error of this package; what it means is the first paragraph of its docstring."""
    meaning = " ".join((inspect.getdoc(error) or "").partition("\n\n")[0].split())
    detail = _DETAILS.get(error.code, meaning)
    return Problem(status=error.status_code or 500, code=error.code, meaning=meaning, detail=detail)

"""List the errors that each operation of the API can return. Some errors are derived from the operation's path and
input. The operation declares the others.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from durable_agents import exceptions
from durable_agents.api.openapi.operation_decorator import Operation
from durable_agents.exceptions import DurableAgentsError
from durable_agents.policies import ALLOWED_WITHOUT_AGENT

_ID = "5f3c1b0e-8a4d-4f6b-9c27-1d2e3f405162"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error that an operation can return. ``meaning`` is its description in the schema. ``detail`` is an example of
    the response's ``detail`` field.
    """

    status: int
    code: str
    meaning: str
    detail: str


_UNKNOWN_CALLER = [
    Problem(
        status=status,
        code=code,
        meaning=meaning if status == 401 else f"{meaning} The status is 403 in projects that look for a session first.",
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
        meaning="The media type of the body is not accepted here.",
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
    "agent_not_found": str(exceptions.AgentNotFoundError("suport", public=True)),
    "agent_removed": str(exceptions.AgentRemovedError("concierge")),
    "approval_expired": str(exceptions.ApprovalExpiredError("call_7Qe2")),
    "attachment_not_found": str(exceptions.AttachmentNotFoundError(_ID)),
    "asgi_required": str(exceptions.AsgiRequiredError()),
    "database_unavailable": str(exceptions.DatabaseUnavailableError()),
    "idempotency_key_reused": str(exceptions.IdempotencyKeyReusedError("msg-12")),
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
    "too_many_streams": str(exceptions.TooManyStreamsError(50)),
    "tool_call_not_found": str(exceptions.ToolCallNotFoundError("call_7Qe2")),
    "tool_changed": str(
        exceptions.ToolChangedError("call_7Qe2", "Invalid arguments for pay: currency: Field required")
    ),
    "tool_call_not_pending": str(exceptions.ToolCallNotPendingError("call_7Qe2", "completed")),
}
_NAMED_IN_PATH = {
    "thread_id": exceptions.ThreadNotFoundError,
    "message_id": exceptions.MessageNotFoundError,
    "tool_call_id": exceptions.ToolCallNotFoundError,
    "attachment_id": exceptions.AttachmentNotFoundError,
}


def problems_of(operation: Operation, path: str) -> list[Problem]:
    """Return the errors of an operation without duplicates, sorted by status and code."""
    declared = [*_UNKNOWN_CALLER, _THROTTLED]
    # The project's throttle classes (code ``throttled``) and the ``THROTTLES`` setting (code ``requests_throttled``)
    # can both refuse a request.
    errors = [
        exceptions.PermissionDeniedError,
        exceptions.RequestsThrottledError,
        exceptions.DatabaseUnavailableError,
        *(error for name, error in _NAMED_IN_PATH.items() if f"{{{name}}}" in path),
        *operation.raises,
    ]
    if operation.body:
        declared += _OF_BODIES
        errors.append(exceptions.TooLargeError)
    if operation.query:
        declared.append(_INVALID)
    if operation.is_paged or (operation.query and "cursor" in operation.query().fields):
        errors.append(exceptions.InvalidCursorError)
    if "{thread_id}" in path and operation.action not in ALLOWED_WITHOUT_AGENT:
        errors.append(exceptions.AgentRemovedError)
    if operation.sends:
        errors += [exceptions.SendsThrottledError, exceptions.TooManyRunningError]
    by_key = {(problem.status, problem.code): problem for problem in declared + [of_error(error) for error in errors]}
    return [by_key[key] for key in sorted(by_key)]


def of_error(error: type[DurableAgentsError]) -> Problem:
    """Return the ``Problem`` for an error class. The ``meaning`` is the first paragraph of the class's docstring."""
    meaning = " ".join((inspect.getdoc(error) or "").partition("\n\n")[0].split())
    detail = _DETAILS.get(error.code, meaning)
    return Problem(status=error.status_code or 500, code=error.code, meaning=meaning, detail=detail)

"""Every error that this package raises, as one tree.

    DurableAgentsError                 code                       status_code
    ├── ThreadNotFoundError            thread_not_found           404
    ├── AgentNotFoundError             agent_not_found            400
    ├── AgentRequiredError             agent_required             400
    ├── AttachmentNotFoundError        attachment_not_found       404
    ├── ThreadBusyError                thread_busy                409
    ├── MessageNotFoundError           message_not_found          404
    ├── ToolCallNotFoundError          tool_call_not_found        404
    ├── ToolCallNotPendingError        tool_call_not_pending      409
    ├── ApprovalExpiredError           approval_expired           409
    ├── IdempotencyKeyReusedError      idempotency_key_reused     409
    ├── ToolChangedError               tool_changed               409
    ├── InvalidPartsError              invalid_parts              400
    ├── InvalidCursorError             invalid_cursor             400
    ├── PermissionDeniedError          permission_denied          403
    ├── TooLargeError                  too_large                  413
    ├── UnsupportedMediaTypeError      unsupported_media_type     415
    ├── AsgiRequiredError              asgi_required              501
    ├── DatabaseUnavailableError       database_unavailable       503
    ├── ThrottledError                 throttled                  429
    │   ├── RequestsThrottledError     requests_throttled         429
    │   ├── SendsThrottledError        sends_throttled            429
    │   └── TooManyRunningError        too_many_running           429
    ├── InvalidFrameError              invalid_frame              (on the websocket only, never an HTTP answer)
    ├── UnknownFrameTypeError          unknown_type               (on the websocket only, never an HTTP answer)
    ├── TooManySubscriptionsError      too_many_subscriptions     (on the websocket only, never an HTTP answer)
    ├── ToolError                      tool_error                 (sent to the model, never an HTTP answer)
    ├── ModelError                     the error kind             (a failed attempt at a model call)
    ├── LeaseLostError                 lease_lost                 (the row has another holder: give up quietly)
    └── WaitTimeoutError               wait_timeout               (``wait_for_thread`` gave up)

``code`` is stable and safe to show; ``str(error)`` names the identifiers and says what to do.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class DurableAgentsError(Exception):
    """Root of all errors of this package."""

    code: ClassVar[str] = "error"
    status_code: ClassVar[int | None] = None


class ThreadNotFoundError(DurableAgentsError):
    """No thread with this id exists for the caller."""

    code = "thread_not_found"
    status_code = 404

    def __init__(self, thread_id: object) -> None:
        super().__init__(f"There is no thread {thread_id!s} that you may see.")


class AgentNotFoundError(DurableAgentsError):
    """No agent of this name is registered (or none that is public)."""

    code = "agent_not_found"
    status_code = 400

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no agent {name!r}. Declare it in an agents.py of an installed app.")


class AttachmentNotFoundError(DurableAgentsError):
    """No attachment with this id exists for the caller."""

    code = "attachment_not_found"
    status_code = 404

    def __init__(self, attachment_id: object) -> None:
        super().__init__(f"There is no attachment {attachment_id!s} that you may see.")


class AgentRequiredError(DurableAgentsError):
    """A new thread needs an agent, and nothing says which."""

    code = "agent_required"
    status_code = 400

    def __init__(self) -> None:
        super().__init__("Say which agent: in the path (chat/<agent>), in the body (agent), or by DEFAULT_AGENT.")


class AsgiRequiredError(DurableAgentsError):
    """The response would go on for as long as a run does, and the server runs this project under WSGI."""

    code = "asgi_required"
    status_code = 501

    def __init__(self) -> None:
        super().__init__("Streams need an ASGI server such as daphne. Under WSGI, poll messages/?streams=1.")


class ThreadBusyError(DurableAgentsError):
    """The operation needs a thread at rest, or an agent that takes messages while a run is on."""

    code = "thread_busy"
    status_code = 409

    def __init__(self, thread_id: object) -> None:
        super().__init__(f"Thread {thread_id!s} has a run going on. Wait until it is at rest, or stop it first.")


class MessageNotFoundError(DurableAgentsError):
    """The thread shows no message of this id."""

    code = "message_not_found"
    status_code = 404

    def __init__(self, message_id: object) -> None:
        super().__init__(f"The thread has no message {message_id!s}. It may have been edited or regenerated away.")


class ToolCallNotFoundError(DurableAgentsError):
    """The thread has no tool call of this id."""

    code = "tool_call_not_found"
    status_code = 404

    def __init__(self, tool_call_id: str) -> None:
        super().__init__(f"There is no tool call {tool_call_id!r} in this thread.")


class ToolCallNotPendingError(DurableAgentsError):
    """The tool call has an outcome already, and not this one."""

    code = "tool_call_not_pending"
    status_code = 409

    def __init__(self, tool_call_id: str, status: str) -> None:
        super().__init__(f"Tool call {tool_call_id!r} is {status}: it does not wait for an outcome any more.")


class ApprovalExpiredError(DurableAgentsError):
    """The decision came after the approval's deadline."""

    code = "approval_expired"
    status_code = 409

    def __init__(self, tool_call_id: str) -> None:
        super().__init__(f"The approval of tool call {tool_call_id!r} has expired. Send a message to go on.")


class IdempotencyKeyReusedError(DurableAgentsError):
    """The idempotency key, or the client's own id, has been used for something else.

    A request that is repeated after a lost connection is the same request. Another one needs a key or id of its own.
    """

    code = "idempotency_key_reused"
    status_code = 409

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} has been used for another request. Choose a new key or id for this one.")


class ToolChangedError(DurableAgentsError):
    """The tool has changed since the call was made, and the arguments do not fit any more: the call has failed."""

    code = "tool_changed"
    status_code = 409

    def __init__(self, tool_call_id: str, problem: str) -> None:
        super().__init__(f"Tool call {tool_call_id!r} did not run. {problem}")


class InvalidPartsError(DurableAgentsError):
    """The message parts are not UI message parts that a user may send."""

    code = "invalid_parts"
    status_code = 400


class InvalidCursorError(DurableAgentsError):
    """The cursor is none that this thread has given out."""

    code = "invalid_cursor"
    status_code = 400

    def __init__(self, cursor: object) -> None:
        super().__init__(f"{str(cursor)[:100]!r} is no cursor of this thread. Begin anew without one.")


class PermissionDeniedError(DurableAgentsError):
    """The policy does not allow the caller to do this."""

    code = "permission_denied"
    status_code = 403


class TooLargeError(DurableAgentsError):
    """Text, body or result over its limit."""

    code = "too_large"
    status_code = 413


class UnsupportedMediaTypeError(DurableAgentsError):
    """The file is of no type that is taken, or not of the one that it is said to be of."""

    code = "unsupported_media_type"
    status_code = 415


class ThrottledError(DurableAgentsError):
    """Too many requests or too many running threads; ``retry_after_seconds`` from now it may be otherwise."""

    code = "throttled"
    status_code = 429

    def __init__(self, detail: str = "Too many requests. Wait, then try again.", *, retry_after_seconds: float = 1):
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class DatabaseUnavailableError(DurableAgentsError):
    """The database does not answer or takes no writes at the moment."""

    code = "database_unavailable"
    status_code = 503
    retry_after_seconds = 5

    def __init__(self) -> None:
        super().__init__(
            f"The database is not available. Send the request again in {self.retry_after_seconds} s; with a client_id "
            "it has no effect twice."
        )


class RequestsThrottledError(ThrottledError):
    """More requests than ``THROTTLES["requests"]`` allows."""

    code = "requests_throttled"


class SendsThrottledError(ThrottledError):
    """More messages and other beginnings of runs than ``THROTTLES["sends"]`` allows."""

    code = "sends_throttled"


class TooManyRunningError(ThrottledError):
    """The owner has as many running threads as ``MAX_RUNNING_PER_OWNER`` allows.

    Nobody knows when one will be at rest: ``retry_after_seconds`` is when it is worth another try.
    """

    code = "too_many_running"

    def __init__(self, limit: int) -> None:
        threads = "1 thread is" if limit == 1 else f"{limit} threads are"
        detail = f"{threads} running, and no more may be at once. Wait until one is at rest, or stop one."
        super().__init__(detail, retry_after_seconds=5)


class InvalidFrameError(DurableAgentsError):
    """A frame from a websocket's client lacks a field or has a wrong one."""

    code = "invalid_frame"


class UnknownFrameTypeError(DurableAgentsError):
    """A frame from a websocket's client is of a type that this server does not know; newer ones may."""

    code = "unknown_type"

    def __init__(self, name: object) -> None:
        super().__init__(f"There is no frame type {name!r:.100}.")


class TooManySubscriptionsError(DurableAgentsError):
    """A websocket follows as many threads as one may."""

    code = "too_many_subscriptions"

    def __init__(self, limit: int) -> None:
        super().__init__(f"At most {limit} threads on one socket.")


class ToolError(DurableAgentsError):
    """Raise it in a tool: the text goes to the model as the outcome of the call, unmasked."""

    code = "tool_error"


class LeaseLostError(DurableAgentsError):
    """The row was fenced: it has another holder or is settled, and nothing was written."""

    code = "lease_lost"


class WaitTimeoutError(DurableAgentsError):
    """``wait_for_thread`` gave up; the run goes on."""

    code = "wait_timeout"


class ErrorKind(StrEnum):
    """Why a model call or a run failed; the kind is the ``error.code`` of the thread."""

    NETWORK = "network"
    RATE_LIMITED = "rate_limited"
    PROVIDER_5XX = "provider_5xx"
    CONTEXT_WINDOW_EXCEEDED = "context_window_exceeded"
    INSUFFICIENT_CREDITS = "insufficient_credits"
    INVALID_REQUEST = "invalid_request"
    AUTH = "auth"
    CONTENT_POLICY = "content_policy"
    MAX_STEPS = "max_steps"
    CRASHED = "crashed"
    UNKNOWN = "unknown"

    @property
    def retryable(self) -> bool:
        """Whether another attempt at the same call may succeed."""
        return self in {ErrorKind.NETWORK, ErrorKind.RATE_LIMITED, ErrorKind.PROVIDER_5XX}

    @property
    def safe_message(self) -> str:
        """A text for end users that gives nothing away."""
        return _SAFE_MESSAGES[self]


_SAFE_MESSAGES = {
    ErrorKind.NETWORK: "The model could not be reached.",
    ErrorKind.RATE_LIMITED: "The model is busy: too many requests.",
    ErrorKind.PROVIDER_5XX: "The model's provider has a problem.",
    ErrorKind.CONTEXT_WINDOW_EXCEEDED: "The conversation is too long for the model.",
    ErrorKind.INSUFFICIENT_CREDITS: "The model's account has no credit left.",
    ErrorKind.INVALID_REQUEST: "The model refused the request.",
    ErrorKind.AUTH: "The model's credentials are not accepted.",
    ErrorKind.CONTENT_POLICY: "The model's provider declined to answer this.",
    ErrorKind.MAX_STEPS: "The run has used up its steps. Resume it to go on.",
    ErrorKind.CRASHED: "The worker died again and again during this step.",
    ErrorKind.UNKNOWN: "Something went wrong.",
}


def safe_message(kind: str) -> str:
    """A text for end users for this error kind, a developer's own one included, that gives nothing away."""
    known = ErrorKind(kind) if kind in set(ErrorKind) else ErrorKind.UNKNOWN
    return known.safe_message


class ModelError(DurableAgentsError):
    """An attempt at a model call failed.

    ``kind`` decides what follows, ``retry_after_seconds`` is the delay that the provider asks for (or None),
    and ``str(error)`` is the raw detail for the admin and the log, never for end users.
    """

    def __init__(self, kind: ErrorKind, detail: str, *, retryable: bool, retry_after_seconds: float | None = None):
        super().__init__(detail)
        self.kind = kind
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds

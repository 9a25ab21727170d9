"""All errors that this package raises, as one tree.

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
    ├── LeaseLostError                 lease_lost                 (the row belongs to another worker now)
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
    """No agent of this name is registered, or the agent is not public."""

    code = "agent_not_found"
    status_code = 400

    def __init__(self, name: str, *, public: bool = False) -> None:
        kind, how = ("public agent", " with public=True") if public else ("agent", "")
        super().__init__(f"There is no {kind} {name!r}. Declare it{how} in the agents.py of an installed app.")


class AttachmentNotFoundError(DurableAgentsError):
    """No attachment with this id exists for the caller."""

    code = "attachment_not_found"
    status_code = 404

    def __init__(self, attachment_id: object) -> None:
        super().__init__(f"There is no attachment {attachment_id!s} that you may see.")


class AgentRequiredError(DurableAgentsError):
    """A new thread needs an agent, and neither the request nor ``DEFAULT_AGENT`` names one."""

    code = "agent_required"
    status_code = 400

    def __init__(self) -> None:
        super().__init__("Name an agent: in the path (chat/<agent>), in the body (agent), or in DEFAULT_AGENT.")


class AsgiRequiredError(DurableAgentsError):
    """The response is a stream that lasts as long as a run, and the project is served under WSGI."""

    code = "asgi_required"
    status_code = 501

    def __init__(self) -> None:
        super().__init__("Streams need an ASGI server such as daphne. Under WSGI, poll messages/?streams=1.")


class ThreadBusyError(DurableAgentsError):
    """The thread has a current run. The operation needs a thread without a current run, or an agent that accepts
    messages during a run.
    """

    code = "thread_busy"
    status_code = 409

    def __init__(self, thread_id: object) -> None:
        super().__init__(f"Thread {thread_id!s} is running. Wait until the run ends, or stop it first.")


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
    """The tool call already has another outcome."""

    code = "tool_call_not_pending"
    status_code = 409

    def __init__(self, tool_call_id: str, status: str) -> None:
        super().__init__(f"Tool call {tool_call_id!r} is {status}: it no longer waits for an outcome.")


class ApprovalExpiredError(DurableAgentsError):
    """The decision came after the approval's deadline."""

    code = "approval_expired"
    status_code = 409

    def __init__(self, tool_call_id: str) -> None:
        super().__init__(f"The approval of tool call {tool_call_id!r} has expired. Send a message to go on.")


class IdempotencyKeyReusedError(DurableAgentsError):
    """The idempotency key, or the client's own id, was already used for a different request.

    A request that is sent again after a lost connection has the same key or id. A different request needs a new key or
    id.
    """

    code = "idempotency_key_reused"
    status_code = 409

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} has been used for another request. Choose a new key or id for this one.")


class ToolChangedError(DurableAgentsError):
    """The call has failed: the tool has changed since the call was made, and no longer accepts the arguments."""

    code = "tool_changed"
    status_code = 409

    def __init__(self, tool_call_id: str, problem: str) -> None:
        super().__init__(f"Tool call {tool_call_id!r} did not run. {problem}")


class InvalidPartsError(DurableAgentsError):
    """The message parts are not UI message parts that a user may send."""

    code = "invalid_parts"
    status_code = 400


class InvalidCursorError(DurableAgentsError):
    """The cursor is not a valid cursor of this thread."""

    code = "invalid_cursor"
    status_code = 400

    def __init__(self, cursor: object) -> None:
        super().__init__(f"{str(cursor)[:100]!r} is not a cursor of this thread. Start again without a cursor.")


class PermissionDeniedError(DurableAgentsError):
    """The policy does not allow the caller to do this."""

    code = "permission_denied"
    status_code = 403


class TooLargeError(DurableAgentsError):
    """A text, a request body or a result exceeds its limit."""

    code = "too_large"
    status_code = 413


class UnsupportedMediaTypeError(DurableAgentsError):
    """The type of the file is not accepted, or the content does not match the declared type."""

    code = "unsupported_media_type"
    status_code = 415


class ThrottledError(DurableAgentsError):
    """The caller makes too many requests or has too many running threads. Try again after ``retry_after_seconds``."""

    code = "throttled"
    status_code = 429

    def __init__(self, detail: str = "Too many requests. Wait, then try again.", *, retry_after_seconds: float = 1):
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class DatabaseUnavailableError(DurableAgentsError):
    """The database does not answer, or does not accept writes at the moment."""

    code = "database_unavailable"
    status_code = 503
    retry_after_seconds = 5

    def __init__(self) -> None:
        super().__init__(
            f"The database is not available. Send the request again in {self.retry_after_seconds} s. A request with a "
            "client_id takes effect only once."
        )


class RequestsThrottledError(ThrottledError):
    """The caller has made more requests than ``THROTTLES["requests"]`` allows."""

    code = "requests_throttled"


class SendsThrottledError(ThrottledError):
    """The caller has started more runs, or sent more messages, than ``THROTTLES["sends"]`` allows."""

    code = "sends_throttled"


class TooManyRunningError(ThrottledError):
    """The owner has as many running threads as ``MAX_RUNNING_PER_OWNER`` allows.

    It is unknown when one of the runs will end; ``retry_after_seconds`` is a reasonable time until the next try.
    """

    code = "too_many_running"

    def __init__(self, limit: int) -> None:
        threads = "1 thread is" if limit == 1 else f"{limit} threads are"
        detail = f"{threads} running, which is the limit. Wait until one run ends, or stop one."
        super().__init__(detail, retry_after_seconds=5)


class InvalidFrameError(DurableAgentsError):
    """In a frame from a websocket's client, a field is missing or wrong."""

    code = "invalid_frame"


class UnknownFrameTypeError(DurableAgentsError):
    """A frame from a websocket's client has a type that this release of the server does not know."""

    code = "unknown_type"

    def __init__(self, name: object) -> None:
        super().__init__(f"There is no frame type {name!r:.100}.")


class TooManySubscriptionsError(DurableAgentsError):
    """A websocket already follows as many threads as allowed."""

    code = "too_many_subscriptions"

    def __init__(self, limit: int) -> None:
        super().__init__(f"A websocket can follow at most {limit} threads.")


class ToolError(DurableAgentsError):
    """Raise this error in a tool. The model gets its text, unmasked, as the outcome of the call."""

    code = "tool_error"


class LeaseLostError(DurableAgentsError):
    """Nothing was written, because this worker no longer holds the row. Another worker claimed it, or it was closed."""

    code = "lease_lost"


class WaitTimeoutError(DurableAgentsError):
    """``wait_for_thread`` has timed out. The run continues."""

    code = "wait_timeout"


class ErrorKind(StrEnum):
    """The reason why a model call or a run failed. The thread has the kind as its ``error.code``."""

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
        """A text for end users that reveals no internals."""
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
    """Return a text for end users that reveals no internals. ``kind`` may also be a project's own error code."""
    known = ErrorKind(kind) if kind in set(ErrorKind) else ErrorKind.UNKNOWN
    return known.safe_message


class ModelError(DurableAgentsError):
    """An attempt at a model call failed.

    ``kind`` is the cause. ``retryable`` says whether another attempt may succeed. ``retry_after_seconds`` is the delay
    that the provider asks for, or None. ``str(error)`` is the raw detail, for the admin and the log but never for end
    users.
    """

    def __init__(self, kind: ErrorKind, detail: str, *, retryable: bool, retry_after_seconds: float | None = None):
        super().__init__(detail)
        self.kind = kind
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds

"""All errors that this package raises, as one tree.

    DurableAgentsError                 code                       status_code
    ├── ThreadNotFoundError            thread_not_found           404
    ├── AgentNotFoundError             agent_not_found            400
    │   └── AgentRemovedError          agent_removed              409
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
    ├── InvalidJSONObjectError         invalid_json_object        500
    ├── PermissionDeniedError          permission_denied          403
    ├── TooLargeError                  too_large                  413
    ├── UnsupportedMediaTypeError      unsupported_media_type     415
    ├── AsgiRequiredError              asgi_required              501
    ├── DatabaseUnavailableError       database_unavailable       503
    ├── ThrottledError                 throttled                  429
    │   ├── RequestsThrottledError     requests_throttled         429
    │   ├── SendsThrottledError        sends_throttled            429
    │   ├── TooManyRunningError        too_many_running           429
    │   └── TooManyStreamsError        too_many_streams           429
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

from django.utils.translation import gettext_noop


class DurableAgentsError(Exception):
    """Root of all errors of this package."""

    code: ClassVar[str] = "error"
    status_code: ClassVar[int | None] = None


class ThreadNotFoundError(DurableAgentsError):
    """There is no thread with this id that the caller may see."""

    code = "thread_not_found"
    status_code = 404

    def __init__(self, thread_id: object) -> None:
        super().__init__(f"There is no thread {thread_id!s}.")


class AgentNotFoundError(DurableAgentsError):
    """There is no agent with this name, or the agent is not public."""

    code = "agent_not_found"
    status_code = 400

    def __init__(self, name: str, *, public: bool = False) -> None:
        kind, how = ("public agent", " with public=True") if public else ("agent", "")
        super().__init__(f"There is no {kind} {name!r}. Declare it{how} in the agents.py of an installed app.")


class AgentRemovedError(AgentNotFoundError):
    """The thread's agent has been removed from the code. The thread can be read, stopped, exported and deleted, but not
    continued.
    """

    code = "agent_removed"
    status_code = 409

    def __init__(self, name: str) -> None:
        DurableAgentsError.__init__(
            self,
            f"There is no agent {name!r} any more, so this thread can only be read, stopped, exported and deleted. "
            f"To continue it, declare an agent with this name, or with this name as an alias.",
        )


class AttachmentNotFoundError(DurableAgentsError):
    """There is no attachment with this id that the caller may see."""

    code = "attachment_not_found"
    status_code = 404

    def __init__(self, attachment_id: object) -> None:
        super().__init__(f"There is no attachment {attachment_id!s}.")


class AgentRequiredError(DurableAgentsError):
    """A new thread needs an agent, but neither the request nor ``DEFAULT_AGENT`` names one."""

    code = "agent_required"
    status_code = 400

    def __init__(self) -> None:
        super().__init__("Name an agent: in the path (chat/<agent>), in the body (agent), or in DEFAULT_AGENT.")


class AsgiRequiredError(DurableAgentsError):
    """The response is a stream that stays open during a run. That needs ASGI, but the project runs under WSGI."""

    code = "asgi_required"
    status_code = 501

    def __init__(self) -> None:
        super().__init__("Streams need an ASGI server such as daphne. Under WSGI, poll messages/?streams=1.")


class ThreadBusyError(DurableAgentsError):
    """The thread is running. The operation is not possible during a run, or the agent refuses messages during a run."""

    code = "thread_busy"
    status_code = 409

    def __init__(self, thread_id: object) -> None:
        super().__init__(f"Thread {thread_id!s} is running. Wait until the run ends, or stop it first.")


class MessageNotFoundError(DurableAgentsError):
    """The thread has no visible message with this id."""

    code = "message_not_found"
    status_code = 404

    def __init__(self, message_id: object) -> None:
        super().__init__(f"The thread has no message {message_id!s}. It may have been edited or regenerated away.")


class ToolCallNotFoundError(DurableAgentsError):
    """The thread has no tool call with this id."""

    code = "tool_call_not_found"
    status_code = 404

    def __init__(self, tool_call_id: str) -> None:
        super().__init__(f"There is no tool call {tool_call_id!r} in this thread.")


class ToolCallNotPendingError(DurableAgentsError):
    """The tool call does not wait for this decision or result: it has another outcome, or waits for something else."""

    code = "tool_call_not_pending"
    status_code = 409

    def __init__(self, tool_call_id: str, status: str) -> None:
        super().__init__(f"Tool call {tool_call_id!r} is {status}: it no longer waits for an outcome.")


class ApprovalExpiredError(DurableAgentsError):
    """The approval or rejection came after its deadline."""

    code = "approval_expired"
    status_code = 409

    def __init__(self, tool_call_id: str) -> None:
        super().__init__(f"The approval of tool call {tool_call_id!r} has expired. Send a message to go on.")


class IdempotencyKeyReusedError(DurableAgentsError):
    """The idempotency key or client id was already used for a different request.

    To repeat a request after a lost connection, send the same key or id. A different request needs a new one.
    """

    code = "idempotency_key_reused"
    status_code = 409

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} has been used for another request. Choose a new key or id for this one.")


class ToolChangedError(DurableAgentsError):
    """The tool has changed since the call was made, and no longer accepts the arguments. The call has failed."""

    code = "tool_changed"
    status_code = 409

    def __init__(self, tool_call_id: str, problem: str) -> None:
        super().__init__(f"Tool call {tool_call_id!r} did not run. {problem}")


class InvalidPartsError(DurableAgentsError):
    """The message parts are not valid, or a user is not allowed to send them."""

    code = "invalid_parts"
    status_code = 400


class InvalidCursorError(DurableAgentsError):
    """The cursor is not a valid cursor of this thread."""

    code = "invalid_cursor"
    status_code = 400

    def __init__(self, cursor: object) -> None:
        super().__init__(f"{str(cursor)[:100]!r} is not a cursor of this thread. Start again without a cursor.")


class InvalidJSONObjectError(DurableAgentsError, TypeError):
    """``metadata`` or ``context`` is not a JSON object. The project's code has passed it, or the policy's ``context``
    method has returned it.
    """

    code = "invalid_json_object"
    status_code = 500

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} must be a JSON object, such as a dict with JSON values: {problem}.")


class PermissionDeniedError(DurableAgentsError):
    """The policy does not allow the caller to do this."""

    code = "permission_denied"
    status_code = 403


class TooLargeError(DurableAgentsError):
    """A text, a request body or a result is larger than its limit."""

    code = "too_large"
    status_code = 413


class UnsupportedMediaTypeError(DurableAgentsError):
    """Files of this type are not accepted, or the content does not match the declared type."""

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
    """The database does not answer, or accepts no writes at the moment."""

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
    """The owner already has ``MAX_RUNNING_PER_OWNER`` running threads.

    It is unknown when one of the runs will end, so ``retry_after_seconds`` is only a reasonable guess.
    """

    code = "too_many_running"

    def __init__(self, limit: int) -> None:
        threads = "1 thread is" if limit == 1 else f"{limit} threads are"
        detail = f"{threads} running, which is the limit. Wait until one run ends, or stop one."
        super().__init__(detail, retry_after_seconds=5)


class InvalidFrameError(DurableAgentsError):
    """A client has sent a websocket frame in which a field is missing or invalid."""

    code = "invalid_frame"


class UnknownFrameTypeError(DurableAgentsError):
    """A client has sent a websocket frame of a type that this version does not know."""

    code = "unknown_type"

    def __init__(self, name: object) -> None:
        super().__init__(f"There is no frame type {name!r:.100}.")


class TooManySubscriptionsError(DurableAgentsError):
    """The websocket already follows the maximum number of threads."""

    code = "too_many_subscriptions"

    def __init__(self, limit: int) -> None:
        super().__init__(f"A websocket can follow at most {limit} threads.")


class TooManyStreamsError(ThrottledError):
    """The caller has as many event streams open in this process as ``MAX_STREAMS_PER_USER`` allows."""

    code = "too_many_streams"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"At most {limit} event streams may be open. Close others, then try again.", retry_after_seconds=5
        )


class ToolError(DurableAgentsError):
    """Raise this in a tool to fail the call with a text for the model. The model gets the text unchanged."""

    code = "tool_error"


class LeaseLostError(DurableAgentsError):
    """This worker no longer holds the row, so nothing was written.

    Another worker has claimed the row, or the row was closed.
    """

    code = "lease_lost"


class WaitTimeoutError(DurableAgentsError):
    """``wait_for_thread`` has timed out. The run continues."""

    code = "wait_timeout"


class ErrorKind(StrEnum):
    """The reason why a model call or a run failed. Clients see it as the thread's ``error.code``."""

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
        """Whether another attempt at the same model call might succeed."""
        return self in {ErrorKind.NETWORK, ErrorKind.RATE_LIMITED, ErrorKind.PROVIDER_5XX}

    @property
    def safe_message(self) -> str:
        """A text for end users, without internal details."""
        return _SAFE_MESSAGES[self]


_SAFE_MESSAGES = {
    ErrorKind.NETWORK: gettext_noop("The model could not be reached."),
    ErrorKind.RATE_LIMITED: gettext_noop("The model is busy: too many requests."),
    ErrorKind.PROVIDER_5XX: gettext_noop("The model's provider has a problem."),
    ErrorKind.CONTEXT_WINDOW_EXCEEDED: gettext_noop("The conversation is too long for the model."),
    ErrorKind.INSUFFICIENT_CREDITS: gettext_noop("The model's account has no credit left."),
    ErrorKind.INVALID_REQUEST: gettext_noop("The model refused the request."),
    ErrorKind.AUTH: gettext_noop("The model's credentials are not accepted."),
    ErrorKind.CONTENT_POLICY: gettext_noop("The model's provider declined to answer this."),
    ErrorKind.MAX_STEPS: gettext_noop("The run has used up its steps. Resume it to go on."),
    ErrorKind.CRASHED: gettext_noop("The worker died again and again during this step."),
    ErrorKind.UNKNOWN: gettext_noop("Something went wrong."),
}


def safe_message(kind: str) -> str:
    """Return a text for end users, without internal details. ``kind`` can also be an error code of the project."""
    known = ErrorKind(kind) if kind in set(ErrorKind) else ErrorKind.UNKNOWN
    return known.safe_message


class ModelError(DurableAgentsError):
    """A model call failed.

    ``kind`` is the reason, and ``retryable`` says whether another attempt might succeed. ``retry_after_seconds`` is
    the delay that the provider asks for, or None if it asks for none. ``str(error)`` has internal details for the admin
    and the log. Never show this text to end users.
    """

    def __init__(self, kind: ErrorKind, detail: str, *, retryable: bool, retry_after_seconds: float | None = None):
        super().__init__(detail)
        self.kind = kind
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds

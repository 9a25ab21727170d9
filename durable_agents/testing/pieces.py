"""The pieces of a scripted answer, such as texts, reasoning, tool calls and failures."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from asgiref.sync import sync_to_async

from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm import ModelRequest, ModelUsage

_WORD = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True)
class Text:
    """Text of the answer."""

    text: str


@dataclass(frozen=True)
class Thought:
    """Visible reasoning of the model."""

    text: str


@dataclass(frozen=True)
class Call:
    """A tool call, with its arguments as a mapping or as raw text."""

    tool_name: str
    arguments: Mapping[str, object] | str
    provider_call_id: str = ""

    @property
    def raw(self) -> str:
        """The arguments as text, as the model sends them."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Failure:
    """A failure of the model call."""

    kind: ErrorKind
    detail: str
    retryable: bool
    retry_after_seconds: float | None

    def error(self) -> ModelError:
        """Return the failure as the exception that the model call raises."""
        wish = self.retry_after_seconds
        return ModelError(self.kind, self.detail, retryable=self.retryable, retry_after_seconds=wish)


@dataclass(frozen=True)
class Silence:
    """The model stops sending in the middle of the answer, but keeps the connection open."""


@dataclass(frozen=True)
class Action:
    """A function that the test supplies. It is called while the answer is being sent."""

    function: Callable[[], object]


@dataclass(frozen=True)
class End:
    """The end of an answer. It sets the finish reason and the token usage."""

    reason: str
    usage: ModelUsage | None


Piece = Text | Thought | Call | Failure | Silence | Action | End
Answer = str | Piece | ModelError | Sequence["str | Piece | ModelError"] | Callable[[ModelRequest], object]
"""A scripted answer: one piece, several pieces in order, or a function that gets the request and returns a scripted
answer. The function can be async.
"""


def says(text: str) -> Text:
    """Answer with this text. A plain string in a script means the same."""
    return Text(text)


def thinks(text: str) -> Thought:
    """Stream this text as the model's reasoning."""
    return Thought(text)


def calls(tool_name: str, arguments: Mapping[str, object] | str | None = None, /, **named: object) -> Call:
    """Call a tool: ``calls("add", a=1, b=2)``. Several calls in one answer run in parallel.

    If the names of the arguments are not valid in Python, pass the arguments as a mapping. To send invalid JSON, pass
    the arguments as a string, which is sent unchanged.
    """
    return Call(tool_name, arguments if isinstance(arguments, str) else {**(arguments or {}), **named})


def fails(
    kind: ErrorKind | str = ErrorKind.PROVIDER_5XX,
    detail: str = "A scripted failure.",
    *,
    retryable: bool | None = None,
    retry_after_seconds: float | None = None,
) -> Failure:
    """Fail the model call. The pieces before this one are streamed as a partial answer.

    By default, the kind of error decides whether the call is retried. ``retryable`` overrides this.
    """
    known = ErrorKind(kind)
    return Failure(known, detail, known.retryable if retryable is None else retryable, retry_after_seconds)


def hangs() -> Silence:
    """Send nothing more, so that the model call times out.

    ``run_until_idle`` does not wait for the timeout. The attempt fails immediately, with the retryable error
    ``network``. If ``does`` has stopped the run before, the attempt ends without an error.
    """
    return Silence()


def does(function: Callable[[], object]) -> Action:
    """Call ``function`` in the middle of the scripted answer.

    For example, ``does(crash)`` simulates a crash, and ``does(lambda: stop_thread(thread))`` stops the run.

    The text so far is stored before the function is called. The function can be sync or async. A sync function can use
    the ORM. If the function raises an error, ``run_until_idle`` raises the same error.
    """
    return Action(function)


def ends(reason: str = "stop", *, usage: ModelUsage | None = None) -> End:
    """Set how the answer ends: ``ends("length")``, ``ends(usage=ModelUsage(...))``.

    Without ``usage``, each word is counted as a token.
    """
    return End(reason, usage)


def pieces_of(answer: object) -> list[Piece]:
    """Return the pieces of an answer. Raises TypeError for a value that is not an answer."""
    if isinstance(answer, str):
        return [Text(answer)]
    if isinstance(answer, ModelError):
        return [Failure(answer.kind, str(answer), answer.retryable, answer.retry_after_seconds)]
    if isinstance(answer, Piece):
        return [answer]
    if isinstance(answer, Sequence):
        return [piece for item in answer for piece in pieces_of(item)]
    raise TypeError(f"A scripted answer is a text, pieces (says, calls, fails, ...) or a list of them, not {answer!r}.")


def sendable_over_http(pieces: list[Piece]) -> list[Piece]:
    """Return the pieces unchanged. Raises TypeError if one of them, such as ``does(...)``, cannot be sent over HTTP."""
    # The server handles each request in another OS thread. There, the test's function could not use the test's
    # transaction.
    if any(isinstance(piece, Action) for piece in pieces):
        raise TypeError("does(...) cannot be sent over HTTP: remove http=True in this test.")
    return pieces


def words_of(text: str) -> list[str]:
    """Split the text into words, each with the white space before it. Joining the words gives the text again."""
    return _WORD.findall(text)


def usage_of(request: ModelRequest, answer: str) -> ModelUsage:
    """Return the token usage of a model call. Each word counts as a token."""
    input_tokens = sum(len(words_of(str(message.get("content") or ""))) for message in request.messages)
    return ModelUsage(input_tokens=input_tokens, output_tokens=len(words_of(answer)))


class Host(Protocol):
    """What ``run_until_idle`` provides to a scripted model while the model streams an answer."""

    async def call_user(self, function: Callable[..., object], *args: object) -> object:
        """Call a function of the test. A sync function can use the ORM."""

    async def settle(self) -> None:
        """Store the text so far. If the step was stopped, or if another worker holds it now, end this attempt."""

    def end(self, error: BaseException) -> NoReturn:
        """End ``run_until_idle`` with this error."""


async def call_test_function(function: Callable[..., object], *args: object, host: Host | None) -> object:
    """Call a function of the test. A sync function is called in an OS thread in which it can use the ORM."""
    if host is not None:
        return await host.call_user(function, *args)
    if inspect.iscoroutinefunction(function):
        return await function(*args)
    return await sync_to_async(function)(*args)

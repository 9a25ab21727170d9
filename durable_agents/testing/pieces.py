"""The pieces of a scripted answer: texts, reasoning, tool calls, failures and other events, in order."""

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
        """The arguments as the text that the model writes."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Failure:
    """A failure of the model call."""

    kind: ErrorKind
    detail: str
    retryable: bool
    retry_after_seconds: float | None

    def error(self) -> ModelError:
        """Return the failure as the error that the engine gets."""
        wish = self.retry_after_seconds
        return ModelError(self.kind, self.detail, retryable=self.retryable, retry_after_seconds=wish)


@dataclass(frozen=True)
class Silence:
    """The model sends nothing more."""


@dataclass(frozen=True)
class Action:
    """A function of the test that is called during the answer."""

    function: Callable[[], object]


@dataclass(frozen=True)
class End:
    """An end of the answer with another reason or other usage than the default."""

    reason: str
    usage: ModelUsage | None


Piece = Text | Thought | Call | Failure | Silence | Action | End
Answer = str | Piece | ModelError | Sequence["str | Piece | ModelError"] | Callable[[ModelRequest], object]
"""One piece, several in order, or a sync or async function that takes the request and returns such an answer."""


def says(text: str) -> Text:
    """Answer with this text. A plain string in a script means the same."""
    return Text(text)


def thinks(text: str) -> Thought:
    """Show this reasoning."""
    return Thought(text)


def calls(tool_name: str, arguments: Mapping[str, object] | str | None = None, /, **named: object) -> Call:
    """Call a tool: ``calls("add", a=1, b=2)``. Several calls in one answer run in parallel.

    Use a mapping for arguments whose names are not valid in Python. A string is sent unchanged, even if it is not valid
    JSON.
    """
    return Call(tool_name, arguments if isinstance(arguments, str) else {**(arguments or {}), **named})


def fails(
    kind: ErrorKind | str = ErrorKind.PROVIDER_5XX,
    detail: str = "A scripted failure.",
    *,
    retryable: bool | None = None,
    retry_after_seconds: float | None = None,
) -> Failure:
    """Fail the model call. Earlier pieces of the answer are a partial answer. By default the kind decides whether the
    call is retried; ``retryable`` overrides that.
    """
    known = ErrorKind(kind)
    return Failure(known, detail, known.retryable if retryable is None else retryable, retry_after_seconds)


def hangs() -> Silence:
    """Send nothing more, so that the read timeout passes. ``run_until_idle`` does not wait for the timeout. The attempt
    fails at once with the error of the timeout (``network``, retryable), unless an earlier ``does`` has ended it, for
    example by stopping the run.
    """
    return Silence()


def does(function: Callable[[], object]) -> Action:
    """Call this function during the answer: ``does(lambda: stop_thread(thread))``, ``does(crash)``.

    The text so far is stored before the call. A sync function may use the ORM; the function may also be async. If it
    raises, ``run_until_idle`` ends with the error.
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
    """Return the pieces. Raises TypeError if they contain a piece that a server cannot send."""
    # The server runs each request in a thread, where a function of the test could not use the test's transaction.
    if any(isinstance(piece, Action) for piece in pieces):
        raise TypeError("does(...) cannot be sent over HTTP: remove http=True in this test.")
    return pieces


def words_of(text: str) -> list[str]:
    """Split the text before each word. The pieces joined together are the same text."""
    return _WORD.findall(text)


def usage_of(request: ModelRequest, answer: str) -> ModelUsage:
    """Return the usage of a call, counting each word as a token."""
    input_tokens = sum(len(words_of(str(message.get("content") or ""))) for message in request.messages)
    return ModelUsage(input_tokens=input_tokens, output_tokens=len(words_of(answer)))


class Host(Protocol):
    """The methods that a scripted model needs from the code that runs its step."""

    async def call_user(self, function: Callable[..., object], *args: object) -> object:
        """Call a function of the test in a thread in which it may use the ORM."""

    async def settle(self) -> None:
        """Store the text so far. If the row of this step was lost meanwhile, end the step here."""

    def end(self, error: BaseException) -> NoReturn:
        """End the whole run with this error."""


async def call_test_function(function: Callable[..., object], *args: object, host: Host | None) -> object:
    """Call a function of the test. A sync function is called in a thread in which it may use the ORM."""
    if host is not None:
        return await host.call_user(function, *args)
    if inspect.iscoroutinefunction(function):
        return await function(*args)
    return await sync_to_async(function)(*args)

"""The pieces of a scripted answer: texts, calls, failures and what else a model may do, in order."""

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
    """A tool call, with arguments or with the raw text of them."""

    tool_name: str
    arguments: Mapping[str, object] | str
    provider_call_id: str = ""

    @property
    def raw(self) -> str:
        """The arguments as the model writes them."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Failure:
    """A failure of the model call."""

    kind: ErrorKind
    detail: str
    retryable: bool
    retry_after_seconds: float | None

    def error(self) -> ModelError:
        """Return the same error as the engine gets it."""
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
    """The end of an answer, where it is not the usual one."""

    reason: str
    usage: ModelUsage | None


Piece = Text | Thought | Call | Failure | Silence | Action | End
Answer = str | Piece | ModelError | Sequence["str | Piece | ModelError"] | Callable[[ModelRequest], object]
"""One piece, several in order, or a function (sync or async) of the request that returns such an answer."""


def says(text: str) -> Text:
    """Answer with this text; a plain string in a script means the same."""
    return Text(text)


def thinks(text: str) -> Thought:
    """Show this reasoning."""
    return Thought(text)


def calls(tool_name: str, arguments: Mapping[str, object] | str | None = None, /, **named: object) -> Call:
    """Call a tool: ``calls("add", a=1, b=2)``. Several in one answer run in parallel.

    A mapping takes arguments whose names are not valid in Python; a string is sent as it is, valid JSON or not.
    """
    return Call(tool_name, arguments if isinstance(arguments, str) else {**(arguments or {}), **named})


def fails(
    kind: ErrorKind | str = ErrorKind.PROVIDER_5XX,
    detail: str = "A scripted failure.",
    *,
    retryable: bool | None = None,
    retry_after_seconds: float | None = None,
) -> Failure:
    """Fail the model call, with what came before as a partial answer. Whether it is retried follows from the kind,
    unless ``retryable`` says it.
    """
    known = ErrorKind(kind)
    return Failure(known, detail, known.retryable if retryable is None else retryable, retry_after_seconds)


def hangs() -> Silence:
    """Fall silent for longer than the read timeout. ``run_until_idle`` does not wait for that: the attempt fails as it
    does after the timeout (``network``, retryable), or ends by what a ``does`` before it has done.
    """
    return Silence()


def does(function: Callable[[], object]) -> Action:
    """Call this during the answer: ``does(lambda: stop_thread(thread))``, ``does(crash)``.

    The text so far is stored first. The function may be sync (ORM allowed) or async; what it raises ends
    ``run_until_idle``.
    """
    return Action(function)


def ends(reason: str = "stop", *, usage: ModelUsage | None = None) -> End:
    """End the answer in another way than the usual one: ``ends("length")``, ``ends(usage=ModelUsage(...))``.

    Without ``usage`` words are counted as tokens.
    """
    return End(reason, usage)


def pieces_of(answer: object) -> list[Piece]:
    """Return the pieces of an answer. Raises TypeError for a value that is no answer."""
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
    """Return the pieces, where a server can send them. Raises TypeError for one that it cannot."""
    # The server has a thread for each request, where a function of the test would not have the test's transaction.
    if any(isinstance(piece, Action) for piece in pieces):
        raise TypeError("does(...) cannot be sent over HTTP: leave http=True away in this test.")
    return pieces


def words_of(text: str) -> list[str]:
    """Return the text cut before each word; joined again it is the same text."""
    return _WORD.findall(text)


def usage_of(request: ModelRequest, answer: str) -> ModelUsage:
    """Return the usage of a call, counting each word as a token."""
    input_tokens = sum(len(words_of(str(message.get("content") or ""))) for message in request.messages)
    return ModelUsage(input_tokens=input_tokens, output_tokens=len(words_of(answer)))


class Host(Protocol):
    """What a scripted model needs from the code that runs its step."""

    async def call_user(self, function: Callable[..., object], *args: object) -> object:
        """Call a function of the test where it may use the ORM."""

    async def settle(self) -> None:
        """Store the text so far, and end this step here if its row was lost meanwhile."""

    def end(self, error: BaseException) -> NoReturn:
        """End the whole run with this error."""


async def call_test_function(function: Callable[..., object], *args: object, host: Host | None) -> object:
    """Call a function of the test, where it may use the ORM if it is sync."""
    if host is not None:
        return await host.call_user(function, *args)
    if inspect.iscoroutinefunction(function):
        return await function(*args)
    return await sync_to_async(function)(*args)

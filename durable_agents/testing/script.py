"""Hides how a scripted model takes the place of the real one: an answer is a list of pieces, given out in order."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import ContextDecorator, ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self
from uuid import uuid4

from asgiref.sync import sync_to_async

from durable_agents import llm
from durable_agents.agents import Agent
from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm import (
    CallArguments,
    CallStarted,
    Finished,
    ModelDoor,
    ModelEvent,
    ModelRequest,
    ModelUsage,
    ReasoningDelta,
    TextDelta,
)
from durable_agents.testing.hints import muted

if TYPE_CHECKING:
    from durable_agents.testing.server import ModelServer

_WORD = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True)
class Text:
    """The model says this."""

    text: str


@dataclass(frozen=True)
class Thought:
    """The model shows this of its reasoning."""

    text: str


@dataclass(frozen=True)
class Call:
    """The model calls a tool, with arguments or with the raw text of them."""

    tool_name: str
    arguments: Mapping[str, Any] | str
    provider_call_id: str = ""

    @property
    def raw(self) -> str:
        """The arguments as the model writes them."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Failure:
    """The model call fails here."""

    kind: ErrorKind
    detail: str
    retryable: bool
    retry_after_seconds: float | None

    def error(self) -> ModelError:
        """The same as the engine meets it."""
        wish = self.retry_after_seconds
        return ModelError(self.kind, self.detail, retryable=self.retryable, retry_after_seconds=wish)


@dataclass(frozen=True)
class Silence:
    """The model says nothing more."""


@dataclass(frozen=True)
class Moment:
    """While the model answers, the test does something."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class End:
    """The proper end of an answer, where it is not the usual one."""

    reason: str
    usage: ModelUsage | None


Piece = Text | Thought | Call | Failure | Silence | Moment | End
Answer = str | Piece | ModelError | Sequence["str | Piece | ModelError"] | Callable[[ModelRequest], Any]
"""One piece, several in order, or a function (sync or async) of the request that returns such an answer."""


def says(text: str) -> Text:
    """The model says this text; a plain string in a script means the same."""
    return Text(text)


def thinks(text: str) -> Thought:
    """The model shows this reasoning."""
    return Thought(text)


def calls(tool_name: str, arguments: Mapping[str, Any] | str | None = None, /, **named: Any) -> Call:
    """The model calls a tool: ``calls("add", a=1, b=2)``. Several in one answer run in parallel.

    A mapping takes arguments whose names are no Python names; a string goes out as it is, valid JSON or not.
    """
    return Call(tool_name, arguments if isinstance(arguments, str) else {**(arguments or {}), **named})


def fails(
    kind: ErrorKind | str = ErrorKind.PROVIDER_5XX,
    detail: str = "A scripted failure.",
    *,
    retryable: bool | None = None,
    retry_after_seconds: float | None = None,
) -> Failure:
    """The model call fails, with what came before as a partial answer. Whether another attempt is worth it follows
    from the kind, unless ``retryable`` says it."""
    known = ErrorKind(kind)
    return Failure(known, detail, known.retryable if retryable is None else retryable, retry_after_seconds)


def hangs() -> Silence:
    """The model falls silent for longer than it may. ``run_until_idle`` does not wait for that: the attempt fails as
    it does after the read timeout (``network``, retryable), or ends by what a ``does`` before it has done."""
    return Silence()


def does(function: Callable[[], Any]) -> Moment:
    """While the answer is under way, call this: ``does(lambda: stop_thread(thread))``, ``does(crash)``.

    What was said before is stored first. The function may be sync (ORM allowed) or async; what it raises ends
    ``run_until_idle``.
    """
    return Moment(function)


def ends(reason: str = "stop", *, usage: ModelUsage | None = None) -> End:
    """How the answer ends, where it is not by itself: ``ends("length")``, ``ends(usage=ModelUsage(...))``.

    Without ``usage`` words are counted as tokens.
    """
    return End(reason, usage)


class OutOfAnswersError(AssertionError):
    """A scripted model was asked once more than it has answers."""


class Host(Protocol):
    """What a scripted model needs of whoever runs the step that asks it."""

    async def call_user(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of the test where it may use the ORM."""

    async def settle(self) -> None:
        """Store what the model has said so far, and end this step here if its row was lost meanwhile."""

    def end(self, error: BaseException) -> NoReturn:
        """End the whole run with this error."""


host: ContextVar[Host | None] = ContextVar("durable_agents_test_host", default=None)
"""Set within ``run_until_idle``."""


class ScriptedModel(ContextDecorator):
    """A model that gives these answers, one for each request, in order: ``with ScriptedModel(...) as model:``.

    Inside the block, as a decorator of a test or by ``enterContext`` in a ``TestCase``, it stands in for the model of
    all agents or, with ``agents``, of these. Nothing is asked over a network and litellm is not imported; with
    ``http=True`` each request goes through litellm to a real HTTP server on loopback, which gives the same answers
    (``does`` excepted). ``repeat_last`` gives the last answer as often as it is asked for. ``continues`` says whether
    the model goes on with a text of its own, as after a crash.

    ``requests`` are those so far (``ModelRequest``: agent, model, messages and tools in the OpenAI format, settings).
    """

    def __init__(
        self,
        *answers: Answer,
        agents: Collection[str | Agent] | None = None,
        http: bool = False,
        repeat_last: bool = False,
        continues: bool = False,
    ) -> None:
        self.requests: list[ModelRequest] = []
        self.continues = continues
        self._script = list(answers)
        self._given = 0
        self._agents = None if agents is None else {_name(agent) for agent in agents}
        self._http = http
        self._repeat_last = repeat_last
        self._server: ModelServer | None = None
        self._entered: ExitStack | None = None

    def __enter__(self) -> Self:
        if self._entered is not None:
            raise RuntimeError("This ScriptedModel is in place already: use another one.")
        self.requests, self._given = [], 0
        with ExitStack() as stack:
            if self._http:
                from durable_agents.testing.server import ModelServer  # noqa: PLC0415 - only for http

                self._server = stack.enter_context(ModelServer(self.take))
            else:
                stack.enter_context(muted())
            stack.enter_context(llm.door_replaced(_ScriptedDoor(self, llm.door(), self._server)))
            _active.append(self)
            stack.callback(_active.remove, self)
            self._entered = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        entered, self._entered, self._server = self._entered, None, None
        if entered is not None:
            entered.close()

    def __call__(self, test: Any) -> Any:
        """Decorate a test, a function or a coroutine function."""
        if isinstance(test, type):
            raise TypeError("A ScriptedModel decorates a test, not a class: use self.enterContext(...) in setUp.")
        if not inspect.iscoroutinefunction(test):
            return super().__call__(test)

        @functools.wraps(test)
        async def scripted(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await test(*args, **kwargs)

        return scripted

    def script(self, *answers: Answer) -> Self:
        """Add answers, to be given after those that are left."""
        self._script.extend(answers)
        return self

    @property
    def left(self) -> int:
        """Number of answers that nobody has asked for yet; a repeated one counts until it was given once."""
        return max(len(self._script) - self._given, 0)

    def assert_done(self) -> None:
        """Raise AssertionError where answers are left over."""
        if self.left:
            left = ", ".join(repr(answer) for answer in self._script[self._given :])
            raise AssertionError(f"{self.left} answers were not asked for: {left}")

    @property
    def url(self) -> str:
        """With ``http=True``: the base URL (``api_base``) of the server, for workers in other processes."""
        if self._server is None:
            raise RuntimeError("Only ScriptedModel(..., http=True) has a URL, and only inside its block.")
        return self._server.url

    def covers(self, agent: str) -> bool:
        """Whether this model stands in for that of the agent of this name."""
        return self._agents is None or agent in self._agents

    def take(self, request: ModelRequest) -> Answer:
        """Note the request and give the next answer. Raises OutOfAnswersError."""
        self.requests.append(request)
        if self._repeat_last and self._script and self._given >= len(self._script):
            return self._script[-1]
        if not self.left:
            raise OutOfAnswersError(self._no_answer_for(request))
        self._given += 1
        return self._script[self._given - 1]

    def _no_answer_for(self, request: ModelRequest) -> str:
        last = request.messages[-1] if request.messages else {}
        return (
            f"The scripted model has no answer for request number {len(self.requests)}, of agent {request.agent!r}; "
            f"{self._given} answers were given. The request ends with {last.get('role')!r}: "
            f"{str(last.get('content'))[:300]!r}. Add answers to ScriptedModel(...), or with script(...)."
        )


def _name(agent: str | Agent) -> str:
    return agent.name if isinstance(agent, Agent) else agent


_active: list[ScriptedModel] = []


def is_scripted(agent: str) -> bool:
    """Whether a scripted model is in place for the agent of this name."""
    return any(model.covers(agent) for model in _active)


def pieces_of(answer: Any) -> list[Piece]:
    """The pieces of an answer. Raises TypeError for what is none."""
    if isinstance(answer, str):
        return [Text(answer)]
    if isinstance(answer, ModelError):
        failed = Failure(answer.kind, str(answer), answer.retryable, answer.retry_after_seconds)
        return [failed]
    if isinstance(answer, Piece):
        return [answer]
    if isinstance(answer, Sequence):
        return [piece for item in answer for piece in pieces_of(item)]
    raise TypeError(f"A scripted answer is a text, pieces (says, calls, fails, ...) or a list of them, not {answer!r}.")


def told_over_http(pieces: list[Piece]) -> list[Piece]:
    """The pieces, where a server can send them. Raises TypeError for one that it cannot."""
    if any(isinstance(piece, Moment) for piece in pieces):
        raise TypeError("does(...) cannot be told over HTTP: leave http=True away in this test.")
    return pieces


def words_of(text: str) -> list[str]:
    """The text cut before each word; joined again it is the text."""
    return _WORD.findall(text)


def usage_of(request: ModelRequest, answered: str) -> ModelUsage:
    """What a call has used, a word being a token."""
    asked = sum(len(words_of(str(message.get("content") or ""))) for message in request.messages)
    return ModelUsage(input_tokens=asked, output_tokens=len(words_of(answered)))


class _ScriptedDoor:
    """The door to one scripted model, and beside it to whatever model the other agents have."""

    def __init__(self, model: ScriptedModel, beside: ModelDoor, server: ModelServer | None) -> None:
        self._model = model
        self._beside = beside
        self._server = server

    def prepare(self) -> None:
        """Nothing is slow to load."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Give the next answer of the script."""
        if not self._model.covers(request.agent):
            source = self._beside.stream(request)
        elif self._server is None:
            source = _Telling(request).events(await self._pieces(request))
        else:
            source = self._server.stream(request, await self._pieces(request))
        try:
            async for event in source:
                yield event
        finally:
            await source.aclose()

    async def _pieces(self, request: ModelRequest) -> list[Piece]:
        """The pieces of the next answer; what the test got wrong ends the run."""
        try:
            answer: Any = self._model.take(request)
            while callable(answer):
                answer = await called(answer, request)
            pieces = pieces_of(answer)
            return pieces if self._server is None else told_over_http(pieces)
        except ModelError as error:
            return pieces_of(error)
        except Exception as error:
            _end(error)

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """Count words."""
        return usage_of(request, answered)

    def continues(self, model: str, settings: Mapping[str, Any] = MappingProxyType({})) -> bool:
        """What the test says of the model."""
        return self._model.continues

    async def aclose(self) -> None:
        """Close what litellm has opened."""
        if self._server is not None and self._model.requests:
            await llm.LiteLLMDoor().aclose()


async def called(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the test, where it may use the ORM if it is sync."""
    runs_here = host.get()
    if runs_here is not None:
        return await runs_here.call_user(function, *args)
    if inspect.iscoroutinefunction(function):
        return await function(*args)
    return await sync_to_async(function)(*args)


def _end(error: Exception) -> NoReturn:
    """A mistake of the test: it ends ``run_until_idle``, and in a real worker the attempt."""
    runs_here = host.get()
    if runs_here is not None:
        runs_here.end(error)
    raise ModelError(ErrorKind.UNKNOWN, f"{type(error).__name__}: {error}", retryable=False) from error


class _Telling:
    """One answer, told piece by piece."""

    def __init__(self, request: ModelRequest) -> None:
        self._request = request
        self._said: list[str] = []
        self._calls = 0

    async def events(self, pieces: Sequence[Piece]) -> AsyncGenerator[ModelEvent]:
        """The events of the pieces, and their end."""
        end = End("", None)
        for piece in pieces:
            if isinstance(piece, End):
                end = piece
            elif isinstance(piece, Failure):
                raise piece.error()
            elif isinstance(piece, Silence | Moment):
                await self._pause(piece)
            else:
                for event in self._told(piece):
                    yield event
        if not self._said and not self._calls:
            raise ModelError(ErrorKind.PROVIDER_5XX, "The model answered with nothing.", retryable=True)
        usage = end.usage or usage_of(self._request, "".join(self._said))
        reason = end.reason or ("tool_calls" if self._calls else "stop")
        yield Finished(finish_reason=reason, usage=usage, model=self._request.model)

    def _told(self, piece: Text | Thought | Call) -> list[ModelEvent]:
        if isinstance(piece, Thought):
            return [ReasoningDelta(text=word) for word in words_of(piece.text)]
        if isinstance(piece, Text):
            self._said.append(piece.text)
            return [TextDelta(text=word) for word in words_of(piece.text)]
        index, self._calls = self._calls, self._calls + 1
        call_id = piece.provider_call_id or f"call_{uuid4().hex}"
        started = CallStarted(index=index, provider_call_id=call_id, tool_name=piece.tool_name)
        return [started, CallArguments(index=index, text=piece.raw)]

    async def _pause(self, piece: Silence | Moment) -> None:
        runs_here = host.get()
        if runs_here is not None:
            await runs_here.settle()
        if isinstance(piece, Silence):
            raise ModelError(ErrorKind.NETWORK, "The model was silent for longer than it may be.", retryable=True)
        try:
            await called(piece.function)
        except Exception as error:
            _end(error)
        if runs_here is not None:
            await runs_here.settle()

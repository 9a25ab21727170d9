"""A scripted model that replaces a real model in tests. Each answer is a list of pieces that are streamed in order."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import ContextDecorator, ExitStack, contextmanager
from types import MappingProxyType
from typing import Any, NoReturn, Self
from uuid import uuid4

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
from durable_agents.testing.model_server import ModelServer
from durable_agents.testing.no_notifications import notifications_muted
from durable_agents.testing.pieces import (
    Action,
    Answer,
    Call,
    End,
    Failure,
    Host,
    Piece,
    Silence,
    Text,
    Thought,
    call_test_function,
    pieces_of,
    sendable_over_http,
    usage_of,
    words_of,
)


class OutOfAnswersError(AssertionError):
    """A scripted model was called more often than it has answers."""


class ScriptedModel(ContextDecorator):
    """A model that returns scripted answers in order, one for each request: ``with ScriptedModel(...) as model:``.

    Use it as a context manager, as a decorator of a test, or with ``enterContext`` in a ``TestCase``. It replaces the
    models of all agents, or only the models of ``agents``. By default, it makes no network requests and does not import
    litellm.

    - With ``http=True``, each request goes through litellm to a real HTTP server on localhost. The answers are the
      same, but ``does`` is not supported.
    - With ``seconds_per_word``, the server pauses after each word, so that there is time to stop a worker or to close a
      page in the middle of an answer. Requires ``http=True``.
    - With ``repeat_last``, the last answer is repeated as often as needed.
    - ``continues`` says whether the model can continue its own text, for example after a crash.
    - ``requests`` lists the requests so far, as ``ModelRequest`` objects. Messages and tools are in the OpenAI format.
    """

    def __init__(
        self,
        *answers: Answer,
        agents: Collection[str | Agent] | None = None,
        http: bool = False,
        seconds_per_word: float = 0,
        repeat_last: bool = False,
        continues: bool = False,
    ) -> None:
        if seconds_per_word and not http:
            raise TypeError("seconds_per_word=... requires http=True: other answers are there at once.")
        self.requests: list[ModelRequest] = []
        self.continues = continues
        self._script = list(answers)
        self._used = 0
        self._agents = (
            None if agents is None else {agent.name if isinstance(agent, Agent) else agent for agent in agents}
        )
        self._http = http
        self._seconds_per_word = seconds_per_word
        self._repeat_last = repeat_last
        self._server: ModelServer | None = None
        self._entered: ExitStack | None = None

    def __enter__(self) -> Self:
        if self._entered is not None:
            raise RuntimeError("This ScriptedModel is already in use: create another one.")
        self.requests, self._used = [], 0
        with ExitStack() as stack:
            if self._http:
                self._server = stack.enter_context(ModelServer(self.take, seconds_per_word=self._seconds_per_word))
            else:
                stack.enter_context(notifications_muted())
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
        """Decorate a test, which can be a function or a coroutine function."""
        if isinstance(test, type):
            raise TypeError("A ScriptedModel decorates a test, not a class: use self.enterContext(...) in setUp.")
        if not inspect.iscoroutinefunction(test):
            return super().__call__(test)

        # ContextDecorator would exit the context when the coroutine is created, before the test runs.
        @functools.wraps(test)
        async def scripted(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await test(*args, **kwargs)

        return scripted

    def script(self, *answers: Answer) -> Self:
        """Add answers at the end of the script. Return the model."""
        self._script.extend(answers)
        return self

    @property
    def left(self) -> int:
        """The number of unused answers. With ``repeat_last``, the last answer counts as used after its first use."""
        return max(len(self._script) - self._used, 0)

    def assert_done(self) -> None:
        """Raise AssertionError if any answers were not used."""
        if self.left:
            left = ", ".join(repr(answer) for answer in self._script[self._used :])
            raise AssertionError(f"{self.left} answers were not used: {left}")

    @property
    def url(self) -> str:
        """The base URL (``api_base``) of the server, for workers in other processes. Requires ``http=True``."""
        if self._server is None:
            raise RuntimeError("Only ScriptedModel(..., http=True) has a URL, and only inside its block.")
        return self._server.url

    def covers(self, agent: str) -> bool:
        """Return whether this model replaces the model of the agent with this name."""
        return self._agents is None or agent in self._agents

    def take(self, request: ModelRequest) -> Answer:
        """Record the request and return the next answer. Raises OutOfAnswersError if no answer is left."""
        self.requests.append(request)
        if self._repeat_last and self._script and self._used >= len(self._script):
            return self._script[-1]
        if not self.left:
            last: Mapping[str, object] = request.messages[-1] if request.messages else {}
            raise OutOfAnswersError(
                f"The scripted model has no answer for request number {len(self.requests)}, of agent "
                f"{request.agent!r}; {self._used} answers were used. The request ends with {last.get('role')!r}: "
                f"{str(last.get('content'))[:300]!r}. Add answers to ScriptedModel(...), or with script(...)."
            )
        self._used += 1
        return self._script[self._used - 1]


_active: list[ScriptedModel] = []
_hosts: list[Host] = []


@contextmanager
def hosted_by(host: Host) -> Iterator[None]:
    """Within the block, let ``host`` call the functions in scripted answers. An error in a function ends the host's
    run.
    """
    _hosts.append(host)
    try:
        yield
    finally:
        _hosts.remove(host)


def _host() -> Host | None:
    """Return the ``run_until_idle`` that is running in this process, or None."""
    return _hosts[-1] if _hosts else None


def is_scripted(agent: str) -> bool:
    """Return whether a scripted model replaces the model of the agent with this name."""
    return any(model.covers(agent) for model in _active)


class _ScriptedDoor:
    """Implements ModelDoor, the interface for model calls, with a scripted model.

    The scripted model may replace the models of only some agents. Requests of all other agents go to the ModelDoor that
    was active before.
    """

    def __init__(self, model: ScriptedModel, beside: ModelDoor, server: ModelServer | None) -> None:
        self._model = model
        self._beside = beside
        self._server = server

    def prepare(self) -> None:
        """Do nothing, because a scripted model has nothing to load."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Stream the next scripted answer. Requests of agents that are not scripted go to the earlier ModelDoor."""
        if not self._model.covers(request.agent):
            source = self._beside.stream(request)
        elif self._server is None:
            source = _PieceStream(request).events(await self._pieces(request))
        else:
            source = self._server.stream(request, await self._pieces(request))
        try:
            async for event in source:
                yield event
        finally:
            # Close the stream. Otherwise, its connection would stay open and the server would go on writing.
            await source.aclose()

    async def _pieces(self, request: ModelRequest) -> list[Piece]:
        """Return the pieces of the next answer. An error in the test's script ends the run."""
        try:
            answer: object = self._model.take(request)
            while callable(answer):
                answer = await call_test_function(answer, request, host=_host())
            pieces = pieces_of(answer)
            return pieces if self._server is None else sendable_over_http(pieces)
        except ModelError as error:
            return pieces_of(error)
        except Exception as error:
            _end(error)

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """Count each word as a token."""
        return usage_of(request, answered)

    def continues(self, model: str, settings: Mapping[str, Any] = MappingProxyType({})) -> bool:
        """Return ``ScriptedModel.continues``, regardless of the arguments."""
        return self._model.continues

    async def aclose(self) -> None:
        """If any requests were made through litellm, close litellm's connections."""
        if self._server is not None and self._model.requests:
            await llm.LiteLLMDoor().aclose()


def _end(error: Exception) -> NoReturn:
    """End ``run_until_idle`` with this error. In a real worker, fail the attempt instead."""
    if (host := _host()) is not None:
        host.end(error)
    raise ModelError(ErrorKind.UNKNOWN, f"{type(error).__name__}: {error}", retryable=False) from error


class _PieceStream:
    """Streams one scripted answer, piece by piece."""

    def __init__(self, request: ModelRequest) -> None:
        self._request = request
        self._text: list[str] = []
        self._calls = 0

    async def events(self, pieces: Sequence[Piece]) -> AsyncGenerator[ModelEvent]:
        """Yield the events of all pieces, and finally ``Finished``."""
        end = End("", None)
        for piece in pieces:
            if isinstance(piece, End):
                end = piece
            elif isinstance(piece, Failure):
                raise piece.error()
            elif isinstance(piece, Silence | Action):
                await self._pause(piece)
            else:
                for event in self._events_of(piece):
                    yield event
        if not self._text and not self._calls and not self._request.may_be_silent:
            raise ModelError(ErrorKind.PROVIDER_5XX, "The model answered with nothing.", retryable=True)
        usage = end.usage or usage_of(self._request, "".join(self._text))
        reason = end.reason or ("tool_calls" if self._calls else "stop")
        yield Finished(finish_reason=reason, usage=usage, model=self._request.model)

    def _events_of(self, piece: Text | Thought | Call) -> list[ModelEvent]:
        if isinstance(piece, Thought):
            return [ReasoningDelta(text=word) for word in words_of(piece.text)]
        if isinstance(piece, Text):
            self._text.append(piece.text)
            return [TextDelta(text=word) for word in words_of(piece.text)]
        index, self._calls = self._calls, self._calls + 1
        call_id = piece.provider_call_id or f"call_{uuid4().hex}"
        started = CallStarted(index=index, provider_call_id=call_id, tool_name=piece.tool_name)
        return [started, CallArguments(index=index, text=piece.raw)]

    async def _pause(self, piece: Silence | Action) -> None:
        host = _host()
        if host is not None:
            await host.settle()
        if isinstance(piece, Silence):
            raise ModelError(ErrorKind.NETWORK, "The model was silent for longer than it may be.", retryable=True)
        try:
            await call_test_function(piece.function, host=host)
        except Exception as error:
            _end(error)
        if host is not None:
            await host.settle()

"""The door to models as a worker uses it: one event loop for all calls, and a real server at the other end.

litellm takes seconds to load, so it is loaded once, by the first test that calls a model.
"""

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from durable_agents.exceptions import ModelError
from durable_agents.llm import CallArguments, CallStarted, Finished, LiteLLMDoor, ModelEvent, ModelRequest, TextDelta
from tests.lifecycle.stage import agent, bells, declare, worker
from tests.llm.dialects import DIALECTS, Dialect
from tests.llm.wire import WireServer

__all__ = ["agent", "bells", "declare", "worker"]

MAX_SECONDS = 20
Run = Callable[[Coroutine[Any, Any, Any]], Any]
Ask = Callable[..., list[ModelEvent]]


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return the one loop that litellm's connections are bound to."""
    kept = asyncio.new_event_loop()
    yield kept
    kept.run_until_complete(LiteLLMDoor().aclose())
    kept.close()


@pytest.fixture
def run(loop: asyncio.AbstractEventLoop) -> Run:
    """Return a function that runs a coroutine on that loop, where warnings about litellm's own code are no errors."""

    def ran(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return loop.run_until_complete(asyncio.wait_for(coroutine, MAX_SECONDS))

    return ran


@pytest.fixture
def server() -> Iterator[WireServer]:
    """Return a running model server, to be told what to answer."""
    with WireServer() as running:
        yield running


@pytest.fixture
def request_to(server: WireServer) -> Callable[..., ModelRequest]:
    """Return a function that makes a request to the server."""

    def made(**changes: object) -> ModelRequest:
        settings = {"api_base": server.url, "api_key": "key-123", **changes.pop("settings", {})}
        messages = [{"role": "user", "content": "Hi"}]
        return ModelRequest(**{"model": "openai/x", "messages": messages, "settings": settings, **changes})

    return made


@pytest.fixture
def ask(run: Run, request_to: Callable[..., ModelRequest]) -> Ask:
    """Return a function that makes one model call and gives its events."""

    async def called(request: ModelRequest) -> list[ModelEvent]:
        async with contextlib.aclosing(LiteLLMDoor().stream(request)) as events:
            return [event async for event in events]

    return lambda **changes: run(called(request_to(**changes)))


@pytest.fixture
def at_root(server: WireServer) -> dict[str, str]:
    """Return settings for providers that add the path of their own to the server's address."""
    return {"api_base": server.url.removesuffix("/v1")}


@pytest.fixture(params=DIALECTS.values(), ids=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Return the wire format of one provider after the other."""
    return request.param


@pytest.fixture
def hear(server: WireServer, ask: Ask, dialect: Dialect) -> Callable[..., list[ModelEvent]]:
    """Return a function that lets the server give one answer in the dialect, and gives what the door makes of it."""

    def heard(answer: object, **settings: object) -> list[ModelEvent]:
        server.answer_with(answer)
        return ask(model=dialect.model, settings={**dialect.settings(server.url), **settings})

    return heard


@pytest.fixture
def refused(hear: Callable[..., list[ModelEvent]]) -> Callable[..., ModelError]:
    """Return a function that lets the server give one answer in the dialect, which must be a failure; its error."""

    def failed(answer: object, **settings: object) -> ModelError:
        with pytest.raises(ModelError) as caught:
            hear(answer, **settings)
        return caught.value

    return failed


@pytest.fixture
def failure(ask: Ask) -> Callable[..., ModelError]:
    """Return a function that makes one model call which must fail, and gives its error."""

    def failed(**changes: object) -> ModelError:
        with pytest.raises(ModelError) as caught:
            ask(**changes)
        return caught.value

    return failed


@dataclass(frozen=True)
class Said:
    """What the events of a call add up to."""

    events: list[ModelEvent]

    @property
    def text(self) -> str:
        """All text."""
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """Provider's id, name and raw arguments of each call."""
        arguments: dict[int, str] = {}
        for event in self.events:
            if isinstance(event, CallArguments):
                arguments[event.index] = arguments.get(event.index, "") + event.text
        started = [event for event in self.events if isinstance(event, CallStarted)]
        return [(call.provider_call_id, call.tool_name, arguments.get(call.index, "")) for call in started]

    @property
    def end(self) -> Finished:
        """The last event, which must be the end."""
        last = self.events[-1]
        assert isinstance(last, Finished)
        return last

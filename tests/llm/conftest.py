"""The door to models as a worker uses it: one event loop for all calls, and a real server at the other end.

litellm takes seconds to load, so it is loaded once, by the first test that calls a model.
"""

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Self

import pytest

from durable_agents import Agent, Retry, create_thread
from durable_agents.agents import registry
from durable_agents.exceptions import ModelError
from durable_agents.llm import LiteLLMDoor, ModelDoor, ModelEvent, ModelRequest, door_replaced
from durable_agents.models import Message, Stream, Thread, ToolCall
from durable_agents.testing import run_until_idle
from durable_agents.transcript import ui_messages
from tests.llm.dialects import DIALECTS, Dialect
from tests.llm.doors import DOORS, skip_if_not_served
from tests.llm.wire import WireServer

MAX_SECONDS = 20
Run = Callable[[Coroutine[Any, Any, Any]], Any]
Ask = Callable[..., list[ModelEvent]]


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return the one loop that litellm's connections are bound to; litellm is loaded, as in a worker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LiteLLMDoor().prepare()
    kept = asyncio.new_event_loop()
    yield kept
    for opened in DOORS.values():
        kept.run_until_complete(opened.aclose())
    kept.close()


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> ModelDoor:
    """Return one door after the other: each has to keep the same promises."""
    return DOORS[request.param]


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
def ask(run: Run, request_to: Callable[..., ModelRequest], door: ModelDoor) -> Ask:
    """Return a function that makes one model call and gives its events."""

    async def called(request: ModelRequest) -> list[ModelEvent]:
        skip_if_not_served(door, request.model)
        async with contextlib.aclosing(door.stream(request)) as events:
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


@dataclass(frozen=True, kw_only=True)
class Talked:
    """How a run ended that the real engine made through the real door."""

    thread: Thread
    server: WireServer
    door: ModelDoor

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What the provider was asked, call by call."""
        return self.server.requests

    def goes_on(self) -> Self:
        """Do what has become due since."""
        with warnings.catch_warnings(), door_replaced(self.door):
            warnings.simplefilter("ignore")  # about litellm's own code
            run_until_idle(real_models=True)
        self.thread.refresh_from_db()
        return self

    @property
    def ended(self) -> tuple[str, str]:
        """The status of the thread and the finish reason of its last step."""
        return self.thread.status, self.steps[-1].finish_reason

    @property
    def steps(self) -> list[Stream]:
        """Every attempt at a step, in order."""
        return list(Stream.objects.filter(thread=self.thread).order_by("number"))

    @property
    def text(self) -> str:
        """All text of the answer."""
        return "".join(part["text"] for part in self.parts if part["type"] == "text")

    @property
    def reasoning(self) -> str:
        """All reasoning of the answer."""
        return "".join(part["text"] for part in self.parts if part["type"] == "reasoning")

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The parts of the answer as clients see them."""
        shown = Message.objects.shown().filter(thread=self.thread, role="assistant")
        return [part for message in ui_messages(shown) for part in message["parts"]]

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Name and status of each call, in the order in which the model made them."""
        made = {call.tool_call_id: call for call in ToolCall.objects.filter(thread=self.thread)}
        return [(made[key].tool_name, made[key].status) for part in self.parts if (key := part.get("toolCallId"))]

    def told(self) -> list[str]:
        """What the last request tells the model of its calls, in order."""
        return [message["content"] for message in self.requests[-1]["messages"] if message["role"] == "tool"]


@pytest.fixture
def talk(server: WireServer, bells: object, door: ModelDoor) -> Iterator[Callable[..., Talked]]:
    """Return a function that lets an agent with these tools run against these answers, the last of which repeats."""
    declared: list[str] = []

    def forget() -> None:
        while declared:
            registry.remove(declared.pop())

    def talked(*answers: object, dialect: Dialect = DIALECTS["openai"], **options: Any) -> Talked:
        settings = (
            {"api_base": server.url + options.pop("path", "")} if "path" in options else dialect.settings(server.url)
        )
        settings = {**settings, "api_key": "key-123", **options.pop("settings", {})}
        options = {"model": dialect.model, "retry": Retry(initial_delay_seconds=0.01), **options}
        forget()
        skip_if_not_served(door, options["model"])
        agent = Agent("wired", model_settings=settings, **options)
        declared.append(agent.name)
        server.journal.clear()
        server.answer_with(*answers)
        return Talked(thread=create_thread(agent, prompt="Hi"), server=server, door=door).goes_on()

    yield talked
    forget()

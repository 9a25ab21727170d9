"""A key with which models are called is nowhere: not in rows, answers, frames, pages or tasks, nor in the log at DEBUG.

Every fault is one in which somebody says the key: the provider in its refusal, a library in its error, a tool.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from durable_agents import Agent, Retry, ToolError, create_thread, tool
from durable_agents.agents import registry
from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm.error_mapping import model_error
from durable_agents.llm.litellm.loading import library
from durable_agents.logs import log
from durable_agents.models import Message, Stream, ToolCall
from durable_agents.redaction import MASK, MAX_KNOWN, redacted, remember
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.api.calls import person
from tests.llm.dialects import DIALECTS, OPENAI
from tests.llm.wire import Refusal, Wire, WireServer, says
from tests.security.places import places_with
from tests.servers.model import Call, Garbage, Reply, Stall, Status
from tests.websocket.sockets import ORIGIN, SUBPROTOCOL, Socket, cookie_of, forget_layer

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries of litellm's warn of each other

KEY = "sk-canary-0123456789abcdefXYZ"
HEADER = "header-canary-9876543210"
LIBRARIES = (
    "LiteLLM",
    "openai",
    "httpx",
    "httpcore",
    "aiohttp",
    "asyncio",
    "urllib3",
    "django",
    "django-q",
    "channels",
)


class ClosedError(Exception):
    """An error of a library that says what it was called with."""


@tool
def blurt() -> str:
    """Fail as libraries fail."""
    raise ClosedError(f"GET https://api.example/?key={KEY}: 403")


@tool(retry=Retry(max_attempts=2, initial_delay_seconds=0))
def blurt_twice() -> str:
    """Fail, and fail again."""
    try:
        raise ClosedError(KEY)
    except ClosedError as error:
        raise RuntimeError("no connection") from error


def blurting(*_: Any, **__: Any) -> Any:
    """Fail in a function of the agent."""
    raise ClosedError(f"no rows for {KEY}")


class Everything(logging.Handler):
    """Keeps every record as a formatter writes it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write it down, with its facts."""
        self.lines.append(f"{record.name} {self.format(record)} {record.__dict__}")

    def lines_with(self, secret: str) -> list[str]:
        """Return the lines in which a text is found, short."""
        return [
            line[:60] + " ... " + line[max(line.index(secret) - 80, 0) :][:200] for line in self.lines if secret in line
        ]


@pytest.fixture
def everything() -> Iterator[Everything]:
    """Listen to every logger, at DEBUG."""
    library()  # makes its loggers
    handler, root = Everything(), logging.getLogger()
    loggers = [
        root,
        *(logging.getLogger(name) for name in ("durable_agents", *LIBRARIES, *logging.root.manager.loggerDict)),
    ]
    before = [(logger, logger.level, logger.propagate, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.propagate, logger.disabled = True, False
        logger.setLevel(logging.DEBUG if logger is root else logging.NOTSET)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    for logger, level, propagate, disabled in before:
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled


@pytest.fixture
def server() -> Iterator[WireServer]:
    """Return a model server that sends whatever it is told."""
    with WireServer() as running:
        yield running


@pytest.fixture
def canary(server: WireServer) -> Iterator[Any]:
    """Return a function that declares the agent with the key, of any provider."""

    def declared(dialect: Any = OPENAI, **options: Any) -> Agent:
        settings = {**dialect.settings(server.url), "api_key": KEY, "extra_headers": {"X-Gateway-Key": HEADER}}
        settings |= options.pop("model_settings", {})
        options = {"tools": [blurt, blurt_twice], "retry": Retry(max_attempts=2), "public": True, **options}
        return Agent("canary", model=dialect.model, model_settings=settings, **options)

    yield declared
    registry.remove("canary")


def run(agent: Agent) -> Any:
    """Talk to it until it has no more to do."""
    thread = create_thread(agent, owner=person("ann"), prompt="Hi.")
    run_until_idle(real_models=True)
    thread.refresh_from_db()
    return thread


def assert_nowhere(thread: Any, everything: Everything) -> None:
    """No row, answer, page or line has either secret."""
    assert places_with(thread, KEY, HEADER) == []
    assert everything.lines_with(KEY) + everything.lines_with(HEADER) == []


ECHO = f"Incorrect API key provided: {KEY} ({HEADER})."
FAULTS = {
    "401": (Status(status=401, message=ECHO), "auth"),
    "500": (Status(status=500, message=ECHO), "provider_5xx"),
    "429": (Status(status=429, message=ECHO), "rate_limited"),
    "400": (Status(status=400, message=ECHO), "invalid_request"),
    "garbage": (Garbage(text=f"<html>{ECHO}</html>"), "network"),
    "in the stream": (
        Wire(pieces=(*says("One "), f'data: {{"error": {{"message": "{ECHO}", "code": 500}}}}\n\n')),
        "provider_5xx",
    ),
    "no JSON": (Wire(pieces=(*says("One "), f"data: {ECHO}\n\n")), "network"),
    "cut": (Wire(pieces=says("One ", "two"), ending="torn"), "network"),
    "stall": (Stall(reply=Reply(text="One two."), after=1, seconds=20), "network"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("fault", FAULTS)
def test_a_provider_that_says_the_key_is_not_repeated(canary, server, everything, fault):
    """The admin's detail has the provider's message, without it."""
    answer, kind = FAULTS[fault]
    server.answer_with(answer)
    thread = run(canary(model_settings={"timeout": 0.3} if fault == "stall" else {}))
    assert thread.status == "failed"
    assert thread.error_code in {kind, "network", "provider_5xx"}
    assert len(server.requests) in {1, 2}
    assert_nowhere(thread, everything)
    if isinstance(answer, Status):
        details = list(Stream.objects.values_list("error_detail", flat=True))
        assert all(f"Incorrect API key provided: {MASK} ({MASK})." in detail for detail in details)


@pytest.mark.django_db
@pytest.mark.parametrize("name", DIALECTS)
def test_no_provider_is_repeated(canary, server, everything, name):
    """Whatever its format and its library's errors, refused and answered."""
    dialect = DIALECTS[name]
    server.answer_with(Refusal(status=500, error=dialect.error("error", ECHO)), dialect.whole(*dialect.text))
    thread = run(canary(dialect))
    assert (thread.status, len(server.requests)) == ("completed", 2)
    assert MASK in Stream.objects.order_by("number").first().error_detail
    assert_nowhere(thread, everything)


@pytest.mark.django_db
def test_a_tool_that_says_the_key_is_not_repeated(canary, server, everything):
    """Neither to the model, nor in its row, nor in the traceback; nor when it is tried again."""
    server.answer_with(
        Reply(calls=(Call(name="blurt", arguments={}), Call(name="blurt_twice", arguments={}))), Reply(text="Well.")
    )
    thread = run(canary())
    assert thread.status == "completed"
    assert KEY not in str(server.requests)
    details = {call.tool_name: call.error_detail for call in ToolCall.objects.all()}
    assert details == {
        "blurt": f"ClosedError: GET https://api.example/?key={MASK}: 403",
        "blurt_twice": "RuntimeError: no connection",
    }
    assert any("in blurt" in line and MASK in line for line in everything.lines)
    assert_nowhere(thread, everything)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "function", ["instructions", "configure", "transform_messages", "title", "on_message_complete"]
)
def test_a_function_of_the_agent_that_says_the_key_is_not_repeated(canary, everything, function):
    """In the detail of the attempt as in the log."""
    thread = run(canary(**{function: blurting}))
    assert any(MASK in line for line in everything.lines)
    assert_nowhere(thread, everything)


@pytest.mark.django_db
def test_a_key_of_configure_is_as_secret(canary, server, everything):
    """It may be another one for each user."""
    own = "sk-of-ann-1234567890"
    server.answer_with(Status(status=401, message=f"Incorrect: {own}"))
    thread = run(canary(configure=lambda thread: {"model_settings": {"api_base": server.url, "api_key": own}}))
    assert MASK in Stream.objects.get().error_detail
    assert places_with(thread, own) == []
    assert everything.lines_with(own) == []


@pytest.mark.django_db
def test_callbacks_of_the_project_are_told_no_key(canary, server):
    """They write it into logs and messages of their own."""
    told = []
    server.answer_with(Status(status=500, message=ECHO), Status(status=500, message=ECHO))
    run(canary(on_retry=lambda **facts: told.append(facts), on_error=lambda **facts: told.append(facts)))
    assert len(told) == 2
    assert KEY not in str(told)
    assert MASK in told[0]["error"]


@pytest.mark.django_db
def test_the_doctor_and_an_agents_own_text_show_no_key(canary, everything):
    """Though both are for people who may know it."""
    agent = canary()
    out = StringIO()
    with suppress(SystemExit):  # it finds no workers
        call_command("agents_doctor", "--json", stdout=out)
    assert '"area": "models"' in out.getvalue()
    assert KEY not in out.getvalue() + repr(agent) + str(agent)
    assert everything.lines_with(KEY) == []


@pytest.mark.django_db(transaction=True)
async def test_no_frame_of_the_websocket_has_the_key(canary, server, everything, monkeypatch):
    """After a failed run with a failed call in it."""
    from tests.websocket.sockets import act

    monkeypatch.setattr("durable_agents.notifications.workers.notify_cluster", lambda _: None)
    script = Reply(calls=(Call(name="blurt", arguments={}),)), Status(status=401, message=ECHO)
    server.answer_with(*script)
    thread = await act(run, canary())
    cookie = await act(lambda: cookie_of(thread.owner))
    socket = await Socket(headers={"origin": ORIGIN, "cookie": cookie}, subprotocols=[SUBPROTOCOL]).open()
    snapshot = await socket.ask(type="subscribe", thread=str(thread.pk))
    older = await socket.ask(type="older", thread=str(thread.pk), before=100)
    await socket.leave()
    await forget_layer()
    assert (snapshot["status"], snapshot["error"]["code"]) == ("failed", "auth")
    assert len(older["messages"]) == 2
    assert KEY not in str([snapshot, older])
    assert everything.lines_with(KEY) == []


# What counts as a secret.


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": "0123456789"},
        {"aws_secret_access_key": "0123456789"},
        {"extra_headers": {"Authorization": "Bearer 0123456789"}},
        {"extra_body": {"auth": [{"token": "0123456789"}]}},
        {"vertex_credentials": {"private": "0123456789"}},
    ],
)
def test_values_of_keys_are_secret_at_any_depth(settings):
    """By the name that they, or what they are in, have."""
    remember(settings)
    assert redacted("It was 0123456789!") == f"It was {MASK}!"


def test_other_settings_and_short_values_are_none():
    """A text full of masks tells nobody anything."""
    remember({"stop": "a stop word", "max_tokens": 100_000, "api_key": "none", "seed": 12345678})
    assert redacted("a stop word, 100000, none, 12345678") == "a stop word, 100000, none, 12345678"


def test_keys_of_the_environment_are_secret(monkeypatch):
    """litellm takes them from there."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-from-the-environment")
    error = model_error(ValueError("x" * 3995 + "sk-from-the-environment"))
    assert "sk-from" not in str(error)
    assert isinstance(error, ModelError)
    assert error.kind is ErrorKind.UNKNOWN


def test_a_secret_within_another_leaves_nothing_of_the_longer_one():
    """The longest first."""
    remember({"api_key": "abcdefgh", "token": "abcdefgh-ijklmnop"})
    assert redacted("abcdefgh-ijklmnop") == MASK


def test_the_oldest_of_very_many_keys_is_forgotten():
    """A process that runs for months does not grow."""
    remember({f"{number}_key": f"number-{number:08}" for number in range(MAX_KNOWN + 1)})
    assert "number" in redacted("number-00000000")
    assert redacted(f"number-{MAX_KNOWN:08}") == MASK


def test_a_traceback_without_a_secret_stays_one(caplog):
    """Error reporters want the exception itself."""
    with caplog.at_level(logging.ERROR, "durable_agents"):
        log(logging.ERROR, "failed", action="test", error=ValueError("harmless"))
    assert caplog.records[-1].exc_info is not None


@pytest.mark.django_db
def test_what_a_tool_tells_the_model_on_purpose_stays_as_it_is(canary):
    """A ToolError's text is the developer's own, and promised to arrive."""

    @tool
    def explain() -> str:
        """Say why not."""
        raise ToolError("The order 4711 is closed.")

    canary(tools=[explain])
    with ScriptedModel(calls("explain"), "I see."):
        thread = create_thread("canary", owner=person("ann"), prompt="Hi.")
        run_until_idle()
    assert ToolCall.objects.get().error == "The order 4711 is closed."
    assert Message.objects.filter(thread=thread).count() == 2

"""What the demo is made of: its model, its tools, its secret, its socket."""

import logging
import stat
import sys
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from demo_project import agents as demo_agents
from demo_project import listening_socket
from demo_project.agents import add, get_time, get_weather, setup
from demo_project.logs import FactsFormatter
from demo_project.management.commands.demo import child_environment
from demo_project.models import Booking
from demo_project.settings import checkout_secret, database
from durable_agents import Agent, ToolContext, ToolError, create_thread
from durable_agents.agents import registry
from durable_agents.lifecycle import add_tool_result, approve_tool_call, reject_tool_call
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle

ONLY_ON_LINUX = pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one address of loopback")


def test_without_any_variable_the_scripted_model_answers():
    """At the address where `python -m demo_project.scripted_model` listens by default."""
    model, settings, calls_tools = setup({})
    assert (model, calls_tools) == ("openai/scripted", True)
    assert settings["api_base"] == "http://127.0.0.1:8765/v1"


def test_demo_model_is_passed_on_with_the_users_own_variables():
    """Nothing of the demo's gets in the way of the provider's environment."""
    environ = {
        "DEMO_MODEL": "openai/gpt-4o-mini",
        "OPENAI_API_KEY": "key",
        "DEMO_SCRIPTED_URL": "http://127.0.0.1:1/v1",
    }
    assert setup(environ) == ("openai/gpt-4o-mini", {}, True)


@pytest.mark.parametrize("variable", ["OPENAI_API_BASE", "OPENAI_BASE_URL"])
def test_an_own_server_without_a_key_gets_a_placeholder(variable):
    """OpenAI's client refuses to start without one."""
    assert setup({"DEMO_MODEL": "openai/x", variable: "http://127.0.0.1:1/v1"}).settings == {"api_key": "none"}


def test_no_placeholder_is_sent_to_openai_itself():
    """Its own error says what is wrong."""
    assert setup({"DEMO_MODEL": "openai/gpt-4o-mini"}).settings == {}


def test_the_local_model_comes_first_and_has_no_tools():
    """It cannot call any."""
    model, settings, calls_tools = setup({"DEMO_LOCAL_URL": "http://127.0.0.1:2/v1", "DEMO_MODEL": "openai/x"})
    assert (model, settings["api_base"], calls_tools) == ("openai/smollm2", "http://127.0.0.1:2/v1", False)


def test_the_weather_of_a_city_is_always_the_same():
    """Demo data, but steady."""
    ctx = ToolContext.for_test()
    assert get_weather(ctx, "Paris") == get_weather(ctx, "Paris")
    assert get_weather(ctx, "Paris") != get_weather(ctx, "Oslo")


async def test_the_time_is_that_of_the_zone():
    """With its offset."""
    told = await get_time(ToolContext.for_test(), "Asia/Tokyo")
    assert datetime.fromisoformat(told["time"]).utcoffset().total_seconds() == 9 * 3600


@pytest.mark.parametrize("tz", ["Nowhere/City", "", "../etc/passwd", "Europe", "x" * 300])
async def test_an_unknown_zone_is_an_error_for_the_model(tz):
    """With a hint that lets it try again."""
    with pytest.raises(ToolError, match="Europe/Paris"):
        await get_time(ToolContext.for_test(), tz)


def test_add_adds():
    """As the model may rely on."""
    assert add(2, 3.5) == 5.5


@pytest.fixture
def clerk():
    """Return an agent with the demo's tools, forgotten after the test."""
    yield Agent("demo_clerk", model="openai/x", tools=demo_agents.TOOLS)
    registry.remove("demo_clerk")


def made(clerk, owner, tool_name, **arguments):
    """Let a model call one of the demo's tools, and return the call as it then is."""
    with ScriptedModel(calls(tool_name, **arguments), "Done."):
        thread = create_thread(clerk, owner=owner, prompt="Please.")
        run_until_idle()
    return ToolCall.objects.select_related("thread").get(thread=thread)


@pytest.fixture
def ann(django_user_model):
    """Return a user."""
    return django_user_model.objects.create(username="ann")


TABLE = {"restaurant": "Luigi's", "people": 4, "time": "19:30"}


@pytest.mark.django_db
def test_a_table_is_booked_once_its_owner_agrees(clerk, ann):
    """With the arguments that were approved."""
    call = made(clerk, ann, "book_table", **TABLE)
    assert (call.status, call.expires_at, Booking.objects.count()) == ("approval_requested", None, 0)
    approve_tool_call(call.thread, call.tool_call_id, by=ann, arguments=TABLE | {"people": 5})
    with ScriptedModel("Done."):
        run_until_idle()
    booking = Booking.objects.get()
    assert (booking.restaurant, booking.people, booking.time, booking.booked_for) == ("Luigi's", 5, "19:30", ann)
    call.refresh_from_db()
    assert call.result == TABLE | {"people": 5, "booking": booking.pk}


@pytest.mark.django_db
def test_a_table_that_is_refused_or_too_large_is_not_booked(clerk, ann):
    """The model is told."""
    refused, large = (made(clerk, ann, "book_table", **TABLE | {"people": people}) for people in (4, 400))
    reject_tool_call(refused.thread, refused.tool_call_id, by=ann)
    approve_tool_call(large.thread, large.tool_call_id, by=ann)
    with ScriptedModel("Done.", "Done."):
        run_until_idle()
    for call, status in ((refused, "denied"), (large, "failed")):
        call.refresh_from_db()
        assert call.status == status
    assert Booking.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("tool_name", "arguments"), [("ask_colleague", {"question": "Well?"}), ("pick_date", {"label": "Day"})]
)
def test_a_colleague_and_the_browser_are_waited_for(clerk, ann, tool_name, arguments):
    """The owner may give the answer, days later if he must."""
    call = made(clerk, ann, tool_name, **arguments)
    assert (call.status, call.answered_by, call.expires_at) == ("pending", "owner", None)
    assert add_tool_result(call.thread, call.tool_call_id, "2026-12-24").status == "completed"


@pytest.mark.parametrize("number", [0, 101])
async def test_counting_has_its_bounds(number):
    """Nobody waits for ever."""
    with pytest.raises(ToolError):
        await demo_agents.count_to(ToolContext.for_test(), number)


def test_the_secret_of_a_checkout_is_made_once_and_private(tmp_path):
    """It also signs what the workers unpickle."""
    path = tmp_path / ".demo-secret"
    first = checkout_secret(path)
    assert len(first) > 50
    assert checkout_secret(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [".demo-secret"]


def test_sqlite_is_set_up_for_many_writers():
    """WAL, immediate transactions and a patient wait."""
    options = database("sqlite:///x.sqlite3")["OPTIONS"]
    assert options["transaction_mode"] == "IMMEDIATE"
    assert options["timeout"] == 20
    assert "journal_mode=WAL" in options["init_command"]


@pytest.mark.parametrize(("host", "own"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)])
def test_loopback_is_recognised(host, own):
    """By address or by its usual name."""
    assert listening_socket.is_loopback(host) is own


def test_a_wildcard_address_is_shown_as_one_that_can_be_opened():
    """Browsers do not like 0.0.0.0."""
    with listening_socket.listen("0.0.0.0", 0) as listener:
        assert listening_socket.site_url(listener) == f"http://127.0.0.1:{listening_socket.port_of(listener)}/"


def test_an_address_of_another_machine_is_an_error():
    """Not a search for the next port."""
    with pytest.raises(OSError, match=r"(?i)assign"):
        listening_socket.listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "given", "answers_to"),
    [
        pytest.param("127.0.0.2", "", {"localhost", "127.0.0.1", "[::1]", "127.0.0.2"}, marks=ONLY_ON_LINUX),
        ("127.0.0.1", "demo.example", {"demo.example", "127.0.0.1"}),
        ("0.0.0.0", "", {"*", "127.0.0.1"}),
    ],
)
def test_the_site_answers_at_the_url_that_is_printed(monkeypatch, settings, host, given, answers_to):
    """Whatever the address, and whatever names the environment gives it."""
    monkeypatch.setenv("ALLOWED_HOSTS", given)
    settings.ALLOWED_HOSTS = given.split(",") if given else ["localhost", "127.0.0.1", "[::1]"]
    with listening_socket.listen(host, 0) as listener:
        assert set(child_environment(listener)["ALLOWED_HOSTS"].split(",")) == answers_to


@pytest.mark.parametrize(("status", "is_ready"), [(200, True), (302, True), (400, False), (503, False)])
def test_a_server_that_answers_by_an_error_is_not_ready(status, is_ready):
    """Nobody could open its page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        assert listening_socket.is_answering("127.0.0.1", server.server_port, "/") is is_ready
        answering.join()


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"action": "claim", "thread": "0a1b2c3d-and-more", "attempt": 2}, "claimed thread=0a1b2c3d attempt=2"),
        ({"action": "sweep", "fence": 3}, "claimed fence=3"),
        ({}, "claimed"),
    ],
)
def test_a_line_of_the_log_has_the_facts_of_its_record(facts, line):
    """The number that the standard library calls a thread is none of them."""
    record = logging.makeLogRecord({"msg": "claimed", "levelname": "INFO", "thread": 140_000} | facts)
    assert FactsFormatter().format(record).partition(" INFO ")[2] == line

"""What the demo is made of: its model, its tools, its secret, its socket."""

import stat
from datetime import datetime

import pytest

from demo_project import listening
from demo_project.agents import add, get_time, get_weather, setup
from demo_project.settings import checkout_secret, database
from durable_agents import ToolError


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
    assert get_weather("Paris") == get_weather("Paris")
    assert get_weather("Paris") != get_weather("Oslo")


async def test_the_time_is_that_of_the_zone():
    """With its offset."""
    told = await get_time("Asia/Tokyo")
    assert datetime.fromisoformat(told["time"]).utcoffset().total_seconds() == 9 * 3600


@pytest.mark.parametrize("tz", ["Nowhere/City", "", "../etc/passwd", "Europe", "x" * 300])
async def test_an_unknown_zone_is_an_error_for_the_model(tz):
    """With a hint that lets it try again."""
    with pytest.raises(ToolError, match="Europe/Paris"):
        await get_time(tz)


def test_add_adds():
    """As the model may rely on."""
    assert add(2, 3.5) == 5.5


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
    assert listening.is_loopback(host) is own


def test_a_wildcard_address_is_shown_as_one_that_can_be_opened():
    """Browsers do not like 0.0.0.0."""
    with listening.listen("0.0.0.0", 0) as listener:
        assert listening.site_url(listener) == f"http://127.0.0.1:{listening.port_of(listener)}/"


def test_an_address_of_another_machine_is_an_error():
    """Not a search for the next port."""
    with pytest.raises(OSError, match=r"(?i)assign"):
        listening.listen("192.0.2.1", 0)

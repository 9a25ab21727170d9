"""`manage.py demo` brings up the whole product, and takes all of it down again."""

import io
import re
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from demo_project.scripted_model import answer
from tests.demo.running import DATABASE, RunningDemo, finished_thread, started_thread, wait_until_streaming


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Iterator[RunningDemo]:
    """Return a running demo that the tests of this module share."""
    with RunningDemo(tmp_path_factory.mktemp("demo"), "--port", "0") as running:
        yield running


@pytest.fixture
def folder(demo, tmp_path) -> Path:
    """Return the folder of a second demo, with a copy of the first one's database, so that it need not migrate."""
    with closing(sqlite3.connect(demo.database)) as source, closing(sqlite3.connect(tmp_path / DATABASE)) as target:
        source.backup(target)
    return tmp_path


def test_the_first_url_printed_leads_to_the_sign_in(demo):
    """A person opens what the terminal shows."""
    with demo.client() as client:
        answer = client.get("/")
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/accounts/login/")
    assert "demo / demo" in demo.output


@pytest.mark.parametrize(("name", "admin_status"), [("demo", 200), ("guest", 302)])
def test_both_users_sign_in_by_form_and_see_what_is_theirs(demo, name, admin_status):
    """The chat is everybody's, the admin is the administrator's."""
    with demo.client() as client:
        form = client.get("/accounts/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form.text)
        assert token, form.text
        data = {"username": name, "password": name, "csrfmiddlewaretoken": token[1], "next": "/"}
        answer = client.post("/accounts/login/", data=data, headers={"Referer": str(form.url)})
        assert answer.headers["Location"] == "/"
        assert client.get("/").status_code == 200
        assert client.get("/admin/").status_code == admin_status


def test_the_static_files_are_served(demo):
    """The page needs its script."""
    with demo.client() as client:
        assert client.get("/static/durable_agents/durable-agents.js").status_code == 200


def test_a_question_is_answered_by_the_scripted_model_using_two_tools(demo):
    """From the API through worker, model and tools and back."""
    with demo.signed_in("guest") as client:
        messages = finished_thread(client, "What is the weather in Paris and the time in Tokyo?")
    assert [message["role"] for message in messages] == ["user", "assistant"]
    parts = messages[1]["parts"]
    tools = {part["type"]: part for part in parts if part["type"].startswith("tool-")}
    assert tools["tool-get_weather"]["input"] == {"city": "Paris"}
    assert tools["tool-get_time"]["output"]["tz"] == "Asia/Tokyo"
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    assert f"{tools['tool-get_weather']['output']['temperature_c']} °C" in text
    assert "scripted" in text
    assert "DEMO_MODEL" in text


def test_a_german_question_is_answered_in_german(demo):
    """The browser's header says so. It reaches the model and the tools in the worker."""
    with demo.signed_in("guest") as client:
        client.headers["Accept-Language"] = "de"
        messages = finished_thread(client, "Wie ist das Wetter in Ulm und wie spät ist es in Tokyo?")
    parts = messages[1]["parts"]
    (weekday,) = (part["output"]["weekday"] for part in parts if part["type"] == "tool-get_time")
    assert weekday.endswith(("tag", "Mittwoch"))
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    assert re.search(rf"In Ulm sind es -?\d+ °C, und es ist \w+. In Asia/Tokyo ist es {weekday}, \d\d:\d\d Uhr.", text)
    assert "Diese Antwort folgt einem Skript" in text


def test_demo_model_names_a_model_elsewhere_which_needs_no_key(folder, model_server):
    """Any server that speaks OpenAI's protocol, reached by the provider's usual variable."""
    model_server.answer_with(answer)
    env = {"DEMO_MODEL": "openai/x", "OPENAI_API_BASE": model_server.url}
    with RunningDemo(folder, "--port", "0", **env) as demo, demo.signed_in("demo") as client:
        assert demo.children("scripted_model") == []
        messages = finished_thread(client, "Add 2 and 3, and tell me the weather in Oslo.")
    assert [part["type"] for part in messages[1]["parts"] if part["type"].startswith("tool-")] == [
        "tool-add",
        "tool-get_weather",
    ]
    assert [request["model"] for request in model_server.requests] == ["x", "x"]


def test_a_web_server_that_died_is_started_again(demo):
    """The address stays the same: the command holds the socket."""
    (web,) = demo.children("daphne")
    web.kill()
    with demo.client() as client:
        assert client.get("/").status_code == 302
    assert "The web server stopped" in demo.output


@pytest.mark.parametrize(
    ("number", "whole_group"),
    [
        pytest.param(signal.SIGINT, False, id="ctrl-c"),
        pytest.param(signal.SIGKILL, False, id="kill -9 of the command"),
        pytest.param(signal.SIGKILL, True, id="kill -9 of its group", marks=pytest.mark.slow),
    ],
)
def test_the_end_of_the_command_ends_every_process(folder, number, whole_group):
    """Also in the middle of an answer that would take another minute."""
    with RunningDemo(folder, "--port", "0") as demo, demo.signed_in("demo") as client:
        wait_until_streaming(client, started_thread(client, "Tell me a long story."))
        assert len(demo.children("qcluster")) > 2
        assert demo.stop(number, whole_group=whole_group) == []


def test_a_taken_port_is_passed_over(folder):
    """And the new one is printed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with RunningDemo(folder, "--port", str(port)) as demo:
            assert f":{port}/" not in demo.url
            assert f"Port {port} is taken" in demo.output
            with demo.client() as client:
                assert client.get("/").status_code == 302


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_known_passwords_are_refused_beyond_this_machine(host):
    """Anyone could sign in as the administrator."""
    with pytest.raises(CommandError, match="--insecure"):
        call_command("demo", host=host, stdout=io.StringIO())

"""`manage.py agents_chat` shows a conversation in the terminal, and asks for what the run waits for."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from durable_agents import Agent, ToolContext, ToolError, create_thread, send_message, tool
from durable_agents.agents import registry
from durable_agents.management.commands import agents_chat
from durable_agents.models import Message, Thread, ToolCall
from durable_agents.reading import follow_run
from durable_agents.testing import ScriptedModel, calls, fails, run_until_idle, says, thinks
from tests.processes import ROOT
from tests.servers.model import Call, Reply
from tests.workers import running

pytestmark = pytest.mark.django_db(transaction=True)


@tool
def count(ctx: ToolContext, to: int) -> list[int]:
    """Count."""
    if to > 3:
        raise ToolError("I can count to three only.")
    ctx.progress({"at": to})
    return list(range(to))


@tool(needs_approval=True)
def refund(order_id: int) -> str:
    """Pay back."""
    return f"refunded {order_id}"


@tool(kind="client")
def pick(label: str) -> object:
    """Let the user pick."""
    raise AssertionError("The browser runs this.")


@tool(kind="client", needs_approval=True)
def locate() -> object:
    """Say where the user is."""
    raise AssertionError("The browser runs this.")


@pytest.fixture(autouse=True)
def _agent() -> Iterator[None]:
    Agent("talking", model="openai/x", tools=[count, refund, pick, locate])
    yield
    registry.remove("talking")


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that types lines, and returns what the command prints. Workers run while it waits."""

    def chat(*lines: str, options: tuple[str, ...] = (), script: tuple[Any, ...] = ()) -> str:
        out, typed = StringIO(), iter(lines)

        def typing(prompt: str) -> str:
            out.write(prompt)
            line = next(typed, None)
            if line is None:
                raise EOFError
            if line == "^C":
                raise KeyboardInterrupt
            out.write(f"{line}\n")
            return line

        monkeypatch.setattr("builtins.input", typing)
        monkeypatch.setattr(follow_run.time, "sleep", lambda seconds: run_until_idle())
        with ScriptedModel(*script):
            call_command("agents_chat", "talking", *options, stdout=out, stderr=out, no_color=True)
        return out.getvalue()

    return chat


def test_an_answer_is_printed_and_the_next_line_goes_on(chat):
    """In one thread, whose id is named at the end."""
    said = chat("Hello.", "", "And now?", script=([thinks("Hm."), says("Hi.")], "Bye."))
    thread = Thread.objects.get()
    assert said == (
        "> Hello.\nHm.\nHi.\n> \n> And now?\nBye.\n> "
        f"\nContinue with: manage.py agents_chat talking --thread {thread.pk}\n"
    )


def test_calls_are_printed_with_progress_and_outcome(chat):
    """Errors, too."""
    said = chat("Count.", script=([calls("count", to=2), calls("count", to=4)], "Done."))
    assert '[count] {"to": 2}\n' in said
    assert "[count] -> [0, 1]\n" in said
    assert "[count] I can count to three only.\n" in said
    assert "\nDone.\n" in said


@pytest.mark.parametrize(
    ("answer", "shown", "status", "reason"),
    [
        ("y", "[refund] -> refunded 7", "completed", ""),
        ("", "[refund] rejected", "denied", ""),
        ("no", "[refund] rejected", "denied", ""),
        ("Too much.", "[refund] rejected", "denied", "Too much."),
    ],
)
def test_an_approval_is_asked_for(chat, answer, shown, status, reason):
    """Anything but a yes rejects the call."""
    said = chat("Pay.", answer, script=(calls("refund", order_id=7), "Done."))
    assert f"Approve refund? [y/N, or a reason to reject] {answer}\n" in said
    assert shown in said
    call = ToolCall.objects.get()
    assert (call.status, call.approval_reason) == (status, reason)


@pytest.mark.parametrize(("typed", "result"), [('{"day": 3}', {"day": 3}), ("Monday", "Monday")])
def test_the_result_of_a_client_tool_is_asked_for(chat, typed, result):
    """As JSON or as text."""
    chat("Pick.", typed, script=(calls("pick", label="Day"), "Done."))
    assert ToolCall.objects.get().result == result


def test_a_client_tool_that_needs_approval_asks_for_both(chat):
    """First for the approval."""
    chat("Where?", "y", "Oslo", script=(calls("locate"), "Done."))
    call = ToolCall.objects.get()
    assert (call.status, call.result) == ("completed", "Oslo")


def test_a_failed_run_is_told_and_another_line_goes_on(chat):
    """The text is that for users. The details behind it are those of the admin."""
    said = chat("Hello.", "Again.", script=(fails("auth", "401: no such key"), "Hi."))
    assert said.count("\n> ") == 2
    assert "The model's credentials are not accepted.\n(auth: 401: no such key)\n" in said
    assert "Hi.\n" in said


def test_ctrl_c_stops_the_run_and_then_ends_the_conversation(chat):
    """While it waits for an approval."""
    said = chat("Pay.", "^C", "^C", script=(calls("refund", order_id=7),))
    assert "(stopped)" in said
    assert "Continue with" in said
    assert Thread.objects.get().status == "stopped"


def test_the_end_of_the_input_leaves_the_run_waiting(chat):
    """The next conversation asks again, before its first prompt."""
    chat("Pay.", script=(calls("refund", order_id=7),))
    thread = Thread.objects.get()
    assert thread.status == "awaiting_tool_results"
    said = chat("y", options=("--thread", str(thread.pk)), script=("Paid.",))
    assert said.startswith("[refund] ")
    assert "Paid.\n> \n" in said


def test_a_user_and_a_scope_are_those_of_the_thread(chat):
    """The user is the sender, too."""
    ada = get_user_model().objects.create_user("ada")
    chat("Hello.", options=("--user", "ada", "--scope", "acme"), script=("Hi.",))
    thread = Thread.objects.get()
    assert (thread.owner, thread.scope) == (ada, "acme")
    assert Message.objects.get(role="user").sender == ada


def test_a_line_that_is_refused_does_not_end_the_conversation(chat):
    """Nothing of it is stored."""
    said = chat("x" * 40_000, "Hello.", script=("Hi.",))
    assert "Hi.\n" in said
    assert Thread.objects.count() == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody",), "talking"),
        (("talking", "--user", "nobody"), "no user 'nobody'"),
        (("talking", "--thread", "x"), "x"),
    ],
)
def test_a_wrong_name_is_an_error_with_a_hint(arguments, words):
    """Before anything is stored."""
    with pytest.raises(CommandError, match=words):
        call_command("agents_chat", *arguments)


def test_a_thread_of_another_agent_is_refused(declare):
    """Its agent is named."""
    declare()
    thread = create_thread("tested")
    with pytest.raises(CommandError, match="belongs to the agent 'tested'"):
        call_command("agents_chat", "talking", "--thread", str(thread.pk))


def test_control_characters_do_not_reach_the_terminal(chat):
    """A model could clear the screen or pretend to be a prompt."""
    said = chat("Hello.", script=("\x1b[2J\x9b1mHi\r.\n\tBye.",))
    assert "\ufffd[2J\ufffd1mHi\ufffd.\n\tBye." in said


def test_without_a_worker_a_hint_is_printed(chat, monkeypatch):
    """The conversation waits on."""
    monkeypatch.setattr(agents_chat, "SILENCE_SECONDS", 0.01)
    thread = create_thread("talking")
    send_message(thread, "Hello.")
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        real_sleep(0.1)
        if len(waited) > 2:
            raise KeyboardInterrupt

    real_sleep, out = time.sleep, StringIO()
    monkeypatch.setattr(follow_run.time, "sleep", sleep)
    monkeypatch.setattr("builtins.input", lambda prompt: (_ for _ in ()).throw(EOFError))
    call_command("agents_chat", "talking", "--thread", str(thread.pk), stdout=out, no_color=True)
    assert out.getvalue().count("Is a worker running? manage.py qcluster") == 1


def test_it_talks_to_real_workers(worker_env, model_server):
    """From a pipe."""
    model_server.answer_with(Reply(calls=(Call(name="add", arguments={"a": 1, "b": 2}),)), Reply(text="Three."))
    with running(worker_env, workers=1, TEST_MODEL_URL=model_server.url):
        command = [sys.executable, "manage.py", "agents_chat", "informed"]
        env = {**os.environ, **worker_env}
        done = subprocess.run(
            command, check=False, cwd=ROOT, env=env, input="Add.\n", capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0
    assert "[add] -> 3\n" in done.stdout
    assert "Three.\n" in done.stdout

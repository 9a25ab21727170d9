"""`ctx.sender`: whose message the run answers, beside whose thread it is."""

from collections.abc import Iterator
from typing import Any

import pytest

from durable_agents import Agent, ToolContext, approve_tool_call, create_thread, regenerate, send_message, tool
from durable_agents.agents import registry
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.api.calls import person

pytestmark = pytest.mark.django_db

ASKED: list[tuple[str, Any, Any]] = []


def noted(ctx: ToolContext, word: str) -> str:
    """Say a word."""
    ASKED.append((word, ctx.owner, ctx.sender))
    return word


def is_needed(ctx: ToolContext, args: dict[str, Any]) -> bool:
    """Note who asks, and need no approval."""
    ASKED.append(("approval", ctx.owner, ctx.sender))
    return False


@tool
async def aloud(ctx: ToolContext, word: str) -> str:
    """Say a word on the event loop, where no query may run."""
    return noted(ctx, word)


@pytest.fixture(autouse=True)
def agent() -> Iterator[None]:
    ASKED.clear()
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "checked": {"needs_approval": is_needed},
        "approved": {"needs_approval": True},
        "atomic": {"atomic": True},
    }
    tools = [tool(name=name, **options)(noted) for name, options in kinds.items()]
    Agent("asked_by", model="openai/x", tools=[*tools, aloud])
    yield
    registry.remove("asked_by")


@pytest.fixture
def ada() -> Any:
    return person("ada")


@pytest.fixture
def bob() -> Any:
    return person("bob")


def asked(thread: Any, name: str = "plain", word: str = "x") -> list[Any]:
    """Let the model call the tool, and return who owned the thread and who asked, each time."""
    ASKED.clear()
    with ScriptedModel(calls(name, word=word), *["Done."] * 2):
        run_until_idle()
        for call in ToolCall.objects.open().filter(thread=thread):
            approve_tool_call(thread, call.tool_call_id, by=None)
        run_until_idle()
    return [(owner, sender) for _, owner, sender in ASKED]


@pytest.mark.parametrize("name", ["plain", "aloud", "approved", "atomic"])
def test_a_tool_knows_whose_message_the_run_answers(ada, bob, name):
    """And whose thread it is."""
    thread = create_thread("asked_by", owner=ada, scope="org", prompt="One.", by=ada)
    assert asked(thread, name) == [(ada, ada)]
    send_message(thread, "Two.", by=bob)
    assert asked(thread, name) == [(ada, bob)]


def test_who_decides_whether_an_approval_is_needed_knows_it_too(ada, bob):
    thread = create_thread("asked_by", owner=ada, scope="org", prompt="One.", by=ada)
    send_message(thread, "Two.", by=bob)
    assert asked(thread, "checked") == [(ada, bob), (ada, bob)]


def test_what_the_project_sends_is_the_owners(ada, bob):
    """As where `approved_by` asks who caused a call."""
    thread = create_thread("asked_by", owner=ada, prompt="One.", by=bob)
    send_message(thread, "Two.")
    assert asked(thread) == [(ada, ada)]


def test_a_thread_without_an_owner_has_senders(bob):
    """Or none: a visitor has no user."""
    thread = create_thread("asked_by", scope="visitor:1", prompt="One.")
    assert asked(thread) == [(None, None)]
    send_message(thread, "Two.", by=bob)
    assert asked(thread) == [(None, bob)]


def test_an_answer_that_another_person_regenerates_keeps_its_question(ada, bob):
    """The message is still the first person's."""
    thread = create_thread("asked_by", owner=ada, scope="org", prompt="One.", by=bob)
    assert asked(thread) == [(ada, bob)]
    regenerate(thread, by=ada)
    assert asked(thread) == [(ada, bob)]


def test_every_call_of_a_step_has_it(ada, bob):
    thread = create_thread("asked_by", owner=ada, scope="org", prompt="One.", by=bob)
    with ScriptedModel([calls("plain", word="a"), calls("aloud", word="b")], "Done."):
        run_until_idle()
    assert sorted((word, sender.pk) for word, _, sender in ASKED) == [("a", bob.pk), ("b", bob.pk)]
    assert thread.owner == ada


def test_the_context_of_a_test_has_the_owner_as_its_sender(ada, bob):
    """Unless another one is given."""
    assert ToolContext.for_test(owner=ada).sender == ada
    assert ToolContext.for_test(owner=ada, sender=bob).sender == bob

"""Which calls go directly and which through litellm, with the reason that the doctor gives."""

import subprocess
import sys

import pytest

from durable_agents import Agent
from durable_agents.agents import registry
from durable_agents.llm import AutoDoor, DirectDoor, LiteLLMDoor
from durable_agents.llm.auto_door import reason_for_litellm
from durable_agents.llm.litellm.loading import library
from tests.architecture.sources import ROOT
from tests.llm.paths import Said
from tests.llm.wire import gemini
from tests.servers.model import ModelUnderTest, Reply


@pytest.fixture
def door():
    """Return the door that chooses."""
    return AutoDoor()


@pytest.fixture
def asked(monkeypatch, server, ask):
    """Return a function that makes a call, and gives the name of the door that made it."""
    server.answer_with(Reply(text="Hello.", delay_seconds=0))
    by_litellm = []
    stream = LiteLLMDoor.stream

    def noted(self, request):
        by_litellm.append(request.model)
        return stream(self, request)

    monkeypatch.setattr(LiteLLMDoor, "stream", noted)

    def called(**changes):
        by_litellm.clear()
        assert Said(ask(**changes)).text == "Hello."
        return "litellm" if by_litellm else "direct"

    return called


@pytest.mark.parametrize("model", ["openai/x", "mistral/x", "groq/x", "gpt-4o", "openrouter/some/model"])
def test_a_provider_of_the_table_is_called_directly(asked, model):
    assert asked(model=model, settings={"temperature": 0.2}) == "direct"


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("nvidia_nim/x", {}),
        ("openai/x", {"drop_params": True}),
        ("openai/x", {"a_setting_of_tomorrow": 1}),
        ("deepseek/x", {"thinking": {"type": "enabled"}}),
        ("openai/x", {"extra_headers": {"Authorization": "Bearer x"}}),
        ("openai/gpt-4o-audio-preview", {}),
    ],
)
def test_what_is_not_in_the_table_goes_through_litellm(asked, model, settings):
    assert asked(model=model, settings=settings) == "litellm"
    assert reason_for_litellm(model, settings)


def test_a_part_that_is_not_in_the_table_goes_through_litellm(asked):
    text = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
    assert asked(messages=[{"role": "user", "content": [text]}]) == "litellm"
    assert asked(messages=[{"role": "user", "content": "Hi", "name": "ann"}]) == "litellm"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("success_callback", [print]),
        ("callbacks", [object()]),
        ("custom_provider_map", [{"provider": "own", "custom_handler": None}]),
        ("api_key", "key-of-litellm"),
        ("drop_params", True),
        ("ssl_verify", False),
    ],
)
def test_a_project_that_has_set_litellm_up_is_called_through_it(monkeypatch, name, value):
    assert reason_for_litellm("openai/x", {}) == ""
    monkeypatch.setattr(library(), name, value)
    assert reason_for_litellm("openai/x", {}) == f"the project has set litellm up: litellm.{name}"


def test_a_call_through_litellm_changes_nothing_for_the_others(run, server, request_to, at_root):
    """Its first call of Gemini registers a callback of its own."""
    server.answer_with(gemini(({"text": "Hello."},)))
    request = request_to(model="gemini/gemini-2.5-flash", settings=at_root)

    async def called():
        return [event async for event in LiteLLMDoor().stream(request)]

    assert Said(run(called())).text == "Hello."
    assert reason_for_litellm("openai/x", {}) == ""


def test_callbacks_of_litellm_get_its_calls(monkeypatch, asked):
    monkeypatch.setattr(library(), "input_callback", [lambda *_: None])
    assert asked() == "litellm"


@pytest.mark.parametrize("name", ["USE_LITELLM_PROXY", "LITELLM_MODIFY_PARAMS", "SSL_VERIFY"])
def test_variables_that_only_litellm_reads_lead_to_it(monkeypatch, name):
    monkeypatch.setenv(name, "True")
    assert reason_for_litellm("openai/x", {}) == f"the project has set litellm up: {name}"


def test_estimates_and_continuations_are_the_direct_doors(door, request_to):
    request = request_to(model="openai/gpt-4o")
    assert door.estimate(request, "One two.") == DirectDoor().estimate(request, "One two.")
    assert door.continues("anthropic/claude-sonnet-4-5") is True


def test_preparing_imports_litellm_for_agents_that_need_it_alone(monkeypatch, door):
    prepared = []
    monkeypatch.setattr(LiteLLMDoor, "prepare", lambda _: prepared.append("litellm"))
    monkeypatch.setattr(registry, "all", list)
    door.prepare()
    assert prepared == []
    agent = Agent("needs_litellm", model=["openai/x", "bedrock/x"])
    registry.remove(agent.name)
    monkeypatch.setattr(registry, "all", lambda: [agent])
    door.prepare()
    assert prepared == ["litellm"]


PROGRAM = """
import asyncio, sys, django

django.setup()
from durable_agents.llm import ModelRequest, door


async def ask(model):
    settings = {"api_base": sys.argv[1], "api_key": "none"}
    request = ModelRequest(model=model, messages=[{"role": "user", "content": "Hi"}], settings=settings)
    return type([event async for event in door().stream(request)][-1]).__name__


async def main():
    found = [await ask("openai/x"), "litellm" in sys.modules]
    found += [await ask("custom_openai/x"), "litellm" in sys.modules]
    await door().aclose()
    return found


door().prepare()
print(asyncio.run(main()))
"""


def test_a_process_imports_litellm_with_the_first_call_that_needs_it(child_env):
    with ModelUnderTest(Reply(text="Hello.", delay_seconds=0)) as server:
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, server.url],
            cwd=ROOT,
            env=child_env,
            capture_output=True,
            text=True,
            check=True,
        )
    assert ran.stdout.strip() == "['Finished', False, 'Finished', True]"

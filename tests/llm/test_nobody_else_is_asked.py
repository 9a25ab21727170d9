"""Nobody but the configured provider is contacted: by a call, an estimate, a price, or a question about a model."""

import json
import socket
import subprocess
import sys

import pytest

from durable_agents.llm.direct.providers import PROVIDERS
from durable_agents.llm.litellm.loading import library
from tests.architecture.sources import ROOT
from tests.llm.wire import WireServer, says, whole
from tests.servers.lookups import Lookups

OWN_SIGN_IN = {
    *("auth.openai.com", "github.com", "iam.cloud.ibm.com", "ngw.devices.sberbank.ru"),
    *("169.254.169.254", "api.replicate.com"),
}
"""Where ChatGPT, GitHub Copilot, watsonx, GigaChat, SageMaker and Replicate are signed in to, or called."""

PROGRAM = """
import asyncio, json, logging, sys, warnings

import django

django.setup()
logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
from durable_agents.llm import ModelRequest, door
from durable_agents.llm.litellm.loading import cost_of, is_known_to, library, problem_with

url, done = sys.argv[1], []


def asking(model):
    settings = {"api_base": url, "api_key": "key-123"}
    return ModelRequest(model=model, messages=[{"role": "user", "content": "Hi"}], settings=settings)


async def call(model):
    try:
        async with asyncio.timeout(10):
            done.extend([type(event).__name__ async for event in door().stream(asking(model))][-1:])
    except BaseException:
        pass  # many are no models to chat with


def look(model):
    door().estimate(asking(model), "Hello you")
    door().continues(model)
    is_known_to(model, "supports_assistant_prefill")
    cost_of(model=model, prompt_tokens=1, completion_tokens=1)
    problem_with(model)


async def main(what, models):
    for model in models:
        await call(model) if what == "call" else look(model)
    await door().aclose()


door().prepare()
models = json.loads(sys.argv[3]) or [f"{getattr(it, 'value', it)}/llama-3-x" for it in library().provider_list]
asyncio.run(main(sys.argv[2], models))
print(len(models), done.count("Finished"))
"""


@pytest.fixture
def watched(child_env, tmp_path):
    """Return a function that runs the program on models, all providers' where none are given, and what it looked up."""

    def ran(what, *models, door="litellm"):
        lookups, chosen = Lookups(tmp_path), {"TEST_DURABLE_AGENTS": json.dumps({"MODEL_DOOR": door})}
        with WireServer(whole(*says("Hello ", "you"))) as server:
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, server.url, what, json.dumps(models)],
                cwd=ROOT,
                env={**lookups.env(child_env), "HOME": str(tmp_path), **chosen},
                capture_output=True,
                text=True,
                timeout=150,
                check=True,
            )
        count, finished = map(int, done.stdout.split()[-2:])
        others = {port for host, port in lookups.asked if host in {"127.0.0.1", "localhost"}} - {str(server.port), "9"}
        return count, finished, lookups.elsewhere, others

    return ran


NAMED = [
    *("groq/llama-3.3-70b-versatile", "openai/llama-2-7b", "openai/command-r", "command-r", "openai/replicate"),
    *("anthropic/claude-2.1", "openai/gpt-4o", "openai/o3", "openai/gpt-3.5-turbo-0301", "openai/text-davinci-003"),
    *("huggingface/meta-llama/Llama-3.1-8B", "bedrock/llama-3-x", "ollama_chat/llama3.1", "lemonade/llama-3"),
]


def test_no_tokenizer_or_template_is_looked_for_by_the_models_name(watched):
    _, finished, elsewhere, others = watched("call", *NAMED)
    assert (elsewhere, others) == (set(), set())
    assert finished >= 8  # the rest speaks another format than the server's


def test_the_direct_door_asks_nobody_else(watched):
    models = [f"{name}/llama-3-x" for name in PROVIDERS if name != "anthropic"]
    count, finished, elsewhere, others = watched("call", *models, door="direct")
    assert (finished, elsewhere, others) == (count, set(), set())


def test_questions_about_a_model_are_answered_offline_for_every_provider(watched):
    count, _, elsewhere, others = watched("look")
    assert (count > 100, elsewhere, others) == (True, set(), set())


def test_the_host_of_an_image_is_not_asked_for_its_size(loop, monkeypatch):
    """litellm counts the tokens of a call by itself where the provider tells none."""
    looked_up = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: looked_up.append(host) or [])
    image = {"type": "image_url", "image_url": {"url": "http://images.example.test/a.png", "detail": "high"}}
    counted = library().token_counter(model="mistral/x", messages=[{"role": "user", "content": [image]}])
    assert (looked_up, counted > 0) == ([], True)


@pytest.mark.slow
def test_calls_of_every_provider_go_to_the_configured_host_alone(watched):
    """Whatever a provider's own sign-in asks beside."""
    count, finished, elsewhere, others = watched("call")
    assert (count > 100, finished > 60, others) == (True, True, set())
    assert elsewhere <= OWN_SIGN_IN

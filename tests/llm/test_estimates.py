"""What a call has probably used, where its provider does not say."""

import subprocess
import sys
from decimal import Decimal

import pytest

from durable_agents.llm import ModelRequest
from durable_agents.llm.usage_estimate import tokens_of
from tests.architecture.sources import ROOT


@pytest.fixture
def estimated(door):
    """Return a function that estimates one question and its answer."""

    def of(content="Hi", answered="", *, model="openai/gpt-4o", **facts):
        messages = [{"role": "user", "content": content}]
        return door.estimate(ModelRequest(model=model, messages=messages, **facts), answered)

    return of


@pytest.mark.parametrize(
    ("text", "fewest", "most"),  # by cl100k_base: 10, 13, 11, 0
    [
        ("The quick brown fox jumps over the lazy dog.", 8, 13),
        ("敏捷的棕色狐狸跳过懒狗", 8, 20),
        ("Съешь ещё этих мягких французских булок", 10, 30),
        ("", 0, 0),
        ("\ud83d", 1, 2),
    ],
)
def test_a_text_in_any_language_has_about_as_many_tokens_as_it_has(text, fewest, most):
    assert fewest <= tokens_of(text) <= most


def test_what_was_asked_counts_with_its_images_and_tools(estimated):
    image = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "data:image/png,x"}}]
    tool = {"type": "function", "function": {"name": "add", "description": "Add two numbers." * 20}}
    plain, with_image, with_tool = estimated("What is it?"), estimated(image), estimated("What is it?", tools=[tool])
    assert with_image.input_tokens > plain.input_tokens + 500
    assert with_tool.input_tokens > plain.input_tokens + 50


def test_an_estimate_has_the_list_price(estimated):
    """2.50 and 10 dollars a million."""
    usage = estimated("x" * 4_000, "y" * 4_000)
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (1004, 1000, True)
    assert usage.cost == Decimal("0.01251000")


@pytest.mark.parametrize("model", ["openai/of-our-own", "ollama_chat/gpt-4o", "nonsense"])
def test_a_model_that_is_not_in_the_list_of_its_provider_has_no_price(estimated, model):
    assert estimated(model=model, answered="Hello").cost is None


def test_an_estimate_loads_no_library(child_env):
    """A process that recovers the rows of a dead worker has not made a call yet."""
    program = """
import sys, django

django.setup()
from durable_agents.llm import ModelRequest, door

usage = door().estimate(ModelRequest(model="openai/gpt-4o", messages=[{"role": "user", "content": "Hi"}]), "Hello")
print(usage.cost > 0, {"litellm", "tiktoken", "tokenizers"} & sys.modules.keys())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=child_env, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "True set()"

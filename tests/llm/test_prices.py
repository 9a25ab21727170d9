"""Both doors give the same price to the same usage."""

from itertools import product

import pytest

from tests.llm.dialects import ANTHROPIC
from tests.llm.doors import DOORS
from tests.llm.paths import Said
from tests.llm.wire import DONE, Wire, anthropic_event, anthropic_opening, event, says, stop, text_block

MODELS = [
    *("openai/gpt-4o", "openai/gpt-5", "gpt-4o-mini", "deepseek/deepseek-chat", "mistral/mistral-large-latest"),
    *("groq/llama-3.3-70b-versatile", "xai/grok-4", "openrouter/anthropic/claude-sonnet-4.5", "openai/of-our-own"),
]
USAGES = {
    "plain": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200},
    "cached": {
        "prompt_tokens": 1000,
        "completion_tokens": 200,
        "total_tokens": 1200,
        "prompt_tokens_details": {"cached_tokens": 400},
        "completion_tokens_details": {"reasoning_tokens": 50},
    },
    "long": {"prompt_tokens": 300_000, "completion_tokens": 2000, "total_tokens": 302_000},
}


@pytest.fixture
def counted(run, request_to):
    """Return a function that makes a call through a door, and gives its usage."""

    async def asked(door, request):
        return [event async for event in door.stream(request)]

    def usage(name, **changes):
        return Said(run(asked(DOORS[name], request_to(**changes)))).end.usage

    return usage


@pytest.mark.parametrize(("model", "case"), [*product(MODELS, USAGES)])
def test_a_usage_in_openais_format_has_the_same_price(server, counted, model, case):
    server.answer_with(Wire(pieces=(*says("Hi"), stop(), event({}, usage=USAGES[case]), DONE)))
    assert counted("direct", model=model) == counted("litellm", model=model)


@pytest.mark.parametrize("facts", [{}, {"cache_read_input_tokens": 400, "cache_creation_input_tokens": 100}])
@pytest.mark.parametrize("tokens", [500, 300_000])
@pytest.mark.parametrize("model", [ANTHROPIC.model, "anthropic/claude-opus-4-7", "claude-haiku-4-5"])
def test_a_usage_of_anthropic_has_the_same_price(server, counted, at_root, model, tokens, facts):
    opening = anthropic_opening(input_tokens=tokens, **facts)
    ending = anthropic_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 200})
    pieces = (opening, *text_block("Hi").events(0), ending, anthropic_event("message_stop"))
    server.answer_with(Wire(pieces=pieces))
    asked = {"model": model, "settings": at_root}
    assert counted("direct", **asked) == counted("litellm", **asked)

"""Both doors send the same request: address, headers and body, for what the direct door takes."""

import asyncio
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from durable_agents.exceptions import ModelError
from durable_agents.llm import ModelRequest, Step, Turn, openai_messages
from durable_agents.llm.direct.request import NotDirectError, check
from durable_agents.parts import CallOutcome
from tests.llm.doors import DOORS

HEADERS = {
    *("authorization", "x-api-key", "anthropic-version", "http-referer", "x-title", "content-type", "x-own"),
    *("openai-organization", "openai-project", "anthropic-beta"),
}
"""Headers that mean something to a provider; the others describe the HTTP client."""

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/Number"}},
            "required": ["a"],
            "additionalProperties": False,
            "$defs": {"Number": {"type": "integer"}},
        },
    },
}
MODELS = {
    "anthropic": ("anthropic/claude-sonnet-4-5", "anthropic/claude-opus-4-7", "claude-haiku-4-5", "anthropic/x"),
    "cerebras": ("cerebras/x",),
    "deepseek": ("deepseek/deepseek-chat", "deepseek/x"),
    "groq": ("groq/openai/gpt-oss-120b", "groq/x"),
    "hosted_vllm": ("hosted_vllm/x",),
    "lm_studio": ("lm_studio/x",),
    "mistral": ("mistral/mistral-large-latest", "mistral/x"),
    "moonshot": ("moonshot/kimi-k2-thinking", "moonshot/x"),
    "openai": (
        "openai/x",
        "openai/gpt-4o",
        "gpt-4o-mini",
        "openai/gpt-5",
        "openai/gpt-5-mini",
    ),
    "openrouter": ("openrouter/some/model", "openrouter/auto", "openrouter/anthropic/claude-sonnet-4.5"),
    "together_ai": ("together_ai/x",),
    "xai": ("xai/grok-4", "xai/x"),
}
VALUES = {
    "frequency_penalty": [0.1],
    "logit_bias": [{"1": 1}],
    "logprobs": [True],
    "max_completion_tokens": [100],
    "max_tokens": [100],
    "min_p": [0.1],
    "models": [["a/b"]],
    "n": [1],
    "parallel_tool_calls": [False, True],
    "presence_penalty": [0.1],
    "prompt_cache_key": ["k"],
    "provider": [{"order": ["a"]}],
    "reasoning": [{"effort": "low"}],
    "reasoning_effort": ["low", "medium", "high"],
    "response_format": [{"type": "json_object"}],
    "route": ["fallback"],
    "safety_identifier": ["x"],
    "seed": [1],
    "service_tier": ["flex"],
    "stop": ["a", ["a", "b"]],
    "store": [True],
    "temperature": [0.2],
    "thinking": [{"type": "enabled", "budget_tokens": 2000}, {"type": "adaptive"}],
    "tool_choice": ["auto", "none", "required", {"type": "function", "function": {"name": "add"}}],
    "top_k": [5],
    "top_logprobs": [2],
    "top_p": [0.5],
    "transforms": [["middle-out"]],
    "user": ["u"],
}
BESIDE = {"top_logprobs": {"logprobs": True}}
"""Settings without which another one is refused."""
CASES = [model for models in MODELS.values() for model in models]


class Sent(ThreadingHTTPServer):
    """Refuses every request, and keeps it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = []


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Log nothing."""

    def do_POST(self):
        """Keep what is comparable."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() in HEADERS}
        self.server.requests.append((self.path, headers, body))
        self.send_response(400)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


@pytest.fixture(scope="module")
def sent():
    server = Sent()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def both(run, sent):
    """Return a function that makes a call through each door, and gives the two requests."""

    async def asked(door, request):
        with contextlib.suppress(ModelError):
            async with contextlib.aclosing(door.stream(request)) as events:
                async for _ in events:
                    pass

    def requests(model, messages=None, tools=(), **settings):
        settings = {"api_base": f"http://127.0.0.1:{sent.server_port}", "api_key": "key-123", **settings}
        request = ModelRequest(
            model=model, messages=messages or [{"role": "user", "content": "Hi"}], tools=tools, settings=settings
        )
        sent.requests.clear()
        for door in (DOORS["litellm"], DOORS["direct"]):
            run(asyncio.wait_for(asked(door, request), 20))
        by_litellm, *others = sent.requests
        return by_litellm, others[-1] if others else None

    return requests


@pytest.mark.parametrize("model", CASES)
def test_a_plain_request_is_the_same(both, model):
    by_litellm, direct = both(model)
    assert direct == by_litellm


def settings_of(model):
    """Return the settings that the direct door takes for a model, each with a value."""
    for name, values in VALUES.items():
        for value in values:
            settings = {name: value, **BESIDE.get(name, {})}
            with contextlib.suppress(NotDirectError):
                check(model, settings)
                yield settings


@pytest.mark.parametrize("model", CASES)
def test_settings_arrive_the_same(both, model):
    different = {}
    for settings in settings_of(model):
        needs_tools = settings.keys() & {"tool_choice", "parallel_tool_calls"}
        by_litellm, direct = both(model, tools=[TOOL] if needs_tools else [], **settings)
        if direct != by_litellm:
            different[str(settings)] = (by_litellm[2], direct[2] if direct else None)
    assert different == {}


@pytest.mark.parametrize("model", CASES)
def test_headers_and_more_of_the_body_arrive_the_same(both, model):
    is_anthropic = "claude" in model.partition("/")[2] or model.startswith(("anthropic", "claude"))
    more = {} if is_anthropic and not model.startswith("openrouter") else {"extra_body": {"own": {"a": 1}}}
    by_litellm, direct = both(model, extra_headers={"X-Own": "b"}, headers={"X-Title": "Own"}, **more)
    assert direct == by_litellm


def outcome(number, **facts):
    """Return a call with its outcome."""
    facts = {"status": "completed", "result": {"sum": "ä"}, **facts}
    return CallOutcome(
        tool_call_id=f"call_{number}", provider_call_id="", tool_name="add", arguments={"a": number}, **facts
    )


def said(text, *calls, model="", **parts):
    """Return a step."""
    return Step(parts=[{"type": "text", "text": text}], calls=calls, model=model)


ASKED = Turn(role="user", parts=[{"type": "text", "text": "Hi 😀"}])
HISTORIES = {
    "instructions": [ASKED],
    "two questions": [ASKED, ASKED],
    "an answer": [ASKED, Turn(role="assistant", steps=[said("Hello.")]), ASKED],
    "calls": [ASKED, Turn(role="assistant", steps=[said("Let me.", outcome(1), outcome(2)), said("", outcome(3))])],
    "a call without a text, then an answer": [
        ASKED,
        Turn(role="assistant", steps=[said("", outcome(1, status="failed", error="No.")), said("Done.")]),
        ASKED,
    ],
    "an answer that goes on": [ASKED, Turn(role="assistant", steps=[said("So far")])],
}


@pytest.mark.parametrize("tools", [(TOOL,), ()], ids=["tools", "no tools"])
@pytest.mark.parametrize("model", CASES)
def test_histories_arrive_the_same(both, model, tools):
    different = {}
    for name, turns in HISTORIES.items():
        messages = openai_messages("Be brief.", turns, max_result_bytes=1000, model=model)
        by_litellm, direct = both(model, messages, tools)
        if direct != by_litellm:
            different[name] = (by_litellm[2], direct[2] if direct else None)
    assert different == {}


@pytest.mark.parametrize(
    "model", ["deepseek/deepseek-chat", "mistral/mistral-large-latest", "anthropic/claude-sonnet-4-5"]
)
def test_an_answer_to_go_on_with_arrives_the_same(both, model):
    messages = openai_messages("", [ASKED], max_result_bytes=1000, model=model, prefill="One two")
    by_litellm, direct = both(model, messages)
    assert direct == by_litellm

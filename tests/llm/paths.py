"""The ways in which providers answer, and what the door to models makes of an answer."""

import json
from dataclasses import dataclass, replace

from durable_agents.llm import CallArguments, CallStarted, Finished, ModelEvent, TextDelta
from tests.llm.dialects import OPENAI, Dialect
from tests.llm.wire import Wire


@dataclass(frozen=True)
class Said:
    """What the events of a call add up to."""

    events: list[ModelEvent]

    @property
    def text(self) -> str:
        """All text."""
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """Provider's id, name and raw arguments of each call."""
        arguments: dict[int, str] = {}
        for event in self.events:
            if isinstance(event, CallArguments):
                arguments[event.index] = arguments.get(event.index, "") + event.text
        started = [event for event in self.events if isinstance(event, CallStarted)]
        return [(call.provider_call_id, call.tool_name, arguments.get(call.index, "")) for call in started]

    @property
    def end(self) -> Finished:
        """The last event, which must be the end."""
        last = self.events[-1]
        assert isinstance(last, Finished)
        return last


PATHS = {
    "openai": ("openai/x", "/v1"),
    "mistral": ("mistral/mistral-large-latest", "/v1"),
    "groq": ("groq/openai/gpt-oss-120b", "/v1"),
    "deepseek": ("deepseek/deepseek-chat", "/v1"),
    "openrouter": ("openrouter/some/model", "/v1"),
    "xai": ("xai/grok-4", "/v1"),
    "vllm": ("hosted_vllm/x", "/v1"),
}
"""Providers that speak OpenAI's format, each through code of its own in the model library."""


def speaking(provider) -> Dialect:
    """Return the dialect of a provider that speaks OpenAI's format."""
    model, path = PATHS[provider]
    return replace(OPENAI, model=model, path=path)


BEDROCK = {
    "model": "bedrock/converse/anthropic.claude-sonnet-4-5-v1:0",
    "path": "",
    "settings": {"aws_region_name": "us-east-1"},
}


def ollama(*messages, reason):
    """Return an answer of Ollama's own format, one JSON object a line."""
    chunks = [
        {"model": "x", "message": {"role": "assistant", "content": "", **message}, "done": False}
        for message in messages
    ]
    end = {"model": "x", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": reason}
    counts = {"prompt_eval_count": 5, "eval_count": 3}
    return Wire(pieces=tuple(json.dumps(chunk) + "\n" for chunk in (*chunks, end | counts)))

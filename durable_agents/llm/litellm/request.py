"""Build the arguments of a litellm call, and leave out arguments that the model would reject."""

from __future__ import annotations

import importlib

from durable_agents.conf import config
from durable_agents.llm.disable_claude_thinking import THINKING, must_not_think, without_thoughts
from durable_agents.llm.types import TOLD_TO_CONTINUE, ModelRequest, provider_of
from durable_agents.llm.vendor_call_ids import fitted


def arguments_of(request: ModelRequest) -> dict[str, object]:
    """Return the keyword arguments for ``litellm.acompletion``.

    The request's settings can override the timeout, but not the other arguments that this function sets.
    """
    messages = [fitted(message, request.model) for message in request.messages]
    settings = request.settings
    if must_not_think(request.model, settings, messages):
        settings = {name: value for name, value in settings.items() if name not in THINKING}
        messages = [without_thoughts(message) for message in messages]
    if messages and messages[-1]["role"] == "assistant" and provider_of(request.model) in TOLD_TO_CONTINUE:
        messages[-1]["prefix"] = True
    httpx = importlib.import_module("httpx")
    return {
        "timeout": httpx.Timeout(connect=10, read=config().model_read_seconds, write=30, pool=10),
        **settings,
        "model": request.model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        # Only the engine retries failed calls. The engine stores each attempt in the database, and waits as long as the
        # provider asks.
        "max_retries": 0,
        "num_retries": 0,
        **({"tools": [dict(tool) for tool in request.tools]} if request.tools else {}),
    }

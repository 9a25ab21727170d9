"""Call the HTTP APIs of providers with aiohttp, without litellm, and read their server-sent events."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType
from typing import Any

from durable_agents.conf import config
from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm.direct import http
from durable_agents.llm.direct.anthropic_format import MessagesReader
from durable_agents.llm.direct.openai_format import ChatReader
from durable_agents.llm.direct.request import Call, NotDirectError, built
from durable_agents.llm.direct.sse_reader import EventStream
from durable_agents.llm.disable_claude_thinking import THINKING
from durable_agents.llm.error_mapping import is_of_connection, model_error
from durable_agents.llm.model_catalog import estimated_cost, listed
from durable_agents.llm.time_limits import Signals, bounded
from durable_agents.llm.types import TOLD_TO_CONTINUE, ModelEvent, ModelRequest, ModelUsage, provider_of
from durable_agents.llm.usage_estimate import estimated_tokens
from durable_agents.redaction import remember

SENT_STATUS = 500
"""The HTTP status that is assumed for an error that arrives after the answer began with status 200. The code within the
error may be more specific.
"""


class DirectDoor:
    """Implements ModelDoor. Calls the HTTP APIs of the providers in ``providers`` without litellm."""

    def prepare(self) -> None:
        """See ModelDoor. Imports the HTTP client and reads litellm's list of models."""
        importlib.import_module("aiohttp")
        listed("")

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """See ModelDoor. The connection is closed when the iteration ends, even if it ends early."""
        remember(request.settings)
        try:
            call = await built(request)
        except NotDirectError as error:
            text = f"The direct model door does not make this call: {error}. Set MODEL_DOOR to auto or litellm."
            raise ModelError(ErrorKind.INVALID_REQUEST, text, retryable=False) from error
        async with contextlib.aclosing(answered(request, call)) as events:
            async for event in events:
                yield event

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """See ModelDoor. The estimate is based on the length of the texts and on litellm's installed price list."""
        input_tokens, output_tokens = estimated_tokens(request, answered)
        cost = estimated_cost(request.model, input_tokens=input_tokens, output_tokens=output_tokens)
        return ModelUsage(input_tokens=input_tokens, output_tokens=output_tokens, cost=cost, estimated=True)

    def continues(self, model: str, settings: Mapping[str, Any] = MappingProxyType({})) -> bool:
        """See ModelDoor. The result comes from litellm's list of models.

        If the settings turn on thinking, the result is False: a model that thinks does not continue a partial answer,
        but starts a new answer.
        """
        if THINKING & settings.keys() or not ("claude" in model or provider_of(model) in TOLD_TO_CONTINUE):
            return False
        return bool(listed(model).get("supports_assistant_prefill"))

    async def aclose(self) -> None:
        """See ModelDoor."""
        await http.close()


_Reader = ChatReader | MessagesReader


async def answered(request: ModelRequest, call: Call) -> AsyncGenerator[ModelEvent]:
    """Make the call and yield its events. Raise ModelError if the call fails."""
    reader = MessagesReader(request) if call.target.provider.format == "anthropic" else ChatReader(request)
    signals = Signals()
    try:
        async with contextlib.aclosing(_events(call, reader, signals)) as events:
            async for event in events:
                yield event
    except Exception as error:
        # If the connection fails after the finish reason, the answer is complete. Only data that comes after the finish
        # reason, such as the usage, can be missing.
        if not (reader.word and not signals.error and is_of_connection(error)):
            raise _told(error, signals) from error
    if signals.error:
        raise _told(http.ProviderError("An error came within the answer.", status_code=SENT_STATUS), signals)
    for event in reader.end():
        yield event


async def _events(call: Call, reader: _Reader, signals: Signals) -> AsyncGenerator[ModelEvent]:
    """Yield the events of the answer, except the last ones, which ``reader.end()`` returns.

    Stop early if the provider sends an error.
    """
    stream = EventStream(signals.note_error)
    limits = bounded(read_seconds=call.read_seconds, call_seconds=config().model_call_seconds, signals=signals)
    async with limits, http.answer_to(call) as response:
        async for received in response.content.iter_any():
            signals.alive()
            for event in _read(reader, stream.feed(received)):
                yield event
            if signals.error:
                return
            if stream.is_done or reader.is_done:
                await http.drain(response)
                return
        for event in _read(reader, stream.close()):
            yield event


def _read(reader: _Reader, chunks: list[dict[str, Any]]) -> list[ModelEvent]:
    return [event for chunk in chunks for event in reader.events(chunk)]


def _told(error: Exception, signals: Signals) -> ModelError:
    if isinstance(error, ModelError) and not (error.retryable and signals.error):
        return error
    return model_error(error, sent=signals.error)

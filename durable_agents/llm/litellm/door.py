"""Stream model calls through litellm. Close the connections, and skip work that litellm does only for its own logs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import cache
from types import MappingProxyType

from durable_agents.conf import config
from durable_agents.exceptions import ModelError
from durable_agents.llm.disable_claude_thinking import THINKING
from durable_agents.llm.error_mapping import is_of_connection, model_error
from durable_agents.llm.litellm.loading import is_known_to, library
from durable_agents.llm.litellm.request import arguments_of
from durable_agents.llm.litellm.response import Reading, Response
from durable_agents.llm.model_catalog import estimated_cost
from durable_agents.llm.time_limits import Signals, bounded
from durable_agents.llm.types import TOLD_TO_CONTINUE, ModelEvent, ModelRequest, ModelUsage, provider_of
from durable_agents.llm.usage_estimate import estimated_tokens
from durable_agents.redaction import remember

DISCARD_PORT = 9
"""The port of an obsolete service (RFC 863). No server listens on it, so a connection is refused immediately."""


class LiteLLMDoor:
    """Implements ModelDoor. Calls providers through litellm's asynchronous streaming."""

    def prepare(self) -> None:
        """Import litellm without letting it contact its vendor, and load the modules that its first call would load."""
        _warm()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """See ModelDoor. The connection is closed when the iteration ends, even if it ends early."""
        library()
        remember(request.settings)
        reading, signals = Reading(request), Signals()
        try:
            async with contextlib.aclosing(_events(arguments_of(request), reading, signals)) as events:
                async for event in events:
                    yield event
        except Exception as error:
            if isinstance(error, ModelError) and not (error.retryable and signals.error):
                raise
            raise model_error(error, sent=signals.error) from error

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """See ModelDoor. The estimate is based on the length of the texts and on litellm's installed price list."""
        input_tokens, output_tokens = estimated_tokens(request, answered)
        cost = estimated_cost(request.model, input_tokens=input_tokens, output_tokens=output_tokens)
        return ModelUsage(input_tokens=input_tokens, output_tokens=output_tokens, cost=cost, estimated=True)

    def continues(self, model: str, settings: Mapping[str, object] = MappingProxyType({})) -> bool:
        """See ModelDoor. The result comes from litellm's list of models.

        If the settings turn on thinking, the result is False, because a model that thinks starts a new answer.
        """
        if THINKING & settings.keys() or not ("claude" in model or provider_of(model) in TOLD_TO_CONTINUE):
            return False
        return is_known_to(model, "supports_assistant_prefill")

    async def aclose(self) -> None:
        """See ModelDoor. This also empties litellm's cache of HTTP clients.

        litellm identifies an event loop by its memory address. If the cache still contained a closed client, a later
        event loop at the same address would get the closed client.
        """
        if not library.cache_info().currsize:
            # litellm is not loaded, so there is nothing to close. Do not import litellm here. Without the environment
            # variable that ``library`` sets, the import would download litellm's price list.
            return
        cleanup = importlib.import_module("litellm.llms.custom_httpx.async_client_cleanup")
        await cleanup.close_litellm_async_clients()
        library().in_memory_llm_clients_cache.flush_cache()
        kept_apart = vars(library()).get("module_level_aclient")
        if kept_apart is not None:
            await kept_apart.close()


@cache
def _warm() -> None:
    """Do in advance what litellm and the openai package do at the first model call.

    At the first call, they import a fifth of their modules and detect the platform. This function makes a call that
    fails immediately. The call runs on a separate event loop and leaves no OS thread behind.
    """
    settings = {"api_base": f"http://127.0.0.1:{DISCARD_PORT}/v1", "api_key": "none", "timeout": 1}
    request = ModelRequest(model="openai/none", messages=[{"role": "user", "content": "Hello."}], settings=settings)

    async def refused_call() -> None:
        with contextlib.suppress(ModelError):
            async for _ in LiteLLMDoor().stream(request):
                pass
        await LiteLLMDoor().aclose()

    library().token_counter(model="none", text="loads the tokenizer")
    asyncio.run(refused_call())


async def _events(arguments: Mapping[str, object], reading: Reading, signals: Signals) -> AsyncGenerator[ModelEvent]:
    """Make the call within its time limits and yield all events of its answer."""
    timeout = arguments["timeout"]
    read_seconds = timeout if isinstance(timeout, float | int | None) else getattr(timeout, "read", None)
    call_seconds = config().model_call_seconds
    try:
        async with (
            bounded(read_seconds=read_seconds, call_seconds=call_seconds, signals=signals),
            contextlib.aclosing(_received(arguments, reading, signals)) as events,
        ):
            async for event in events:
                yield event
    except Exception as error:
        # If the connection fails after the finish reason, the answer is complete. Only data that comes after the finish
        # reason, such as the usage, can be missing.
        if not (reading.wire.word and not signals.error and is_of_connection(error)):
            raise
    for event in reading.end():
        yield event


async def _received(arguments: Mapping[str, object], reading: Reading, signals: Signals) -> AsyncGenerator[ModelEvent]:
    """Yield the events of the response, except the last ones, which ``reading.end()`` returns.

    Close the connection at the end, even after an error.
    """
    response = reading.response = await library().acompletion(**arguments)
    reading.wire.watch(response)
    try:
        async for chunk in response:
            signals.alive()
            _end_early(response)
            for event in reading.events(chunk):
                yield event
    except _SourceEnded:
        pass
    finally:
        with contextlib.suppress(Exception):
            await response.aclose()


class _SourceEnded(BaseException):
    """Raised when the provider has sent its whole answer.

    litellm does not catch this exception, and therefore skips the work for its own logs.
    """


class _Source:
    """Wraps the iterator over a provider's chunks. This saves a third of the CPU time of a call.

    Without the wrapper, litellm would request a new iterator for every chunk, and openai would create a generator each
    time. At the end, litellm would build the whole answer again for log callbacks, although none are registered.
    """

    def __init__(self, source: AsyncIterator[object]) -> None:
        self._source = source

    def __aiter__(self) -> _Source:
        return self

    async def __anext__(self) -> object:
        try:
            return await self._source.__anext__()
        except StopAsyncIteration:
            raise _SourceEnded from None

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)


def _end_early(response: Response) -> None:
    """Wrap the response's iterator in ``_Source``, so that litellm skips the work for its own logs.

    If the project has registered log callbacks with litellm, do nothing, because the callbacks need this work.
    """
    source = getattr(response, "completion_stream", None)
    if not isinstance(source, AsyncIterator) or isinstance(source, _Source):
        return
    litellm = library()
    if not any((litellm.callbacks, litellm.success_callback, litellm._async_success_callback)):
        response.completion_stream = _Source(source)

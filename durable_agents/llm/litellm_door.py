"""Hides litellm's calls: its asynchronous streaming, its connections, and the CPU time that it would spend on logs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from durable_agents.exceptions import ModelError
from durable_agents.llm.asking import THINKING, TOLD_TO_CONTINUE, arguments_of
from durable_agents.llm.calls import ModelEvent, ModelRequest, ModelUsage, provider_of
from durable_agents.llm.failures import model_error
from durable_agents.llm.loading import cost_of, is_known_to, library
from durable_agents.llm.reading import Calls, Reading
from durable_agents.redaction import remember

DISCARD_PORT = 9
"""Nobody listens there (RFC 863's service is long gone): a connection is refused at once."""


class LiteLLMDoor:
    """Model calls through litellm's asynchronous streaming."""

    def prepare(self) -> None:
        """Import litellm without letting it phone home, and load what its first call would load."""
        _warm()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """See ModelDoor. The connection is closed whenever the iteration ends, early or not."""
        litellm = library()
        remember(request.settings)
        arguments = arguments_of(request)
        reading = Reading()
        response: Any = None
        try:
            response = await litellm.acompletion(**arguments)
            async with contextlib.aclosing(_events(response, reading, arguments["timeout"])) as events:
                async for event in events:
                    yield event
            yield reading.finish(response, model=request.model)
        except ModelError:
            raise
        except Exception as error:
            raise model_error(error) from error
        finally:
            if response is not None:
                with contextlib.suppress(Exception):
                    await response.aclose()

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """See ModelDoor. Counted with litellm's tokenizers, which come with it."""
        litellm = library()
        asked = litellm.token_counter(
            model=request.model, messages=[_countable(message) for message in request.messages]
        )
        told = litellm.token_counter(model=request.model, text=answered)
        cost = cost_of(model=request.model, prompt_tokens=asked, completion_tokens=told)
        return ModelUsage(input_tokens=asked, output_tokens=told, cost=cost, estimated=True)

    def continues(self, model: str, settings: Mapping[str, Any] = MappingProxyType({})) -> bool:
        """See ModelDoor. By litellm's list of models; a model that thinks first begins its answer anew."""
        if THINKING & settings.keys() or not ("claude" in model or provider_of(model) in TOLD_TO_CONTINUE):
            return False
        return is_known_to(model, "supports_assistant_prefill")

    async def aclose(self) -> None:
        """See ModelDoor. litellm would give a closed client to the next loop that happens to get the same address."""
        cleanup = importlib.import_module("litellm.llms.custom_httpx.async_client_cleanup")
        await cleanup.close_litellm_async_clients()
        library().in_memory_llm_clients_cache.flush_cache()
        kept_apart = vars(library()).get("module_level_aclient")
        if kept_apart is not None:
            await kept_apart.close()


def _countable(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message without sound and documents, for which litellm knows no tokens."""
    content = message["content"]
    if isinstance(content, list):
        content = [block for block in content if block["type"] not in {"input_audio", "file"}]
    return {**message, "content": content}


@cache
def _warm() -> None:
    """Make one call that is refused at once, on a loop of its own: litellm and the openai package import a fifth of
    their modules, and find out about the platform, only then. No thread is left behind."""
    library().token_counter(model="none", text="loads the tokenizer")
    asyncio.run(_refused_call())


async def _refused_call() -> None:
    settings = {"api_base": f"http://127.0.0.1:{DISCARD_PORT}/v1", "api_key": "none", "timeout": 1}
    request = ModelRequest(model="openai/none", messages=[{"role": "user", "content": "Hello."}], settings=settings)
    with contextlib.suppress(ModelError):
        async for _ in LiteLLMDoor().stream(request):
            pass
    await LiteLLMDoor().aclose()


async def _events(response: Any, reading: Reading, read_timeout: Any) -> AsyncGenerator[ModelEvent]:
    calls = Calls()
    reading.watch(response)
    async with _whole_stream(read_timeout) as chunk_came:
        async for chunk in response:
            chunk_came()
            _end_early(response)
            for event in reading.events(chunk, calls):
                yield event


@contextlib.asynccontextmanager
async def _whole_stream(timeout: Any) -> AsyncGenerator[Callable[[], None]]:  # noqa: ASYNC109 - httpx's, of one read
    """A block that ends when the provider has sent everything. Raises TimeoutError where it is silent for longer than
    it may: with some providers (Google) litellm takes no heed of a read timeout.

    Call what it gives at every chunk. Whoever consumes the events must not wait between them: that time counts.
    """
    seconds: float | None = getattr(timeout, "read", timeout)
    now = asyncio.get_running_loop().time
    with contextlib.suppress(_SourceEnded):
        async with asyncio.timeout(seconds) as silence:
            yield lambda: silence.reschedule(None if seconds is None else now() + seconds)


class _SourceEnded(BaseException):
    """The provider has sent everything: passes through litellm, which would go on with work for its own logs."""


class _Source:
    """What litellm reads a provider's chunks from, without two of its costs, a third of all CPU time of a call.

    litellm asks for a new iterator at every chunk, and openai's answer is a generator that is left behind each time;
    at the end it builds the whole answer once more, in threads, for callbacks that nobody has registered.
    """

    def __init__(self, source: Any) -> None:
        self._source = source

    def __aiter__(self) -> _Source:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._source.__anext__()
        except StopAsyncIteration:
            raise _SourceEnded from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def _end_early(response: Any) -> None:
    """Once the first chunk is there: read the rest through ``_Source``, unless somebody waits for litellm's logs."""
    source = getattr(response, "completion_stream", None)
    if hasattr(source, "__anext__") and not isinstance(source, _Source) and not _is_observed():
        response.completion_stream = _Source(source)


def _is_observed() -> bool:
    """Whether the project has registered callbacks with litellm: they get whole answers."""
    litellm = library()
    return any((litellm.callbacks, litellm.success_callback, litellm._async_success_callback))

"""Limit how long a model call may take, and how long its server may send nothing.

Every received byte shows that the server is alive. While a model thinks, some servers send only keep-alive events:
comments (OpenRouter: ``: OPENROUTER PROCESSING``), pings (Anthropic) or empty data.

Keep-alive events restart the timeout for a silent server. They are dropped before litellm and openai parse the answer,
because some parsers take keep-alive events for the end of the answer or for invalid JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import cache
from typing import Protocol
from weakref import WeakKeyDictionary

from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm.sse_filter import MAX_ERROR_BYTES, EventFilter, is_error


class Signals:
    """The state of a model call: whether the server is alive, and whether the server has sent an error."""

    def __init__(self) -> None:
        self.error = ""
        """The text of an error that the provider sent after it had begun the answer with status 200."""
        self.alive: Callable[[], None] = _do_nothing
        """A function that restarts the timeout for a silent server. The patched ``httpx.Response`` calls this function
        for received bytes. Also call it for every chunk, because not all answers are read with httpx.
        """
        self.responses: list[Response] = []
        """The responses that are read with httpx. They are closed at the end of the call."""

    def note_error(self, data: bytes) -> None:
        """Store the data if it is an error in any provider's format.

        Client libraries sometimes lose the error or its code.
        """
        if not self.error and is_error(data):
            self.error = data[:MAX_ERROR_BYTES].decode("utf-8", "replace")

    async def close_responses(self) -> None:
        """Close the connections of all responses that were not read to their end.

        litellm leaves some connections to the garbage collector, which might run too late.
        """
        for response in self.responses:
            with contextlib.suppress(Exception):
                await response.aclose()


LIMIT_SLACK = 0.02
"""The timeout for a silent server is not reset for every byte. It is reset only if at least this fraction of the
timeout has passed since the last reset. Therefore, the timeout can fire early, by up to this fraction of its length.
"""


def _do_nothing(*_: object) -> None:
    pass


class Response(Protocol):
    """The parts of ``httpx.Response`` that this module uses."""

    is_success: bool

    async def aclose(self) -> None: ...


_signals: WeakKeyDictionary[asyncio.Task[object], Signals] = WeakKeyDictionary()
"""The ``Signals`` object of each asyncio task that makes a model call. ``listen`` patches a method of httpx, and the
patched method looks up the current task here. Other tasks that use httpx are not affected.
"""


@contextlib.asynccontextmanager
async def bounded(*, read_seconds: float | None, call_seconds: float, signals: Signals) -> AsyncGenerator[None]:
    """Return a context manager that limits the time of a model call.

    Make the call and read its answer inside the ``async with`` block, in one asyncio task. Do not wait for anything
    else in the block, because all time in the block counts.

    Raises TimeoutError after ``read_seconds`` without a byte, and ModelError after ``call_seconds`` in total.
    """
    now = asyncio.get_running_loop().time
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    total = asyncio.timeout(call_seconds)
    try:
        async with total, asyncio.timeout(read_seconds) as silence:

            def alive() -> None:
                if read_seconds is None or silence.expired():
                    return
                # Do not reset the timeout at every token, because a reset takes as long as parsing a token.
                deadline, last = now() + read_seconds, silence.when()
                if last is None or deadline - last > read_seconds * LIMIT_SLACK:
                    silence.reschedule(deadline)

            signals.alive = alive
            _signals[task] = signals
            try:
                yield
            finally:
                _signals.pop(task, None)
                await signals.close_responses()
    except TimeoutError:
        if not total.expired():
            raise
        text = f"The call took longer than {call_seconds:g} seconds (MODEL_CALL_SECONDS)."
        raise ModelError(ErrorKind.NETWORK, text, retryable=True) from None


@cache
def listen() -> None:
    """Patch ``httpx.Response`` so that ``bounded`` notices every byte that arrives.

    The read timeout of httpx is not enough, because litellm ignores it for some providers (Google, Bedrock).
    """
    response_class = importlib.import_module("httpx").Response
    read_bytes = response_class.aiter_bytes

    async def aiter_bytes(self: Response, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        task = asyncio.current_task()
        signals = _signals.get(task) if task is not None else None
        if signals is None:
            async for chunk in read_bytes(self, chunk_size):
                yield chunk
            return
        signals.responses.append(self)
        events = EventFilter(signals.note_error if self.is_success else _do_nothing)
        # Do not pass ``chunk_size``. Otherwise, httpx would hold back received bytes until the chunk is full.
        async for chunk in read_bytes(self):
            signals.alive()
            if kept := events.kept(chunk):
                yield kept
        if kept := events.rest():
            yield kept

    response_class.aiter_bytes = aiter_bytes

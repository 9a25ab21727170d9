"""Bound how long a call may be silent and how long it may take, and let a server keep its call alive.

Silence is measured in bytes, not in chunks that litellm has parsed: while a model thinks, its server may send nothing
but comments (OpenRouter: ``: OPENROUTER PROCESSING``), pings (Anthropic), or empty data. They count as signs of life,
and are dropped before they reach the parsers of litellm and openai, some of which take them for the end of the answer
or for garbled JSON.
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
from durable_agents.llm.keep_alive_filter import MAX_ERROR_BYTES, EventFilter, is_error


class Signals:
    """What the bytes of an answer show besides its content: that the server is alive, and whether it has failed."""

    def __init__(self) -> None:
        self.error = ""
        """The error that the provider sent after it had begun the answer with status 200, word for word."""
        self.alive: Callable[[], None] = _do_nothing
        """Call it at every chunk too, for providers whose answers are not read with httpx."""
        self.responses: list[Response] = []
        """What was read with httpx, to be closed at the end."""

    def note_error(self, data: bytes) -> None:
        """Keep the data if it is an error in any provider's format: client libraries drop its code, or all of it."""
        if not self.error and is_error(data):
            self.error = data[:MAX_ERROR_BYTES].decode("utf-8", "replace")

    async def close_responses(self) -> None:
        """Close the connections of all responses that were not read to their end: litellm leaves some of them to the
        garbage collector, which may come too late.
        """
        for response in self.responses:
            with contextlib.suppress(Exception):
                await response.aclose()


LIMIT_SLACK = 0.02
"""By how much of it the limit of silence may be shorter than its setting."""


def _do_nothing(*_: object) -> None:
    pass


class Response(Protocol):
    """What is used of ``httpx.Response``."""

    is_success: bool

    async def aclose(self) -> None: ...


_signals: WeakKeyDictionary[asyncio.Task[object], Signals] = WeakKeyDictionary()
"""By the task that makes a call. As with ``asyncio.timeout``, only the task is known where httpx reads; other reads of
the process with httpx are left alone.
"""


@contextlib.asynccontextmanager
async def bounded(*, read_seconds: float | None, call_seconds: float, signals: Signals) -> AsyncGenerator[None]:
    """Make a call and read its answer within the block, in one task. Raises TimeoutError after ``read_seconds`` without
    a byte, and ModelError after ``call_seconds`` in all.

    The consumer of the chunks must not wait between them: that time counts.
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
                # Moving a timer costs as much as parsing a token: not for every token of a fast answer.
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
        text = f"The call was not over after {call_seconds:g} seconds (MODEL_CALL_SECONDS)."
        raise ModelError(ErrorKind.NETWORK, text, retryable=True) from None


@cache
def listen() -> None:
    """Let ``bounded`` see the bytes that httpx reads. With some providers litellm ignores a read timeout (Google,
    Bedrock), so that it cannot be left to the transport.
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
        async for chunk in read_bytes(self):  # unbuffered, whatever the reader asks for: bytes are seen as they come
            signals.alive()
            if kept := events.kept(chunk):
                yield kept
        if kept := events.rest():
            yield kept

    response_class.aiter_bytes = aiter_bytes

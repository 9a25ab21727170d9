"""Hides litellm: the only module that imports it, and only when a worker makes its first model call.

What comes out are this package's own events and errors, whatever the provider. litellm's ``stream_chunk_builder``
loses calls without ids and merges calls that share an index, so calls are put together here; a stream that ends
without any finish reason was cut, although litellm reports an ordinary end.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any, Protocol

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from durable_agents.conf import config
from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.parts import CallOutcome, Part

CONTINUE_PROMPT = "Please go on where you stopped."
"""Told to the model when the history ends with its own words: most models refuse to continue their own message."""


DISCARD_PORT = 9
"""Nobody listens there (RFC 863's service is long gone): a connection is refused at once."""


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One model call: messages and tools in the OpenAI format, settings as litellm takes them."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelUsage:
    """Token counts and the price in US dollars of one model call, as far as they are known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal | None = None
    estimated: bool = False
    """Counted here, because the provider did not say or the attempt did not come to its end."""


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, kw_only=True)
class ReasoningDelta:
    """More of the model's reasoning."""

    text: str


@dataclass(frozen=True, kw_only=True)
class CallStarted:
    """The model begins call number ``index`` of this step."""

    index: int
    provider_call_id: str
    tool_name: str


@dataclass(frozen=True, kw_only=True)
class CallArguments:
    """More raw text of the arguments of call number ``index``."""

    index: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The stream came to its proper end."""

    finish_reason: str
    usage: ModelUsage | None
    """None where the provider did not say."""
    model: str


ModelEvent = TextDelta | ReasoningDelta | CallStarted | CallArguments | Finished


class ModelDoor(Protocol):
    """What the engine needs of a model library; ``DURABLE_AGENTS["MODEL_DOOR"]`` may name another one."""

    def prepare(self) -> None:
        """Load what is slow to load. Called once per process, before the first call."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Make the call. The last event is Finished; raises ModelError otherwise."""

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """What a call with this much of an answer has probably used. May block: call it in a thread."""

    async def aclose(self) -> None:
        """Close connections; the event loop that the calls were made on is about to end."""


@cache
def door() -> ModelDoor:
    """The configured door to models."""
    made: ModelDoor = import_string(config().model_door)()
    return made


class LiteLLMDoor:
    """Model calls through litellm's asynchronous streaming."""

    def prepare(self) -> None:
        """Import litellm without letting it phone home, and load what its first call would load."""
        _warm()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """See ModelDoor. The connection is closed whenever the iteration ends, early or not."""
        litellm = _litellm()
        response: Any = None
        try:
            response = await litellm.acompletion(**_arguments(request))
            calls = _Calls()
            reading = _Reading()
            async for chunk in response:
                for event in reading.events(chunk, calls):
                    yield event
            yield reading.finish(response, model=request.model)
        except ModelError:
            raise
        except Exception as error:
            raise _model_error(error) from error
        finally:
            if response is not None:
                with contextlib.suppress(Exception):
                    await response.aclose()

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """See ModelDoor. Counted with litellm's tokenizers, which come with it."""
        litellm = _litellm()
        asked = litellm.token_counter(model=request.model, messages=[dict(message) for message in request.messages])
        told = litellm.token_counter(model=request.model, text=answered)
        cost = _cost(model=request.model, prompt_tokens=asked, completion_tokens=told)
        return ModelUsage(input_tokens=asked, output_tokens=told, cost=cost, estimated=True)

    async def aclose(self) -> None:
        """See ModelDoor."""
        cleanup = importlib.import_module("litellm.llms.custom_httpx.async_client_cleanup")
        await cleanup.close_litellm_async_clients()


@cache
def _litellm() -> Any:
    """litellm with its flags set: no network at import, no chatter, prices from the installed file."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.set_verbose = False
    return litellm


@cache
def _warm() -> None:
    """Make one call that is refused at once, on a loop of its own: litellm and the openai package import a fifth of
    their modules, and find out about the platform, only then. No thread is left behind."""
    _litellm()
    asyncio.run(_refused_call())


async def _refused_call() -> None:
    settings = {"api_base": f"http://127.0.0.1:{DISCARD_PORT}/v1", "api_key": "none", "timeout": 1}
    request = ModelRequest(model="openai/none", messages=[{"role": "user", "content": "Hello."}], settings=settings)
    with contextlib.suppress(ModelError):
        async for _ in LiteLLMDoor().stream(request):
            pass
    await LiteLLMDoor().aclose()


def _arguments(request: ModelRequest) -> dict[str, Any]:
    httpx = importlib.import_module("httpx")
    fixed = {
        "model": request.model,
        "messages": [dict(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_retries": 0,
        "num_retries": 0,
    }
    if request.tools:
        fixed["tools"] = [dict(tool) for tool in request.tools]
    timeout = httpx.Timeout(connect=10, read=60, write=30, pool=10)
    return {"timeout": timeout, **request.settings, **fixed}


@dataclass
class _Calls:
    """Numbers the calls of one step: by the provider's index, where a new id at a known index is a new call."""

    number_at: dict[Any, int] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    def events(self, delta: Any) -> list[ModelEvent]:
        function = delta.function
        at = delta.index if delta.index is not None else 0
        found: list[ModelEvent] = []
        if self._is_new(at, delta.id or "", function.name or ""):
            self.number_at[at] = len(self.ids)
            self.ids.append(delta.id or "")
            found.append(
                CallStarted(index=self.number_at[at], provider_call_id=delta.id or "", tool_name=function.name or "")
            )
        if function.arguments:
            found.append(CallArguments(index=self.number_at[at], text=function.arguments))
        return found

    def _is_new(self, at: Any, call_id: str, name: str) -> bool:
        if at not in self.number_at:
            return True
        return bool(call_id and name and call_id != self.ids[self.number_at[at]])


@dataclass
class _Reading:
    """What has been read of one response."""

    usage: Any = None
    empty: bool = True

    def events(self, chunk: Any, calls: _Calls) -> list[ModelEvent]:
        self.usage = getattr(chunk, "usage", None) or self.usage
        if not chunk.choices:
            return []
        delta = chunk.choices[0].delta
        found: list[ModelEvent] = []
        if reasoning := getattr(delta, "reasoning_content", None):
            found.append(ReasoningDelta(text=reasoning))
        if delta.content:
            found.append(TextDelta(text=delta.content))
        for call in delta.tool_calls or []:
            found += calls.events(call)
        self.empty = self.empty and all(isinstance(event, ReasoningDelta) for event in found)
        return found

    def finish(self, response: Any, *, model: str) -> Finished:
        """The end of a whole answer. Raises where the stream was cut or said nothing."""
        received = getattr(response, "received_finish_reason", None)
        reason = received or getattr(response, "intermittent_finish_reason", None)
        if reason is None:
            raise ModelError(ErrorKind.NETWORK, "The stream ended without a finish reason: it was cut.", retryable=True)
        if self.empty:
            raise ModelError(
                ErrorKind.PROVIDER_5XX, "The model answered with neither text nor a tool call.", retryable=True
            )
        reported = self.usage if _provider_said_usage(response) else None
        return Finished(finish_reason=str(reason), usage=_usage(reported, model=model), model=model)


def _provider_said_usage(response: Any) -> bool:
    """Whether the usage came over the wire: litellm counts by itself, and does not say so, where it did not."""
    chunks = getattr(response, "chunks", None)
    return not chunks or any(getattr(chunk, "usage", None) is not None for chunk in chunks)


def _usage(usage: Any, *, model: str) -> ModelUsage | None:
    if usage is None:
        return None
    inputs = getattr(usage, "prompt_tokens_details", None)
    outputs = getattr(usage, "completion_tokens_details", None)
    return ModelUsage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cached_input_tokens=getattr(inputs, "cached_tokens", None) or 0,
        cache_write_tokens=getattr(usage, "cache_creation_input_tokens", None) or 0,
        reasoning_tokens=getattr(outputs, "reasoning_tokens", None) or 0,
        cost=_cost(model=model, usage_object=usage),
    )


def _cost(**facts: Any) -> Decimal | None:
    """The price by litellm's table; None for a model that it does not know."""
    try:
        prices = _litellm().cost_per_token(**facts)
    except Exception:
        return None
    total = Decimal(str(prices[0])) + Decimal(str(prices[1]))
    return total.quantize(Decimal("0.00000001")) if total else None


_KIND_BY_CLASS = (  # subclasses first: several of litellm's errors derive from each other
    ("ContextWindowExceededError", ErrorKind.CONTEXT_WINDOW_EXCEEDED),
    ("ContentPolicyViolationError", ErrorKind.CONTENT_POLICY),
    ("BudgetExceededError", ErrorKind.INSUFFICIENT_CREDITS),
    ("AuthenticationError", ErrorKind.AUTH),
    ("PermissionDeniedError", ErrorKind.AUTH),
    ("RateLimitError", ErrorKind.RATE_LIMITED),
    ("Timeout", ErrorKind.NETWORK),
)
_KIND_BY_STATUS = {
    400: ErrorKind.INVALID_REQUEST,
    401: ErrorKind.AUTH,
    402: ErrorKind.INSUFFICIENT_CREDITS,
    403: ErrorKind.AUTH,
    404: ErrorKind.INVALID_REQUEST,
    408: ErrorKind.NETWORK,
    409: ErrorKind.PROVIDER_5XX,
    413: ErrorKind.CONTEXT_WINDOW_EXCEEDED,
    422: ErrorKind.INVALID_REQUEST,
    429: ErrorKind.RATE_LIMITED,
}


_OUT_OF_CREDIT = re.compile(r"insufficient_quota|billing|credit", re.IGNORECASE)
_UNNAMEABLE = re.compile(r"[^a-zA-Z0-9_-]")
"""Providers refuse a history with such a tool name, even if their own model invented it."""


def _model_error(error: Exception) -> ModelError:
    """The same failure in this package's words: by class first, then by HTTP status."""
    kind = _kind(error)
    if kind is ErrorKind.RATE_LIMITED and _OUT_OF_CREDIT.search(str(error)):
        kind = ErrorKind.INSUFFICIENT_CREDITS
    return ModelError(
        kind,
        f"{type(error).__name__}: {error}"[:4000],
        retryable=kind.retryable,
        retry_after_seconds=_retry_after_seconds(error),
    )


def _kind(error: Exception) -> ErrorKind:
    names = {base.__name__ for base in type(error).__mro__}
    for name, kind in _KIND_BY_CLASS:
        if name in names:
            return kind
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return ErrorKind.NETWORK if isinstance(error, OSError) else ErrorKind.UNKNOWN
    if status >= 500:
        return ErrorKind.NETWORK if "MidStreamFallbackError" in names else ErrorKind.PROVIDER_5XX
    return _KIND_BY_STATUS.get(status, ErrorKind.UNKNOWN)


def _retry_after_seconds(error: Exception) -> float | None:
    headers = getattr(error, "litellm_response_headers", None) or {}
    try:
        return float(headers["retry-after"])
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message of the history: a user's parts, or the steps of an assistant message."""

    role: str
    parts: Sequence[Part] = ()
    steps: Sequence[Step] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One committed step: its text and the calls that it made, each with its outcome, in order."""

    text: str
    calls: Sequence[CallOutcome] = ()


def openai_messages(instructions: str, turns: Sequence[Turn], *, max_result_bytes: int) -> list[dict[str, Any]]:
    """The history in the OpenAI format: every tool call is followed by exactly one result, in order."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    for turn in turns:
        if turn.role == "assistant":
            for step in turn.steps:
                messages += _step_messages(step, max_result_bytes=max_result_bytes)
        else:
            texts = [part["text"] for part in turn.parts if part.get("type") == "text"]
            messages.append({"role": turn.role, "content": "\n\n".join(texts)})
    if messages and messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": CONTINUE_PROMPT})
    return messages


def _step_messages(step: Step, *, max_result_bytes: int) -> list[dict[str, Any]]:
    if not step.calls:
        return [{"role": "assistant", "content": step.text}] if step.text else []
    ids = _provider_ids(step.calls)
    calls = [
        {
            "id": call_id,
            "type": "function",
            "function": {
                "name": _UNNAMEABLE.sub("_", call.tool_name)[:64],
                "arguments": json.dumps(call.arguments, ensure_ascii=False),
            },
        }
        for call_id, call in zip(ids, step.calls, strict=True)
    ]
    results = [
        {"role": "tool", "tool_call_id": call_id, "content": call.told_to_model(max_bytes=max_result_bytes)}
        for call_id, call in zip(ids, step.calls, strict=True)
    ]
    return [{"role": "assistant", "content": step.text or None, "tool_calls": calls}, *results]


def _provider_ids(calls: Sequence[CallOutcome]) -> list[str]:
    """The provider's own id of each call; ours where it gave none or the same one twice."""
    given = [call.provider_call_id for call in calls]
    return [
        call.provider_call_id
        if call.provider_call_id and given.count(call.provider_call_id) == 1
        else call.tool_call_id
        for call in calls
    ]


def _forget(*, setting: str, **_: object) -> None:
    if setting == "DURABLE_AGENTS":
        door.cache_clear()


setting_changed.connect(_forget)

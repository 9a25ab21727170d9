"""Read a provider's chunks before litellm does. Keep data that litellm loses, and repair data that it cannot parse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Protocol

from durable_agents.llm.chunk_shapes import (
    REASONING,
    ContentBlocks,
    get,
    items,
    put,
    repaired_call,
    texts,
    thoughts_of,
    told_word,
)
from durable_agents.llm.finish_reasons import Ending, is_word
from durable_agents.llm.litellm import cohere_stream


class Stream(Protocol):
    """The fields of litellm's response that this module replaces. Some responses lack one or both of these fields."""

    completion_stream: object
    make_call: Callable[..., Awaitable[object]] | None


class Wire:
    """Collects data from the chunks of one response: finish reason, refusal, and Anthropic's content blocks."""

    def __init__(self) -> None:
        self.word = ""
        """The finish reason as the provider sent it; empty if the provider has not sent one yet."""
        self.has_ends = False
        """Whether the format of the response always includes a finish reason. If so, an answer without a finish reason
        was cut off.
        """
        self.refused = False
        """Whether the model sent a refusal."""
        self.content = ContentBlocks()
        """The content blocks of an answer from Anthropic. If Anthropic pauses the answer, these blocks are sent back
        unchanged.
        """

    def watch(self, response: Stream) -> None:
        """Inspect every chunk of litellm's response. Call this before the first chunk is read."""
        if getattr(response, "completion_stream", None) is not None:
            response.completion_stream = self._watched(response.completion_stream)
        # For some providers, litellm makes the request only when the first chunk is read. Until then, there is no
        # iterator that could be watched. Therefore, wrap ``make_call``, which makes the request and returns the
        # iterator.
        make_call: Callable[..., Awaitable[object]] | None = getattr(response, "make_call", None)
        if make_call is None:
            return

        async def watched(**options: object) -> object:
            return self._watched(await make_call(**options))

        response.make_call = watched

    def _watched(self, source: object) -> object:
        """Pass every chunk to ``see`` before litellm uses the chunk. Return ``source`` or a wrapper of ``source``."""
        if type(source).__name__ == "CohereV2ModelResponseIterator" and isinstance(source, cohere_stream.Source):
            self.has_ends = True
            cohere_stream.repair_source(source)
        owner, name = source, "chunk_parser"
        frame = getattr(source, "ag_frame", None)
        if frame is not None:
            # For Bedrock, the source is a generator. The parser belongs to the object whose method created the
            # generator: ``self`` in the generator's frame.
            owner, name = frame.f_locals.get("self"), "_chunk_parser"
        parse = getattr(owner, name, None)
        if not callable(parse):
            return _Seen(source, self.see) if isinstance(source, AsyncIterator) else source
        mends = "databricks" not in type(owner).__module__

        def parsed(*args: object, **options: object) -> object:
            for chunk in (*args, *options.values()):
                self.see(chunk, mends=mends)
            return parse(*args, **options)

        setattr(owner, name, parsed)
        return source

    def see(self, chunk: object, *, mends: bool = True) -> None:
        """Record what litellm would lose from this chunk, such as the finish reason.

        With ``mends``, also repair the chunk's deltas and errors, so that litellm can read them.
        """
        for word in words_in(chunk):
            self.word = word
        is_openai, is_gemini = isinstance(get(chunk, "choices"), list), get(chunk, "candidates") is not None
        self.has_ends = self.has_ends or is_openai or is_gemini
        if isinstance(chunk, dict) and str(chunk.get("type")).startswith("content_block_"):
            self.content.take(chunk)
        if get(chunk, "type") == "response.refusal.delta":  # OpenAI's Responses API
            self.refused = True
            put(chunk, "type", "response.output_text.delta")
        if mends:
            give_code(get(chunk, "error"))
            for choice in items(chunk, "choices"):
                delta = get(choice, "delta")
                self.refused = (delta is not None and repair_delta(delta)) or self.refused


def repair_delta(delta: object) -> bool:
    """Repair the delta in place, and return whether it contains a refusal.

    Text and reasoning become strings, and tool calls get all their fields. In OpenAI's format, a refusal has its own
    field. The refusal is appended to the text.
    """
    content = get(delta, "content")
    text, refusal = texts(content), texts(get(delta, "refusal"))
    if refusal:
        text = (text or "") + refusal
    if text != content:
        put(delta, "content", text)
    thoughts = thoughts_of(content)
    for name in REASONING:
        given = get(delta, name)
        if thoughts or not isinstance(given, str | None):
            put(delta, name, thoughts or thoughts_of(given) or texts(given))
    calls = get(delta, "tool_calls")
    if isinstance(calls, list):
        put(delta, "tool_calls", [repaired_call(call) for call in calls if call is not None])
    return bool(refusal)


def words_in(chunk: object) -> Iterator[str]:
    """Yield the finish reasons in the chunk, in any provider's format."""
    for choice in items(chunk, "choices"):
        word, native = get(choice, "finish_reason"), get(choice, "native_finish_reason")
        if is_word(word):
            yield told_word(word, native)
    # Gemini has candidates instead of choices.
    yield from filter(is_word, (get(candidate, "finishReason") for candidate in items(chunk, "candidates")))
    if get(get(chunk, "promptFeedback"), "blockReason"):  # Gemini refused the prompt and sends nothing else
        yield Ending.CONTENT_FILTER
    kind = get(chunk, "type")
    if kind in {"response.completed", "response.incomplete"}:  # OpenAI's Responses API
        word = get(get(get(chunk, "response"), "incomplete_details"), "reason")
        yield from filter(is_word, [word])
    if kind == "response.failed":
        yield Ending.FAILED
    for place in (chunk, get(chunk, "delta"), get(get(chunk, "data"), "delta"), get(chunk, "details")):
        yield from filter(is_word, (get(place, name) for name in _NAMES))


_NAMES = ("stop_reason", "stopReason", "finish_reason", "done_reason", "completionReason")
"""The names of the field with the finish reason: ``stop_reason`` (Anthropic), ``stopReason`` (Bedrock),
``finish_reason`` (Cohere, TGI), ``done_reason`` (Ollama) and ``completionReason`` (Titan). In chunks from Anthropic and
Cohere, the field is within ``delta``. In chunks from TGI, the field is within ``details``.
"""


def give_code(error: object) -> None:
    """Give an error in the stream a numeric ``code``, because litellm chooses the class of its exception by this code.

    OpenRouter sends a name such as ``server_error`` instead of a number.
    """
    code = get(error, "code")
    if isinstance(error, dict) and not isinstance(code, int):
        error["vendor_code"] = code
        error["code"] = int(str(code)) if str(code).isdecimal() else _STATUS.get(str(code), 502)
        error.setdefault("message", "")


_STATUS = {"rate_limit_exceeded": 429, "insufficient_quota": 402, "context_length_exceeded": 400}


class _Seen:
    """Wraps an iterator of chunks, and inspects each chunk before passing it on."""

    def __init__(self, source: AsyncIterator[object], see: Callable[[object], None]) -> None:
        self._source = source
        self._see = see

    def __aiter__(self) -> AsyncIterator[object]:
        return self

    async def __anext__(self) -> object:
        chunk = await self._source.__anext__()
        self._see(chunk)
        return chunk

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

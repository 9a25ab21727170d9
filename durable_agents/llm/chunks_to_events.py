"""Turn the chunks of an answer into model events. Emit tool calls in order, and report the end of a complete answer.

An answer without a finish reason counts as cut off, even if the client library reports a normal end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from durable_agents.exceptions import ErrorKind, ModelError
from durable_agents.llm.call_deltas import CallDelta, CallDeltas
from durable_agents.llm.finish_reasons import Ending, ending_of, is_word
from durable_agents.llm.provider_messages import PAUSED_CONTENT
from durable_agents.llm.types import (
    Block,
    CallStarted,
    Finished,
    ModelEvent,
    ModelRequest,
    ModelUsage,
    ReasoningHidden,
    TextDelta,
)

_REPORTED = {
    Ending.STOP: "stop",
    Ending.TOOL_CALLS: "tool_calls",
    Ending.LENGTH: "length",
    Ending.CONTEXT_WINDOW: "length",
    Ending.CONTENT_FILTER: "content_filter",
    Ending.PAUSE: "pause",
    None: "other",
}
"""The ``finish_reason`` to report for each member of ``Ending``. The key None is for unknown finish reasons."""


MAX_REPEATS = 100
"""The model call fails if a piece of text longer than two characters is repeated this many times in a row. litellm has
the same limit.
"""


class AnswerEvents:
    """Builds the model events for the answer to one request."""

    def __init__(self, request: ModelRequest) -> None:
        self.request = request
        self.says_something = False
        self.refused = False
        """Whether the model refused to answer. OpenAI's format has a separate field for the text of a refusal."""
        self._repeated = ""
        self._repeats = 0
        functions = [tool.get("function") or tool for tool in request.tools]
        names = [function.get("name") for function in functions if isinstance(function, Mapping)]
        self._calls = CallDeltas(known_names=frozenset(name for name in names if isinstance(name, str)))

    def of(self, said: Sequence[ModelEvent], calls: Sequence[CallDelta] = ()) -> list[ModelEvent]:
        """Return the events of one chunk: first its text and reasoning (``said``), then its tool calls (``calls``)."""
        events: list[ModelEvent] = []
        if said:
            self._count_repeats(said[-1].text if isinstance(said[-1], TextDelta) else "")
            events += [*self._calls.text_follows(), *said] if self._calls.calls else said
        if calls:
            events += self._calls.take(list(calls))
        return self._noted(events)

    def of_text(self, text: str) -> list[ModelEvent]:
        """Return the events of a chunk that contains only text."""
        said = TextDelta(text=text)
        if self._calls.calls:
            return self.of([said])
        self.says_something = True
        self._count_repeats(text)
        return [said]

    def end(self, word: str | None, *, usage: ModelUsage | None, content: Sequence[Block] = ()) -> list[ModelEvent]:
        """Return the last events of a complete answer.

        ``word`` is the provider's finish reason. ``content`` is the whole answer in Anthropic's format. Raises
        ModelError if the answer was cut off, if it failed, or if it is empty without a known reason.
        """
        if word is None or not is_word(word):
            raise ModelError(ErrorKind.NETWORK, "The stream was cut off: it has no finish reason.", retryable=True)
        ending = ending_of(word)
        if ending in {Ending.FAILED, Ending.REFUSED}:
            kind = ErrorKind.PROVIDER_5XX if ending is Ending.FAILED else ErrorKind.INVALID_REQUEST
            raise ModelError(kind, f"The provider ended the answer with {word[:64]!r}.", retryable=kind.retryable)
        last = self._noted([*self._calls.close()])
        if not self.says_something:
            self._refuse_silence(ending)
        if self.refused and ending is Ending.STOP and not self._calls.calls:
            ending = Ending.CONTENT_FILTER
        if ending is Ending.PAUSE and content:
            last.append(ReasoningHidden(metadata={"anthropic": {PAUSED_CONTENT: content}}))
        return [*last, Finished(finish_reason=_REPORTED[ending], usage=usage, model=self.request.model)]

    def _count_repeats(self, text: str) -> None:
        """Raise ModelError if the model keeps repeating the same piece of text."""
        if text != self._repeated or len(text) <= 2:
            self._repeated, self._repeats = text, 0
            return
        self._repeats += 1
        if self._repeats >= MAX_REPEATS:
            raise ModelError(ErrorKind.PROVIDER_5XX, "The model keeps repeating the same text.", retryable=True)

    def _noted(self, events: list[ModelEvent]) -> list[ModelEvent]:
        if not self.says_something:
            self.says_something = any(isinstance(event, TextDelta | CallStarted) for event in events)
        return events

    def _refuse_silence(self, ending: Ending | None) -> None:
        """Raise ModelError if an answer without text and without tool calls is not acceptable."""
        if ending is Ending.CONTENT_FILTER:
            raise ModelError(ErrorKind.CONTENT_POLICY, "The model declined to answer.", retryable=False)
        if ending is Ending.CONTEXT_WINDOW:
            text = "The model's context window was full before it said anything."
            raise ModelError(ErrorKind.CONTEXT_WINDOW_EXCEEDED, text, retryable=False)
        if ending is not None and (self.request.may_be_silent or ending is Ending.PAUSE):
            return
        if ending is Ending.LENGTH:  # not retryable: the next attempt would take as long and cost as much
            text = "The model reached its token limit before it said anything. Raise max_tokens, or let it think less."
            raise ModelError(ErrorKind.INVALID_REQUEST, text, retryable=False)
        raise ModelError(
            ErrorKind.PROVIDER_5XX, "The model answered with neither text nor a tool call.", retryable=True
        )

"""One model step: load, call the model, buffer what arrives, commit; or decide what follows a failed attempt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from durable_agents import lifecycle
from durable_agents.agents import Agent, registry
from durable_agents.conf import config
from durable_agents.crashpoints import crashpoint
from durable_agents.exceptions import LeaseLostError, ModelError
from durable_agents.lifecycle import Claim, NewCall, StepOutcome
from durable_agents.llm import (
    CallArguments,
    CallStarted,
    Finished,
    ModelEvent,
    ModelRequest,
    ModelUsage,
    ReasoningDelta,
    TextDelta,
    door,
    openai_messages,
)
from durable_agents.logs import log_error
from durable_agents.models import Stream, Thread
from durable_agents.parts import Chunk, Fold, Part, parse_arguments, text_of
from durable_agents.retry import Fail, RetryIn
from durable_agents.streaming import DeltaBuffer
from durable_agents.transcript import turns

if TYPE_CHECKING:
    from durable_agents.engine.worker import Engine


async def run_step(engine: Engine, claim: Claim) -> None:
    """Run one attempt at a model call to its end, whatever that is."""
    job: _StepJob = await engine.in_database(_load_step, claim)
    request = await _request(engine, job, model=job.agent.model_for(claim.attempt))
    answer = _Answer(number=job.number, tool_input_deltas=job.sends_tool_input)
    try:
        await _stream(engine, claim, job, request, answer)
    except ModelError as error:
        usage = await _estimated(engine, request, answer)
        await _after_failed_attempt(engine, claim, job.agent, error, usage)
    except asyncio.CancelledError:
        usage = await _estimated(engine, request, answer)
        await engine.in_database(lifecycle.record_usage, claim, model=request.model, usage=usage)
        raise
    else:
        outcome = answer.outcome(job.agent)
        if outcome.usage is None:
            outcome = replace(outcome, usage=await _estimated(engine, request, answer))
        crashpoint("answered")
        await _commit(engine, claim, outcome)
        crashpoint("step_committed")


async def _commit(engine: Engine, claim: Claim, outcome: StepOutcome) -> None:
    try:
        await engine.in_database(lifecycle.commit_step, claim, outcome)
    except LeaseLostError:  # stopped a moment before: the answer is not wanted, but it was paid for
        if outcome.usage is not None:
            await engine.in_database(lifecycle.record_usage, claim, model=outcome.model, usage=outcome.usage)
        raise


async def _stream(engine: Engine, claim: Claim, job: _StepJob, request: ModelRequest, answer: _Answer) -> None:
    """Call the model; every event is folded into the answer and buffered for browsers."""
    streaming = job.agent.streaming
    buffer = DeltaBuffer(
        claim=claim,
        message=job.message,
        throttle_seconds=streaming.throttle_ms / 1000 if streaming else 0,
        on_lost=partial(engine.drop_claim, claim),
    )
    if streaming:
        engine.writer.open(buffer)
    async with contextlib.aclosing(door().stream(request)) as events:
        async for event in events:
            for chunk in answer.take(event):
                buffer.add(chunk)
    engine.writer.close(claim)


async def _request(engine: Engine, job: _StepJob, *, model: str) -> ModelRequest:
    agent = job.agent
    instructions = agent.instructions
    if callable(instructions):
        instructions = str(await engine.call_user(instructions, job.thread))
    return ModelRequest(
        model=model,
        messages=openai_messages(instructions, job.turns, max_result_bytes=config().max_tool_result_bytes),
        tools=[tool.schema for tool in agent.tools.values()],
        settings=agent.model_settings,
    )


async def _estimated(engine: Engine, request: ModelRequest, answer: _Answer) -> ModelUsage:
    """What an attempt that did not come to its end, or whose provider said nothing, has probably used."""
    if not answer.fold.parts:
        return ModelUsage(estimated=True)
    try:
        usage: ModelUsage = await engine.in_thread(door().estimate, request, text_of(answer.fold.parts))
    except Exception:
        log_error("usage was not estimated", action="estimate")
        return ModelUsage(estimated=True)
    return usage


async def _after_failed_attempt(
    engine: Engine, claim: Claim, agent: Agent, error: ModelError, usage: ModelUsage
) -> None:
    """Another attempt after a wait, with the next model where there is one, or the end of the run."""
    decided = await _classified(engine, agent, error)
    kind = str(decided.kind) if isinstance(decided, Fail) else error.kind.value
    model = agent.model_for(claim.attempt)
    ended = lifecycle.FailedAttempt(kind=kind, detail=str(error), model=model, usage=usage)
    delay = _step_delay_seconds(agent, claim.attempt, error, decided)
    if delay is None:
        await engine.in_database(lifecycle.fail_step, claim, ended)
        return
    engine.put_off(delay)
    tries = max(agent.retry.max_attempts, len(agent.models))
    await engine.in_database(lifecycle.retry_step, claim, ended, delay_seconds=delay, max_attempts=tries)


@dataclass(frozen=True, kw_only=True)
class _StepJob:
    """What a model step needs from the database."""

    agent: Agent
    thread: Thread
    message: str
    number: int
    turns: list[Any]

    @property
    def sends_tool_input(self) -> bool:
        """Whether browsers see the arguments of calls as they are written."""
        return bool(self.agent.streaming and self.agent.streaming.tool_input_deltas)


def _load_step(claim: Claim) -> _StepJob:
    stream = Stream.objects.select_related("thread", "message").filter(pk=claim.row_id, fence=claim.fence).first()
    if stream is None:
        raise LeaseLostError(f"stream {claim.row_id}")
    return _StepJob(
        agent=registry.get(stream.thread.agent),
        thread=stream.thread,
        message=stream.message.shown_id,
        number=stream.number,
        turns=turns(stream.thread_id, upto=stream.message.position),
    )


@dataclass(kw_only=True)
class _Call:
    """A tool call as it arrives from the model."""

    tool_call_id: str
    provider_call_id: str
    tool_name: str
    raw: str = ""


@dataclass(kw_only=True)
class _Answer:
    """Turns the events of one model call into chunks for browsers and, at its end, into the step to commit."""

    number: int
    tool_input_deltas: bool
    fold: Fold = field(default_factory=Fold)
    calls: list[_Call] = field(default_factory=list)
    open_part: tuple[str, str] | None = None
    parts_begun: int = 0
    finished: Finished | None = None

    def take(self, event: ModelEvent) -> list[Chunk]:
        """The chunks that this event means; they are folded into the step as well."""
        chunks: list[Chunk] = [] if self.fold.parts else [{"type": "start-step"}]
        match event:
            case TextDelta():
                chunks += self._said("text", event.text)
            case ReasoningDelta():
                chunks += self._said("reasoning", event.text)
            case CallStarted():
                chunks += self._called(event)
            case CallArguments():
                chunks += self._argued(event)
            case Finished():
                self.finished = event
                chunks += self._end_open()
        for chunk in chunks:
            self.fold.apply(chunk)
        return chunks

    def _said(self, kind: str, text: str) -> list[Chunk]:
        chunks = []
        if self.open_part is None or self.open_part[0] != kind:
            chunks = self._end_open()
            self.parts_begun += 1
            self.open_part = (kind, f"{kind}-{self.number}-{self.parts_begun}")
            chunks.append({"type": f"{kind}-start", "id": self.open_part[1]})
        return [*chunks, {"type": f"{kind}-delta", "id": self.open_part[1], "delta": text}]

    def _end_open(self) -> list[Chunk]:
        if self.open_part is None:
            return []
        kind, part_id = self.open_part
        self.open_part = None
        return [{"type": f"{kind}-end", "id": part_id}]

    def _called(self, event: CallStarted) -> list[Chunk]:
        call = _Call(
            tool_call_id=f"call_{uuid4().hex}",
            provider_call_id=event.provider_call_id,
            tool_name=event.tool_name[:128] or "unnamed",
        )
        self.calls.append(call)
        start = {"type": "tool-input-start", "toolCallId": call.tool_call_id, "toolName": call.tool_name}
        return [*self._end_open(), start]

    def _argued(self, event: CallArguments) -> list[Chunk]:
        call = self.calls[event.index]
        call.raw += event.text
        if not self.tool_input_deltas:
            return []
        return [{"type": "tool-input-delta", "toolCallId": call.tool_call_id, "inputTextDelta": event.text}]

    def outcome(self, agent: Agent) -> StepOutcome:
        """The whole step. Calls that cannot run carry the error that the model is told."""
        finished = self.finished or Finished(finish_reason="stop", usage=None, model="")
        calls = [_new_call(agent, call) for call in self.calls]
        inputs = {call.tool_call_id: call.arguments for call in calls}
        return StepOutcome(
            parts=[_with_input(part, inputs) for part in self.fold.parts],
            calls=calls,
            finish_reason="tool-calls" if calls else finished.finish_reason.replace("_", "-"),
            model=finished.model,
            usage=finished.usage,
        )


def _with_input(part: Part, inputs: Mapping[str, Any]) -> Part:
    call_id = part.get("toolCallId")
    return part if call_id is None else part | {"state": "input-available", "input": inputs[call_id]}


def _new_call(agent: Agent, call: _Call) -> NewCall:
    """The call as a row: arguments parsed and checked against the tool."""
    arguments = parse_arguments(call.raw)
    tool = agent.tools.get(call.tool_name)
    return NewCall(
        tool_call_id=call.tool_call_id,
        provider_call_id=call.provider_call_id,
        tool_name=call.tool_name,
        arguments={"_raw": call.raw[:4000]} if arguments is None else arguments,
        max_attempts=tool.retry.max_attempts if tool else 1,
        timeout_seconds=tool.timeout_seconds if tool else None,
        error=_problem(agent, call, arguments),
    )


def _problem(agent: Agent, call: _Call, arguments: dict[str, Any] | None) -> str:
    tool = agent.tools.get(call.tool_name)
    if tool is None:
        known = ", ".join(agent.tools) or "none"
        return f"There is no tool {call.tool_name!r}. Tools: {known}."
    if arguments is None:
        return "The arguments are not a JSON object. Call the tool again with valid JSON."
    try:
        tool.validate(arguments)
    except ValueError as error:
        return str(error)
    return ""


async def _classified(engine: Engine, agent: Agent, error: ModelError) -> RetryIn | Fail | None:
    """What the developer's ``classify`` decides; where it fails, nothing."""
    if agent.retry.classify is None:
        return None
    try:
        decided: RetryIn | Fail | None = await engine.call_user(agent.retry.classify, error)
    except Exception:
        log_error("classify failed", action="classify")
        return None
    return decided


def _step_delay_seconds(agent: Agent, attempt: int, error: ModelError, decided: RetryIn | Fail | None) -> float | None:
    """Seconds until the next attempt; None where there is none."""
    if isinstance(decided, Fail):
        return None
    if not error.retryable and attempt < len(agent.models) and decided is None:
        return 0.0
    if attempt >= max(agent.retry.max_attempts, len(agent.models)) or not (error.retryable or decided):
        return None
    if isinstance(decided, RetryIn):
        return decided.seconds
    return agent.retry.delay_seconds(attempt, retry_after_seconds=error.retry_after_seconds)

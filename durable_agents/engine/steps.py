"""One model step: load, call the model, buffer what arrives, commit; or decide what follows a failed attempt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from durable_agents import lifecycle
from durable_agents.agents import Agent, registry
from durable_agents.conf import config
from durable_agents.crashpoints import crashpoint
from durable_agents.engine.answers import Answer
from durable_agents.engine.approvals import with_approvals
from durable_agents.engine.cancelling import cancelled_by_us_only
from durable_agents.engine.contents import with_contents
from durable_agents.engine.moments import tell_retry, tell_step
from durable_agents.engine.plans import Plan, instructions_of, needs_thread, plan_for, transformed
from durable_agents.exceptions import ErrorKind, LeaseLostError, ModelError
from durable_agents.lifecycle import Claim, StepOutcome
from durable_agents.llm import (
    ModelRequest,
    ModelUsage,
    Turn,
    door,
    openai_messages,
)
from durable_agents.logs import log_error
from durable_agents.models import Attachment, Delta, Stream, Thread
from durable_agents.parts import Chunk, fold, text_of
from durable_agents.retry import Fail, RetryIn
from durable_agents.streaming import DeltaBuffer
from durable_agents.transcript import attachments_of, histories, turns

if TYPE_CHECKING:
    from durable_agents.engine.worker import Engine


async def run_step(engine: Engine, claim: Claim) -> None:
    """Run one attempt at a model call to its end, whatever that is."""
    job: _StepJob = await engine.load(_load_steps, claim)
    try:
        plan = await plan_for(engine, job.agent, job.thread)
        request = await _request(engine, job, plan, model=plan.model_for(claim.attempt))
    except ModelError as error:
        await _after_failed_attempt(engine, claim, job.agent, error)
        return
    if job.said and not door().continues(request.model, request.settings):
        await engine.in_database(lifecycle.begin_again, claim)
        return
    answer = Answer(
        number=job.number,
        tool_input_deltas=job.sends_tool_input,
        provider_tools=plan.provider_tool_names,
        seed=job.said,
    )
    try:
        await _stream(engine, claim, job, request, answer)
    except ModelError as error:
        usage = await _estimated(engine, request, answer)
        await _after_failed_attempt(engine, claim, job.agent, error, models=plan.models, usage=usage)
    except asyncio.CancelledError:
        usage = await _estimated(engine, request, answer)
        await engine.in_database(lifecycle.record_usage, claim, model=request.model, usage=usage)
        raise
    else:
        outcome = answer.outcome(plan.tools)
        if outcome.usage is None:
            outcome = replace(outcome, usage=await _estimated(engine, request, answer))
        outcome = replace(outcome, calls=await with_approvals(engine, claim, job.agent, outcome.calls))
        crashpoint("answered")
        await _commit(engine, claim, outcome)
        crashpoint("step_committed")
        tell_step(engine, claim, job.agent, outcome)


async def _commit(engine: Engine, claim: Claim, outcome: StepOutcome) -> None:
    try:
        await engine.in_database(lifecycle.commit_step, claim, outcome)
    except LeaseLostError:  # stopped a moment before: the answer is not wanted, but it was paid for
        if outcome.usage is not None:
            await engine.in_database(lifecycle.record_usage, claim, model=outcome.model, usage=outcome.usage)
        raise


async def _stream(engine: Engine, claim: Claim, job: _StepJob, request: ModelRequest, answer: Answer) -> None:
    """Call the model; every event is folded into the answer and buffered for browsers."""
    streaming = job.agent.streaming
    buffer = DeltaBuffer(
        claim=claim,
        message=job.message,
        throttle_seconds=streaming.throttle_ms / 1000 if streaming else 0,
        on_lost=partial(engine.drop_claim, claim),
        seq=1 if job.said else 0,
    )
    if streaming:
        engine.writer.open(buffer)
    cancelled = ModelError(ErrorKind.NETWORK, "The model library has cancelled the call.", retryable=True)
    with cancelled_by_us_only(cancelled):
        await _listen(request, answer, buffer)
    engine.writer.close(claim)


async def _listen(request: ModelRequest, answer: Answer, buffer: DeltaBuffer) -> None:
    async with contextlib.aclosing(door().stream(request)) as events:
        async for event in events:
            for chunk in answer.take(event):
                buffer.add(chunk)


async def _request(engine: Engine, job: _StepJob, plan: Plan, *, model: str) -> ModelRequest:
    messages = openai_messages(
        await instructions_of(engine, plan, job.thread),
        await with_contents(engine, job.turns, job.attachments),
        model=model,
        max_result_bytes=config().max_tool_result_bytes,
        prefill=text_of(fold(job.said)),
    )
    return ModelRequest(
        model=model,
        messages=await transformed(engine, job.agent, job.thread, messages),
        tools=plan.tool_schemas,
        settings=plan.model_settings,
        agent=job.agent.name,
    )


async def _estimated(engine: Engine, request: ModelRequest, answer: Answer) -> ModelUsage:
    """What an attempt that did not come to its end, or whose provider said nothing, has probably used."""
    if not answer.own_text and not answer.calls:
        return ModelUsage(estimated=True)
    try:
        usage: ModelUsage = await engine.in_thread(door().estimate, request, answer.own_text)
    except Exception:
        log_error("usage was not estimated", action="estimate")
        return ModelUsage(estimated=True)
    return usage


async def _after_failed_attempt(
    engine: Engine,
    claim: Claim,
    agent: Agent,
    error: ModelError,
    *,
    models: Sequence[str] = (),
    usage: ModelUsage | None = None,
) -> None:
    """Another attempt after a wait, with the next of the models where there is one, or the end of the run.

    Without models none was called: a function of the agent failed.
    """
    decided = await _classified(engine, agent, error)
    kind = str(decided.kind) if isinstance(decided, Fail) else error.kind.value
    model = models[min(claim.attempt, len(models)) - 1] if models else ""
    ended = lifecycle.FailedAttempt(kind=kind, detail=str(error), model=model, usage=usage)
    tries = max(agent.retry.max_attempts, len(models))
    delay = _step_delay_seconds(agent, claim.attempt, error, decided, models=len(models))
    if delay is None:
        await engine.in_database(lifecycle.fail_step, claim, ended)
        return
    engine.put_off(delay)
    await engine.in_database(lifecycle.retry_step, claim, ended, delay_seconds=delay, max_attempts=tries)
    tell_retry(
        engine,
        agent,
        scope="step",
        thread_id=claim.thread_id,
        stream_id=claim.row_id,
        attempt=claim.attempt,
        max_attempts=tries,
        delay_seconds=delay,
        kind=kind,
        error=str(error),
    )


@dataclass(frozen=True, kw_only=True)
class _StepJob:
    """What a model step needs from the database."""

    agent: Agent
    thread: Thread | None
    """None where the agent has no function that asks for it."""
    message: str
    number: int
    turns: list[Turn]
    attachments: Mapping[UUID, Attachment]
    """Those that the turns name."""
    said: list[Chunk]
    """The text of a crashed attempt that this one goes on with; browsers have it already."""

    @property
    def sends_tool_input(self) -> bool:
        """Whether browsers see the arguments of calls as they are written."""
        return bool(self.agent.streaming and self.agent.streaming.tool_input_deltas)


def _load_steps(claims: Sequence[Claim]) -> dict[UUID, _StepJob]:
    """By row id; rows that others hold by now, or that were deleted, are left out. Four queries, and one more each for
    files, for threads that functions of agents ask for, and for texts to go on with, however many rows."""
    claim_of = {claim.row_id: claim for claim in claims}
    using = lifecycle.database()  # a replica may not know what was said last
    held = Stream.objects.using(using).filter(pk__in=claim_of).select_related("message").order_by()
    wanted = ("fence", "number", "goes_on", "message__client_id", "message__position")
    streams = [row for row in held.only(*wanted) if row.message is not None and row.fence == claim_of[row.pk].fence]
    history = histories({claim_of[row.pk].thread_id: row.answer.position for row in streams}, using=using)
    attachments = attachments_of(history, using=using)
    agents = {row.pk: registry.get(claim_of[row.pk].agent) for row in streams}
    asked = [claim_of[key].thread_id for key, agent in agents.items() if needs_thread(agent)]
    threads = Thread.objects.using(using).select_related("owner").in_bulk(asked) if asked else {}
    going_on = [row.pk for row in streams if row.goes_on]
    first = Delta.objects.using(using).filter(stream__in=going_on, seq=0)
    said = dict(first.values_list("stream", "chunks")) if going_on else {}
    return {
        row.pk: _StepJob(
            agent=agents[row.pk],
            thread=threads.get(claim_of[row.pk].thread_id),
            message=row.answer.shown_id,
            number=row.number,
            turns=history[claim_of[row.pk].thread_id],
            attachments=attachments,
            said=said.get(row.pk, []),
        )
        for row in streams
        if (claim_of[row.pk].thread_id in threads or not needs_thread(agents[row.pk]))
        and (row.pk in said or not row.goes_on)
    }


def spent(stream: Stream) -> lifecycle.Spent:
    """What a model call has probably used whose worker is dead: what it was asked, where it can be known, and what is
    stored of its answer."""
    agent = registry.find(stream.agent)
    using = lifecycle.database()
    deltas = Delta.objects.using(using)
    stored = deltas.chunks_of(stream.pk)
    if agent is None or not stored or stream.message is None or stream.thread_id is None:
        return lifecycle.Spent(usage=ModelUsage(estimated=True))
    model = agent.model_for(stream.attempt)
    instructions = agent.instructions if isinstance(agent.instructions, str) else ""
    history = turns(stream.thread_id, upto=stream.message.position, using=using)
    asked = openai_messages(instructions, history, model=model, max_result_bytes=config().max_tool_result_bytes)
    request = ModelRequest(model=model, messages=asked)
    seed = stored[: len(deltas.get(stream=stream, seq=0).chunks)] if stream.goes_on else []
    answered = text_of(fold(stored)).removeprefix(text_of(fold(seed)))
    try:
        return lifecycle.Spent(model=model, usage=door().estimate(request, answered))
    except Exception:
        log_error("usage was not estimated", action="estimate")
        return lifecycle.Spent(model=model, usage=ModelUsage(estimated=True))


async def _classified(engine: Engine, agent: Agent, error: ModelError) -> RetryIn | Fail | None:
    """What the developer's ``classify`` decides; where it fails, nothing."""
    if agent.retry.classify is None or error.kind is ErrorKind.MAX_STEPS:
        return None
    try:
        decided: RetryIn | Fail | None = await engine.call_user(agent.retry.classify, error)
    except Exception:
        log_error("classify failed", action="classify")
        return None
    return decided


def _step_delay_seconds(
    agent: Agent, attempt: int, error: ModelError, decided: RetryIn | Fail | None, *, models: int
) -> float | None:
    """Seconds until the next attempt, where there are so many models to try; None where there is none."""
    if isinstance(decided, Fail):
        return None
    if not error.retryable and attempt < models and decided is None:
        return 0.0
    if attempt >= max(agent.retry.max_attempts, models) or not (error.retryable or decided):
        return None
    if isinstance(decided, RetryIn):
        return decided.seconds
    return agent.retry.delay_seconds(attempt, retry_after_seconds=error.retry_after_seconds)

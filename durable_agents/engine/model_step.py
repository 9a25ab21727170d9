"""Run one model step: load the history, call the model, stream the output to browsers, and commit the step.

If the attempt fails, decide whether to retry it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from durable_agents import lifecycle
from durable_agents.agents import Agent, model_of_attempt, registry
from durable_agents.conf import config
from durable_agents.crashpoints import crashpoint
from durable_agents.delta_writer import DeltaBuffer
from durable_agents.engine.approvals import with_approvals
from durable_agents.engine.call_options import (
    Plan,
    instructions_of,
    needs_thread,
    plan_for,
    transformed,
    use_current_names,
)
from durable_agents.engine.cancellation_source import cancelled_by_us_only
from durable_agents.engine.environment import Environment
from durable_agents.engine.history_cache import RunHistory
from durable_agents.engine.inline_files import with_contents
from durable_agents.engine.resource_errors import WorkerLimitError, is_limit
from durable_agents.engine.runtime import Runtime
from durable_agents.engine.step_from_events import Answer
from durable_agents.exceptions import ErrorKind, LeaseLostError, ModelError
from durable_agents.lifecycle import Claim, Handed, StepOutcome
from durable_agents.llm import (
    MANY_MESSAGES,
    ModelRequest,
    ModelUsage,
    Turn,
    door,
    openai_messages,
)
from durable_agents.logs import log_error
from durable_agents.models import Attachment, Delta, Stream, Thread
from durable_agents.parts import Chunk, fold, text_of
from durable_agents.retry import Fail, Retry, RetryIn
from durable_agents.transcript import attachments_of, histories, turns

ESTIMATE_SECONDS = 1.0
"""The maximum time for an estimate of a model call's usage. This package's own estimates take milliseconds. If a
project replaces the class that calls providers (``ModelDoor``), its estimates may take longer.
"""


async def run_step(env: Environment, claim: Claim, handed: Handed | None = None) -> None:
    """Run one attempt at a model call and store its outcome.

    If the commit that made the row due also claimed it for this process, ``handed`` contains the row. If the history is
    cached as well, nothing has to be read from the database.
    """
    job = _known_job(env, claim, handed) or await _loaded_job(env, claim)
    try:
        plan = await plan_for(env.runtime, job.agent, job.thread)
        request = await _request(env, job, plan, model=_model_of(job.agent, plan.models, claim))
    except ModelError as error:
        if is_limit(error):
            raise
        await _after_failed_attempt(env, claim, job.agent, error)
        return
    if job.continued_text and not door().continues(request.model, request.settings):
        await env.runtime.in_transition(lifecycle.begin_again, claim)
        return
    streaming = job.agent.streaming
    answer = Answer(
        number=job.number,
        tool_input_deltas=bool(streaming and streaming.tool_input_deltas),
        provider_tools=plan.provider_tool_names,
        seed=job.continued_text,
    )
    try:
        await _stream(env, claim, job, request, answer)
    except ModelError as error:
        if is_limit(error):
            raise
        usage = await _estimated(env.runtime, request, answer)
        await _after_failed_attempt(env, claim, job.agent, error, models=plan.models, usage=usage)
    except asyncio.CancelledError:
        usage = await _estimated(env.runtime, request, answer)
        await env.runtime.in_transition(lifecycle.record_usage, claim, model=request.model, usage=usage)
        raise
    else:
        outcome = answer.outcome(plan.tools, resolved=plan.resolved)
        if outcome.usage is None:
            outcome = replace(outcome, usage=await _estimated(env.runtime, request, answer))
        outcome = replace(outcome, calls=await with_approvals(env.runtime, claim, plan.tools, outcome.calls))
        crashpoint("answered")
        await _commit(env, claim, outcome)
        crashpoint("step_committed")
        env.callbacks.dispatch_step(claim, job.agent, outcome)


async def _commit(env: Environment, claim: Claim, outcome: StepOutcome) -> None:
    try:
        await env.endings.end(claim, outcome)
    except LeaseLostError:  # the run was stopped, but the model call costs money, so record its usage
        if outcome.usage is not None:
            await env.runtime.in_transition(lifecycle.record_usage, claim, model=outcome.model, usage=outcome.usage)
        raise


async def _stream(env: Environment, claim: Claim, job: _StepJob, request: ModelRequest, answer: Answer) -> None:
    """Call the model. Add each event to the answer, and buffer its chunks for browsers."""
    streaming = job.agent.streaming
    buffer = DeltaBuffer(
        claim=claim,
        message=job.message,
        throttle_seconds=streaming.throttle_ms / 1000 if streaming else 0,
        on_lost=partial(env.held.drop_claim, claim),
        seq=1 if job.continued_text else 0,
    )
    if streaming:
        env.writer.open(buffer)
    # Some model libraries cancel their own tasks when a connection is lost. Treat this as a failed attempt, not as a
    # cancellation by the engine.
    cancelled = ModelError(ErrorKind.NETWORK, "The model library has cancelled the call.", retryable=True)
    with cancelled_by_us_only(cancelled):
        await _receive(request, answer, buffer)
    env.writer.close(claim)


async def _receive(request: ModelRequest, answer: Answer, buffer: DeltaBuffer) -> None:
    async with contextlib.aclosing(door().stream(request)) as events:
        async for event in events:
            for chunk in answer.take(event):
                buffer.add(chunk)


async def _request(env: Environment, job: _StepJob, plan: Plan, *, model: str) -> ModelRequest:
    # An empty answer is acceptable if the model has already answered or called a tool since the user's last message.
    last = next((turn for turn in reversed(job.turns) if turn.role != "assistant" or turn.steps), None)
    convert = partial(
        openai_messages,
        await instructions_of(env.runtime, plan, job.thread),
        await with_contents(env.runtime, job.turns, job.attachments),
        model=model,
        max_result_bytes=config().max_tool_result_bytes,
        prefill=text_of(fold(job.continued_text)),
    )
    messages = await env.runtime.in_thread(convert) if len(job.turns) > MANY_MESSAGES else convert()
    use_current_names(messages, plan.tools)
    return ModelRequest(
        model=model,
        messages=await transformed(env.runtime, job.agent, job.thread, messages),
        tools=[*(tool.definition for tool in plan.tools.values()), *plan.provider_tools],
        settings=plan.model_settings,
        agent=job.agent.name,
        may_be_silent=last is not None and last.role != "user",
    )


async def _estimated(runtime: Runtime, request: ModelRequest, answer: Answer) -> ModelUsage:
    """Estimate the usage of an attempt for which the provider has reported no usage."""
    if not answer.own_text and not answer.calls:
        return ModelUsage(estimated=True)
    try:
        async with asyncio.timeout(ESTIMATE_SECONDS):
            return await runtime.in_thread(door().estimate, request, answer.own_text)
    except (Exception, WorkerLimitError):
        log_error("usage was not estimated", action="estimate")
        return ModelUsage(estimated=True)


async def _after_failed_attempt(
    env: Environment,
    claim: Claim,
    agent: Agent,
    error: ModelError,
    *,
    models: Sequence[str] = (),
    usage: ModelUsage | None = None,
) -> None:
    """Schedule another attempt, or fail the run.

    When the current model has no attempts left, the next model in ``models`` is used. ``models`` is empty if a function
    of the agent failed before any model was called.
    """
    decision: RetryIn | Fail | None = None
    if agent.retry.classify is not None and error.kind is not ErrorKind.MAX_STEPS:
        try:
            decision = await env.runtime.call_user(agent.retry.classify, error)
        except Exception:
            log_error("classify failed", action="classify")
    kind = str(decision.kind) if isinstance(decision, Fail) else error.kind.value
    model = _model_of(agent, models, claim) if models else ""
    failed = lifecycle.FailedAttempt(kind=kind, detail=str(error), model=model, usage=usage)
    following = _next_attempt(agent.retry, claim.attempt, error, decision, models=len(models))
    if following is None:
        await env.runtime.in_transition(lifecycle.fail_step, claim, failed)
        return
    number, delay = following
    tries = agent.retry.attempts_per_model * len(models or agent.models)
    env.put_off(delay)
    await env.runtime.in_transition(
        lifecycle.retry_step, claim, failed, next_attempt=number, delay_seconds=delay, max_attempts=tries
    )
    env.callbacks.dispatch_retry(
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
    """The data that a model step needs from the database."""

    agent: Agent
    thread: Thread | None
    """The thread, or None if no function of the agent needs it."""
    message: str
    number: int
    turns: Sequence[Turn]
    attachments: Mapping[UUID, Attachment]
    """The attachments that the turns refer to."""
    continued_text: list[Chunk]
    """The text of a crashed attempt that this attempt continues. Browsers have the text already."""

    rev: int
    message_id: UUID

    def history(self) -> RunHistory:
        """Return the history for the next step of the run."""
        return RunHistory(
            rev=self.rev,
            message_id=self.message_id,
            message=self.message,
            turns=self.turns,
            attachments=self.attachments,
        )


def _known_job(env: Environment, claim: Claim, handed: Handed | None) -> _StepJob | None:
    history = env.histories.of(handed) if handed else None
    agent = registry.find(claim.agent)
    if handed is None or history is None or agent is None or not isinstance(handed.row, Stream):
        return None
    return _StepJob(
        agent=agent,
        thread=handed.thread if needs_thread(agent) else None,
        message=history.message,
        number=handed.row.number,
        turns=history.turns,
        attachments=history.attachments,
        continued_text=[],
        rev=history.rev,
        message_id=history.message_id,
    )


async def _loaded_job(env: Environment, claim: Claim) -> _StepJob:
    job = await env.runtime.load(_load_steps, claim)
    if job is None:
        job = await env.runtime.in_history_lane(_load_long_step, claim)
    env.histories.keep(claim.thread_id, job.history())
    return job


def _load_steps(claims: Sequence[Claim]) -> dict[UUID, _StepJob | None]:
    """Load the steps of these claims, and return them by row id.

    The value is None for a step with a long history. The caller loads this step separately. A row is left out if it was
    deleted or if another process has claimed it.

    The number of queries does not depend on the number of rows.
    """
    streams = _held_streams(claims)
    long = [row.pk for row in streams if (row.answer.position or 0) > MANY_MESSAGES]
    return {**dict.fromkeys(long), **_jobs(claims, [row for row in streams if row.pk not in long])}


def _load_long_step(claim: Claim) -> _StepJob:
    """Load a step with a long history. Raises LeaseLostError."""
    jobs = _jobs([claim], _held_streams([claim]))
    if claim.row_id not in jobs:
        raise LeaseLostError(f"{claim.kind} {claim.row_id}")
    return jobs[claim.row_id]


def _held_streams(claims: Sequence[Claim]) -> list[Stream]:
    fences = {claim.row_id: claim.fence for claim in claims}
    # Do not read from a replica, because it may not have the newest messages yet.
    rows = Stream.objects.using(lifecycle.database()).filter(pk__in=fences).select_related("message__thread")
    # Read the thread's revision (``rev``) before its history. If the thread changes in between, the cached history has
    # an old revision and is not used again.
    columns = ("fence", "number", "goes_on", "message__client_id", "message__position", "message__thread__rev")
    held = rows.order_by().only(*columns)
    return [row for row in held if row.message is not None and row.fence == fences[row.pk]]


def _jobs(claims: Sequence[Claim], streams: Sequence[Stream]) -> dict[UUID, _StepJob]:
    if not streams:
        return {}
    claim_of, using = {claim.row_id: claim for claim in claims}, lifecycle.database()
    history = histories({claim_of[row.pk].thread_id: row.answer.position for row in streams}, using=using)
    attachments = attachments_of(history, using=using)
    agents = {row.pk: registry.get(claim_of[row.pk].agent) for row in streams}
    thread_ids = [claim_of[key].thread_id for key, agent in agents.items() if needs_thread(agent)]
    threads = Thread.objects.using(using).select_related("owner").in_bulk(thread_ids) if thread_ids else {}
    continuing = [row.pk for row in streams if row.goes_on]
    first = Delta.objects.using(using).filter(stream__in=continuing, seq=0)
    continued = dict(first.values_list("stream", "chunks")) if continuing else {}
    return {
        row.pk: _StepJob(
            agent=agents[row.pk],
            thread=threads.get(claim_of[row.pk].thread_id),
            message=row.answer.shown_id,
            number=row.number,
            turns=history[claim_of[row.pk].thread_id],
            attachments=attachments,
            continued_text=continued.get(row.pk, []),
            rev=row.answer.thread.rev,
            message_id=row.answer_id,
        )
        for row in streams
        if (claim_of[row.pk].thread_id in threads or not needs_thread(agents[row.pk]))
        and (row.pk in continued or not row.goes_on)
    }


def estimate_spent(stream: Stream) -> lifecycle.Spent:
    """Estimate the usage of a model call whose worker has died, from the input and the stored part of the answer.

    If the agent's instructions come from a function, they are not counted.
    """
    agent = registry.find(stream.agent)
    using = lifecycle.database()
    deltas = Delta.objects.using(using)
    stored = deltas.chunks_of(stream.pk)
    if agent is None or not stored or stream.message is None or stream.thread_id is None:
        return lifecycle.Spent(usage=ModelUsage(estimated=True))
    model = agent.model_for(stream.attempt)
    instructions = "" if callable(agent.instructions) else str(agent.instructions)
    history = turns(stream.thread_id, upto=stream.message.position, using=using)
    messages = openai_messages(instructions, history, model=model, max_result_bytes=config().max_tool_result_bytes)
    request = ModelRequest(model=model, messages=messages)
    seed = stored[: len(deltas.get(stream=stream, seq=0).chunks)] if stream.goes_on else []
    answer = text_of(fold(stored)).removeprefix(text_of(fold(seed)))
    try:
        usage = _within(ESTIMATE_SECONDS, partial(door().estimate, request, answer))
        return lifecycle.Spent(model=model, usage=usage)
    except Exception:
        log_error("usage was not estimated", action="estimate")
        return lifecycle.Spent(model=model, usage=ModelUsage(estimated=True))


def _model_of(agent: Agent, models: Sequence[str], claim: Claim) -> str:
    return model_of_attempt(models, claim.attempt, attempts_per_model=agent.retry.attempts_per_model)


def _next_attempt(
    retry: Retry, attempt: int, error: ModelError, decision: RetryIn | Fail | None, *, models: int
) -> tuple[int, float] | None:
    """Return the number of the next attempt and the delay in seconds. Return None if there is no next attempt.

    ``models`` is the number of models that the agent can use. If no model was called, it is 0.
    """
    if isinstance(decision, Fail):
        return None
    given_up, earlier = divmod(attempt - 1, retry.attempts_per_model)
    tries = earlier + 1  # how many attempts the current model has had, including the failed one
    if (error.retryable or decision) and tries < retry.attempts_per_model:
        if isinstance(decision, RetryIn):
            return attempt + 1, decision.seconds
        return attempt + 1, retry.delay_seconds(tries, retry_after_seconds=error.retry_after_seconds)
    if given_up + 1 < models:
        # Try the next model. Each model has its own range of attempt numbers, so continue with the first number of the
        # next range. Do not wait: if a provider has asked for a delay, this concerns only the failed model.
        return (given_up + 1) * retry.attempts_per_model + 1, 0.0
    return None


def _within(seconds: float, estimate: Callable[[], ModelUsage]) -> ModelUsage:
    """Call ``estimate`` in a new OS thread and return the result.

    If the call takes longer than ``seconds``, raise TimeoutError. The OS thread keeps running.
    """
    results: queue.SimpleQueue[ModelUsage | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put(estimate())
        except Exception as error:  # the caller's OS thread raises this error again
            results.put(error)

    threading.Thread(target=run, daemon=True, name="durable-agents-estimate").start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(result, Exception):
        raise result
    return result

"""The worker: claims due rows, runs model steps and tools in one event loop, and never writes a status itself.

django-q2 runs ``work(cluster)`` as a task; the message is a doorbell and says nothing else. Inside, one event loop
is kept for the life of the process (the model library's connections are bound to it) and carries many rows at once.
The engine's database work has a thread and a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import inspect
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from channels.layers import get_channel_layer
from django.db import DatabaseError, close_old_connections, connections, reset_queries
from django_q.conf import Conf as QConf

from durable_agents import holders, lifecycle, outbound
from durable_agents.agents import Agent, Tool, ToolContext, registry
from durable_agents.conf import cluster_of, config
from durable_agents.exceptions import (
    DurableAgentsError,
    ErrorKind,
    LeaseLostError,
    ModelError,
    ThreadNotFoundError,
    ToolError,
)
from durable_agents.lifecycle import CallResult, Claim, NewCall, StepOutcome
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
from durable_agents.logs import log, log_error
from durable_agents.models import Stream, Thread, ToolCall, ToolCallStatus
from durable_agents.parts import Chunk, Fold, Part, parse_arguments
from durable_agents.retry import Fail, RetryIn
from durable_agents.streaming import DeltaBuffer, DeltaWriter, Frame
from durable_agents.transcript import turns

CLAIM_SECONDS = 0.25
CLAIM_BATCH = 8
"""Rows won in one claim: small, so that workers which start together share what is due."""
CHECK_SECONDS = 0.5
REAP_SECONDS = 2.0
MASKED = "The tool failed."


# ------------------------------------------------------------------------------------------------ called by django-q2


def work(cluster: str) -> None:
    """Work on what is due in the pools of ``cluster`` until a claim finds nothing. A further doorbell, when enough
    processes of the cluster sit in here already, returns at once."""
    with _seat(cluster) as seated:
        if seated:
            _engine(cluster).work()


def sweep() -> None:
    """The last resort: reap what dead workers held, ring for what is due, delete what nobody needs any more."""
    lifecycle.reap(holders.is_gone)
    lifecycle.prune()
    for cluster in {cluster_of(pool) for pool in config().pools}:
        if _work_is_due(cluster):
            outbound.ring_cluster(cluster)


def _work_is_due(cluster: str) -> bool:
    agents, tools = _known_code()
    return lifecycle.has_open_work(config().pools_of(cluster), agents=agents, tool_names=tools)


def _known_code() -> tuple[list[str], list[str]]:
    return [agent.name for agent in registry.all()], sorted(registry.tool_names())


@contextlib.contextmanager
def _seat(cluster: str) -> Iterator[bool]:
    """One of the seats of a cluster in ``work``; the kernel frees it when its holder dies."""
    seats = config().processes or max(1, QConf.WORKERS - 1)
    for number in range(seats):
        descriptor = _lock_file(f"seat-{cluster}-{os.getppid()}-{number}")
        if descriptor is not None:
            try:
                yield True
            finally:
                os.close(descriptor)
            return
    yield False


def _lock_file(name: str) -> int | None:
    """An open, locked file in this user's temporary folder, or None where another process holds it."""
    folder = Path(tempfile.gettempdir()) / f"durable-agents-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    safe = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)
    descriptor = os.open(folder / safe, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


_engines: dict[tuple[int, str], Engine] = {}


def _engine(cluster: str) -> Engine:
    """This process's engine; a forked child does not use its parent's."""
    key = (os.getpid(), cluster)
    if key not in _engines:
        _engines[key] = Engine(cluster)
    return _engines[key]


def on_spawn(**_: object) -> None:
    """A django-q2 worker was born: load what is slow, and look after the dead from a thread beside it."""
    try:
        lifecycle.ensure_pools()
        outbound.schedule_sweep()
    except DatabaseError:
        log_error("the database is not ready: are all migrations applied?", action="spawn")
        connections.close_all()
    threading.Thread(target=_look_after, args=(os.getppid(),), daemon=True, name="durable-agents-reaper").start()
    door().prepare()


def _look_after(parent: int) -> None:
    """Every two seconds reap what gone processes of this machine held, and ring for it. One process of a cluster
    does it; the others wait for its death. An idle worker whose cluster is gone ends itself."""
    descriptor = None
    while True:
        if os.getppid() != parent and not _engine_is_awake():
            os._exit(0)
        descriptor = descriptor or _lock_file(f"reaper-{parent}")
        if descriptor is not None:
            _reap_and_ring()
        time.sleep(REAP_SECONDS)


def _reap_and_ring() -> None:
    try:
        lifecycle.reap(holders.is_gone)
        if _work_is_due(QConf.CLUSTER_NAME) and not _engine_is_awake():
            outbound.ring_cluster(QConf.CLUSTER_NAME)
    except Exception:
        log_error("reaping failed", action="reap")
        connections.close_all()


def _engine_is_awake() -> bool:
    return any(engine.is_working for engine in _engines.values())


# --------------------------------------------------------------------------------------------------------- the engine


@dataclass(kw_only=True)
class _Held:
    """A row that this process works on."""

    claim: Claim
    task: asyncio.Task[None]


class Engine:
    """Everything that one worker process does for agents; kept for the life of the process."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.holder = holders.me()
        self.is_working = False
        self._pools = config().pools_of(cluster)
        self._loop = asyncio.new_event_loop()
        self._database = ThreadPoolExecutor(1, thread_name_prefix="durable-agents-database")
        self._tool_threads = ThreadPoolExecutor(config().tool_threads, thread_name_prefix="durable-agents-tool")
        self._held: dict[UUID, _Held] = {}
        self._writer = DeltaWriter(
            run=self.in_database, publish=self._publish_delta, flush_seconds=config().flush_ms / 1000
        )
        self._parent = os.getppid()
        self._terminated = False
        self._put_off_until = 0.0

    def work(self) -> None:
        """Serve until nothing is due, or until this process has to go."""
        self._loop.run_until_complete(self._serve())
        if os.getppid() != self._parent:
            os._exit(0)  # the cluster is gone: nobody will ever give this process a task, or end it
        if self._terminated:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    async def in_database(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function where the engine's own database connection is."""
        call = partial(_with_connection, function, *args, **kwargs)
        return await self._loop.run_in_executor(self._database, call)

    async def _serve(self) -> None:
        self._wake = asyncio.Event()
        self.is_working = True
        outbound.publish_through(self._publish)
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: nobody signals us
            self._loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        background = [
            self._loop.create_task(part()) for part in (self._writer.run, self._keep_leases, self._check_held)
        ]
        try:
            while await self._serve_until_idle():
                pass
            await self._drain()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            outbound.publish_through(None)
            self.is_working = False
            with contextlib.suppress(ValueError, RuntimeError):
                self._loop.remove_signal_handler(signal.SIGTERM)

    async def _serve_until_idle(self) -> bool:
        """Claim and run until nothing is left. Returns whether work came in while leaving."""
        outbound.answer_doorbells_here(self.cluster, self._wake_up)
        try:
            began = time.monotonic()
            while not self._must_leave():
                won = 0 if self._has_sat_long_enough(began) else await self._claim()
                if won < CLAIM_BATCH and not self._held and self._nothing_put_off(began):
                    break
                if won < CLAIM_BATCH:
                    await self._wait(CLAIM_SECONDS)
        finally:
            outbound.answer_doorbells_here(self.cluster, None)
        return not (self._must_leave() or self._has_sat_long_enough(began)) and await self._claim() > 0

    def _must_leave(self) -> bool:
        """Whether this process has to go: SIGTERM, a stopping cluster, or one that died without a word."""
        return self._terminated or os.getppid() != self._parent or outbound.cluster_is_stopping()

    def _has_sat_long_enough(self, began: float) -> bool:
        """Whether the only worker of a cluster has to let the project's own tasks run: it ends what it holds."""
        return QConf.WORKERS == 1 and time.monotonic() - began > config().work_seconds

    def _nothing_put_off(self, began: float) -> bool:
        return time.monotonic() >= self._put_off_until or self._has_sat_long_enough(began)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
        self._wake.clear()

    def _wake_up(self) -> None:
        self._loop.call_soon_threadsafe(self._wake.set)

    def _on_sigterm(self) -> None:
        self._terminated = True
        self._wake.set()

    async def _claim(self) -> int:
        """Win due rows, as many as there are free slots, a batch at most; begin to work on them."""
        streams = sum(1 for held in self._held.values() if held.claim.kind == "stream")
        tools = len(self._held) - streams
        agents, tool_names = _known_code()
        won: list[Claim] = await self.in_database(
            lifecycle.claim,
            pools=self._pools,
            holder=self.holder,
            streams=min(CLAIM_BATCH, config().streams_per_process - streams),
            tools=min(CLAIM_BATCH, config().tool_threads - tools),
            agents=agents,
            tool_names=tool_names,
        )
        for claim in won:
            self._start(claim)
        return len(won)

    def _start(self, claim: Claim) -> None:
        run = self._run_step if claim.kind == "stream" else self._run_tool
        task = self._loop.create_task(self._guarded(claim, run))
        self._held[claim.row_id] = _Held(claim=claim, task=task)

    async def _guarded(self, claim: Claim, run: Callable[[Claim], Awaitable[None]]) -> None:
        """Run one row; whatever happens to it harms no other."""
        try:
            await run(claim)
        except (LeaseLostError, ThreadNotFoundError):
            log(logging.INFO, "lease lost", action="lost", thread=claim.thread_id, fence=claim.fence)
        except Exception:
            log_error("a row failed", action="run", thread=claim.thread_id)
            await self._give_up(claim)
        finally:
            self._writer.close(claim)
            self._held.pop(claim.row_id, None)
            self._wake.set()

    async def _give_up(self, claim: Claim) -> None:
        """An error of our own, not of model or tool: end the row visibly rather than try for ever."""
        with contextlib.suppress(DurableAgentsError):
            if claim.kind == "stream":
                await self.in_database(lifecycle.fail_step, claim, kind=ErrorKind.UNKNOWN, detail="internal error")
            else:
                failed = CallResult(status=ToolCallStatus.FAILED, error=MASKED, error_code="internal")
                await self.in_database(lifecycle.finish_tool_call, claim, failed)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(config().lease_seconds / 3)
            self._drop(await self._asked(lifecycle.heartbeat))

    async def _check_held(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self._drop(await self._asked(lifecycle.lost_claims))

    async def _asked(self, question: Callable[[list[Claim]], set[UUID]]) -> set[UUID]:
        claims = [held.claim for held in self._held.values()]
        if not claims:
            return set()
        try:
            answer: set[UUID] = await self.in_database(question, claims)
        except Exception:
            log_error("leases were not checked", action="heartbeat")
            return set()
        return answer

    def _drop(self, lost: set[UUID]) -> None:
        """Stop working on rows that others hold or settled; closing the model's connection is part of it."""
        for row_id in lost & self._held.keys():
            self._held[row_id].task.cancel()

    async def _drain(self) -> None:
        """Claim no more; give what is held ``drain_seconds`` to end, then give it back; ring for what is left."""
        held = list(self._held.values())
        if held:
            await asyncio.wait([item.task for item in held], timeout=config().drain_seconds)
        for item in held:
            if not item.task.done():
                item.task.cancel()
                await asyncio.wait([item.task])
                with contextlib.suppress(ThreadNotFoundError):
                    await self.in_database(lifecycle.release, item.claim)
        if await self.in_database(_work_is_due, self.cluster):
            await self.in_database(outbound.ring_cluster, self.cluster)

    def _publish_delta(self, thread_id: UUID, frame: Frame) -> None:
        outbound.publish(thread_id, {"type": "thread.delta", "frame": frame})

    def _publish(self, group: str, message: dict[str, Any]) -> None:
        """Hand a message to the channel layer on the kept loop, from whichever thread."""
        asyncio.run_coroutine_threadsafe(_group_send(group, message), self._loop)

    # ---------------------------------------------------------------------------------------------- model steps

    async def _run_step(self, claim: Claim) -> None:
        job: _StepJob = await self.in_database(_load_step, claim)
        try:
            outcome = await self._attempt(claim, job)
        except ModelError as error:
            await self._after_failed_attempt(claim, job.agent, error)
        else:
            await self.in_database(lifecycle.commit_step, claim, outcome)

    async def _attempt(self, claim: Claim, job: _StepJob) -> StepOutcome:
        request = await self._request(job, model=job.agent.model_for(claim.attempt))
        streaming = job.agent.streaming
        answer = _Answer(number=job.number, tool_input_deltas=bool(streaming and streaming.tool_input_deltas))
        buffer = DeltaBuffer(
            claim=claim,
            message=job.message,
            throttle_seconds=streaming.throttle_ms / 1000 if streaming else 0,
            on_lost=partial(self._drop, {claim.row_id}),
        )
        if streaming:
            self._writer.open(buffer)
        events = door().stream(request)
        async with contextlib.aclosing(events):  # type: ignore[type-var]
            async for event in events:
                for chunk in answer.take(event):
                    buffer.add(chunk)
        self._writer.close(claim)
        return answer.outcome(job.agent)

    async def _request(self, job: _StepJob, *, model: str) -> ModelRequest:
        agent = job.agent
        instructions = agent.instructions
        if callable(instructions):
            instructions = str(await self._call_user(instructions, job.thread))
        return ModelRequest(
            model=model,
            messages=openai_messages(instructions, job.turns, max_result_bytes=config().max_tool_result_bytes),
            tools=[tool.schema for tool in agent.tools.values()],
            settings=agent.model_settings,
        )

    async def _after_failed_attempt(self, claim: Claim, agent: Agent, error: ModelError) -> None:
        """Another attempt after a wait, with the next model where there is one, or the end of the run."""
        detail = str(error)
        delay = _step_delay_seconds(agent, claim.attempt, error)
        kind = _decided_kind(agent, error)
        if delay is None:
            await self.in_database(lifecycle.fail_step, claim, kind=kind, detail=detail)
            return
        self._put_off(delay)
        await self.in_database(
            lifecycle.retry_step,
            claim,
            kind=kind,
            detail=detail,
            delay_seconds=delay,
            max_attempts=max(agent.retry.max_attempts, len(agent.models)),
        )

    def _put_off(self, seconds: float) -> None:
        """Stay in ``work`` until a row that falls due soon is due, so that it needs no doorbell."""
        if seconds <= config().linger_seconds:
            self._put_off_until = max(self._put_off_until, time.monotonic() + seconds + CLAIM_SECONDS)

    async def _call_user(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call what a developer wrote: a coroutine function here, any other in a thread where the ORM may be used."""
        if inspect.iscoroutinefunction(function):
            return await function(*args)
        return await self._loop.run_in_executor(self._tool_threads, partial(_with_own_connection, function, *args))

    # ---------------------------------------------------------------------------------------------------- tools

    async def _run_tool(self, claim: Claim) -> None:
        job: _ToolJob = await self.in_database(_load_call, claim)
        ended = await self._ended(job)
        if ended.error is not None and _tool_may_retry(job, ended.error):
            delay = job.tool.retry.delay_seconds(claim.attempt)
            self._put_off(delay)
            detail = f"{type(ended.error).__name__}: {ended.error}"
            await self.in_database(lifecycle.retry_tool_call, claim, delay_seconds=delay, detail=detail)
        else:
            await self.in_database(lifecycle.finish_tool_call, claim, _call_result(job, ended))

    async def _ended(self, job: _ToolJob) -> _Ended:
        """Run the tool to its end or its timeout. Never raises but for our own cancellation."""
        try:
            return await asyncio.wait_for(self._tool_run(job), job.tool.timeout_seconds)
        except TimeoutError:
            return _Ended(error=ToolError(f"The tool took longer than {job.tool.timeout_seconds:g} seconds."))

    async def _tool_run(self, job: _ToolJob) -> _Ended:
        if job.tool.is_async:
            return await _run_async_tool(job)
        return await self._loop.run_in_executor(self._tool_threads, partial(_with_own_connection, _run_sync_tool, job))


async def _group_send(group: str, message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        await layer.group_send(group, message)
    except Exception:
        log(logging.WARNING, "browsers were not told", action="ring_browsers", group=group)


def _with_connection(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call it; after an error a connection that does not work any more is replaced."""
    reset_queries()  # under DEBUG Django remembers every statement until a request ends, and here none does
    try:
        return function(*args, **kwargs)
    except DurableAgentsError:
        raise
    except Exception:
        close_old_connections()
        raise


def _with_own_connection(function: Callable[..., Any], *args: Any) -> Any:
    """Call user code in a pool thread and leave no connection open behind it."""
    try:
        return function(*args)
    finally:
        connections.close_all()


# --------------------------------------------------------------------------------------------------------- one step


@dataclass(frozen=True, kw_only=True)
class _StepJob:
    """What a model step needs from the database."""

    agent: Agent
    thread: Thread
    message: str
    number: int
    turns: list[Any]


def _load_step(claim: Claim) -> _StepJob:
    stream = Stream.objects.select_related("thread", "message").filter(pk=claim.row_id, fence=claim.fence).first()
    if stream is None:
        raise LeaseLostError(f"stream {claim.row_id}")
    return _StepJob(
        agent=registry.get(stream.thread.agent),
        thread=stream.thread,
        message=stream.message.shown_id,
        number=stream.number,
        turns=turns(stream.thread_id),
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
        finished = self.finished or Finished(finish_reason="stop", usage=ModelUsage(), model="")
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


def _step_delay_seconds(agent: Agent, attempt: int, error: ModelError) -> float | None:
    """Seconds until the next attempt; None where there is none."""
    decided = agent.retry.classify(error) if agent.retry.classify else None
    if isinstance(decided, Fail):
        return None
    if not error.retryable and attempt < len(agent.models) and decided is None:
        return 0.0
    if attempt >= max(agent.retry.max_attempts, len(agent.models)) or not (error.retryable or decided):
        return None
    if isinstance(decided, RetryIn):
        return decided.seconds
    return agent.retry.delay_seconds(attempt, retry_after_seconds=error.retry_after_seconds)


def _decided_kind(agent: Agent, error: ModelError) -> ErrorKind:
    decided = agent.retry.classify(error) if agent.retry.classify else None
    return ErrorKind(decided.kind) if isinstance(decided, Fail) else error.kind


# --------------------------------------------------------------------------------------------------------- one tool


@dataclass(frozen=True, kw_only=True)
class _ToolJob:
    """What a tool call needs from the database."""

    tool: Tool
    arguments: dict[str, Any]
    context: ToolContext


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """How a tool's function ended: a JSON result, or an error."""

    result: Any = None
    error: BaseException | None = None


def _load_call(claim: Claim) -> _ToolJob:
    call = ToolCall.objects.select_related("thread__owner").filter(pk=claim.row_id, fence=claim.fence).first()
    if call is None:
        raise LeaseLostError(f"tool call {claim.row_id}")
    thread = call.thread
    tool = registry.get(thread.agent).tools[call.tool_name]
    context = ToolContext(
        thread_id=thread.pk,
        message_id=call.message_id,
        tool_call_id=call.tool_call_id,
        tool_name=call.tool_name,
        agent=thread.agent,
        owner=thread.owner,
        scope=thread.scope,
        context=thread.context,
        metadata=thread.metadata,
        attempt=call.attempt,
        max_attempts=call.max_attempts,
        idempotency_key=str(call.pk),
    )
    arguments = call.arguments if call.approved_arguments is None else call.approved_arguments
    return _ToolJob(tool=tool, arguments=arguments, context=context)


def _keywords(job: _ToolJob) -> dict[str, Any]:
    values = job.tool.validate(job.arguments)
    name = job.tool.context_parameter
    return values if name is None else values | {name: job.context}


def _run_sync_tool(job: _ToolJob) -> _Ended:
    """In a pool thread. SystemExit and its like end the call, never the worker."""
    try:
        return _Ended(result=job.tool.to_json(job.tool.function(**_keywords(job))))
    except BaseException as error:
        return _Ended(error=error)


async def _run_async_tool(job: _ToolJob) -> _Ended:
    try:
        return _Ended(result=job.tool.to_json(await job.tool.function(**_keywords(job))))
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return _Ended(error=error)


def _tool_may_retry(job: _ToolJob, error: BaseException) -> bool:
    if job.context.attempt >= job.context.max_attempts or not isinstance(error, Exception):
        return False
    retry_if = job.tool.retry.retry_if
    return True if retry_if is None else bool(retry_if(error, job.context, job.arguments))


def _call_result(job: _ToolJob, ended: _Ended) -> CallResult:
    """The outcome: a ToolError's text goes to the model, any other error is masked and logged once."""
    error = ended.error
    if error is None:
        return CallResult(result=ended.result)
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, ToolError):
        return CallResult(status=ToolCallStatus.FAILED, error=str(error), error_code=error.code, error_detail=detail)
    facts = {"thread": job.context.thread_id, "tool_call": job.context.tool_call_id}
    log(logging.ERROR, "tool failed", action="tool_failed", error=error, **facts)
    return CallResult(status=ToolCallStatus.FAILED, error=MASKED, error_code="tool_failed", error_detail=detail)

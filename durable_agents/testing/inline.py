"""Hides how the worker's engine runs inside a test: its own code, called from the test's thread and connection.

The event loop turns in a thread of asgiref's; whatever may use the ORM is called back into the thread that called
``run_until_idle``, where no loop runs. So a ``TestCase``'s transaction and a database in memory are what it works on.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NoReturn
from uuid import UUID

from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError, InterfaceError, OperationalError, connections
from django.db.models.functions import Now
from django.test import TestCase

from durable_agents import lifecycle, llm, moments
from durable_agents.agents import registry
from durable_agents.conf import config, default_cluster
from durable_agents.engine.steps import spent
from durable_agents.engine.worker import Engine
from durable_agents.lifecycle import Claim, database
from durable_agents.models import Pool, Stream, ToolCall, calls_of, streams_of
from durable_agents.streaming import DeltaBuffer, DeltaWriter
from durable_agents.testing.crashes import SimulatedCrash, mortal
from durable_agents.testing.hints import muted
from durable_agents.testing.script import host, is_scripted

HOLDER = "run_until_idle"
HORIZON_SECONDS = 10 * 365 * 86_400.0
"""What is put off for longer than ten years is not brought forward."""
_numbers = itertools.count(1)
_running: list[InlineEngine] = []


class NotIdleError(AssertionError):
    """After ``max_steps`` rows there was still something to do."""


class NoScriptedModelError(AssertionError):
    """A model would have been called for real."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What ``run_until_idle`` has done."""

    trace: Sequence[str]
    """In order of beginning: ``model support`` for a model call of that agent, ``tool refund`` for a tool."""
    skipped_seconds: float
    """The waits of retries that nobody waited for."""

    @property
    def model_calls(self) -> int:
        """Number of model calls, failed attempts included."""
        return sum(1 for entry in self.trace if entry.startswith("model "))

    @property
    def tool_calls(self) -> int:
        """Number of tool calls that were run, failed attempts included."""
        return len(self.trace) - self.model_calls


def run_until_idle(*, max_steps: int = 500, real_models: bool = False) -> Ran:
    """Do everything that is due, as a worker does, until nothing is left; returns what was done.

    Runs in this thread and on its database connection, inside its transaction if there is one. What retries put off
    is brought forward; leases of an earlier ``run_until_idle`` that crashed are reaped. Sync and atomic tools and
    other sync functions run in this thread, coroutines on an event loop.

    Raises NotIdleError when ``max_steps`` model and tool calls were not enough, NoScriptedModelError before litellm
    would be asked without ``real_models``, SimulatedCrash at a crash point, and what functions of a script raise.
    """
    _refuse_in_a_loop()
    if _running:
        raise RuntimeError("run_until_idle is running already: a tool or a script cannot run it again.")
    engine = InlineEngine(max_steps=max_steps, real_models=real_models)
    _running.append(engine)
    try:
        with muted(), mortal(engine.note):
            async_to_sync(engine.run)()
    finally:
        _running.remove(engine)
    if engine.ended_by is not None:
        raise engine.ended_by
    return engine.summary()


async def arun_until_idle(*, max_steps: int = 500, real_models: bool = False) -> Ran:
    """The same from a coroutine, such as an ``async def`` test of a ``TestCase``."""
    return await sync_to_async(run_until_idle)(max_steps=max_steps, real_models=real_models)


def _refuse_in_a_loop() -> None:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise TypeError("An event loop runs in this thread: await arun_until_idle() instead.")


class _Over(BaseException):
    """The run has ended: nothing more is written, whoever asks."""


class _EagerWriter(DeltaWriter):
    """Stores everything at each flush, without a throttle."""

    def open(self, buffer: DeltaBuffer) -> None:
        """See DeltaWriter."""
        buffer.throttle_seconds = 0
        super().open(buffer)


class InlineEngine(Engine):
    """The worker's engine for all pools, without threads, timers, leases to extend or doorbells of its own."""

    def __init__(self, *, max_steps: int, real_models: bool) -> None:
        super().__init__(default_cluster())
        self.loop.close()  # it runs on the one of ``async_to_sync``
        self.holder = f"{HOLDER}:{next(_numbers)}"
        self.writer = _EagerWriter(run=self.in_lease_lane, publish=_tell_nobody, flush_seconds=0)
        self.ended_by: BaseException | None = None
        self._pools = list(config().pools)
        self._seat = 1  # rows that killed their holders come when nothing else is due
        self._max_steps = max_steps
        self._real_models = real_models
        self._begun: list[Claim] = []
        self._skipped_seconds = 0.0
        self._looked_at: datetime | None = None

    async def run(self) -> None:
        """Claim and run until nothing is due; what ends it early is noted in ``ended_by``."""
        self.loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        host.set(self)
        at_rest = moments.run_through(self.moments.begin)
        checking = self.loop.create_task(self._check_held())
        try:
            await self.in_database(_take_over)
            while await self._look() or await self.moments.settle() or await self._skip_a_wait():
                await self._finish_held()
        except _Over:
            pass
        except BaseException as error:
            self.note(error)
        finally:
            moments.run_through(at_rest)
            await self._unwind(checking)

    def summary(self) -> Ran:
        """What was run, after the run."""
        ids = [claim.row_id for claim in self._begun]
        names = dict(ToolCall.objects.using(database()).filter(pk__in=ids).values_list("pk", "tool_name"))
        trace = [_traced(claim, names) for claim in self._begun]
        return Ran(trace=trace, skipped_seconds=self._skipped_seconds)

    # ----------------------------------------------------------------------------------- what steps and tools use

    async def in_database(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """See Engine. An error of the database ends the run."""
        try:
            return await self._call(partial(function, *args, **kwargs))
        except (OperationalError, InterfaceError) as error:
            self.end(error)

    async def in_lease_lane(self, function: Callable[..., Any], *args: Any) -> Any:
        """See Engine."""
        return await self._call(partial(function, *args))

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """See Engine; here it is the thread of the test."""
        return await self._call(partial(_guarded_call, function, *args))

    def put_off(self, seconds: float) -> None:
        """See Engine; nobody waits here."""

    async def _call(self, function: Callable[[], Any]) -> Any:
        """Call it in the thread that called ``run_until_idle``; once the run has ended, nothing is called."""
        if self.ended_by is not None:
            raise _Over
        value, error = await sync_to_async(_committed)(function)
        if self.ended_by is not None:
            raise _Over
        if error is not None:
            raise error
        return value

    # -------------------------------------------------------------------------------------- what scripts and tests use

    async def settle(self) -> None:
        """See Host."""
        await self.writer.flush()
        self.drop(await self._ask(lifecycle.lost_claims))
        await asyncio.sleep(0)  # where a lost row's task is cancelled

    def note(self, error: BaseException) -> None:
        """The run is over, because of this; the first reason counts."""
        self.ended_by = self.ended_by or error
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(self._wake.set)

    def end(self, error: BaseException) -> NoReturn:
        """See Host."""
        self.note(error)
        raise _Over from error

    # ----------------------------------------------------------------------------------------------------- claiming

    def _start(self, claim: Claim) -> None:
        if len(self._begun) >= self._max_steps:
            self.end(NotIdleError(self._still_busy(claim)))
        if claim.kind == "stream" and not self._real_models:
            self._refuse_real_model(claim)
        self._begun.append(claim)
        super()._start(claim)
        self._held[claim.row_id].task.add_done_callback(self._look_at)

    def _still_busy(self, claim: Claim) -> str:
        last = ", ".join(f"{item.kind} of {item.agent}" for item in self._begun[-4:])
        return (
            f"After {self._max_steps} model and tool calls there is still something to do in thread {claim.thread_id} "
            f"of agent {claim.agent!r} (the last: {last}). Does the script call tools for ever? Else raise max_steps."
        )

    def _refuse_real_model(self, claim: Claim) -> None:
        if is_scripted(claim.agent) or not isinstance(llm.configured_door(), llm.LiteLLMDoor):
            return
        text = (
            f"Agent {claim.agent!r} would call its model for real. Put a ScriptedModel in its place: "
            'with ScriptedModel("Hello."): run_until_idle(). Or ask for it: run_until_idle(real_models=True).'
        )
        self.end(NoScriptedModelError(text))

    async def _ring_for_others(self) -> None:
        pass

    def _look_at(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, _Over):
            self.note(error)

    async def _finish_held(self) -> None:
        """Wait until everything that was claimed has ended, or the run is over."""
        while self._held:
            if self.ended_by is not None:
                raise _Over
            self._wake.clear()
            await self._wake.wait()

    async def _look(self) -> int:
        """Claim what is due, and remember when that was."""
        self._looked_at = await self.in_database(_now)
        return await self._claim_due()

    async def _skip_a_wait(self) -> bool:
        """Bring forward what was not due when last looked for. Returns whether there was anything."""
        waited: float | None = await self.in_database(_bring_forward, self._looked_at)
        self._skipped_seconds += waited or 0
        return waited is not None

    async def _unwind(self, checking: asyncio.Task[None]) -> None:
        """End what is left, without a word to the database where the run ended early."""
        left = [held.task for held in self._held.values()]
        for task in [checking, *left]:
            task.cancel()
        await asyncio.gather(checking, *left, return_exceptions=True)
        await self.moments.settle(seconds=0)
        if any(claim.kind == "stream" for claim in self._begun):
            await llm.door().aclose()


def _traced(claim: Claim, names: dict[UUID, str]) -> str:
    return f"model {claim.agent}" if claim.kind == "stream" else f"tool {names.get(claim.row_id, '?')}"


def _tell_nobody(*_: object) -> None:
    pass


def _take_over() -> None:
    """Begin as a new worker does: what an earlier run in this process held is reaped."""
    lifecycle.ensure_pools()
    lifecycle.reap(lambda holder: holder.startswith(f"{HOLDER}:"), spent)
    lifecycle.expire()


def _now() -> datetime:
    now: datetime = Pool.objects.using(database()).annotate(now=Now()).values_list("now", flat=True)[0]
    return now


def _bring_forward(looked_at: datetime) -> float | None:
    """Make due now what was due next at that moment. Returns the seconds that this saved, 0 where its time has come
    meanwhile; None where nothing is put off."""
    code = registry.code()
    streams = Stream.objects.overdue(-HORIZON_SECONDS).filter(streams_of(code))
    calls = ToolCall.objects.overdue(-HORIZON_SECONDS).filter(calls_of(code))
    waiting = [_next_of(rows, looked_at) for rows in (streams, calls)]
    found = min((row for row in waiting if row is not None), key=lambda row: row.available_at, default=None)
    if found is None:
        return None
    now: datetime = found.db_now
    type(found)._default_manager.using(database()).filter(pk=found.pk).update(available_at=Now())
    saved: float = (found.available_at - now).total_seconds()
    return max(0.0, saved)


def _next_of(rows: Any, looked_at: datetime) -> Any:
    later = rows.using(database()).annotate(db_now=Now()).filter(available_at__gt=looked_at)
    return later.order_by("available_at").first()


def _committed(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Value and error of a call, and what it leaves for after its commit is done: within a transaction of the test's
    own it would wait for ever."""
    connection = connections[database()]
    if not connection.in_atomic_block:
        return _caught(function)
    waiting = len(connection.run_on_commit)
    with TestCase.captureOnCommitCallbacks(using=database(), execute=True):
        result = _caught(function)
    del connection.run_on_commit[waiting:]
    return result


def _caught(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Value and error of a call. What only ends interpreters or iterations becomes an ordinary error."""
    try:
        return function(), None
    except SimulatedCrash as error:
        return None, error
    except (StopIteration, SystemExit) as error:
        ordinary = RuntimeError(f"{type(error).__name__} was raised: {error}")
        ordinary.__cause__ = error
        return None, ordinary
    except Exception as error:
        return None, error


def _guarded_call(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of a developer's; inside a transaction of the test its database errors leave that one usable."""
    with _error_proof():
        return function(*args)


@contextmanager
def _error_proof() -> Iterator[None]:
    """In production such functions run outside a transaction, where a failed statement stops no later one. Here a
    savepoint does that: after a failed statement, and only then, it is rolled back to."""
    connection = connections[database()]
    if not connection.in_atomic_block:
        yield
        return
    savepoint: Any = connection.savepoint()
    try:
        yield
    finally:
        try:
            connection.savepoint_commit(savepoint)
        except DatabaseError:
            connection.set_rollback(False)
            connection.savepoint_rollback(savepoint)

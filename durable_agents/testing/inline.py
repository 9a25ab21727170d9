"""Run due model calls, tool calls and callbacks inside a test, as a worker does.

Code that might use the ORM runs in the OS thread that called ``run_until_idle``, on the database connection of this OS
thread. Therefore, the ORM works inside a ``TestCase``'s transaction and with an in-memory database. The event loop
runs in another OS thread, which asgiref starts.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NoReturn, ParamSpec, TypeVar, cast

from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError, Error, connections
from django.test import TestCase

from durable_agents import callbacks, lifecycle, llm
from durable_agents.agents import registry
from durable_agents.conf import config, default_cluster
from durable_agents.database_connections import is_outage
from durable_agents.delta_writer import DeltaBuffer, DeltaWriter
from durable_agents.engine.claiming import Claimer
from durable_agents.engine.environment import Environment
from durable_agents.engine.group_commit import Endings
from durable_agents.engine.held import HeldRows
from durable_agents.engine.history_cache import RunHistories
from durable_agents.engine.leases import LeaseKeeper
from durable_agents.engine.model_step import estimate_spent
from durable_agents.engine.problem_reports import Attempts
from durable_agents.engine.resource_errors import Shortage
from durable_agents.engine.run_callbacks import CallbackRunner
from durable_agents.engine.runtime import Runtime
from durable_agents.engine.tool_progress import ProgressReports
from durable_agents.engine.tool_slots import ToolSlots
from durable_agents.engine.worker import RowRunner
from durable_agents.lifecycle import Claim, database
from durable_agents.models import Pool, Stream, ToolCall, calls_of, streams_of
from durable_agents.testing.crashes import SimulatedCrash, mortal
from durable_agents.testing.no_notifications import notifications_muted
from durable_agents.testing.scripted_model import hosted_by, is_scripted
from durable_agents.utc_times import Now, instant

P = ParamSpec("P")
R = TypeVar("R")

HOLDER = "run_until_idle"
HORIZON_SECONDS = 10 * 365 * 86_400.0
"""Rows that become due in more than ten years are not run."""
_numbers = itertools.count(1)
_running: list[InlineEngine] = []


class NotIdleError(AssertionError):
    """There was still something to do after ``max_steps`` model and tool calls."""


class NoScriptedModelError(AssertionError):
    """Raised instead of calling the real model of an agent that has no scripted model."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """The result of ``run_until_idle``."""

    trace: Sequence[str]
    """The model and tool calls in the order in which they began. For example, ``model support`` is a model call of the
    agent ``support``, and ``tool refund`` is a call of the tool ``refund``.
    """
    skipped_seconds: float
    """How many seconds a real worker would have waited before retries."""

    @property
    def model_calls(self) -> int:
        """The number of model calls, including failed attempts."""
        return sum(1 for entry in self.trace if entry.startswith("model "))

    @property
    def tool_calls(self) -> int:
        """The number of tool calls that were run, including failed attempts."""
        return len(self.trace) - self.model_calls


def run_until_idle(*, max_steps: int = 500, real_models: bool = False) -> Ran:
    """Run everything that is due, as a worker does, until nothing is left. Return what was run.

    The function uses the database connection of the OS thread in which it is called. If this connection is in a
    transaction, everything runs inside the transaction. Delayed retries run without waiting. If an earlier
    ``run_until_idle`` crashed, the rows that it held are recovered first. Sync functions, including sync tools, run in
    the OS thread of the caller. Coroutines run on an event loop in another OS thread.

    Raises:

    - NotIdleError if there is more to do after ``max_steps`` model and tool calls.
    - NoScriptedModelError if a real model would be called, and ``real_models`` is false.
    - SimulatedCrash if a crash is simulated.
    - The error of a function in a scripted answer (see ``does``).
    """
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise TypeError("An event loop is running in this thread: await arun_until_idle() instead.")
    if _running:
        raise RuntimeError("run_until_idle is already running: tools and scripts cannot call it.")
    engine = InlineEngine(max_steps=max_steps, real_models=real_models)
    _running.append(engine)
    try:
        with notifications_muted(), hosted_by(engine), mortal(engine.outcome.note):
            async_to_sync(engine.run)()
    finally:
        _running.remove(engine)
    if engine.outcome.error is not None:
        raise engine.outcome.error
    return engine.summary()


async def arun_until_idle(*, max_steps: int = 500, real_models: bool = False) -> Ran:
    """Call ``run_until_idle`` from a coroutine, such as an ``async def`` test of a ``TestCase``."""
    return await sync_to_async(run_until_idle)(max_steps=max_steps, real_models=real_models)


class _Over(BaseException):
    """Ends a run early. Afterwards, the run must not write to the database.

    It derives from BaseException, so that ``except Exception`` in tools or in the engine does not catch it.
    """


class _EagerWriter(DeltaWriter):
    """Stores all streamed chunks at each flush, without throttling."""

    def open(self, buffer: DeltaBuffer) -> None:
        """Switch off throttling for a stream's buffer, and open the buffer."""
        buffer.throttle_seconds = 0
        super().open(buffer)


class _Outcome:
    """Records whether a run has ended early, and the error that ended it."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.wake: Callable[[], object] = lambda: None
        """A function that wakes the event loop of the run, so that the loop notices the end. It can be called from any
        OS thread.
        """

    def note(self, error: BaseException) -> None:
        """End ``run_until_idle`` because of this error. If there are several errors, keep the first one."""
        self.error = self.error or error
        self.wake()

    def end(self, error: BaseException) -> NoReturn:
        """End ``run_until_idle`` because of this error, by raising ``_Over``."""
        self.note(error)
        raise _Over from error

    def check(self) -> None:
        """Raise _Over if the run has ended early."""
        if self.error is not None:
            raise _Over


class _InlineRuntime(Runtime):
    """Calls sync functions in the test's OS thread. If the run has ended early, each call raises ``_Over``."""

    def __init__(self, outcome: _Outcome) -> None:
        super().__init__()
        self._outcome = outcome

    async def in_database(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a database function in the test's OS thread. A database outage ends the run."""
        return await self._in_database(partial(function, *args, **kwargs))

    async def in_transition(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Call a database function that locks the row of a chat thread. The function may wait for the lock, because
        nothing else runs at the same time.
        """
        return await self._in_database(partial(function, *args, **kwargs))

    async def in_lease_lane(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in the test's OS thread. A real worker uses a separate connection for leases."""
        return await self._call(partial(function, *args, **kwargs))

    async def in_history_lane(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in the test's OS thread. A real worker uses a separate connection for long histories."""
        return await self._call(partial(function, *args, **kwargs))

    async def in_thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a developer's function in the test's OS thread.

        After a database error, the test's transaction stays usable.
        """

        def guarded() -> R:
            connection = connections[database()]
            if not connection.in_atomic_block:
                return function(*args, **kwargs)
            # In production, a developer's function runs outside a transaction, so a failed statement has no effect on
            # later statements. In a test, a failed statement breaks the test's transaction. A rollback to a savepoint
            # repairs the transaction.
            savepoint: Any = connection.savepoint()
            try:
                return function(*args, **kwargs)
            finally:
                try:
                    connection.savepoint_commit(savepoint)
                except DatabaseError:
                    connection.set_rollback(False)
                    connection.savepoint_rollback(savepoint)

        return await self._call(guarded)

    async def _in_database(self, call: Callable[[], R]) -> R:
        try:
            return await self._call(call)
        except Error as error:
            if not is_outage(error):
                raise
            self._outcome.end(error)

    async def _call(self, call: Callable[[], R]) -> R:
        self._outcome.check()
        value, error = await sync_to_async(_committed)(call)
        self._outcome.check()
        if error is not None:
            raise error
        return cast(R, value)


class InlineEngine:
    """A worker for tests. It runs the rows of all pools, without OS threads, timers, heartbeats or notifications."""

    def __init__(self, *, max_steps: int, real_models: bool) -> None:
        self.outcome = _Outcome()
        self._max_steps = max_steps
        self._real_models = real_models
        self._begun: list[Claim] = []
        self._skipped_seconds = 0.0
        self._looked_at: datetime | None = None
        self._wake = asyncio.Event()
        self.runtime = _InlineRuntime(self.outcome)
        held = HeldRows(on_slot_freed=self._wake.set)
        histories = RunHistories()
        slots = ToolSlots(lambda: config().tool_threads)
        self._env = Environment(
            runtime=self.runtime,
            held=held,
            slots=slots,
            endings=Endings(self.runtime, histories),
            histories=histories,
            writer=_EagerWriter(run=self.runtime.in_lease_lane, publish=lambda *_: None, flush_seconds=0),
            callbacks=CallbackRunner(self.runtime),
            progress=ProgressReports(self.runtime, held),
            put_off=lambda seconds: None,  # tests do not wait for delayed rows
        )
        cluster, holder = default_cluster(), f"{HOLDER}:{next(_numbers)}"
        self._runner = RowRunner(self._env, cluster=cluster, holder=holder, shortage=Shortage())
        self._leases = LeaseKeeper(self.runtime, held, holder=holder, health=Attempts("leases", cluster))
        self._claimer = Claimer(
            self.runtime,
            held,
            slots,
            pools=list(config().pools),
            holder=holder,
            start=self._start,
            notify_others=lambda: asyncio.sleep(0),  # there are no other workers to notify
        )

    async def run(self) -> None:
        """Claim rows and run them until none is due. An error that ends the run early is stored in ``outcome``."""
        loop = self.runtime.loop = asyncio.get_running_loop()
        self.outcome.wake = partial(loop.call_soon_threadsafe, self._wake.set)
        previous_runner = callbacks.run_through(self._env.callbacks.schedule)
        watching = loop.create_task(self._leases.watch())
        try:
            # First recover the rows that earlier runs in this process still hold, as a worker does.
            await self.runtime.in_database(lifecycle.ensure_pools)
            reap = partial(lifecycle.reap, lambda holder: holder.startswith(f"{HOLDER}:"), estimate_spent)
            await self.runtime.in_database(reap)
            await self.runtime.in_database(lifecycle.expire)
            while (
                await self._claim_due()
                or await self._env.callbacks.wait()
                or await self.runtime.in_database(self._bring_forward)
            ):
                while self._env.held:
                    self.outcome.check()
                    self._wake.clear()
                    await self._wake.wait()
        except _Over:
            pass
        except BaseException as error:
            self.outcome.note(error)
        finally:
            callbacks.run_through(previous_runner)
            # Clean up without database queries, because a run that has ended early must not use the database.
            left = [watching, *(row.task for row in self._env.held)]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await self._env.callbacks.wait(seconds=0)
            if any(claim.kind == "stream" for claim in self._begun):
                # Close the HTTP clients for models, because they cannot be used on another event loop.
                await llm.door().aclose()
            # The event loop ends now, so it can no longer be woken.
            self.outcome.wake = lambda: None

    def summary(self) -> Ran:
        """Return the result. Call this method after the run."""
        ids = [claim.row_id for claim in self._begun]
        names = dict(ToolCall.objects.using(database()).filter(pk__in=ids).values_list("pk", "tool_name"))
        trace = [
            f"model {claim.agent}" if claim.kind == "stream" else f"tool {names.get(claim.row_id, '?')}"
            for claim in self._begun
        ]
        return Ran(trace=trace, skipped_seconds=self._skipped_seconds)

    async def call_user(self, function: Callable[..., object], *args: object) -> object:
        """Call a function of the test. A sync function can use the ORM."""
        return await self.runtime.call_user(function, *args)

    async def settle(self) -> None:
        """Store the text so far. If the step was stopped, or if another worker holds it now, end this attempt."""
        await self._env.writer.flush()
        await self._leases.drop_lost()
        await asyncio.sleep(0)  # if the attempt must end, its task is cancelled here

    def end(self, error: BaseException) -> NoReturn:
        """End ``run_until_idle`` with this error."""
        self.outcome.end(error)

    async def _claim_due(self) -> int:
        """Store the time of the database's clock. Then claim due rows, and return their number."""
        clock = Pool.objects.using(database()).annotate(now=Now()).values_list("now", flat=True)
        self._looked_at = await self.runtime.in_database(clock.first)
        return await self._claimer.claim_due()

    def _start(self, claim: Claim) -> None:
        if len(self._begun) >= self._max_steps:
            last = ", ".join(f"{item.kind} of {item.agent}" for item in self._begun[-4:])
            text = (
                f"After {self._max_steps} model and tool calls there is still something to do in thread "
                f"{claim.thread_id} of agent {claim.agent!r} (the last: {last}). Does the script call tools for ever? "
                "If not, raise max_steps."
            )
            self.outcome.end(NotIdleError(text))
        may_be_real = self._real_models or claim.kind != "stream" or is_scripted(claim.agent)
        if not may_be_real and llm.calls_for_real():
            text = (
                f"Agent {claim.agent!r} would call its real model. Replace the model by a ScriptedModel: "
                'with ScriptedModel("Hello."): run_until_idle(). Or allow it: run_until_idle(real_models=True).'
            )
            self.outcome.end(NoScriptedModelError(text))
        self._begun.append(claim)
        self._runner.start(claim).add_done_callback(self._note_error)

    def _note_error(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, _Over):
            self.outcome.note(error)

    def _bring_forward(self) -> bool:
        """Find the row that becomes due next, and make it due now. Return False if there is no such row."""
        code = registry.code()
        streams = Stream.objects.overdue(-HORIZON_SECONDS).filter(streams_of(code))
        calls = ToolCall.objects.overdue(-HORIZON_SECONDS).filter(calls_of(code))
        waiting: list[Any] = []
        for rows in (streams.using(database()), calls.using(database())):
            later = rows.annotate(db_now=Now()).filter(available_at__gt=self._looked_at)
            waiting += later.order_by("available_at")[:1]
        if not waiting:
            return False
        first = min(waiting, key=lambda row: row.available_at)
        type(first)._default_manager.using(database()).filter(pk=first.pk).update(available_at=None)
        # The row may have become due in the meantime. Then ``saved`` is negative, and no time was skipped.
        saved: float = (instant(first.available_at) - instant(first.db_now)).total_seconds()
        self._skipped_seconds += max(0.0, saved)
        return True


def _committed(function: Callable[[], R]) -> tuple[R | None, BaseException | None]:
    """Call the function, and then the ``on_commit`` callbacks that it registered.

    Return the function's value and its error. The error is None if the function returned a value.
    """
    # A test's transaction is never committed, so Django would not run these callbacks.
    connection = connections[database()]
    if not connection.in_atomic_block:
        return _caught(function)
    waiting = len(connection.run_on_commit)
    with TestCase.captureOnCommitCallbacks(using=database(), execute=True):
        result = _caught(function)
    # Remove the callbacks that were called. Django leaves them in the connection's list, and a test that captures
    # callbacks would call them again.
    del connection.run_on_commit[waiting:]
    return result


def _caught(function: Callable[[], R]) -> tuple[R | None, BaseException | None]:
    """Call the function, and return its value and its error. StopIteration and SystemExit become a RuntimeError."""
    # Return errors instead of raising them. A future takes the result to another OS thread, and a future cannot raise
    # StopIteration.
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

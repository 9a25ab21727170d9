"""The worker. It claims due rows, runs many of them concurrently on one event loop, and exits without losing rows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from django.db import Error
from django_q.conf import Conf as QConf

from durable_agents import callbacks, lifecycle, notifications, task_queue, worker_identity
from durable_agents.agents import registry
from durable_agents.calls_not_begun_files import CallsNotBegun
from durable_agents.conf import config
from durable_agents.crashpoints import crashpoint
from durable_agents.database_connections import is_outage
from durable_agents.delta_writer import DeltaWriter
from durable_agents.engine.cancellation_source import is_cancelled
from durable_agents.engine.claiming import CLAIM_BATCH, Claimer
from durable_agents.engine.environment import Environment
from durable_agents.engine.group_commit import Endings
from durable_agents.engine.held import HeldRows
from durable_agents.engine.history_cache import RunHistories
from durable_agents.engine.leases import LeaseKeeper
from durable_agents.engine.model_step import run_step
from durable_agents.engine.problem_reports import Attempts
from durable_agents.engine.resource_errors import LIMITED_EXIT_CODE, Shortage, WorkerLimitError, is_limit
from durable_agents.engine.run_callbacks import CallbackRunner
from durable_agents.engine.runtime import WorkerRuntime
from durable_agents.engine.tool_progress import ProgressReports
from durable_agents.engine.tool_run import load_calls, run_tool
from durable_agents.engine.tool_slots import ToolSlots
from durable_agents.exceptions import DurableAgentsError, ErrorKind, LeaseLostError, ThreadNotFoundError
from durable_agents.lifecycle import CallResult, Claim, Ending, Handed, HandOver
from durable_agents.logs import log, log_error
from durable_agents.models import ToolCallStatus
from durable_agents.redaction import described
from durable_agents.worker_problem_files import Notice

CLAIM_SECONDS = 0.25
BUSY_SECONDS = 0.05
TURN_SECONDS = 0.5
FAILED_CLAIM_SECONDS = 0.5
NOTIFY_SECONDS = 1.0
UNWIND_SECONDS = 2.0
RELEASE_SECONDS = 1.0
"""The maximum time for which an exiting worker tries to release a row. If the row's chat thread stays locked for
longer, the row is recovered when its lease expires.
"""
SWITCH_SECONDS = 0.0005
URGENT: frozenset[Callable[..., object]] = frozenset(
    {
        *(lifecycle.claim, lifecycle.end_together, lifecycle.announce_tool_call, lifecycle.retry_tool_call),
        load_calls,
    }
)
"""Functions that run before all other database work. A tool call that waits for the database wastes one of the few tool
slots.
"""


class Worker:
    """Runs the model steps and tool calls of one worker process."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.is_working = False
        self.turned_at = time.monotonic()
        """When the event loop last ran. The watchdog compares this time with the clock."""
        self.claim_health, self.lease_health = Attempts("claims", cluster), Attempts("leases", cluster)
        self.shortage = Shortage()
        self.runtime = WorkerRuntime(shortage=self.shortage, urgent=URGENT)
        self._wake = asyncio.Event()
        histories = RunHistories()
        holder = worker_identity.me()
        self.held = HeldRows(on_slot_freed=self._on_slot_freed, not_begun=CallsNotBegun(holder))
        slots = ToolSlots(lambda: max(0, config().tool_threads - self.runtime.hung_threads()))
        self.env = Environment(
            runtime=self.runtime,
            held=self.held,
            slots=slots,
            endings=Endings(self.runtime, histories),
            histories=histories,
            writer=DeltaWriter(
                run=self.runtime.in_lease_lane,
                publish=lambda thread, frame: notifications.publish(thread, {"type": "thread.delta", "frame": frame}),
                flush_seconds=config().flush_ms / 1000,
            ),
            callbacks=CallbackRunner(self.runtime),
            progress=ProgressReports(self.runtime, self.held),
            put_off=self._put_off,
        )
        rows = RowRunner(self.env, cluster=cluster, holder=holder, shortage=self.shortage)
        self.claimer = Claimer(
            self.runtime,
            self.held,
            slots,
            pools=config().pools_of(cluster),
            holder=holder,
            start=rows.start,
            notify_others=self._notify_others,
        )
        self.env.endings.offer = self._offer
        self.env.endings.take_back = self.claimer.take_back
        self.env.endings.start = rows.start_handed
        self._leases = LeaseKeeper(self.runtime, self.held, holder=holder, health=self.lease_health)
        self._parent = os.getppid()
        self._terminated = False
        self._leaves_early = False
        self._is_leaving = False
        self._is_stuck = False
        self._slot_was_freed = False
        """Whether a slot was freed since the last claim began."""
        self._put_off_until = 0.0
        self._notified_at = 0.0

    def start(self) -> None:
        """Start the OS threads that this process needs until it exits. Raises WorkerLimitError."""
        self.runtime.start()

    def work(self, *, slot: int) -> None:
        """Claim and run rows until none are due or this process has to exit.

        ``slot`` is not a slot for a row, but the number of this process among the working processes of its cluster.
        """
        self.claimer.makes_room = slot == 0
        # The OS thread for database work releases the GIL at every SQL statement. With Python's default interval, the
        # busy event loop would then keep the GIL for five milliseconds. A commit of twenty statements would take a
        # tenth of a second.
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            self.runtime.loop.run_until_complete(self._serve())
        finally:
            sys.setswitchinterval(before)
            self._leave()

    def _leave(self) -> None:
        """End the process if it has to exit.

        After a lack of OS threads or memory, with hung tools, or without a living cluster, end the process at once,
        because django-q2 would not end it. If SIGTERM arrived during ``work``, send the signal again with the default
        handler, which ends the process.
        """
        if self.shortage.is_final:
            os._exit(LIMITED_EXIT_CODE)  # a new process might get enough OS threads and memory
        hangs = self._is_stuck or self.runtime.hung_threads() > 0
        if os.getppid() != self._parent or (hangs and self._must_leave()) or self._is_clogged():
            os._exit(0)  # a normal exit would wait for hung OS threads, and a dead cluster cannot end this process
        if self._terminated:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    async def _serve(self) -> None:
        self.turned_at, self.is_working, self._leaves_early = time.monotonic(), True, False
        self._wake.clear()
        loop = self.runtime.loop
        previous_runner = callbacks.run_through(self.env.callbacks.schedule)
        with contextlib.suppress(ValueError, RuntimeError):  # only the main thread can set a signal handler
            loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        jobs = (self.env.writer.run, self._leases.extend, self._leases.watch, self._turn)
        background = [loop.create_task(job()) for job in jobs]
        try:
            while await self._serve_until_idle():
                pass
            await self._drain()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self.env.callbacks.wait(seconds=UNWIND_SECONDS)
            callbacks.run_through(previous_runner)
            await asyncio.to_thread(notifications.flush_notifications, 1)
            self.is_working = False
            with contextlib.suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(signal.SIGTERM)

    async def _serve_until_idle(self) -> bool:
        """Claim and run rows until none are left. Then claim once more, unless this process has to exit.

        Return whether the last claim got any rows.
        """
        notifications.receive_notifications_here(self.cluster, self._wake_up)
        try:
            began = time.monotonic()
            while not self._must_leave():
                self._is_leaving = self._has_sat_long_enough(began)
                won = 0 if self._has_sat_long_enough(began) else await self._claim()
                is_over = time.monotonic() >= self._put_off_until and self.env.callbacks.is_idle
                is_done = (is_over and not self._leases.is_unsure) or self._has_sat_long_enough(began)
                if won < CLAIM_BATCH and not self.held and is_done:
                    break
                if won < CLAIM_BATCH:
                    await self._wait(CLAIM_SECONDS)
        finally:
            notifications.receive_notifications_here(self.cluster, None)
        self._is_leaving = True
        self._leaves_early = self._must_leave() or self._has_sat_long_enough(began)
        # A notification may have reached this process after its last claim. No other worker gets that notification, so
        # claim once more.
        return not self._leaves_early and await self._claim() > 0

    def _must_leave(self) -> bool:
        """Return whether this process has to exit.

        A process has to exit after SIGTERM, if the cluster is stopping or has died, or if the process lacks OS threads
        or memory.
        """
        cluster_is_gone = os.getppid() != self._parent
        return self._terminated or self.shortage.is_final or cluster_is_gone or task_queue.cluster_is_stopping()

    def _is_clogged(self) -> bool:
        """Return whether hung tools occupy all OS threads for tools. A new process should then replace this one."""
        return self.runtime.hung_threads() >= config().tool_threads

    def _has_sat_long_enough(self, began: float) -> bool:
        """Return whether this process has to stop claiming, finish the held rows, and return from ``work``.

        There are two reasons:

        - Hung tools occupy all OS threads for tools. A new process must replace this one.
        - This worker is the only one of its cluster, and has claimed rows for ``work_seconds``. The cluster needs time
          for the project's own tasks.

        In the second case, the worker waits up to another ``work_seconds`` for the held rows. If they need longer, it
        claims rows again for ``work_seconds``, so that it is not idle.
        """
        periods = (time.monotonic() - began) // config().work_seconds
        return self._is_clogged() or (QConf.WORKERS == 1 and periods % 2 == 1)

    def _put_off(self, seconds: float) -> None:
        """Keep ``work`` running for ``seconds``, until a certain row is due. This process can then claim the row
        without a notification.

        Do nothing if ``seconds`` is more than ``linger_seconds``.
        """
        if seconds <= config().linger_seconds:
            self._put_off_until = max(self._put_off_until, time.monotonic() + seconds + CLAIM_SECONDS)

    async def _wait(self, seconds: float) -> None:
        """Wait until there is a reason to claim, but at most ``seconds``.

        If this process holds many rows, wait slightly longer. Rows that become due shortly afterwards are then claimed
        in the same batch.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
        if len(self.held) > CLAIM_BATCH:
            await asyncio.sleep(BUSY_SECONDS)
        self._wake.clear()

    def _on_slot_freed(self) -> None:
        """Wake the worker for another claim if it holds no rows, or if some due rows might be unclaimed."""
        self._slot_was_freed = True
        if not self.held or self.claimer.left_some:
            self._wake.set()

    def _offer(self, endings: Sequence[Ending]) -> HandOver | None:
        """Decide how many rows this process claims in the transaction that commits these steps and tool calls. The rows
        are those that the transaction itself makes due.

        Return None if the process must not claim rows now.
        """
        return None if self._is_leaving or self.shortage.forbids_claims else self.claimer.offer(endings)

    def _wake_up(self) -> None:
        self.runtime.loop.call_soon_threadsafe(self._wake.set)

    def _on_sigterm(self) -> None:
        self._terminated = True
        self._wake.set()

    async def _turn(self) -> None:
        """Record at intervals that the event loop is running. The watchdog checks this record."""
        while True:
            self.turned_at = time.monotonic()
            await asyncio.sleep(TURN_SECONDS)

    async def _claim(self) -> int:
        """Claim due rows and return their number.

        If the database fails, return 0 after a short pause. Rows that this process already holds are not affected.
        """
        if self.shortage.forbids_claims:
            return 0
        self.claim_health.begin()
        self._slot_was_freed = False
        try:
            won = await self.claimer.claim_due()
        except Exception as error:
            self.claim_health.fail(error)
            log_error("claiming rows failed", action="claim")
            await asyncio.sleep(FAILED_CLAIM_SECONDS)
            return 0
        self.claim_health.succeed()
        if self._slot_was_freed and self.claimer.left_some:
            self._wake.set()
        return won

    async def _notify_others(self) -> None:
        """Notify the cluster if a row is due, because another process may have a free slot. Do this at most once a
        second.
        """
        if time.monotonic() - self._notified_at < NOTIFY_SECONDS:
            return
        self._notified_at = time.monotonic()
        if await self.runtime.in_database(work_is_due, self.cluster):
            await self.runtime.in_database(notifications.notify_cluster, self.cluster)

    async def _drain(self) -> None:
        """Stop claiming, and let the held rows finish within ``drain_seconds``.

        Then release the rows that have not finished, and notify other workers.
        """
        deadline = time.monotonic() + config().drain_seconds
        while self.held and (seconds := deadline - time.monotonic()) > 0:  # a running commit may add rows
            await asyncio.wait([row.task for row in self.held], timeout=seconds)
        # A commit that is still running may claim more rows for this process. Wait for the commit, and release the rows
        # that it has claimed.
        not_begun = await self.env.endings.settle(seconds=UNWIND_SECONDS)
        for handed in not_begun:
            await self._release(handed.claim, has_begun=False)
        left = list(self.held)
        for row in left:
            await self._release(row.claim, has_begun=row.has_begun or row.claim.kind == "stream")
        self.held.drop({row.claim.row_id for row in left})
        if left:
            _, stuck = await asyncio.wait([row.task for row in left], timeout=UNWIND_SECONDS)
            self._is_stuck = bool(stuck)
        if self._leaves_early or left or not_begun:
            try:
                await self._notify_others()
            except Exception:
                log_error("other workers were not notified of due rows", action="ring")

    async def _release(self, claim: Claim, *, has_begun: bool = True) -> None:
        """Release a row. Call this before the row's task is cancelled.

        A cancelled task records the usage of its model call, which works only after the row has been released.
        """
        release = self.runtime.in_transition(lifecycle.release, claim, has_begun=has_begun)
        try:
            await asyncio.wait_for(release, RELEASE_SECONDS)
        except ThreadNotFoundError:
            return
        except Exception:
            log_error("a row was not released", action="release", thread=claim.thread_id)


class RowRunner:
    """Runs each claimed row (model step or tool call) in its own task.

    An error of one row does not affect the others.
    """

    def __init__(self, env: Environment, *, cluster: str, holder: str, shortage: Shortage) -> None:
        self._env = env
        self._cluster = cluster
        self._holder = holder
        self._shortage = shortage

    def start(self, claim: Claim, handed: Handed | None = None) -> asyncio.Task[None]:
        """Start to work on a row."""
        task = self._env.runtime.loop.create_task(self._run(claim, handed))
        self._env.held.add(claim, task)
        return task

    def start_handed(self, handed: Handed) -> asyncio.Task[None]:
        """Start to work on a row that this process has claimed in the same transaction that made the row due."""
        crashpoint("claimed")
        return self.start(handed.claim, handed)

    async def _run(self, claim: Claim, handed: Handed | None) -> None:
        run = run_step if claim.kind == "stream" else run_tool
        try:
            await run(self._env, claim, handed)
        except (LeaseLostError, ThreadNotFoundError):
            log(logging.INFO, "lease lost", action="lost", thread=claim.thread_id, fence=claim.fence)
        except (Exception, asyncio.CancelledError, WorkerLimitError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            self._env.held.abandon(claim)
            if is_limit(error):
                await self._leave_to_others(claim, error)
                return
            if isinstance(error, Error) and is_outage(error):
                # The model call or tool call may have had an effect, although its outcome is not stored. Keep the
                # lease. When the lease expires, the row is recovered as after a crash of the worker.
                log_error("the database does not answer", action="run", thread=claim.thread_id)
                return
            log_error("a row failed", action="run", thread=claim.thread_id)
            await self._give_up(claim)
        finally:
            self._env.writer.close(claim)
            self._env.held.remove(claim)
            if not self._env.held.holds(claim.thread_id):
                self._env.histories.release(claim.thread_id)

    async def _leave_to_others(self, claim: Claim, error: BaseException) -> None:
        """Release a row that cannot run because this process lacks OS threads or memory. Let other processes claim the
        row first.

        If the model call or tool call has begun, one crash is counted for the row, because the row may have caused the
        shortage. After several crashes, the row runs alone.

        After ``MAX_LIMITS`` of these rows in succession, this process exits.
        """
        has_begun = not isinstance(error, WorkerLimitError)
        self._env.held.keep(claim)  # the release must not cancel this task
        leaves = self._shortage.note_row()
        reason = described(error)
        log(logging.WARNING, "a row was left to others", action="worker_limit", thread=claim.thread_id, reason=reason)
        runtime = self._env.runtime
        try:
            await runtime.in_transition(lifecycle.release, claim, has_begun=has_begun, crashes=int(has_begun))
            await runtime.in_database(notifications.notify_cluster, self._cluster)
        except ThreadNotFoundError:
            pass
        except Exception:
            log_error("a row was not released", action="release", thread=claim.thread_id)
        if leaves:
            log(logging.ERROR, "this worker leaves: no threads, no memory", action="worker_limit", reason=reason)
            notice = Notice(
                holder=self._holder, cluster=self._cluster, kind="threads", detail=reason, since=time.time()
            )
            with contextlib.suppress(Exception):
                await runtime.in_database(lifecycle.note_problem, notice, is_over=True)

    async def _give_up(self, claim: Claim) -> None:
        """Mark a step or tool call as failed after an error in the engine itself. Otherwise, the row would be retried
        for ever.
        """
        with contextlib.suppress(DurableAgentsError):
            if claim.kind == "stream":
                failed = lifecycle.FailedAttempt(kind=ErrorKind.UNKNOWN.value, detail="internal error")
                await self._env.runtime.in_transition(lifecycle.fail_step, claim, failed)
            else:
                result = CallResult(
                    status=ToolCallStatus.FAILED, error="The tool call could not be run.", error_code="internal"
                )
                await self._env.endings.end(claim, result)


def work_is_due(cluster: str) -> bool:
    """Return whether a worker of this cluster could claim a row now.

    Rows whose agent or tool this code does not define are not counted.
    """
    return lifecycle.has_open_work(config().pools_of(cluster), code=registry.code())

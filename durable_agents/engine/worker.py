"""The engine: one event loop, kept for the life of the process, that carries many rows at once.

The model library's connections are bound to the loop. The engine's database work has a thread and a connection of its
own; functions of developers run in threads made for one call each, so that one that hangs holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from typing import Any
from uuid import UUID

from channels.layers import get_channel_layer
from django.db import InterfaceError, OperationalError, close_old_connections, connections, reset_queries
from django_q.conf import Conf as QConf

from durable_agents import holders, lifecycle, moments, outbound
from durable_agents.agents import is_async, registry
from durable_agents.conf import config
from durable_agents.crashpoints import crashpoint
from durable_agents.engine.cancelling import cancelled_by_us_only, is_cancelled
from durable_agents.engine.lanes import Lane
from durable_agents.engine.moments import Moments
from durable_agents.engine.steps import run_step
from durable_agents.engine.tools import load_calls, run_tool
from durable_agents.exceptions import DurableAgentsError, ErrorKind, LeaseLostError, ThreadNotFoundError
from durable_agents.lifecycle import CallResult, Claim
from durable_agents.logs import log, log_error
from durable_agents.models import ToolCallStatus
from durable_agents.streaming import DeltaWriter, Frame

CLAIM_SECONDS = 0.25
CLAIM_BATCH = 8
"""Rows won in one claim: small, so that workers which start together share what is due."""
BUSY_SECONDS = 0.05
CHECK_SECONDS = 0.5
RING_SECONDS = 1.0
PROGRESS_SECONDS = 0.25
MAX_SENDING = 1000
"""Hints on their way to the channel layer; beyond that they are dropped, as every hint may be."""
UNWIND_SECONDS = 2.0
RELEASE_SECONDS = 1.0
"""How long a worker that leaves waits for a thread that somebody holds; then its row waits for the end of its lease."""
SWITCH_SECONDS = 0.0005
URGENT = frozenset(
    {
        *(lifecycle.claim, lifecycle.finish_tool_call, lifecycle.announce_tool_call, lifecycle.retry_tool_call),
        load_calls,
    }
)
"""Database work that goes first: tools have few slots, and one that waits for the database holds one for nothing."""
DATABASE_WAITS_SECONDS = (0.2, 1, 3)
HELD_WAITS_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Until a thread that somebody holds is asked for again, the last one as often as it takes."""


@dataclass(kw_only=True)
class _Held:
    """A row that this process works on."""

    claim: Claim
    task: asyncio.Task[None]
    overdue: asyncio.Event = field(default_factory=asyncio.Event)
    is_dropped: bool = False
    has_ended: bool = False
    """Whether the tool's function has ended, so that it needs no thread any more."""
    progress: list[Any] = field(default_factory=list)
    """What the tool said last and what is not stored yet; at most one value."""
    reporter: asyncio.Task[None] | None = None


class Engine:
    """Everything that one worker process does for agents."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.holder = holders.me()
        self.loop = asyncio.new_event_loop()
        self.is_working = False
        self.turned_at = time.monotonic()
        self.writer = DeltaWriter(
            run=self.in_lease_lane, publish=self._publish_delta, flush_seconds=config().flush_ms / 1000
        )
        self.moments = Moments(self)
        self._pools = config().pools_of(cluster)
        self._database = Lane("durable-agents-database")
        self._lease_lane = Lane("durable-agents-leases")
        self._left_behind: list[threading.Thread] = []
        self._held: dict[UUID, _Held] = {}
        self._asked: dict[Callable[..., Any], dict[Claim, asyncio.Future[Any]]] = {}
        self._loading: set[asyncio.Task[None]] = set()
        self._sending: set[Future[None]] = set()
        self._parent = os.getppid()
        self._terminated = False
        self._is_stuck = False
        self._put_off_until = 0.0
        self._rang_at = 0.0
        self._looked_for_suspects_at = 0.0
        self._suspects_wait = False
        self._seat = 0

    def work(self, *, seat: int) -> None:
        """Serve until nothing is due, or until this process has to go."""
        self._seat = seat
        try:
            with _quick_switching():
                self.loop.run_until_complete(self._serve())
        finally:
            self._leave()

    def _leave(self) -> None:
        """End this process where nobody else would, and pass on the signal that was meant for django-q2."""
        hangs = self._is_stuck or self._hung() > 0
        if os.getppid() != self._parent or (hangs and self._must_leave()) or self._is_clogged():
            os._exit(0)  # nobody would end this process, or its threads would not let it end
        if self._terminated:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    # ------------------------------------------------------------------------------------- what steps and tools use

    async def in_database(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function where the engine's own database connection is. An arrow whose thread somebody holds, such as
        a long transaction of a view's, is drawn later: the other rows' database work goes on meanwhile."""
        call = partial(_without_waiting, function, *args, **kwargs)
        pauses = chain(HELD_WAITS_SECONDS, repeat(HELD_WAITS_SECONDS[-1]))
        while True:
            try:
                return await asyncio.wrap_future(self._database.submit(call, urgent=function in URGENT))
            except lifecycle.ThreadHeldError:
                await asyncio.sleep(next(pauses))

    async def load(self, function: Callable[[Sequence[Claim]], Mapping[UUID, Any]], claim: Claim) -> Any:
        """What ``function`` reads for this row, by row id; rows that ask in the same moment are read together. Raises
        LeaseLostError for a row that it leaves out."""
        asked = self._asked.setdefault(function, {})
        if not asked:
            self._loading.add(task := asyncio.create_task(self._load_together(function)))
            task.add_done_callback(self._loading.discard)
        asked[claim] = asyncio.get_running_loop().create_future()
        return await asked[claim]

    async def _load_together(self, function: Callable[[Sequence[Claim]], Mapping[UUID, Any]]) -> None:
        asked = self._asked.pop(function)
        try:
            found = await self.in_database(function, list(asked))
        except Exception as error:
            for answer in asked.values():
                _set_exception(answer, error)
            return
        for claim, answer in asked.items():
            if claim.row_id in found:
                _set_result(answer, found[claim.row_id])
            else:
                _set_exception(answer, LeaseLostError(f"{claim.kind} {claim.row_id}"))

    async def in_lease_lane(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function that keeps leases alive: on a connection of its own, so that an arrow which waits for a
        thread's lock cannot cost the leases of all others."""
        return await asyncio.wrap_future(self._lease_lane.submit(partial(_with_connection, function, *args)))

    async def call_user(self, function: Callable[..., Any], *args: Any, **facts: Any) -> Any:
        """Call what a developer wrote: a coroutine function here, any other in a thread where the ORM may be used."""
        call = partial(function, *args, **facts)
        with cancelled_by_us_only(RuntimeError(f"A CancelledError came out of {function!r}.")):
            return await (call() if is_async(function) else self.in_thread(call))

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in a thread of its own, which is left behind, and counted, when the caller gives up."""
        ended: asyncio.Future[Any] = self.loop.create_future()
        thread = threading.Thread(
            target=self._run_thread, args=(ended, function, args), daemon=True, name="durable-agents-tool"
        )
        thread.start()
        try:
            return await ended
        finally:
            if ended.cancelled():
                self._left_behind.append(thread)

    def _run_thread(self, ended: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            settle = partial(_set_result, ended, function(*args))
        except BaseException as error:
            settle = partial(_set_exception, ended, error)
        try:
            connections.close_all()
        except Exception:
            log_error("a connection was not closed", action="thread")
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(settle)

    def put_off(self, seconds: float) -> None:
        """Stay in ``work`` until a row that falls due soon is due, so that it needs no doorbell."""
        if seconds <= config().linger_seconds:
            self._put_off_until = max(self._put_off_until, time.monotonic() + seconds + CLAIM_SECONDS)

    def drop(self, lost: set[UUID]) -> None:
        """Stop working on rows that others hold or settled; closing the model's connection is part of it."""
        for row_id in lost & self._held.keys():
            held = self._held[row_id]
            if not held.is_dropped:  # once: it may be recording what it has used
                held.is_dropped = True
                held.task.cancel()

    def drop_claim(self, claim: Claim) -> None:
        """The same for one row, unless this process has won it again."""
        if self._holds(claim):
            self.drop({claim.row_id})

    def tool_ended(self, claim: Claim) -> None:
        """The function of this call has ended: another one may run while its outcome is stored."""
        if self._holds(claim):
            self._held[claim.row_id].has_ended = True
            self._wake.set()

    def is_stopped(self, claim: Claim) -> bool:
        """Whether nobody waits for this row any more, from whichever thread."""
        held = self._held.get(claim.row_id)
        return held is None or held.claim is not claim or held.is_dropped

    def report(self, claim: Claim, value: Any) -> None:
        """A tool says how far it is, from whichever thread. Stored some times a second, the last word in any case."""
        self.loop.call_soon_threadsafe(self._take_report, claim, value)

    def _take_report(self, claim: Claim, value: Any) -> None:
        if self._holds(claim):
            held = self._held[claim.row_id]
            held.progress[:] = [value]
            if held.reporter is None:
                held.reporter = self.loop.create_task(self._store_reports(held))

    async def _store_reports(self, held: _Held) -> None:
        with contextlib.suppress(DurableAgentsError):  # the call has its outcome: nobody asks how far it is
            while held.progress:
                await self.in_database(lifecycle.report_progress, held.claim, held.progress.pop())
                await asyncio.sleep(PROGRESS_SECONDS)
        held.reporter = None

    async def overdue(self, claim: Claim) -> None:
        """Wait until the time of this tool call is over by its row, which others may change; then it may be waited for
        anew."""
        if self._holds(claim):
            overdue = self._held[claim.row_id].overdue
            await overdue.wait()
            overdue.clear()

    def claim_of(self, task: asyncio.Task[Any] | None) -> Claim | None:
        """The row that a task works on, itself or under the row's name."""
        named = task.get_name() if task else ""
        rows = self._held.values()
        return next((held.claim for held in rows if held.task is task or str(held.claim.row_id) == named), None)

    # ------------------------------------------------------------------------------------------------------ serving

    async def _serve(self) -> None:
        self._wake = asyncio.Event()
        self.turned_at, self.is_working = time.monotonic(), True
        outbound.publish_through(self._publish)
        at_rest = moments.run_through(self.moments.begin)
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: nobody signals us
            self.loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        self._leaves_early = False
        parts = (self.writer.run, self._keep_leases, self._check_held, self._turn)
        background = [self.loop.create_task(part()) for part in parts]
        try:
            while await self._serve_until_idle():
                pass
            await self._drain()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self.moments.settle(seconds=UNWIND_SECONDS)
            moments.run_through(at_rest)
            if sending := [asyncio.wrap_future(sent) for sent in list(self._sending)]:
                await asyncio.wait(sending, timeout=1)
            outbound.publish_through(None)
            self.is_working = False
            with contextlib.suppress(ValueError, RuntimeError):
                self.loop.remove_signal_handler(signal.SIGTERM)

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
        self._leaves_early = self._must_leave() or self._has_sat_long_enough(began)
        return not self._leaves_early and await self._claim() > 0

    def _must_leave(self) -> bool:
        """Whether this process has to go: SIGTERM, a stopping cluster, or one that died without a word."""
        return self._terminated or os.getppid() != self._parent or outbound.cluster_is_stopping()

    def _is_clogged(self) -> bool:
        """Whether hung tools have used up all threads: a fresh process serves better."""
        return self._hung() >= config().tool_threads

    def _hung(self) -> int:
        """Number of threads whose calls were given up and that have not ended since."""
        self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
        return len(self._left_behind)

    def _has_sat_long_enough(self, began: float) -> bool:
        """Whether to end what is held and leave: for a fresh process, or for the project's own tasks where this is the
        cluster's only worker. If what is held lasts as long again, it claims once more rather than stand still."""
        turns = (time.monotonic() - began) // config().work_seconds
        return self._is_clogged() or (QConf.WORKERS == 1 and turns % 2 == 1)

    def _nothing_put_off(self, began: float) -> bool:
        is_over = time.monotonic() >= self._put_off_until and self.moments.are_over
        return is_over or self._has_sat_long_enough(began)

    async def _wait(self, seconds: float) -> None:
        """Until somebody wakes the claims; where much is held, what comes shortly after is claimed with it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
        if len(self._held) > CLAIM_BATCH:
            await asyncio.sleep(BUSY_SECONDS)
        self._wake.clear()

    def _wake_up(self) -> None:
        self.loop.call_soon_threadsafe(self._wake.set)

    def _on_sigterm(self) -> None:
        self._terminated = True
        self._wake.set()

    # ----------------------------------------------------------------------------------------------------- claiming

    async def _claim(self) -> int:
        """Claim; a database that fails just now is asked again, and costs nothing that is held."""
        try:
            return await self._claim_due()
        except Exception:
            log_error("nothing was claimed", action="claim")
            await asyncio.sleep(CHECK_SECONDS)
            return 0

    async def _claim_due(self) -> int:
        """Win due rows, as many as there are free slots, a batch at most; begin to work on them. Returns how many.

        A row whose holders died before is won only by a process that holds nothing else, and then nothing is won
        beside it: should it be the culprit, no other row dies with it.
        """
        streams, tools = self._free_slots()
        if any(held.claim.is_suspect for held in self._held.values()):
            await self._ring_for_others()
            return 0
        won = 0
        if not await self._makes_room_for_suspects():
            won = await self._win(streams=min(CLAIM_BATCH, streams), tools=min(CLAIM_BATCH, tools))
        if not won and not self._held:
            won = await self._win(streams=1, tools=1, suspects=True)
        if min(streams, tools) <= 0:
            await self._ring_for_others()
        return won

    def _free_slots(self) -> tuple[int, int]:
        streams = sum(1 for held in self._held.values() if held.claim.kind == "stream")
        tools = (
            sum(1 for held in self._held.values() if held.claim.kind == "tool" and not held.has_ended) + self._hung()
        )
        return max(0, config().streams_per_process - streams), max(0, config().tool_threads - tools)

    async def _win(self, *, streams: int, tools: int, suspects: bool = False) -> int:
        won: list[Claim] = await self.in_database(
            lifecycle.claim,
            pools=self._pools,
            holder=self.holder,
            streams=streams,
            tools=tools,
            code=registry.code(),
            suspects=suspects,
        )
        for claim in won:
            crashpoint("claimed")
            self._start(claim)
        return len(won)

    async def _makes_room_for_suspects(self) -> bool:
        """Whether a suspect waits, and this process is the one of its cluster that ends what it holds to take it."""
        if self._seat != 0:
            return False
        if time.monotonic() - self._looked_for_suspects_at > RING_SECONDS:
            self._looked_for_suspects_at = time.monotonic()
            self._suspects_wait = await self.in_database(lifecycle.suspects_wait, self._pools, code=registry.code())
        return self._suspects_wait

    async def _ring_for_others(self) -> None:
        """What this process has no slot for may fit into another: tell the cluster, at most once a second."""
        if time.monotonic() - self._rang_at < RING_SECONDS:
            return
        self._rang_at = time.monotonic()
        if await self.in_database(work_is_due, self.cluster):
            await self.in_database(outbound.ring_cluster, self.cluster)

    def _start(self, claim: Claim) -> None:
        run = run_step if claim.kind == "stream" else run_tool
        earlier = self._held.get(claim.row_id)
        if earlier is not None:  # its lease ran out, and this very process won the row again
            earlier.task.cancel()
        task = self.loop.create_task(self._guarded(claim, run))
        self._held[claim.row_id] = _Held(claim=claim, task=task)

    async def _guarded(self, claim: Claim, run: Callable[[Engine, Claim], Awaitable[None]]) -> None:
        """Run one row; whatever happens to it harms no other."""
        try:
            await run(self, claim)
        except (LeaseLostError, ThreadNotFoundError):
            log(logging.INFO, "lease lost", action="lost", thread=claim.thread_id, fence=claim.fence)
        except (OperationalError, InterfaceError):
            # What has been done is done, though it could not be said: when the lease runs out, the row's own rules
            # for a dead worker say what follows.
            log_error("the database does not answer", action="run", thread=claim.thread_id)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            log_error("a row failed", action="run", thread=claim.thread_id)
            await self._give_up(claim)
        finally:
            self.writer.close(claim)
            if self._holds(claim):
                del self._held[claim.row_id]
            self._wake.set()

    def _holds(self, claim: Claim) -> bool:
        held = self._held.get(claim.row_id)
        return held is not None and held.claim is claim

    async def _give_up(self, claim: Claim) -> None:
        """An error of our own, not of model or tool: end the row visibly rather than try for ever."""
        with contextlib.suppress(DurableAgentsError):
            if claim.kind == "stream":
                await self.in_database(
                    lifecycle.fail_step,
                    claim,
                    lifecycle.FailedAttempt(kind=ErrorKind.UNKNOWN.value, detail="internal error"),
                )
            else:
                failed = CallResult(
                    status=ToolCallStatus.FAILED, error="The tool call could not be run.", error_code="internal"
                )
                await self.in_database(lifecycle.finish_tool_call, claim, failed)

    # ------------------------------------------------------------------------------------------------------- leases

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(config().lease_seconds / 3)
            self.drop(await self._ask(lifecycle.heartbeat))

    async def _check_held(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.drop(await self._ask(lifecycle.lost_claims))
            for row_id in await self._ask(lifecycle.overdue_calls) & self._held.keys():
                self._held[row_id].overdue.set()

    async def _turn(self) -> None:
        """What the watchdog looks at: a loop that turns."""
        while True:
            self.turned_at = time.monotonic()
            await asyncio.sleep(CHECK_SECONDS)

    async def _ask(self, question: Callable[[list[Claim]], set[UUID]]) -> set[UUID]:
        claims = [held.claim for held in self._held.values()]
        if not claims:
            return set()
        try:
            answer: set[UUID] = await self.in_lease_lane(question, claims)
        except Exception:
            log_error("leases were not checked", action="heartbeat")
            return set()
        return answer

    async def _drain(self) -> None:
        """Claim no more; give what is held ``drain_seconds`` to end, then give it back; ring for what is left."""
        if self._held:
            await asyncio.wait([item.task for item in self._held.values()], timeout=config().drain_seconds)
        left = list(self._held.values())
        for item in left:
            await self._release(item.claim)
        self.drop({item.claim.row_id for item in left})
        if left:
            _, stuck = await asyncio.wait([item.task for item in left], timeout=UNWIND_SECONDS)
            self._is_stuck = bool(stuck)
        if self._leaves_early or left:
            try:
                await self._ring_for_others()
            except Exception:
                log_error("nobody was told of what is left", action="ring")

    async def _release(self, claim: Claim) -> None:
        """Give a row back before its task is ended: what the task still records is added to the closed row."""
        try:
            await asyncio.wait_for(self.in_database(lifecycle.release, claim), RELEASE_SECONDS)
        except ThreadNotFoundError:
            return
        except Exception:
            log_error("a row was not given back", action="release", thread=claim.thread_id)

    # --------------------------------------------------------------------------------------------------- publishing

    def _publish_delta(self, thread_id: UUID, frame: Frame) -> None:
        outbound.publish(thread_id, {"type": "thread.delta", "frame": frame})

    def _publish(self, group: str, message: dict[str, Any]) -> None:
        """Hand a message to the channel layer on the kept loop, from whichever thread."""
        if len(self._sending) < MAX_SENDING:
            sent = asyncio.run_coroutine_threadsafe(_group_send(group, message), self.loop)
            self._sending.add(sent)
            sent.add_done_callback(self._sending.discard)


def work_is_due(cluster: str) -> bool:
    """Whether a worker of this cluster, with this code, could claim a row now."""
    return lifecycle.has_open_work(config().pools_of(cluster), code=registry.code())


@contextlib.contextmanager
def _quick_switching() -> Iterator[None]:
    """Let threads hand the interpreter on after half a millisecond.

    The database thread gives it up at every statement and would get it back five milliseconds (Python's default) later,
    since the loop is always busy: with a hundred streams a commit of twenty statements would take a tenth of a second.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


async def _group_send(group: str, message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        await layer.group_send(group, message)
    except Exception:
        log(logging.WARNING, "browsers were not told", action="ring_browsers", group=group)


def _without_waiting(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with lifecycle.without_waiting():
        return _with_connection(function, *args, **kwargs)


def _with_connection(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call it; where the database fails, again with a fresh connection. Arrows are fenced, so none is drawn twice."""
    reset_queries()  # under DEBUG Django remembers every statement until a request ends, and here none does
    for wait_seconds in DATABASE_WAITS_SECONDS:
        try:
            return function(*args, **kwargs)
        except (OperationalError, InterfaceError) as error:
            log(logging.WARNING, "the database failed: once more", action="database", problem=type(error).__name__)
            close_old_connections()
            time.sleep(wait_seconds)
    return function(*args, **kwargs)


def _set_result(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    """What only ends interpreters or iterations must not end the loop: it becomes an ordinary error."""
    if future.done():
        return
    if not isinstance(error, Exception) or isinstance(error, StopIteration):
        cause, error = error, RuntimeError(f"{type(error).__name__} was raised: {error}")
        error.__cause__ = cause
    future.set_exception(error)

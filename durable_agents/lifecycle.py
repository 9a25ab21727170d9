"""THE STATE MACHINE: one function per arrow, one transaction each, every write to in-flight rows fenced.

            send_message                    commit_step: calls open
  completed ────────────► streaming ───────────────────────► awaiting_tool_results
      ▲                    │ ▲ ▲  │                                  │    │
      │ commit_step:       │ │ │  └─ retry_step, release, reap ─┐    │    │
      │ nothing open       │ │ └────────────────────────────────┘    │    │
      └────────────────────┤ └── finish_tool_call: the last one ─────┘    │
                           │                                              │
        fail_step          │ request_stop                                 │ request_stop
  failed ◄─────────────────┼──────────────► stopped ◄─────────────────────┘
      └─ resume ─► streaming ◄─ resume ─────────┘

A stream (one attempt at a step): pending ─claim► streaming ─commit_step► finished, or ─► aborted by retry_step,
fail_step, request_stop, release or reap. A tool call: pending ─claim► running ─finish_tool_call► its outcome, or back
to pending for another attempt.

How a user's message comes to be answered, in five files: ``api/views.py`` (or ``consumers.py``) calls
``send_message`` here; ``engine/worker.py`` claims the stream it made, streams the model's answer, commits it here;
``streaming.py`` stores and reads the deltas between; ``consumers.py`` shows them to the browser.

Locking rule: every arrow but ``claim``, ``append_deltas`` and ``heartbeat`` locks the thread row first and reads only
after that. ``advance`` runs only under that lock and decides, from rows alone, what the thread does next.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, ParamSpec, TypeVar
from uuid import UUID

from django.db import IntegrityError, OperationalError, connections, router, transaction
from django.db.models import BooleanField, ExpressionWrapper, F, Q
from django.db.models.functions import Greatest, Now

from durable_agents.agents import Agent, registry
from durable_agents.conf import config
from durable_agents.crashpoints import crashpoint
from durable_agents.exceptions import (
    AgentNotFoundError,
    ErrorKind,
    InvalidPartsError,
    LeaseLostError,
    ThreadBusyError,
    ThreadNotFoundError,
    safe_message,
)
from durable_agents.llm import ModelUsage
from durable_agents.logs import log
from durable_agents.models import (
    SUSPECT_CRASHES,
    Command,
    Delta,
    Message,
    Pool,
    Role,
    Stream,
    StreamState,
    Thread,
    ThreadStatus,
    ToolCall,
    ToolCallStatus,
    fairly,
    seconds_from_now,
)
from durable_agents.outbound import ring_browsers, ring_workers
from durable_agents.parts import Chunk, Part, close, fold, text_of, user_parts
from durable_agents.strictjson import clean, is_storable

_SAVED = [
    *("status", "rev", "stop_rev", "last_position", "last_number", "run_steps", "retry", "context", "updated_at"),
    *("error_code", "error_message", "cost"),
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"),
]
_MAY_HAVE_RUN = "The tool call was interrupted: it may or may not have run."
_STOPPED = "The run was stopped before the tool call had a result."
_ARROW_TRIES = 3

P = ParamSpec("P")
R = TypeVar("R")


# ---------------------------------------------------------------------------------------------- how an arrow is drawn


def database() -> str:
    """Alias of the database that holds the threads."""
    return router.db_for_write(Thread)


def _arrow(function: Callable[P, R]) -> Callable[P, R]:
    """Run again, at most three times in all, when the database refused the transaction for another one's sake.

    Only the outermost owner of the transaction may do that; inside a caller's transaction the error is theirs.
    """

    @functools.wraps(function)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(_ARROW_TRIES - 1):
            try:
                return function(*args, **kwargs)
            except OperationalError as error:
                if connections[database()].in_atomic_block or not _is_passing(error):
                    raise
        return function(*args, **kwargs)

    return drawn


def _is_passing(error: OperationalError) -> bool:
    """Whether another try may succeed: serialisation failure, deadlock, or SQLite's "locked"."""
    return getattr(error.__cause__, "sqlstate", None) in {"40001", "40P01"} or "locked" in str(error)


@dataclass(kw_only=True)
class _Locked:
    """A thread under its lock, with the doorbells that its arrow owes."""

    thread: Thread
    now: datetime
    rev_before: int
    pools: set[str] = field(default_factory=set)

    @property
    def agent(self) -> Agent | None:
        return registry.find(self.thread.agent)

    def move(self, status: ThreadStatus) -> None:
        """Change the thread's status; the change gets a rev of its own."""
        if self.thread.status != status:
            self.thread.status = status
            self.thread.next_rev()

    def save(self) -> None:
        """Write the thread if anything durable changed, and ring after commit."""
        using = database()
        if self.thread.rev != self.rev_before:
            self.thread.updated_at = self.now
            self.thread.save(using=using, update_fields=_SAVED)
            ring_browsers(self.thread.pk, using=using)
        if self.pools:
            ring_workers(self.pools, using=using)


@contextmanager
def _locked(thread_id: UUID, *, skip_locked: bool = False) -> Iterator[_Locked]:
    """One transaction that holds the thread's row; what it changed is saved, and rung for, at its end.

    Raises ThreadNotFoundError where there is none, or with ``skip_locked`` where somebody else holds it just now.
    """
    using = database()
    with transaction.atomic(using=using):
        rows = Thread.objects.using(using).select_for_update(no_key=True, skip_locked=skip_locked)
        thread = rows.annotate(db_now=Now()).filter(pk=thread_id).first()
        if thread is None:
            raise ThreadNotFoundError(thread_id)
        now: datetime = thread.db_now  # type: ignore[attr-defined]
        locked = _Locked(thread=thread, now=now, rev_before=thread.rev)
        yield locked
        locked.save()


def _id(thread: Thread | UUID | str) -> UUID:
    if isinstance(thread, Thread):
        return thread.pk
    try:
        return thread if isinstance(thread, UUID) else UUID(str(thread))
    except ValueError as error:
        raise ThreadNotFoundError(thread) from error


# --------------------------------------------------------------------------------------------- what people ask for


@_arrow
def create_thread(
    agent: str | Agent,
    *,
    owner: Any = None,
    scope: str = "",
    prompt: str | None = None,
    parts: list[Part] | None = None,
    client_id: str | None = None,
    title: str = "",
    metadata: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Thread:
    """A new thread, at rest or, with ``prompt`` or ``parts``, with its first run due.

    A ``client_id`` that the owner has used in this scope gives back that thread, unchanged. Raises AgentNotFoundError
    and what ``send_message`` raises.
    """
    name = agent.name if isinstance(agent, Agent) else registry.get(agent).name
    check_id(client_id)
    using = database()
    with transaction.atomic(using=using):
        known = _known_thread(owner, scope, client_id)
        if known is not None:
            return known
        thread = Thread(
            agent=name,
            owner=owner,
            scope=scope,
            client_id=client_id,
            title=clean(title),
            metadata=clean(metadata or {}),
            context=clean(context or {}),
        )
        try:
            with transaction.atomic(using=using):
                thread.save(using=using, force_insert=True)
        except IntegrityError:
            known = _known_thread(owner, scope, client_id)
            if known is None:
                raise
            return known
        if prompt is not None or parts is not None:
            send_message(thread, prompt, parts=parts)
        thread.refresh_from_db(using=using)
    _log("create_thread", thread=thread.pk)
    return thread


def _known_thread(owner: Any, scope: str, client_id: str | None) -> Thread | None:
    if client_id is None:
        return None
    return Thread.objects.using(database()).filter(owner=owner, scope=scope, client_id=client_id).first()


@_arrow
def send_message(
    thread: Thread | UUID | str,
    prompt: str | None = None,
    *,
    parts: list[Part] | None = None,
    client_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Message:
    """A user's message; a thread at rest starts a run.

    While a run is on, the agent's ``when_busy`` decides: ``steer`` puts the message into the history of the next
    model call, ``queue`` keeps it until the run is over, ``interrupt`` stops the run first, ``reject`` raises
    ThreadBusyError. A ``client_id`` that the thread knows gives back that message and changes nothing. Raises
    ThreadNotFoundError, AgentNotFoundError, InvalidPartsError and TooLargeError.
    """
    checked = user_parts(prompt, parts, max_text_chars=config().max_text_chars)
    check_id(client_id)
    with _locked(_id(thread)) as locked:
        known = _known_message(locked.thread, client_id)
        if known is not None:
            return known
        if context is not None:
            locked.thread.context = clean(dict(context))
        message = _take_message(locked, checked, client_id=client_id, metadata=clean(dict(metadata or {})))
    _log("send_message", thread=message.thread_id, message_id=message.pk)
    return message


def _take_message(
    locked: _Locked, parts: list[Part], *, client_id: str | None = None, metadata: dict[str, Any] | None = None
) -> Message:
    """Add a user's message and do what it does to the thread, by the agent's ``when_busy``."""
    busy = _when_busy(locked)
    if busy == "interrupt":
        _settle_stop(locked)
    queued = busy == "queue"
    message = _add_message(locked, Role.USER, parts, queued=queued, client_id=client_id, metadata=metadata)
    if not queued and locked.thread.is_running:
        _steer_pending(locked)
    if not queued:
        _start_run(locked)
    return message


def _steer_pending(locked: _Locked) -> None:
    """An attempt that nobody has begun answers the new message too: its answer begins after it."""
    pending = _streams(locked).filter(state=StreamState.PENDING).select_for_update(no_key=True).first()
    if pending is not None:
        pending.message_id = _answer_of_next_attempt(locked, pending.message_id)
        pending.rev = locked.thread.next_rev()
        pending.save(using=database(), update_fields=["message", "rev"])


def _answer_of_next_attempt(locked: _Locked, message_id: UUID) -> UUID:
    """The assistant message that the next attempt belongs to: a new one where a user has spoken since. An old one
    that never got any parts is taken back."""
    last = _last_message(locked)
    if last is None or last.role != Role.USER:
        return message_id
    if not Stream.objects.using(database()).in_transcript().filter(message_id=message_id).exists():
        old = Message.objects.using(database()).filter(pk=message_id)
        old.update(superseded_at=locked.now, rev=locked.thread.next_rev())
    return _new_answer(locked, last).pk


def check_id(given: str | None) -> None:
    """Raise InvalidPartsError for an id of a client's that cannot be kept as it is; None is none."""
    if given is not None and not (0 < len(given) <= 200 and is_storable(given)):
        raise InvalidPartsError("An id or key has 1 to 200 characters, without NUL and lone surrogates.")


def _known_message(thread: Thread, client_id: str | None) -> Message | None:
    if client_id is None:
        return None
    return Message.objects.using(database()).filter(thread=thread, client_id=client_id, superseded_at=None).first()


def _when_busy(locked: _Locked) -> str | None:
    """What a message does to the run that is on; None where none is."""
    agent = locked.agent
    if agent is None:
        raise AgentNotFoundError(locked.thread.agent)
    if not locked.thread.is_running:
        return None
    if agent.when_busy == "reject":
        raise ThreadBusyError(locked.thread.pk)
    return agent.when_busy


def _add_message(
    locked: _Locked,
    role: Role,
    parts: list[Part],
    *,
    queued: bool = False,
    client_id: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Message:
    thread = locked.thread
    message = Message(
        thread=thread,
        position=None if queued else _next_position(thread),
        queued_at=locked.now if queued else None,
        client_id=client_id,
        role=role,
        parts=parts,
        text=text_of(parts),
        metadata=metadata or {},
        rev=thread.next_rev(),
        created_at=locked.now,
    )
    message.save(using=database(), force_insert=True)
    return message


def _next_position(thread: Thread) -> int:
    thread.last_position += 1
    return thread.last_position


def _start_run(locked: _Locked) -> None:
    """Begin a run, or let the one that is on take note of the new message."""
    if not locked.thread.is_running:
        locked.thread.run_steps = 0
        _clear_error(locked.thread)
        locked.move(ThreadStatus.STREAMING)
    advance(locked)


def _clear_error(thread: Thread) -> None:
    thread.error_code = thread.error_message = ""
    thread.retry = None


@_arrow
def stop_thread(thread: Thread | UUID | str) -> Thread:
    """Halt the run at once, in this transaction: the attempt is fenced, the text stored so far is kept, open calls
    are cancelled, queued messages wait for a resume. At rest: nothing happens. Returns the thread."""
    with _locked(_id(thread)) as locked:
        if locked.thread.is_running:
            _settle_stop(locked)
            _log("request_stop", thread=locked.thread.pk)
    return locked.thread


def _settle_stop(locked: _Locked) -> None:
    stream = _streams(locked).open().select_for_update(no_key=True).first()
    if stream is not None:
        _abort(locked, stream, reason="stopped", kept=_text_so_far(stream))
    _settle_open_calls(locked)
    locked.thread.retry = None
    locked.move(ThreadStatus.STOPPED)
    locked.thread.stop_rev = locked.thread.rev


def _text_so_far(stream: Stream) -> list[Part]:
    """What the stored deltas say, without calls that were never committed; nothing where no text was stored."""
    deltas = Delta.objects.using(database()).after(stream.pk, -1).values_list("chunks", flat=True)
    parts = close(fold(chunk for chunks in deltas for chunk in chunks))
    kept = [part for part in parts if part["type"] in {"text", "reasoning"}]
    return [{"type": "step-start"}, *kept] if text_of(kept) else []


def _settle_open_calls(locked: _Locked) -> None:
    calls = ToolCall.objects.using(database()).open().filter(thread=locked.thread)
    own = _running_atomically.get()
    calls = calls if own is None else calls.exclude(pk=own)
    for call in calls.select_for_update(no_key=True).order_by("pk"):
        error = f"{_STOPPED} {_MAY_HAVE_RUN}" if call.status == ToolCallStatus.RUNNING else _STOPPED
        _settle(locked, call, ToolCallStatus.CANCELLED, code="stopped", error=error)


@_arrow
def resume_thread(thread: Thread | UUID | str, prompt: str | None = None) -> Thread:
    """Continue a thread at rest, with a new message or by trying again what stopped or failed.

    A run that has used up its steps gets as many again. A completed thread without ``prompt``, and a running one,
    stay as they are. Returns the thread.
    """
    parts = None if prompt is None else user_parts(prompt, None, max_text_chars=config().max_text_chars)
    with _locked(_id(thread)) as locked:
        if not locked.thread.is_running:
            locked.thread.stop_rev = None
        if parts is not None:
            _take_message(locked, parts)
        elif not locked.thread.is_running:
            _go_on(locked)
        _log("resume", thread=locked.thread.pk)
    return locked.thread


def _go_on(locked: _Locked) -> None:
    """Start what a thread at rest has left undone: a stopped or failed run, or messages that a stop held back."""
    is_halted = locked.thread.status in {ThreadStatus.STOPPED, ThreadStatus.FAILED}
    if not is_halted and not Message.objects.using(database()).queued().filter(thread=locked.thread).exists():
        return
    if locked.agent is None:
        raise AgentNotFoundError(locked.thread.agent)
    locked.thread.run_steps = 0
    _clear_error(locked.thread)
    locked.move(ThreadStatus.STREAMING)
    advance(locked, resumed=is_halted)


@_arrow
def run_command(thread_id: UUID, key: str | None, run: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Run a live client's command and keep its answer under ``key``, so that the same command sent again (after a
    lost connection) gives the same answer and changes nothing. Without a key it just runs."""
    check_id(key)
    if key is None:
        return run()
    with transaction.atomic(using=database()):
        if not Thread.objects.using(database()).select_for_update(no_key=True).filter(pk=thread_id).first():
            raise ThreadNotFoundError(thread_id)
        commands = Command.objects.using(database())
        known = commands.filter(thread_id=thread_id, key=key).first()
        if known is None:
            known = commands.create(thread_id=thread_id, key=key, result=dict(run()))
    result: Mapping[str, Any] = known.result
    return result


@_arrow
def delete_thread(thread: Thread | UUID | str) -> None:
    """Remove a thread with everything that belongs to it; whoever works on it finds its rows gone and gives up."""
    with transaction.atomic(using=database()):
        rows = Thread.objects.using(database()).filter(pk=_id(thread))
        if not rows.select_for_update().exists():
            raise ThreadNotFoundError(thread)
        for model in (Stream, ToolCall):  # nobody adds a delta to a row that is locked
            held: Any = model._default_manager.using(database()).filter(thread_id=_id(thread))
            list(held.select_for_update().order_by("pk").values_list("pk"))
        rows.delete()
        ring_browsers(_id(thread), using=database())
    _log("delete_thread", thread=_id(thread))


@_arrow
def edit_thread(
    thread: Thread | UUID | str,
    *,
    title: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    archived: bool | None = None,
) -> Thread:
    """Change what clients may change of a thread; None leaves a field as it is. Returns the thread."""
    changes: dict[str, Any] = {"title": title, "metadata": metadata, "archived": archived}
    with _locked(_id(thread)) as locked:
        changed = {name: clean(value) for name, value in changes.items() if value is not None}
        for name, value in changed.items():
            setattr(locked.thread, name, value)
        if changed:
            locked.thread.next_rev()
            locked.thread.save(using=database(), update_fields=list(changed))
    return locked.thread


# ----------------------------------------------------------------------------------------------------------- advance


def advance(locked: _Locked, *, resumed: bool = False) -> None:
    """Decide from rows what the running thread does next; under its lock only, and any number of times.

    A stream is open: nothing. Calls are open: wait for them. A user message is unanswered: begin an answer. The last
    step made calls (or the run is resumed): the next step of the same message. A message is queued: its turn.
    Otherwise: completed.
    """
    if not locked.thread.is_running or _streams(locked).open().exists():
        return
    if ToolCall.objects.using(database()).open().filter(thread=locked.thread).exists():
        locked.move(ThreadStatus.AWAITING_TOOL_RESULTS)
        return
    last = _last_message(locked)
    if last is not None and last.role == Role.USER:
        _begin_step(locked, _new_answer(locked, last).pk)
    elif last is not None and (resumed or _last_step_made_calls(last)):
        _begin_step(locked, last.pk)
    else:
        _finish_run(locked)


def _streams(locked: _Locked) -> Any:
    return Stream.objects.using(database()).filter(thread=locked.thread)


def _last_message(locked: _Locked) -> Message | None:
    rows = Message.objects.using(database()).filter(thread=locked.thread, superseded_at=None, position__isnull=False)
    return rows.exclude(role=Role.SYSTEM).order_by("-position").first()


def _last_step_made_calls(message: Message) -> bool:
    steps = Stream.objects.using(database()).in_transcript().filter(message=message)
    last = steps.order_by("-number").values_list("pk", flat=True).first()
    return last is not None and ToolCall.objects.using(database()).filter(stream=last).exists()


def _new_answer(locked: _Locked, question: Message) -> Message:
    answer = _add_message(locked, Role.ASSISTANT, [])
    Message.objects.using(database()).filter(pk=answer.pk).update(parent=question)
    return answer


def _begin_step(locked: _Locked, message_id: UUID) -> None:
    """One more pending stream, unless the run has used up its steps."""
    agent = locked.agent
    if agent is not None and locked.thread.run_steps >= agent.max_steps:
        _fail_run(locked, ErrorKind.MAX_STEPS)
        return
    _add_stream(locked, message_id)
    locked.move(ThreadStatus.STREAMING)


def _add_stream(
    locked: _Locked, message_id: UUID, *, attempt: int = 1, crashes: int = 0, delay_seconds: float = 0
) -> Stream:
    thread = locked.thread
    thread.last_number += 1
    stream = Stream(
        thread=thread,
        message_id=message_id,
        number=thread.last_number,
        pool=locked.agent.pool if locked.agent else "agents",
        attempt=attempt,
        crashes=crashes,
        available_at=locked.now + timedelta(seconds=delay_seconds),
        rev=thread.next_rev(),
        created_at=locked.now,
    )
    stream.save(using=database(), force_insert=True)
    locked.pools.add(stream.pool)
    return stream


def _finish_run(locked: _Locked) -> None:
    """The next queued message starts a run of its own; without one the thread is completed."""
    thread = locked.thread
    held_back = Q() if thread.stop_rev is None else Q(rev__gt=thread.stop_rev)
    queued = Message.objects.using(database()).queued().filter(held_back, thread=thread).first()
    if queued is None:
        locked.move(ThreadStatus.COMPLETED)
        return
    queued.position, queued.rev, queued.queued_at = _next_position(thread), thread.next_rev(), None
    queued.save(using=database(), update_fields=["position", "rev", "queued_at"])
    thread.run_steps = 0
    _begin_step(locked, _new_answer(locked, queued).pk)


def _fail_run(locked: _Locked, kind: str) -> None:
    locked.thread.error_code, locked.thread.error_message = str(kind)[:64], safe_message(kind)
    locked.thread.retry = None
    locked.move(ThreadStatus.FAILED)


# -------------------------------------------------------------------------------------------- what workers ask for


Kind = Literal["stream", "tool"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A row that this worker holds: present ``fence`` on every write."""

    kind: Kind
    row_id: UUID
    thread_id: UUID
    fence: int
    attempt: int
    crashes: int
    agent: str

    @property
    def is_suspect(self) -> bool:
        """Whether the row may be what killed its holders, so that it has to run alone."""
        return self.crashes >= SUSPECT_CRASHES


@dataclass(frozen=True, kw_only=True)
class NewCall:
    """A tool call that a step made; with ``error`` it is settled as failed at once (unknown tool, bad arguments)."""

    tool_call_id: str
    provider_call_id: str
    tool_name: str
    arguments: Any
    max_attempts: int = 1
    timeout_seconds: float | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """A whole answer of the model to one call."""

    parts: Sequence[Part]
    calls: Sequence[NewCall]
    finish_reason: str
    model: str
    usage: ModelUsage | None


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """How an attempt at a model call failed, and what it has used."""

    kind: str
    """An ErrorKind, or what the agent's ``classify`` calls it."""
    detail: str
    model: str = ""
    usage: ModelUsage | None = None


@dataclass(frozen=True, kw_only=True)
class CallResult:
    """How a tool ended: a result, or with ``status`` failed an error text for the model."""

    status: ToolCallStatus = ToolCallStatus.COMPLETED
    result: Any = None
    error: str = ""
    error_code: str = ""
    error_detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Append:
    """One delta to store: chunks of the stream that ``claim`` holds, at ``seq``."""

    claim: Claim
    seq: int
    chunks: Sequence[Chunk]


def ensure_pools() -> None:
    """Bring the pool rows, which claims lock and whose limits they obey, in line with the settings."""
    pools = [Pool(name=name, limit=pool.limit) for name, pool in sorted(config().pools.items())]
    Pool.objects.using(database()).bulk_create(
        pools, update_conflicts=True, unique_fields=["name"], update_fields=["limit"]
    )


@_arrow
def claim(
    *,
    pools: Sequence[str],
    holder: str,
    streams: int,
    tools: int,
    agents: Collection[str],
    tool_names: Collection[str],
    suspects: bool = False,
) -> list[Claim]:
    """Win at most ``streams`` due model steps and ``tools`` due tool calls of these pools, of code that this worker
    knows, in turn by owner. No pool ever has more rows held than its limit.

    Rows whose holders died before are left out; with ``suspects`` one of them is won and nothing else, by a caller
    that holds no other row. Returns the claims; an empty list is no row won.
    """
    wanted = Q(crashes__gte=SUSPECT_CRASHES) if suspects else Q(crashes__lt=SUSPECT_CRASHES)
    due = _due(pools, agents=agents, tool_names=tool_names, wanted=wanted)
    if not due:
        return []
    slots = {"tool": tools, "stream": streams}
    won: list[Claim] = []
    with transaction.atomic(using=database()):
        rows = Pool.objects.using(database()).select_for_update().filter(name__in=[pool for pool, _, _ in due])
        limits = {row.name: row.limit - _live_leases(row.name) for row in rows.order_by("name")}
        free = dict.fromkeys(pools, 0) | limits
        for pool, kind, queue in due:
            limit = min(free[pool], slots[kind], 1 - len(won) if suspects else slots[kind])
            claims = _win(queue, limit, holder, kind=kind)
            free[pool] -= len(claims)
            slots[kind] -= len(claims)
            won += claims
    for item in won:
        _log("claim", thread=item.thread_id, fence=item.fence, attempt=item.attempt, **{item.kind: item.row_id})
    return won


def _due(
    pools: Sequence[str], *, agents: Collection[str], tool_names: Collection[str], wanted: Q | None = None
) -> list[tuple[str, Kind, Any]]:
    """Where there is something to claim: pool, kind and its due rows. Looks without locks, so that idle workers write
    nothing."""
    using, wanted = database(), wanted or Q()
    queues: list[tuple[str, Kind, Any]] = []
    for pool in sorted(pools):
        queues.append((pool, "tool", ToolCall.objects.using(using).due(pool, tool_names).filter(wanted)))
        queues.append((pool, "stream", Stream.objects.using(using).due(pool, agents).filter(wanted)))
    return [(pool, kind, queue) for pool, kind, queue in queues if queue.exists()]


def _live_leases(pool: str) -> int:
    using = database()
    alive = Q(pool=pool, lease_expires_at__gt=Now())
    return (
        Stream.objects.using(using).held().filter(alive).count()
        + ToolCall.objects.using(using).held().filter(alive).count()
    )


def _win(due: Any, limit: int, holder: str, *, kind: Kind) -> list[Claim]:
    ids = fairly(due, limit) if limit > 0 else []
    locked = due.order_by("pk").filter(pk__in=ids).select_for_update(skip_locked=True, of=("self",))
    ids = list(locked.values_list("pk", flat=True)) if ids else []
    if not ids:
        return []
    lease = {"lease_owner": holder, "lease_expires_at": seconds_from_now(config().lease_seconds)}
    moved = (
        {"state": StreamState.STREAMING, "started_at": Now()}
        if kind == "stream"
        else {"status": ToolCallStatus.RUNNING}
    )
    rows = due.model.objects.using(database()).filter(pk__in=ids)
    rows.update(fence=F("fence") + 1, **lease, **moved)
    return [
        Claim(kind=kind, row_id=pk, thread_id=thread_id, fence=fence, attempt=attempt, crashes=crashes, agent=agent)
        for pk, thread_id, fence, attempt, crashes, agent in rows.values_list(
            "pk", "thread_id", "fence", "attempt", "crashes", "thread__agent"
        )
    ]


@_arrow
def append_deltas(batch: Sequence[Append]) -> tuple[set[UUID], set[UUID]]:
    """Store deltas of many streams in one transaction. Returns (stored, lost) stream ids.

    A stream in neither is locked by somebody just now: offer the same delta again. A lost one has another holder or
    is settled: stop working on it.
    """
    with transaction.atomic(using=database()):
        held = _held_now([item.claim for item in batch])
        mine = [item for item in batch if held.get(item.claim.row_id) == item.claim.fence]
        Delta.objects.using(database()).bulk_create(
            [Delta(stream_id=item.claim.row_id, seq=item.seq, chunks=list(item.chunks)) for item in mine]
        )
    stored = {item.claim.row_id for item in mine}
    return stored, lost_claims([item.claim for item in batch if item.claim.row_id not in stored])


def _held_now(claims: Sequence[Claim]) -> dict[UUID, int]:
    """Fences of the streams among these that are held and not locked by anybody else; they are locked now."""
    rows = Stream.objects.using(database()).held().filter(pk__in=[item.row_id for item in claims])
    return dict(rows.select_for_update(skip_locked=True, no_key=True).order_by("pk").values_list("pk", "fence"))


def lost_claims(claims: Sequence[Claim]) -> set[UUID]:
    """Row ids of those claims that do not hold any more. Reads without locks."""
    using = database()
    streams = Stream.objects.using(using).held().filter(pk__in=[c.row_id for c in claims if c.kind == "stream"])
    calls = ToolCall.objects.using(using).held().filter(pk__in=[c.row_id for c in claims if c.kind == "tool"])
    fences = dict(streams.values_list("pk", "fence")) | dict(calls.values_list("pk", "fence"))
    return {item.row_id for item in claims if fences.get(item.row_id) != item.fence}


@_arrow
def heartbeat(claims: Sequence[Claim]) -> set[UUID]:
    """Extend the leases of all these rows. Returns the row ids of those that are lost."""
    with transaction.atomic(using=database()):
        _extend(Stream.objects.using(database()).held(), claims)
        _extend(ToolCall.objects.using(database()).held(), claims)
    return lost_claims(claims)


def _extend(held: Any, claims: Sequence[Claim]) -> None:
    """Rows that somebody locks just now are left for the next heartbeat."""
    fences = {item.row_id: item.fence for item in claims}
    rows = held.filter(pk__in=fences).select_for_update(skip_locked=True, no_key=True).values_list("pk", "fence")
    mine = [pk for pk, fence in rows if fences[pk] == fence]
    held.filter(pk__in=mine).update(lease_expires_at=seconds_from_now(config().lease_seconds))


@_arrow
def commit_step(claim: Claim, outcome: StepOutcome) -> None:
    """The model answered: store the step with its parts and calls, in one transaction, and go on.

    Raises LeaseLostError, having written nothing, where the claim does not hold any more.
    """
    with _locked(claim.thread_id) as locked:
        stream = _my_stream(claim)
        thread = locked.thread
        stream.parts = clean(list(outcome.parts))
        stream.text = text_of(stream.parts)
        stream.finish_reason = outcome.finish_reason
        _close(locked, stream, StreamState.FINISHED, model=outcome.model, usage=outcome.usage)
        thread.run_steps += 1
        thread.retry = None
        for call in outcome.calls:
            _add_call(locked, stream, call)
        advance(locked)
    _log("commit_step", thread=claim.thread_id, stream=claim.row_id, attempt=claim.attempt, fence=claim.fence)


def _my_stream(claim: Claim) -> Stream:
    rows = Stream.objects.using(database()).select_for_update(no_key=True)
    stream = rows.filter(pk=claim.row_id, fence=claim.fence, state=StreamState.STREAMING).first()
    if stream is None:
        raise LeaseLostError(f"stream {claim.row_id} (fence {claim.fence})")
    return stream


def _close(
    locked: _Locked, stream: Stream, state: StreamState, *, model: str = "", usage: ModelUsage | None = None
) -> None:
    """Write the end of an attempt and add its usage to the thread's totals."""
    stream.state = state
    stream.model = model or stream.model
    stream.rev = locked.thread.next_rev()
    stream.finished_at = locked.now
    stream.lease_owner, stream.lease_expires_at = "", None
    stream.fence += 1
    if usage is not None:
        _record_usage(locked.thread, stream, usage)
    stream.save(using=database())


def _record_usage(thread: Thread, stream: Stream, usage: ModelUsage) -> None:
    for name in ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"):
        setattr(stream, name, getattr(usage, name))
        setattr(thread, name, getattr(thread, name) + getattr(usage, name))
    stream.cost, stream.usage_estimated = usage.cost, usage.estimated
    if usage.cost is not None:
        thread.cost = (thread.cost or Decimal(0)) + usage.cost


def _add_call(locked: _Locked, stream: Stream, call: NewCall) -> None:
    agent = locked.agent
    row = ToolCall(
        thread=locked.thread,
        message_id=stream.message_id,
        stream=stream,
        tool_call_id=call.tool_call_id,
        provider_call_id=clean(call.provider_call_id),
        tool_name=clean(call.tool_name),
        arguments=clean(call.arguments),
        max_attempts=call.max_attempts,
        pool=agent.pool_of(call.tool_name) if agent else "tools",
        available_at=locked.now,
        expires_at=locked.now + timedelta(seconds=call.timeout_seconds) if call.timeout_seconds is not None else None,
        approval_digest=digest(call.tool_name, call.arguments),
        rev=locked.thread.next_rev(),
        created_at=locked.now,
    )
    if call.error:
        row.status, row.error, row.error_code = ToolCallStatus.FAILED, clean(call.error), "invalid_call"
        row.finished_at = locked.now
    row.save(using=database(), force_insert=True)
    locked.pools.add(row.pool)


def digest(tool_name: str, arguments: Any) -> str:
    """SHA-256 of a call, in hex: what an approval is bound to."""
    canonical = json.dumps([tool_name, arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "replace")).hexdigest()


@_arrow
def retry_step(claim: Claim, ended: FailedAttempt, *, delay_seconds: float, max_attempts: int) -> None:
    """The attempt failed and another may succeed: abort it and leave a new one due after ``delay_seconds``."""
    with _locked(claim.thread_id) as locked:
        stream = _my_stream(claim)
        _abort_failed(locked, stream, ended)
        message_id = _answer_of_next_attempt(locked, stream.message_id)
        _add_stream(locked, message_id, attempt=stream.attempt + 1, delay_seconds=delay_seconds)
        locked.thread.retry = {
            "scope": "step",
            "attempt": stream.attempt + 1,
            "max_attempts": max_attempts,
            "next_retry_at": (locked.now + timedelta(seconds=delay_seconds)).isoformat(),
            "error": safe_message(ended.kind),
            "kind": ended.kind,
            "retryable": True,
        }
        locked.thread.next_rev()
    _log("retry_step", thread=claim.thread_id, stream=claim.row_id, attempt=claim.attempt, kind=ended.kind)


@_arrow
def fail_step(claim: Claim, ended: FailedAttempt) -> None:
    """The attempt failed for good: the thread is failed, and a resume tries again."""
    with _locked(claim.thread_id) as locked:
        _abort_failed(locked, _my_stream(claim), ended)
        _fail_run(locked, ended.kind)
    _log("fail_step", thread=claim.thread_id, stream=claim.row_id, attempt=claim.attempt, kind=ended.kind)


def _abort_failed(locked: _Locked, stream: Stream, ended: FailedAttempt) -> None:
    stream.error_code, stream.error_detail = ended.kind[:64], clean(ended.detail)
    _abort(locked, stream, reason="error", model=ended.model, usage=ended.usage)


def _abort(
    locked: _Locked,
    stream: Stream,
    *,
    reason: str,
    kept: Sequence[Part] = (),
    model: str = "",
    usage: ModelUsage | None = None,
) -> None:
    """End an attempt without a step; ``kept`` parts stay in the transcript."""
    stream.parts, stream.text = list(kept), text_of(kept)
    stream.finish_reason = reason
    _close(locked, stream, StreamState.ABORTED, model=model, usage=usage)


@_arrow
def record_usage(claim: Claim, *, model: str, usage: ModelUsage) -> None:
    """What an attempt had used when it was stopped: only that is added to its row, once. A row that is not closed, or
    that knows its usage, stays as it is."""
    with _locked(claim.thread_id) as locked:
        rows = Stream.objects.using(database()).select_for_update(no_key=True)
        stream = rows.filter(pk=claim.row_id, fence=claim.fence + 1, state=StreamState.ABORTED, model="").first()
        if stream is None:
            return
        stream.model = model
        _record_usage(locked.thread, stream, usage)
        stream.save(using=database())
        locked.thread.next_rev()


@_arrow
def finish_tool_call(claim: Claim, outcome: CallResult) -> None:
    """The tool ended: store its one outcome; the last one of a step makes the next step due.

    Raises LeaseLostError, having written nothing, where the claim does not hold any more.
    """
    with _locked(claim.thread_id) as locked:
        call = _my_call(claim)
        call.result = clean(outcome.result)
        call.error_detail = clean(outcome.error_detail)
        _settle(locked, call, outcome.status, code=outcome.error_code, error=outcome.error)
        advance(locked)
    _log("finish_tool_call", thread=claim.thread_id, tool_call=claim.row_id, attempt=claim.attempt, fence=claim.fence)


_running_atomically: ContextVar[UUID | None] = ContextVar("running_atomically", default=None)
"""The tool call whose atomic function runs here: a stop from inside it must not fence it."""


@_arrow
def run_atomic(claim: Claim, function: Callable[[], CallResult]) -> None:
    """Call a tool's function and store its outcome in one transaction: both happen, or neither.

    Whatever the function raises rolls everything back and is raised. Raises LeaseLostError, everything rolled back,
    where the claim does not hold any more. Where the answer to COMMIT is lost, the row is read again: it tells.
    """
    try:
        with transaction.atomic(using=database()):
            crashpoint("atomic_begun")
            token = _running_atomically.set(claim.row_id)
            try:
                outcome = function()
            finally:
                _running_atomically.reset(token)
            crashpoint("atomic_ran")
            finish_tool_call(claim, outcome)
            crashpoint("atomic_settled")
    except OperationalError as error:
        if not _is_passing(error):
            connections[database()].close()
        if not _has_outcome(claim):
            raise
    crashpoint("atomic_committed")


def _has_outcome(claim: Claim) -> bool:
    settled = ToolCall.objects.using(database()).filter(pk=claim.row_id, status=ToolCallStatus.COMPLETED)
    return settled.filter(fence=claim.fence + 1).exists()


@_arrow
def retry_tool_call(claim: Claim, *, delay_seconds: float, detail: str) -> None:
    """The attempt at the call failed and another may succeed: due again after ``delay_seconds``."""
    with _locked(claim.thread_id) as locked:
        call = _my_call(claim)
        call.error_detail = clean(detail)
        _give_back(locked, call, delay_seconds=delay_seconds, attempt=call.attempt + 1)
    _log("retry_tool_call", thread=claim.thread_id, tool_call=claim.row_id, attempt=claim.attempt)


def _my_call(claim: Claim) -> ToolCall:
    rows = ToolCall.objects.using(database()).select_for_update(no_key=True)
    call = rows.filter(pk=claim.row_id, fence=claim.fence, status=ToolCallStatus.RUNNING).first()
    if call is None:
        raise LeaseLostError(f"tool call {claim.row_id} (fence {claim.fence})")
    return call


def _settle(locked: _Locked, call: ToolCall, status: ToolCallStatus, *, code: str = "", error: str = "") -> None:
    call.status, call.error_code, call.error = status, code, clean(error)
    call.finished_at = locked.now
    call.lease_owner, call.lease_expires_at = "", None
    call.fence += 1
    call.rev = locked.thread.next_rev()
    call.save(using=database())


def _give_back(locked: _Locked, call: ToolCall, *, delay_seconds: float = 0, attempt: int, crashes: int = 0) -> None:
    """Make a held call due again; the change is no news to clients, who see it as not finished either way."""
    call.status, call.attempt, call.crashes = ToolCallStatus.PENDING, attempt, crashes
    call.available_at = locked.now + timedelta(seconds=delay_seconds)
    call.lease_owner, call.lease_expires_at = "", None
    call.fence += 1
    call.save(using=database())
    locked.pools.add(call.pool)


@_arrow
def release(claim: Claim) -> None:
    """Give a held row back, due now, the attempt not counted (drain, deploy). A lost claim: nothing.

    A tool that has begun may have had its effect, so what follows is what follows a crash: its declaration decides.
    """
    with _locked(claim.thread_id) as locked:
        try:
            if claim.kind == "stream":
                stream = _my_stream(claim)
                _supersede(locked, stream, attempt=stream.attempt, crashes=stream.crashes, reason="released")
            else:
                call = _my_call(claim)
                _after_crash(locked, call, crashes=call.crashes)
        except LeaseLostError:
            return
    _log("release", thread=claim.thread_id, fence=claim.fence, **{claim.kind: claim.row_id})


def _supersede(locked: _Locked, stream: Stream, *, attempt: int, crashes: int, reason: str) -> None:
    """A fresh attempt takes over; browsers are told to drop what the old one showed."""
    _abort(locked, stream, reason=reason)
    _add_stream(locked, _answer_of_next_attempt(locked, stream.message_id), attempt=attempt, crashes=crashes)


def reap(is_gone: Callable[[str], bool]) -> int:
    """End the leases of dead holders, those whose lease ran out or of whom ``is_gone(lease_owner)`` is true, and
    decide what follows. Rows that somebody locks are skipped. Returns how many were reaped."""
    using = database()
    expired = ExpressionWrapper(Q(lease_expires_at__lt=Now()), output_field=BooleanField())
    held: list[Any] = [
        *Stream.objects.using(using).held().annotate(expired=expired),
        *ToolCall.objects.using(using).held().annotate(expired=expired),
    ]
    dead = [(row, is_gone(row.lease_owner)) for row in held]
    return sum(_reap_one(row, is_gone=gone) for row, gone in dead if gone or row.expired)


@_arrow
def _reap_one(row: Stream | ToolCall, *, is_gone: bool) -> bool:
    try:
        with _locked(row.thread_id, skip_locked=True) as locked:
            held: Any = row.__class__._default_manager.using(database())
            still_dead = Q(lease_expires_at__lt=Now()) | Q(lease_owner=row.lease_owner if is_gone else "-")
            rows = held.select_for_update(no_key=True).filter(still_dead, pk=row.pk, fence=row.fence)
            current = rows.first()
            if isinstance(current, Stream) and current.state == StreamState.STREAMING:
                _reap_stream(locked, current)
            elif isinstance(current, ToolCall) and current.status == ToolCallStatus.RUNNING:
                _after_crash(locked, current, crashes=current.crashes + 1)
            else:
                return False
    except ThreadNotFoundError:
        return False
    _log("reap", thread=row.thread_id, fence=row.fence, row=row.pk, lease_owner=row.lease_owner)
    return True


def _reap_stream(locked: _Locked, stream: Stream) -> None:
    crashes = stream.crashes + 1
    if _is_hopeless(crashes):
        stream.error_code = ErrorKind.CRASHED.value
        _abort(locked, stream, reason="crashed")
        _fail_run(locked, ErrorKind.CRASHED)
    else:
        _supersede(locked, stream, attempt=stream.attempt, crashes=crashes, reason="crashed")


def _is_hopeless(crashes: int) -> bool:
    """Whether a row has killed too many of those that ran it alone: bystanders never come here."""
    return crashes - SUSPECT_CRASHES >= config().crash_limit


def _after_crash(locked: _Locked, call: ToolCall, *, crashes: int) -> None:
    """A tool whose worker went away in the middle runs again, fails or is unknown, as its declaration says."""
    declared = locked.agent.tools.get(call.tool_name) if locked.agent else None
    after_crash = "retry" if declared and declared.atomic else declared.after_crash if declared else "unknown"
    if after_crash == "retry" and not _is_hopeless(crashes):
        _give_back(locked, call, attempt=call.attempt, crashes=crashes)
        return
    status = ToolCallStatus.UNKNOWN if after_crash == "unknown" else ToolCallStatus.FAILED
    _settle(locked, call, status, code="crashed", error=_MAY_HAVE_RUN)
    advance(locked)


def suspects_wait(pools: Sequence[str], *, agents: Collection[str], tool_names: Collection[str]) -> bool:
    """Whether rows that have to run alone are due in these pools."""
    suspect = Q(crashes__gte=SUSPECT_CRASHES)
    return bool(_due(pools, agents=agents, tool_names=tool_names, wanted=suspect))


def blame(claim: Claim) -> None:
    """This row blocks its worker, which is about to end: from now on it runs alone."""
    model: Any = Stream if claim.kind == "stream" else ToolCall
    rows = model.objects.using(database()).held().filter(pk=claim.row_id, fence=claim.fence)
    rows.update(crashes=Greatest(F("crashes"), SUSPECT_CRASHES - 1))


def settle_unknown_code() -> int:
    """Settle, visibly, what has been due for the grace period without any worker that knows its agent or tool.

    Returns how many rows. Call it where the newest code runs: what this process knows is left alone.
    """
    grace = config().unknown_code_grace_seconds
    agents = [agent.name for agent in registry.all()]
    streams = Stream.objects.using(database()).overdue(grace).exclude(thread__agent__in=agents)
    calls = ToolCall.objects.using(database()).overdue(grace).exclude(tool_name__in=registry.tool_names())
    settled = [_settle_unknown(row) for row in [*streams, *calls]]
    return sum(settled)


@_arrow
def _settle_unknown(row: Stream | ToolCall) -> bool:
    try:
        with _locked(row.thread_id) as locked:
            manager: Any = row.__class__._default_manager.using(database())
            current = manager.select_for_update(no_key=True).filter(pk=row.pk, fence=row.fence).first()
            if isinstance(current, Stream) and current.state == StreamState.PENDING:
                current.error_detail = f"No worker knows the agent {locked.thread.agent!r}."
                _abort(locked, current, reason="error")
                _fail_run(locked, ErrorKind.UNKNOWN)
            elif isinstance(current, ToolCall) and current.status == ToolCallStatus.PENDING:
                text = f"The tool {current.tool_name!r} is not available any more."
                _settle(locked, current, ToolCallStatus.FAILED, code="tool_not_available", error=text)
                advance(locked)
            else:
                return False
    except ThreadNotFoundError:
        return False
    _log("settle_unknown_code", thread=row.thread_id, row=row.pk)
    return True


def ring_overdue(thread_ids: Collection[UUID], *, seconds: float) -> None:
    """Ring for rows of these threads that have been due for so long: somebody is watching, and nobody came."""
    using = database()
    streams = Stream.objects.using(using).overdue(seconds).filter(thread_id__in=thread_ids)
    calls = ToolCall.objects.using(using).overdue(seconds).filter(thread_id__in=thread_ids)
    pools = {*streams.values_list("pool", flat=True), *calls.values_list("pool", flat=True)}
    if pools:
        ring_workers(pools, using=using)


def has_open_work(pools: Sequence[str], *, agents: Collection[str], tool_names: Collection[str]) -> bool:
    """Whether rows are due now that a worker of these pools could claim."""
    return bool(_due(pools, agents=agents, tool_names=tool_names))


def prune() -> int:
    """Delete the deltas of closed streams, and answers to commands of yesterday. Returns how many deltas."""
    Command.objects.using(database()).filter(created_at__lt=seconds_from_now(-86_400)).delete()
    old = Delta.objects.using(database()).disposable().filter(stream__finished_at__lt=seconds_from_now(-60))
    return old.delete()[0]


def _log(action: str, **facts: Any) -> None:
    log(logging.INFO, action, action=action, **facts)

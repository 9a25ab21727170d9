"""Transitions of workers that do not lock the thread: claim due rows, extend their leases and append their deltas."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias
from uuid import UUID

from django.db import connections
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce, Greatest, Least, Now

from durable_agents.agents import Code
from durable_agents.conf import config
from durable_agents.exceptions import LeaseLostError
from durable_agents.lifecycle.statements import Values
from durable_agents.lifecycle.transaction import database, log_transition, only_row, transact, transition
from durable_agents.models import (
    DUE_SINCE,
    SUSPECT_CRASHES,
    Delta,
    Pool,
    Stream,
    StreamQuerySet,
    StreamState,
    ToolCall,
    ToolCallQuerySet,
    ToolCallStatus,
    due_for,
    fairly,
    next_state,
    seconds_from_now,
)
from durable_agents.parts import Chunk

RowKind = Literal["stream", "tool"]
DueRows: TypeAlias = StreamQuerySet | ToolCallQuerySet


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A worker's claim on a row. Every write to the row must present the ``fence`` of the claim."""

    kind: RowKind
    row_id: UUID
    thread_id: UUID
    fence: int
    attempt: int
    crashes: int
    agent: str
    clearances: int = 0
    """How often the row was a suspect (see ``is_suspect``) and survived its trial."""

    @property
    def is_suspect(self) -> bool:
        """Whether the row is a suspect: several workers died while they held it, so the row may be the cause. A suspect
        first has a trial run, in which its worker claims nothing else for a while.
        """
        return self.crashes >= SUSPECT_CRASHES


FEW_SUSPECTS = 8
TRIED_TOGETHER = 4
HURRIED_TRIALS = 3
"""The number of early trial runs of a suspect (a row that may have crashed its workers). If this many workers died
while they held only the suspect, the suspect no longer takes precedence over other rows. If the suspect has survived
this many trial runs, it is always tried alone.
"""
PATIENCE_SECONDS = 3
"""The number of seconds that a suspect (a row that may have crashed its workers) waits for an idle process."""


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """A rule for claiming suspects (rows that may have crashed their workers): which of them, and how many."""

    wanted: Q
    """The condition that selects the suspects."""
    is_alone: bool = True
    """Whether the rule is for a process that holds no other row. Only the death of such a process counts towards
    ``CRASH_LIMIT``.
    """
    of_few: int = 1
    """How many rows to claim if at most ``FEW_SUSPECTS`` are due."""
    of_many: int = 1
    """How many rows to claim if more than ``FEW_SUSPECTS`` are due."""

    def take(self, waiting: int) -> int:
        """Return how many suspects to claim when ``waiting`` suspects are due."""
        return self.of_many if waiting > FEW_SUSPECTS else self.of_few

    @staticmethod
    def choose(due: DueRows, limit: int) -> list[UUID]:
        """Return the primary keys of due suspects (rows that may have crashed their workers). Sort the suspects by the
        number of workers that died while they held only that suspect, lowest first. Return at most ``FEW_SUSPECTS`` + 1
        keys, which is enough to tell whether many suspects are due. Return an empty list if ``limit`` is 0.
        """
        ordered = due.order_by("lonely_crashes", DUE_SINCE.asc()).values_list("pk", flat=True)
        return list(ordered[: FEW_SUSPECTS + 1 if limit else 0])


_FIRST_ACCUSED = Q(crashes=SUSPECT_CRASHES, lonely_crashes=0, clearances__lt=HURRIED_TRIALS)
ANY_SUSPECT = Suspects(wanted=Q(crashes__gte=SUSPECT_CRASHES))
_TRIED = Q(crashes__gt=SUSPECT_CRASHES) | Q(lonely_crashes__gt=0) | Q(clearances__gte=HURRIED_TRIALS)
TRIED_BEFORE = Suspects(wanted=Q(crashes__gte=SUSPECT_CRASHES, lonely_crashes__lt=HURRIED_TRIALS) & _TRIED)
"""Suspects (rows that may have crashed their workers) that need another trial run. A row is selected if its worker died
in an earlier trial run, or if the row has survived at least ``HURRIED_TRIALS`` trial runs. A row is left out after
``HURRIED_TRIALS`` of its workers died while they held no other row.
"""
FIRST_ACCUSED = Suspects(wanted=_FIRST_ACCUSED, of_many=TRIED_TOGETHER)
"""Suspects that have not had a trial run since they became suspects. A suspect is a row that two workers held when they
died, so the row may be the cause. If many suspects are due, most of them are probably harmless: another row of the same
workers was the cause. Several suspects are therefore tried together in one process. If that process dies too, each
suspect is tried alone.
"""
CROWD = Suspects(wanted=_FIRST_ACCUSED, is_alone=False, of_few=0, of_many=TRIED_TOGETHER)
"""The suspects of ``FIRST_ACCUSED``, for a process that also holds other rows. Such a process claims suspects (rows
that may have crashed their workers) only if more than ``FEW_SUSPECTS`` are due.
"""


def impatient() -> Suspects:
    """Return the rule for a process that holds other rows: claim the suspects that have waited too long for an idle
    process. A suspect is a row that may have crashed its workers. If a worker died while it held only the suspect, the
    suspect is left out.
    """
    first = _FIRST_ACCUSED & due_for(PATIENCE_SECONDS)
    again = Q(crashes=SUSPECT_CRASHES + 1, lonely_crashes=0) & due_for(2 * PATIENCE_SECONDS)
    return Suspects(wanted=first | again, is_alone=False, of_few=TRIED_TOGETHER, of_many=TRIED_TOGETHER)


@dataclass(frozen=True, kw_only=True)
class Append:
    """A delta to store: the chunks at position ``seq`` of the stream that ``claim`` holds."""

    claim: Claim
    seq: int
    chunks: Sequence[Chunk]


def ensure_pools() -> None:
    """Create or update one row for each pool in the settings. A claim locks these rows to enforce the limits."""
    # "No limit" is stored as the largest number, which workers of earlier releases understand too.
    pools = [Pool(name=name, limit=pool.limit or Pool.NO_LIMIT) for name, pool in sorted(config().pools.items())]
    Pool.objects.using(database()).bulk_create(
        pools, update_conflicts=True, unique_fields=["name"], update_fields=["limit"]
    )


@transition
def claim(
    *,
    pools: Sequence[str],
    holder: str,
    streams: int,
    tools: int,
    code: Code,
    suspects: Suspects | bool = False,
) -> list[Claim]:
    """Claim due rows of these pools and return the claims: at most ``streams`` model steps and ``tools`` tool calls.
    Scopes and owners take turns. Only rows of agents and tools in ``code`` are claimed, because this worker does not
    know any others. No pool ever has more held rows than its limit.

    By default, suspects (rows that may have crashed their earlier workers) are left out. If ``suspects`` is a rule,
    only the suspects that the rule selects are claimed. True selects one suspect of any kind; in that case, the caller
    must not hold other rows.
    """
    which = ANY_SUSPECT if suspects is True else suspects or None
    due = _Due(code=code, wanted=which.wanted if which else Q(crashes__lt=SUSPECT_CRASHES))
    queues = due.queues(pools)
    if not queues:
        return []
    slots = {"tool": tools, "stream": streams}
    choose = which.choose if which else fairly
    # Choose without locks, because idle workers must not lock rows. ``_win`` checks the rows again, under their locks.
    chosen = [(pool, kind, choose(due.rows(kind, pool), slots[kind])) for pool, kind, _ in queues]
    most = which.take(sum(len(ids) for *_, ids in chosen)) if which else tools + streams
    # If a process tries several suspects and dies, it is not clear which of them was the cause. Only the death of a
    # process with a single suspect counts.
    is_alone = which is not None and which.is_alone and most == 1
    if not most:
        return []
    won: list[Claim] = []
    with transact():
        free = _free_of({pool for pool, *_ in queues}, limited={pool for pool, _, limit in queues if limit}, most=most)
        for pool, kind, ids in chosen:
            limit = min(free[pool], slots[kind], most - len(won))
            claims = _win(due.rows(kind, pool), ids[: max(limit, 0)], holder, kind=kind, is_alone=is_alone)
            free[pool] -= len(claims)
            slots[kind] -= len(claims)
            won += claims
    for item in won:
        log_transition(
            "claim", thread=item.thread_id, fence=item.fence, attempt=item.attempt, **{item.kind: item.row_id}
        )
    return won


@dataclass(frozen=True, kw_only=True)
class _Due:
    """The queries for rows that a worker with this code could claim now."""

    code: Code
    wanted: Q = field(default_factory=Q)

    def rows(self, kind: RowKind, pool: str | OuterRef) -> DueRows:
        """Return the due rows of one pool. The rows that have been due longest come first."""
        using = database()
        if kind == "tool":
            return ToolCall.objects.using(using).due(pool, self.code).filter(self.wanted)
        return Stream.objects.using(using).due(pool, self.code).filter(self.wanted)

    def queues(self, pools: Collection[str]) -> list[tuple[str, RowKind, bool]]:
        """Return one tuple for each pool and kind of row that has due rows: the pool, the kind, and whether the pool
        has a limit. This takes one query and no locks, so that idle workers write nothing.
        """
        connection = connections[database()]
        sql, parameters = _queues_statement(
            _Frozen(self.code), self.wanted, tuple(sorted(pools)), connection.alias, connection.vendor
        )
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return [
                (name, kind, limit < Pool.NO_LIMIT)
                for name, limit, *have in cursor.fetchall()
                for kind, has in zip(_KINDS, have, strict=True)
                if has
            ]


_KINDS: tuple[RowKind, RowKind] = ("tool", "stream")


class _Frozen(dict[str, Collection[str]]):
    """The ``code`` that a worker knows, made hashable so that it can be the key of a cache."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))


@lru_cache(maxsize=64)
def _queues_statement(code: _Frozen, wanted: Q, pools: Sequence[str], using: str, vendor: str) -> tuple[str, Values]:
    """Return the SQL statement of ``_Due.queues``. The statement is cached, because every worker runs it several times
    a second, and Django would build it anew each time.
    """
    due = _Due(code=code, wanted=wanted)
    known = Pool.objects.using(using).filter(name__in=pools).order_by("name").values_list("name", "limit")
    # The result is read by position, so the annotations must have the order of ``_KINDS``.
    queues = known.annotate(tool=Exists(due.rows("tool", OuterRef("name")))).annotate(
        stream=Exists(due.rows("stream", OuterRef("name")))
    )
    sql, parameters = queues.query.get_compiler(using=using).as_sql()
    return sql, parameters


def _free_of(pools: Collection[str], *, limited: Collection[str], most: int) -> dict[str, int]:
    """For each pool, return how many more rows workers may hold. For a pool without a limit, the value is ``most``.
    Lock the rows of the ``limited`` pools first, and count their held rows in a separate statement. A single statement
    would have to wait for the lock, and would count the rows that were held before the wait.
    """
    free = dict.fromkeys(pools, most)
    if not limited:
        return free
    rows = Pool.objects.using(database()).filter(name__in=limited)
    list(rows.select_for_update().order_by("name").values_list("pk"))
    counted = rows.annotate(streams=_live_leases(Stream), calls=_live_leases(ToolCall))
    return free | {row.name: row.limit - row.streams - row.calls for row in counted}


def _live_leases(model: type[Stream | ToolCall]) -> Coalesce:
    alive = model.objects.held().filter(pool=OuterRef("name"), lease_expires_at__gt=Now()).order_by()
    return Coalesce(Subquery(alive.values("pool").annotate(number=Count("pk")).values("number")), 0)


def _win(due: DueRows, ids: Sequence[UUID], holder: str, *, kind: RowKind, is_alone: bool) -> list[Claim]:
    """Of the rows with these ids, claim those that are still due and not locked. Return the claims."""
    if not ids:
        return []
    columns = ("fence", "attempt", "crashes", "clearances", "thread_id", "thread__agent")
    locked = due.order_by("pk").filter(pk__in=ids).select_for_update(skip_locked=True, of=("self",))
    won = [
        Claim(
            kind=kind,
            row_id=row["pk"],
            thread_id=row["thread_id"],
            agent=row["thread__agent"],
            fence=row["fence"] + 1,
            attempt=row["attempt"],
            crashes=row["crashes"],
            clearances=row["clearances"],
        )
        for row in locked.values("pk", *columns)
    ]
    lease = {"is_alone": is_alone, "lease_owner": holder, "lease_expires_at": seconds_from_now(config().lease_seconds)}
    changes = (
        {"state": next_state(StreamState.PENDING, StreamState.STREAMING), "started_at": Now()}
        if kind == "stream"
        else {"status": next_state(ToolCallStatus.PENDING, ToolCallStatus.RUNNING), "expires_at": Now() + F("timeout")}
    )
    rows = due.model.objects.using(database()).filter(pk__in=[claim.row_id for claim in won])
    # Every claim increments the fence, so that a late write by an earlier worker matches no row.
    rows.update(fence=F("fence") + 1, **lease, **changes)
    return won


@transition
def append_deltas(batch: Sequence[Append]) -> tuple[set[UUID], set[UUID]]:
    """Store deltas of many streams in one transaction. Return two sets of stream ids: the streams whose deltas were
    stored, and the streams that were lost.

    A stream in neither set is locked by another transaction: pass the same delta again later. A lost stream is closed,
    or another worker holds it: stop working on it.
    """
    with transact():
        # This does not lock the thread. A row that another transaction has locked is skipped, and its deltas are passed
        # again later.
        rows = Stream.objects.using(database()).held().filter(pk__in=[item.claim.row_id for item in batch])
        unlocked = rows.select_for_update(skip_locked=True, no_key=True).order_by("pk")
        held = dict(unlocked.values_list("pk", "fence"))
        mine = [item for item in batch if held.get(item.claim.row_id) == item.claim.fence]
        Delta.objects.using(database()).bulk_create(
            [Delta(stream_id=item.claim.row_id, seq=item.seq, chunks=list(item.chunks)) for item in mine]
        )
    stored = {item.claim.row_id for item in mine}
    return stored, lost_claims([item.claim for item in batch if item.claim.row_id not in stored])


def lost_claims(claims: Sequence[Claim]) -> set[UUID]:
    """Return the row ids of the claims that were lost. This takes no locks."""
    using = database()
    streams = Stream.objects.using(using).held().filter(pk__in=[c.row_id for c in claims if c.kind == "stream"])
    calls = ToolCall.objects.using(using).held().filter(pk__in=[c.row_id for c in claims if c.kind == "tool"])
    fences = dict(streams.values_list("pk", "fence")) | dict(calls.values_list("pk", "fence"))
    return {item.row_id for item in claims if fences.get(item.row_id) != item.fence}


def leased_to(holder: str) -> list[Claim]:
    """Return the claims of all rows that are leased to this holder now. This takes no locks."""
    kinds: list[tuple[RowKind, type[Stream | ToolCall]]] = [("stream", Stream), ("tool", ToolCall)]
    columns = ("thread_id", "thread__agent", "fence", "attempt", "crashes")
    return [
        Claim(kind=kind, row_id=pk, thread_id=thread_id, agent=agent, fence=fence, attempt=attempt, crashes=crashes)
        for kind, model in kinds
        for pk, thread_id, agent, fence, attempt, crashes in model.objects.using(database())
        .held()
        .filter(lease_owner=holder, lease_expires_at__gt=Now())
        .values_list("pk", *columns)
    ]


@transition
def heartbeat(claims: Sequence[Claim]) -> set[UUID]:
    """Extend the leases of these claims. Return the row ids of the claims that were lost."""
    with transact():
        _extend(Stream.objects.using(database()).held(), claims)
        _extend(ToolCall.objects.using(database()).held(), claims)
    return lost_claims(claims)


def _extend(held: DueRows, claims: Sequence[Claim]) -> None:
    """Extend the leases of these claims. A row that another transaction has locked is left for the next heartbeat."""
    fences = {item.row_id: item.fence for item in claims}
    rows = held.filter(pk__in=fences).select_for_update(skip_locked=True, no_key=True).values_list("pk", "fence")
    mine = [pk for pk, fence in rows if fences[pk] == fence]
    held.filter(pk__in=mine).update(lease_expires_at=seconds_from_now(config().lease_seconds))


def held_stream(claim: Claim) -> Stream:
    """Return the attempt that this claim holds, and lock its row. Raises LeaseLostError if the claim was lost."""
    rows = Stream.objects.using(database()).select_for_update(no_key=True)
    stream = only_row(rows.filter(pk=claim.row_id, fence=claim.fence, state=StreamState.STREAMING))
    if stream is None:
        raise LeaseLostError(f"stream {claim.row_id} (fence {claim.fence})")
    return stream


def held_call(claim: Claim) -> ToolCall:
    """Return the tool call that this claim holds, and lock its row. Raises LeaseLostError if the claim was lost."""
    rows = ToolCall.objects.using(database()).select_for_update(no_key=True)
    call = only_row(rows.filter(pk=claim.row_id, fence=claim.fence, status=ToolCallStatus.RUNNING))
    if call is None:
        raise LeaseLostError(f"tool call {claim.row_id} (fence {claim.fence})")
    return call


@transition
def clear(claim: Claim) -> None:
    """Record that a suspect (a row that may have crashed its workers) survived its trial run, so that its worker may
    hold other rows too. After the second survived trial run, a single crash makes the row a suspect again.
    """
    with transact():
        rows = _model_of(claim).objects.using(database()).held().filter(pk=claim.row_id, fence=claim.fence)
        crashes = Least(F("clearances"), SUSPECT_CRASHES - 1)
        rows.update(crashes=crashes, is_alone=False, clearances=F("clearances") + 1)
    log_transition("clear", thread=claim.thread_id, fence=claim.fence, **{claim.kind: claim.row_id})


def _model_of(claim: Claim) -> type[Stream | ToolCall]:
    return Stream if claim.kind == "stream" else ToolCall


def suspects_wait(pools: Sequence[str], *, code: Code) -> bool:
    """Return whether suspects (rows that may have crashed their workers) are due in these pools."""
    suspect = Q(crashes__gte=SUSPECT_CRASHES)
    return bool(_Due(code=code, wanted=suspect).queues(pools))


def blame(claim: Claim) -> None:
    """Record that this row blocks the event loop of its worker. The worker is about to exit. Its death will make the
    row a suspect (a row that may have crashed its workers).
    """
    rows = _model_of(claim).objects.using(database()).held().filter(pk=claim.row_id, fence=claim.fence)
    rows.update(crashes=Greatest(F("crashes"), SUSPECT_CRASHES - 1))


def has_open_work(pools: Sequence[str], *, code: Code) -> bool:
    """Return whether any row is due that a worker of these pools could claim now."""
    return bool(_Due(code=code).queues(pools))

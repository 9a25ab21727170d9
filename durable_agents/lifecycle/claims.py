"""Transitions of workers without the thread's lock: claim due rows, extend their leases, append their deltas."""

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
    """A row that this worker holds; every write must present its ``fence``."""

    kind: RowKind
    row_id: UUID
    thread_id: UUID
    fence: int
    attempt: int
    crashes: int
    agent: str
    clearances: int = 0
    """How often the row was a suspect and survived its trial."""

    @property
    def is_suspect(self) -> bool:
        """Whether the row may have crashed its earlier holders, so that it has to start alone."""
        return self.crashes >= SUSPECT_CRASHES


FEW_SUSPECTS = 8
TRIED_TOGETHER = 4
HURRIED_TRIALS = 3
"""A suspect that was held alone at this many crashes no longer takes precedence over other rows. One that was cleared
this many times is tried alone, however many suspects are due."""
PATIENCE_SECONDS = 3
"""How long a suspect waits for a process that holds nothing else."""


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """Which suspects (rows that may have crashed their holders) to claim, and how many."""

    wanted: Q
    """The condition of these rows."""
    is_alone: bool = True
    """Whether the process holds no other row, so that its death counts to ``CRASH_LIMIT``."""
    of_few: int = 1
    """Rows per claim while at most ``FEW_SUSPECTS`` are due."""
    of_many: int = 1
    """Rows per claim while more are due."""

    def take(self, waiting: int) -> int:
        """Return how many rows to claim if ``waiting`` suspects are due."""
        return self.of_many if waiting > FEW_SUSPECTS else self.of_few

    @staticmethod
    def choose(due: DueRows, limit: int) -> list[UUID]:
        """Return primary keys, ordered by how often the row has crashed while it was held alone. Return at most one
        more than ``FEW_SUSPECTS``, which shows whether many are due, and none if ``limit`` is 0.
        """
        ordered = due.order_by("lonely_crashes", DUE_SINCE.asc()).values_list("pk", flat=True)
        return list(ordered[: FEW_SUSPECTS + 1 if limit else 0])


_FIRST_ACCUSED = Q(crashes=SUSPECT_CRASHES, lonely_crashes=0, clearances__lt=HURRIED_TRIALS)
ANY_SUSPECT = Suspects(wanted=Q(crashes__gte=SUSPECT_CRASHES))
_TRIED = Q(crashes__gt=SUSPECT_CRASHES) | Q(lonely_crashes__gt=0) | Q(clearances__gte=HURRIED_TRIALS)
TRIED_BEFORE = Suspects(wanted=Q(crashes__gte=SUSPECT_CRASHES, lonely_crashes__lt=HURRIED_TRIALS) & _TRIED)
"""Rows whose holder died during their trial, or that were cleared several times."""
FIRST_ACCUSED = Suspects(wanted=_FIRST_ACCUSED, of_many=TRIED_TOGETHER)
"""Rows whose holders died twice, without a trial since. If many are due, most were only held together with others
when their workers were killed: some are tried together, and if that process dies, each is tried alone."""
CROWD = Suspects(wanted=_FIRST_ACCUSED, is_alone=False, of_few=0, of_many=TRIED_TOGETHER)
"""The same for a process that holds other rows."""


def impatient() -> Suspects:
    """Select, for a process that holds other rows, suspects that have waited too long for an idle process. A row whose
    holder died while it held nothing else is left out.
    """
    first = _FIRST_ACCUSED & due_for(PATIENCE_SECONDS)
    again = Q(crashes=SUSPECT_CRASHES + 1, lonely_crashes=0) & due_for(2 * PATIENCE_SECONDS)
    return Suspects(wanted=first | again, is_alone=False, of_few=TRIED_TOGETHER, of_many=TRIED_TOGETHER)


@dataclass(frozen=True, kw_only=True)
class Append:
    """One delta to store: chunks of the stream that ``claim`` holds, at ``seq``."""

    claim: Claim
    seq: int
    chunks: Sequence[Chunk]


def ensure_pools() -> None:
    """Create or update the pool rows from the settings; claims lock them and obey their limits."""
    # "No limit" is the largest number: workers of earlier releases understand it too.
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
    """Claim at most ``streams`` due model steps and ``tools`` due tool calls of these pools, of code that this worker
    knows, round-robin over scopes and owners. No pool ever has more rows held than its limit.

    Rows whose holders died before are left out. With ``suspects``, these are claimed and nothing else; True means one
    of any kind, and the caller must hold no other row. Returns the claims, or an empty list.
    """
    which = ANY_SUSPECT if suspects is True else suspects or None
    due = _Due(code=code, wanted=which.wanted if which else Q(crashes__lt=SUSPECT_CRASHES))
    queues = due.queues(pools)
    if not queues:
        return []
    slots = {"tool": tools, "stream": streams}
    choose = which.choose if which else fairly
    # Chosen without locks, which idle workers must not take: ``_win`` looks again, under the locks of the rows.
    chosen = [(pool, kind, choose(due.rows(kind, pool), slots[kind])) for pool, kind, _ in queues]
    most = which.take(sum(len(ids) for *_, ids in chosen)) if which else tools + streams
    # The death of a process that tries several suspects says nothing about one of them, and does not count.
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
    """Query the rows that a worker with this code could claim now."""

    code: Code
    wanted: Q = field(default_factory=Q)

    def rows(self, kind: RowKind, pool: str | OuterRef) -> DueRows:
        """Return the due rows of one pool, the longest due first."""
        using = database()
        if kind == "tool":
            return ToolCall.objects.using(using).due(pool, self.code).filter(self.wanted)
        return Stream.objects.using(using).due(pool, self.code).filter(self.wanted)

    def queues(self, pools: Collection[str]) -> list[tuple[str, RowKind, bool]]:
        """Return the pools and kinds that have due rows, and whether the pool has a limit. Takes no locks, so that idle
        workers write nothing. One query.
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
    """Code as the key of a cache."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))


@lru_cache(maxsize=64)
def _queues_statement(code: _Frozen, wanted: Q, pools: Sequence[str], using: str, vendor: str) -> tuple[str, Values]:
    """Return the statement that every worker repeats several times a second: Django would build it anew each time."""
    due = _Due(code=code, wanted=wanted)
    known = Pool.objects.using(using).filter(name__in=pools).order_by("name").values_list("name", "limit")
    # In the order of _KINDS.
    queues = known.annotate(tool=Exists(due.rows("tool", OuterRef("name")))).annotate(
        stream=Exists(due.rows("stream", OuterRef("name")))
    )
    sql, parameters = queues.query.get_compiler(using=using).as_sql()
    return sql, parameters


def _free_of(pools: Collection[str], *, limited: Collection[str], most: int) -> dict[str, int]:
    """Return how many more rows of these pools may be held, ``most`` where a pool has no limit, and lock the rows of
    those with a limit. Their held rows are counted by a separate statement: one that waited for the lock would count
    what was held before.
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
    """Return those of these rows that are still due and not locked."""
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
    # The fence rises with every claim: what an earlier holder still writes finds no row.
    rows.update(fence=F("fence") + 1, **lease, **changes)
    return won


@transition
def append_deltas(batch: Sequence[Append]) -> tuple[set[UUID], set[UUID]]:
    """Store deltas of many streams in one transaction. Returns (stored, lost) stream ids.

    A stream in neither is locked by another transaction: offer the same delta again. A lost stream has another holder
    or is settled: stop working on it.
    """
    with transact():
        # Without the thread's lock: a row that another transaction holds is skipped, its deltas come again.
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
    """Return the row ids of those claims that were lost. Takes no locks."""
    using = database()
    streams = Stream.objects.using(using).held().filter(pk__in=[c.row_id for c in claims if c.kind == "stream"])
    calls = ToolCall.objects.using(using).held().filter(pk__in=[c.row_id for c in claims if c.kind == "tool"])
    fences = dict(streams.values_list("pk", "fence")) | dict(calls.values_list("pk", "fence"))
    return {item.row_id for item in claims if fences.get(item.row_id) != item.fence}


def leased_to(holder: str) -> list[Claim]:
    """Return the rows under a lease of this holder that has not expired. Takes no locks."""
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
    """Extend the leases of all these rows. Returns the row ids of those that were lost."""
    with transact():
        _extend(Stream.objects.using(database()).held(), claims)
        _extend(ToolCall.objects.using(database()).held(), claims)
    return lost_claims(claims)


def _extend(held: DueRows, claims: Sequence[Claim]) -> None:
    """Extend leases; rows that another transaction has locked are left for the next heartbeat."""
    fences = {item.row_id: item.fence for item in claims}
    rows = held.filter(pk__in=fences).select_for_update(skip_locked=True, no_key=True).values_list("pk", "fence")
    mine = [pk for pk, fence in rows if fences[pk] == fence]
    held.filter(pk__in=mine).update(lease_expires_at=seconds_from_now(config().lease_seconds))


def held_stream(claim: Claim) -> Stream:
    rows = Stream.objects.using(database()).select_for_update(no_key=True)
    stream = only_row(rows.filter(pk=claim.row_id, fence=claim.fence, state=StreamState.STREAMING))
    if stream is None:
        raise LeaseLostError(f"stream {claim.row_id} (fence {claim.fence})")
    return stream


def held_call(claim: Claim) -> ToolCall:
    rows = ToolCall.objects.using(database()).select_for_update(no_key=True)
    call = only_row(rows.filter(pk=claim.row_id, fence=claim.fence, status=ToolCallStatus.RUNNING))
    if call is None:
        raise LeaseLostError(f"tool call {claim.row_id} (fence {claim.fence})")
    return call


@transition
def clear(claim: Claim) -> None:
    """Record that a suspect survived its trial, so that it runs together with other rows again. After its second
    clearance a single crash makes it a suspect again.
    """
    with transact():
        rows = _model_of(claim).objects.using(database()).held().filter(pk=claim.row_id, fence=claim.fence)
        crashes = Least(F("clearances"), SUSPECT_CRASHES - 1)
        rows.update(crashes=crashes, is_alone=False, clearances=F("clearances") + 1)
    log_transition("clear", thread=claim.thread_id, fence=claim.fence, **{claim.kind: claim.row_id})


def _model_of(claim: Claim) -> type[Stream | ToolCall]:
    return Stream if claim.kind == "stream" else ToolCall


def suspects_wait(pools: Sequence[str], *, code: Code) -> bool:
    """Whether rows that have to run alone are due in these pools."""
    suspect = Q(crashes__gte=SUSPECT_CRASHES)
    return bool(_Due(code=code, wanted=suspect).queues(pools))


def blame(claim: Claim) -> None:
    """Record that this row blocks its worker, which is about to end: from now on the row starts alone."""
    rows = _model_of(claim).objects.using(database()).held().filter(pk=claim.row_id, fence=claim.fence)
    rows.update(crashes=Greatest(F("crashes"), SUSPECT_CRASHES - 1))


def has_open_work(pools: Sequence[str], *, code: Code) -> bool:
    """Whether rows are due now that a worker of these pools could claim."""
    return bool(_Due(code=code).queues(pools))

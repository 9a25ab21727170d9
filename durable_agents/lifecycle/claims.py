"""Transitions of workers that do not lock the thread: claim due rows, extend leases, and append streamed text."""

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
    """A worker's claim on a row. Each write to the row compares the claim's ``fence`` (the fencing token) with the
    row's ``fence``. If they differ, the worker no longer holds the row, and the write changes nothing.
    """

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
        """Whether this row is a suspect (a row whose earlier workers died). The next run of a suspect is a trial."""
        return self.crashes >= SUSPECT_CRASHES


FEW_SUSPECTS = 8
TRIED_TOGETHER = 4
HURRIED_TRIALS = 3
"""A number that two rules for suspects (rows whose earlier workers died) use.

- A suspect that was the only row of this many dead workers is no longer claimed before other rows.
- A suspect that has survived this many trials runs alone in all later trials.
"""
PATIENCE_SECONDS = 3
"""How many seconds a suspect (a row whose earlier workers died) waits for an idle process."""


@dataclass(frozen=True, kw_only=True)
class SuspectRule:
    """Which suspects (rows whose earlier workers died) a worker may claim, and how many."""

    wanted: Q
    """The condition that selects the suspects."""
    is_alone: bool = True
    """Whether the rule is for a process that holds no other row. A death counts towards ``CRASH_LIMIT`` only if the
    dead process held a single row.
    """
    limit_if_few: int = 1
    """The number of rows to claim if at most ``FEW_SUSPECTS`` of them are due."""
    limit_if_many: int = 1
    """The number of rows to claim if more than ``FEW_SUSPECTS`` of them are due."""

    def take(self, waiting: int) -> int:
        """Return how many of the due rows to claim. ``waiting`` is the number of due rows."""
        return self.limit_if_many if waiting > FEW_SUSPECTS else self.limit_if_few

    @staticmethod
    def choose(due: DueRows, limit: int) -> list[UUID]:
        """Return the primary keys of suspects (rows whose earlier workers died) that are due.

        Suspects with the lowest ``lonely_crashes`` come first. This field counts the workers that died while the
        suspect was their only row. At most ``FEW_SUSPECTS`` + 1 keys are returned. If ``limit`` is 0, the list is
        empty.
        """
        ordered = due.order_by("lonely_crashes", DUE_SINCE.asc()).values_list("pk", flat=True)
        return list(ordered[: FEW_SUSPECTS + 1 if limit else 0])


_NEW_SUSPECTS = Q(crashes=SUSPECT_CRASHES, lonely_crashes=0, clearances__lt=HURRIED_TRIALS)
ANY_SUSPECT = SuspectRule(wanted=Q(crashes__gte=SUSPECT_CRASHES))
_TRIED = Q(crashes__gt=SUSPECT_CRASHES) | Q(lonely_crashes__gt=0) | Q(clearances__gte=HURRIED_TRIALS)
TRIED_BEFORE = SuspectRule(wanted=Q(crashes__gte=SUSPECT_CRASHES, lonely_crashes__lt=HURRIED_TRIALS) & _TRIED)
"""Suspects (rows whose earlier workers died) that must run alone in their next trial.

- Selected: suspects whose worker died in an earlier trial, and suspects that survived ``HURRIED_TRIALS`` trials.
- Left out: suspects that were the only row of ``HURRIED_TRIALS`` dead workers.
"""
NEW_SUSPECTS = SuspectRule(wanted=_NEW_SUSPECTS, limit_if_many=TRIED_TOGETHER)
"""Suspects (rows whose earlier workers died) that have not had a trial since they became suspects.

If many suspects are due, most of them are probably harmless: another row of the same workers was the cause. Several
suspects are therefore tried together in one process. If this process dies too, each suspect is tried alone.
"""
MANY_NEW_SUSPECTS = SuspectRule(wanted=_NEW_SUSPECTS, is_alone=False, limit_if_few=0, limit_if_many=TRIED_TOGETHER)
"""A rule for a process that also holds other rows. If more than ``FEW_SUSPECTS`` suspects (rows whose earlier workers
died) of ``NEW_SUSPECTS`` are due, the process claims up to ``TRIED_TOGETHER`` of them. Otherwise, it claims none.
"""


def impatient() -> SuspectRule:
    """Return the rule for suspects (rows whose earlier workers died) that have waited too long for an idle process. A
    process may claim these suspects while it holds other rows.

    Suspects that were the only row of a dead worker are left out.
    """
    first = _NEW_SUSPECTS & due_for(PATIENCE_SECONDS)
    again = Q(crashes=SUSPECT_CRASHES + 1, lonely_crashes=0) & due_for(2 * PATIENCE_SECONDS)
    return SuspectRule(wanted=first | again, is_alone=False, limit_if_few=TRIED_TOGETHER, limit_if_many=TRIED_TOGETHER)


@dataclass(frozen=True, kw_only=True)
class Append:
    """Streamed chunks to store at position ``seq`` of the model call that ``claim`` holds."""

    claim: Claim
    seq: int
    chunks: Sequence[Chunk]


def ensure_pools() -> None:
    """Create or update one database row for each pool in the settings. Claims lock these rows to enforce the limits of
    the pools.
    """
    # Store "no limit" as a very large number, because workers of earlier releases expect a number.
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
    suspects: SuspectRule | bool = False,
) -> list[Claim]:
    """Claim rows of these pools that are due. Return at most ``streams`` claims of model calls and ``tools`` claims of
    tool calls.

    Owners take turns, and so do the scopes of visitors. Only rows of agents and tools in ``code`` are claimed, because
    the worker knows no others. No pool exceeds its limit of held rows.

    The argument ``suspects`` is about suspects (rows whose earlier workers died):

    - False: no suspects are claimed.
    - A rule: only suspects that match the rule are claimed.
    - True: one suspect is claimed, and no other row. The caller must hold no rows.
    """
    which = ANY_SUSPECT if suspects is True else suspects or None
    due = _Due(code=code, wanted=which.wanted if which else Q(crashes__lt=SUSPECT_CRASHES))
    queues = due.queues(pools)
    if not queues:
        return []
    slots = {"tool": tools, "stream": streams}
    choose = which.choose if which else fairly
    # Choose without locks, because workers with nothing to do must not lock rows. ``_win`` checks the chosen rows again
    # under their locks.
    chosen = [(pool, kind, choose(due.rows(kind, pool), slots[kind])) for pool, kind, _ in queues]
    most = which.take(sum(len(ids) for *_, ids in chosen)) if which else tools + streams
    # If a process dies while it holds only one suspect, the death counts towards the ``CRASH_LIMIT`` of this row. If
    # the process holds several suspects, any of them may be the cause, so the death does not count.
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
    """Queries for the rows that a worker can claim now."""

    code: Code
    wanted: Q = field(default_factory=Q)

    def rows(self, kind: RowKind, pool: str | OuterRef) -> DueRows:
        """Return the due rows of one pool. The row that has waited longest comes first."""
        using = database()
        if kind == "tool":
            return ToolCall.objects.using(using).due(pool, self.code).filter(self.wanted)
        return Stream.objects.using(using).due(pool, self.code).filter(self.wanted)

    def queues(self, pools: Collection[str]) -> list[tuple[str, RowKind, bool]]:
        """Return what is due in these pools, as tuples: the pool, the kind of row, and whether the pool has a limit.

        This is one query, and it locks no rows. Every worker runs the query several times a second, and locking a row
        would write to the database each time.
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
    """A hashable dict of the agents and tools that a worker knows, for use as a cache key."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))


@lru_cache(maxsize=64)
def _queues_statement(code: _Frozen, wanted: Q, pools: Sequence[str], using: str, vendor: str) -> tuple[str, Values]:
    """Return the SQL and the parameters of ``_Due.queues``. The result is cached, because every worker runs this query
    several times a second.
    """
    due = _Due(code=code, wanted=wanted)
    known = Pool.objects.using(using).filter(name__in=pools).order_by("name").values_list("name", "limit")
    # The result columns are read by position, so the annotations must be in the order of ``_KINDS``.
    queues = known.annotate(tool=Exists(due.rows("tool", OuterRef("name")))).annotate(
        stream=Exists(due.rows("stream", OuterRef("name")))
    )
    sql, parameters = queues.query.get_compiler(using=using).as_sql()
    return sql, parameters


def _free_of(pools: Collection[str], *, limited: Collection[str], most: int) -> dict[str, int]:
    """Return how many more rows workers may hold in each pool. For a pool without a limit, the number is ``most``.

    First lock the ``Pool`` rows of the ``limited`` pools. Then count in a second statement how many rows workers hold
    in these pools. A single statement would count before it waits for the lock, so its count could be too low.
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
    """Claim those of the given rows that are still due and not locked. Return the claims."""
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
    # Every claim increments the fence, so that late writes of an earlier worker match no row.
    rows.update(fence=F("fence") + 1, **lease, **changes)
    return won


@transition
def append_deltas(batch: Sequence[Append]) -> tuple[set[UUID], set[UUID]]:
    """Store the chunks of many model calls in one transaction. Return two sets of stream ids: stored and lost.

    A lost stream is closed or held by another worker: stop working on it. A stream in neither set is locked by another
    transaction: pass the same chunks again later.
    """
    with transact():
        # Do not lock the thread. Skip rows that another transaction has locked; the caller passes their chunks again
        # later.
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
    """Return the row ids of those claims that this worker has lost. No rows are locked."""
    using = database()
    streams = Stream.objects.using(using).held().filter(pk__in=[c.row_id for c in claims if c.kind == "stream"])
    calls = ToolCall.objects.using(using).held().filter(pk__in=[c.row_id for c in claims if c.kind == "tool"])
    fences = dict(streams.values_list("pk", "fence")) | dict(calls.values_list("pk", "fence"))
    return {item.row_id for item in claims if fences.get(item.row_id) != item.fence}


def leased_to(holder: str) -> list[Claim]:
    """Return a claim for each row that this worker holds now. No rows are locked."""
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
    """Extend the leases of these claims. Return the row ids of the claims that this worker has lost."""
    with transact():
        _extend(Stream.objects.using(database()).held(), claims)
        _extend(ToolCall.objects.using(database()).held(), claims)
    return lost_claims(claims)


def _extend(held: DueRows, claims: Sequence[Claim]) -> None:
    """Extend the leases of these claims. Skip rows that another transaction has locked; the next heartbeat extends
    them.
    """
    fences = {item.row_id: item.fence for item in claims}
    rows = held.filter(pk__in=fences).select_for_update(skip_locked=True, no_key=True).values_list("pk", "fence")
    mine = [pk for pk, fence in rows if fences[pk] == fence]
    held.filter(pk__in=mine).update(lease_expires_at=seconds_from_now(config().lease_seconds))


def held_stream(claim: Claim) -> Stream:
    """Lock and return the model call that this worker has claimed. Raises LeaseLostError if the worker no longer holds
    it. After its lease has expired, a worker still holds the row until another process takes the row over.
    """
    rows = Stream.objects.using(database()).select_for_update(no_key=True)
    stream = only_row(rows.filter(pk=claim.row_id, fence=claim.fence, state=StreamState.STREAMING))
    if stream is None:
        raise LeaseLostError(f"stream {claim.row_id} (fence {claim.fence})")
    return stream


def held_call(claim: Claim) -> ToolCall:
    """Lock and return the tool call that this worker has claimed. Raises LeaseLostError if the worker no longer holds
    it. After its lease has expired, a worker still holds the row until another process takes the row over.
    """
    rows = ToolCall.objects.using(database()).select_for_update(no_key=True)
    call = only_row(rows.filter(pk=claim.row_id, fence=claim.fence, status=ToolCallStatus.RUNNING))
    if call is None:
        raise LeaseLostError(f"tool call {claim.row_id} (fence {claim.fence})")
    return call


@transition
def clear(claim: Claim) -> None:
    """Record that a suspect (a row whose earlier workers died) survived its trial. From now on, the row's worker may
    hold other rows too.

    After the first survived trial, two more crashes make the row a suspect again. After each later trial, one more
    crash is enough.

    All deaths in earlier trials together count as at most one towards ``CRASH_LIMIT``. A row that kills its workers
    still reaches the limit, because each trial is longer than the one before.
    """
    with transact():
        rows = _model_of(claim).objects.using(database()).held().filter(pk=claim.row_id, fence=claim.fence)
        crashes = Least(F("clearances"), SUSPECT_CRASHES - 1)
        rows.update(
            crashes=crashes,
            lonely_crashes=Least(F("lonely_crashes"), 1),
            is_alone=False,
            clearances=F("clearances") + 1,
        )
    log_transition("clear", thread=claim.thread_id, fence=claim.fence, **{claim.kind: claim.row_id})


def _model_of(claim: Claim) -> type[Stream | ToolCall]:
    return Stream if claim.kind == "stream" else ToolCall


def suspects_wait(pools: Sequence[str], *, code: Code) -> bool:
    """Return whether suspects (rows whose earlier workers died) are due in these pools."""
    suspect = Q(crashes__gte=SUSPECT_CRASHES)
    return bool(_Due(code=code, wanted=suspect).queues(pools))


def blame(claim: Claim) -> None:
    """Record that this row blocks the event loop of its worker. When the worker exits, the row becomes a suspect (a row
    whose earlier workers died).
    """
    rows = _model_of(claim).objects.using(database()).held().filter(pk=claim.row_id, fence=claim.fence)
    rows.update(crashes=Greatest(F("crashes"), SUSPECT_CRASHES - 1))


def has_open_work(pools: Sequence[str], *, code: Code) -> bool:
    """Return whether a worker of these pools could claim any row now."""
    return bool(_Due(code=code).queues(pools))

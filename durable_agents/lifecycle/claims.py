"""The arrows that workers draw without the thread's lock: win due rows, keep them, store deltas of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from django.db.models import Count, Exists, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce, Greatest, Now

from durable_agents.agents import Code
from durable_agents.conf import config
from durable_agents.exceptions import LeaseLostError
from durable_agents.lifecycle.locking import arrow, database, log_arrow, only_row, transact
from durable_agents.models import (
    SUSPECT_CRASHES,
    Delta,
    Pool,
    Stream,
    StreamState,
    ToolCall,
    ToolCallStatus,
    fairly,
    seconds_from_now,
)
from durable_agents.parts import Chunk

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


@arrow
def claim(
    *,
    pools: Sequence[str],
    holder: str,
    streams: int,
    tools: int,
    code: Code,
    suspects: bool = False,
) -> list[Claim]:
    """Win at most ``streams`` due model steps and ``tools`` due tool calls of these pools, of code that this worker
    knows, in turn by owner. No pool ever has more rows held than its limit.

    Rows whose holders died before are left out; with ``suspects`` one of them is won and nothing else, by a caller
    that holds no other row. Returns the claims; an empty list is no row won.
    """
    wanted = Q(crashes__gte=SUSPECT_CRASHES) if suspects else Q(crashes__lt=SUSPECT_CRASHES)
    due = _Due(code=code, wanted=wanted)
    queues = due.queues(pools)
    if not queues:
        return []
    slots = {"tool": tools, "stream": streams}
    chosen = [(pool, kind, fairly(due.rows(kind, pool), slots[kind])) for pool, kind in queues]
    won: list[Claim] = []
    with transact():
        free = _free_of({pool for pool, _ in queues})
        for pool, kind, ids in chosen:
            limit = min(free[pool], slots[kind], 1 - len(won) if suspects else slots[kind])
            claims = _win(due.rows(kind, pool), ids[: max(limit, 0)], holder, kind=kind)
            free[pool] -= len(claims)
            slots[kind] -= len(claims)
            won += claims
    for item in won:
        log_arrow("claim", thread=item.thread_id, fence=item.fence, attempt=item.attempt, **{item.kind: item.row_id})
    return won


@dataclass(frozen=True, kw_only=True)
class _Due:
    """The rows that a worker with this code could claim now."""

    code: Code
    wanted: Q = field(default_factory=Q)

    def rows(self, kind: Kind, pool: Any) -> Any:
        """Those of one pool, the longest due first."""
        using = database()
        if kind == "tool":
            return ToolCall.objects.using(using).due(pool, self.code).filter(self.wanted)
        return Stream.objects.using(using).due(pool, self.code).filter(self.wanted)

    def queues(self, pools: Collection[str]) -> list[tuple[str, Kind]]:
        """Pools and kinds with such rows. Looks without locks, so that idle workers write nothing. One query."""
        kinds: tuple[Kind, Kind] = ("tool", "stream")
        have: dict[str, Any] = {kind: Exists(self.rows(kind, OuterRef("name"))) for kind in kinds}
        known = Pool.objects.using(database()).filter(name__in=pools).order_by("name")
        rows: Any = known.values("name", **have)
        return [(row["name"], kind) for row in rows for kind in kinds if row[kind]]


def _free_of(pools: Collection[str]) -> dict[str, int]:
    """How many more rows of these pools may be held; their rows are locked from now on. What is held is counted by a
    statement of its own: one that waited for the lock would count what was held before."""
    rows = Pool.objects.using(database()).filter(name__in=pools)
    list(rows.select_for_update().order_by("name").values_list("pk"))
    counted = rows.annotate(streams=_live_leases(Stream), calls=_live_leases(ToolCall))
    return {row.name: row.limit - row.streams - row.calls for row in counted}


def _live_leases(model: Any) -> Any:
    alive = model.objects.held().filter(pool=OuterRef("name"), lease_expires_at__gt=Now()).order_by()
    return Coalesce(Subquery(alive.values("pool").annotate(number=Count("pk")).values("number")), 0)


def _win(due: Any, ids: Sequence[UUID], holder: str, *, kind: Kind) -> list[Claim]:
    """Those of these rows that are still due and that nobody locks."""
    if not ids:
        return []
    facts = ("pk", "thread_id", "fence", "attempt", "crashes", "thread__agent")
    locked = due.order_by("pk").filter(pk__in=ids).select_for_update(skip_locked=True, of=("self",))
    won = [
        Claim(kind=kind, row_id=pk, thread_id=thread_id, fence=fence + 1, attempt=attempt, crashes=crashes, agent=agent)
        for pk, thread_id, fence, attempt, crashes, agent in locked.values_list(*facts)
    ]
    lease = {"lease_owner": holder, "lease_expires_at": seconds_from_now(config().lease_seconds)}
    moved = (
        {"state": StreamState.STREAMING, "started_at": Now()}
        if kind == "stream"
        else {"status": ToolCallStatus.RUNNING, "expires_at": Now() + F("timeout")}
    )
    rows = due.model.objects.using(database()).filter(pk__in=[claim.row_id for claim in won])
    rows.update(fence=F("fence") + 1, **lease, **moved)
    return won


@arrow
def append_deltas(batch: Sequence[Append]) -> tuple[set[UUID], set[UUID]]:
    """Store deltas of many streams in one transaction. Returns (stored, lost) stream ids.

    A stream in neither is locked by somebody just now: offer the same delta again. A lost one has another holder or
    is settled: stop working on it.
    """
    with transact():
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


@arrow
def heartbeat(claims: Sequence[Claim]) -> set[UUID]:
    """Extend the leases of all these rows. Returns the row ids of those that are lost."""
    with transact():
        _extend(Stream.objects.using(database()).held(), claims)
        _extend(ToolCall.objects.using(database()).held(), claims)
    return lost_claims(claims)


def _extend(held: Any, claims: Sequence[Claim]) -> None:
    """Rows that somebody locks just now are left for the next heartbeat."""
    fences = {item.row_id: item.fence for item in claims}
    rows = held.filter(pk__in=fences).select_for_update(skip_locked=True, no_key=True).values_list("pk", "fence")
    mine = [pk for pk, fence in rows if fences[pk] == fence]
    held.filter(pk__in=mine).update(lease_expires_at=seconds_from_now(config().lease_seconds))


def held_stream(claim: Claim) -> Stream:
    rows = Stream.objects.using(database()).select_for_update(no_key=True)
    stream: Stream | None = only_row(rows.filter(pk=claim.row_id, fence=claim.fence, state=StreamState.STREAMING))
    if stream is None:
        raise LeaseLostError(f"stream {claim.row_id} (fence {claim.fence})")
    return stream


def held_call(claim: Claim) -> ToolCall:
    rows = ToolCall.objects.using(database()).select_for_update(no_key=True)
    call: ToolCall | None = only_row(rows.filter(pk=claim.row_id, fence=claim.fence, status=ToolCallStatus.RUNNING))
    if call is None:
        raise LeaseLostError(f"tool call {claim.row_id} (fence {claim.fence})")
    return call


def suspects_wait(pools: Sequence[str], *, code: Code) -> bool:
    """Whether rows that have to run alone are due in these pools."""
    suspect = Q(crashes__gte=SUSPECT_CRASHES)
    return bool(_Due(code=code, wanted=suspect).queues(pools))


def blame(claim: Claim) -> None:
    """This row blocks its worker, which is about to end: from now on it runs alone."""
    model: Any = Stream if claim.kind == "stream" else ToolCall
    rows = model.objects.using(database()).held().filter(pk=claim.row_id, fence=claim.fence)
    rows.update(crashes=Greatest(F("crashes"), SUSPECT_CRASHES - 1))


def has_open_work(pools: Sequence[str], *, code: Code) -> bool:
    """Whether rows are due now that a worker of these pools could claim."""
    return bool(_Due(code=code).queues(pools))

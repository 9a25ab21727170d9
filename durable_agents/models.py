"""The models, with the states of their rows and the legal transitions between states.

Write to the rows only through the functions of this package. Every query for many rows is a queryset method, named
after a state or a purpose.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any, TypeVar

from django.core.files.storage import Storage, default_storage, storages
from django.db import models
from django.db.models import Exists, ExpressionWrapper, F, OuterRef, Q, Subquery, Value, Window
from django.db.models.deletion import Collector
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Coalesce, Now, RowNumber

from durable_agents.agents import RESOLVED_TOOLS, Code
from durable_agents.conf import AUTH_USER_MODEL, config
from durable_agents.parts import CallOutcome
from durable_agents.strictjson import is_storable, is_uuid
from durable_agents.times import InstantField


class ThreadStatus(models.TextChoices):
    """The status of a thread, as clients see it."""

    # A model call is running, is due, or will be due later.
    STREAMING = "streaming"
    # At least one tool call has no outcome yet.
    AWAITING_TOOL_RESULTS = "awaiting_tool_results"
    # No run: all messages are answered, or the thread is new and empty.
    COMPLETED = "completed"
    # No run: an error ended the last one. ``resume_thread`` tries again.
    FAILED = "failed"
    # No run: a person stopped the last one. ``resume_thread`` continues it.
    STOPPED = "stopped"

    @property
    def is_running(self) -> bool:
        """Whether there is a current run."""
        return self in RUNNING_STATUSES


RUNNING_STATUSES = (ThreadStatus.STREAMING.value, ThreadStatus.AWAITING_TOOL_RESULTS.value)
THREAD_TRANSITIONS: Mapping[ThreadStatus, Collection[ThreadStatus]] = {
    ThreadStatus.STREAMING: list(ThreadStatus),
    ThreadStatus.AWAITING_TOOL_RESULTS: {
        ThreadStatus.STREAMING,
        ThreadStatus.COMPLETED,
        ThreadStatus.FAILED,
        ThreadStatus.STOPPED,
    },
    ThreadStatus.COMPLETED: {ThreadStatus.STREAMING},
    ThreadStatus.FAILED: {ThreadStatus.STREAMING},
    ThreadStatus.STOPPED: {ThreadStatus.STREAMING},
}
"""The statuses that may follow each status. ``streaming`` follows itself when the next attempt or step begins."""


class StreamState(models.TextChoices):
    """The state of one attempt at a step."""

    # No worker has claimed the attempt. It is due at ``available_at``, or now if ``available_at`` is not set.
    PENDING = "pending"
    # A worker holds the attempt under a lease.
    STREAMING = "streaming"
    # The step of this attempt is committed.
    FINISHED = "finished"
    # The attempt failed, crashed, or was stopped or superseded. If it has kept parts, they are shown.
    ABORTED = "aborted"


OPEN_STREAM_STATES = (StreamState.PENDING.value, StreamState.STREAMING.value)
STREAM_TRANSITIONS: Mapping[StreamState, Collection[StreamState]] = {
    StreamState.PENDING: {StreamState.STREAMING, StreamState.ABORTED},
    StreamState.STREAMING: {StreamState.FINISHED, StreamState.ABORTED},
    StreamState.FINISHED: (),
    StreamState.ABORTED: (),
}
"""The states that may follow each state. A retry is a new row, so no state leads back to ``pending``."""


class ToolCallStatus(models.TextChoices):
    """The status of a tool call. Each call gets exactly one outcome."""

    # A person has to approve the call first.
    APPROVAL_REQUESTED = "approval_requested"
    # A worker has to run the call or, for deferred and client tools, the result has to be posted.
    PENDING = "pending"
    # A worker holds the call under a lease.
    RUNNING = "running"
    # The outcome is a result.
    COMPLETED = "completed"
    # The outcome is an error.
    FAILED = "failed"
    # A person refused to approve the call.
    DENIED = "denied"
    # No result, approval or refusal came in time.
    EXPIRED = "expired"
    # The run was stopped, or continued without the result.
    CANCELLED = "cancelled"
    # The worker died, and the tool may or may not have run. A person may be asked to settle the call.
    UNKNOWN = "unknown"


TOOL_CALL_TRANSITIONS: Mapping[ToolCallStatus, Collection[ToolCallStatus]] = {
    ToolCallStatus.APPROVAL_REQUESTED: {
        ToolCallStatus.PENDING,
        ToolCallStatus.DENIED,
        ToolCallStatus.FAILED,
        ToolCallStatus.EXPIRED,
        ToolCallStatus.CANCELLED,
    },
    ToolCallStatus.PENDING: {
        ToolCallStatus.RUNNING,
        ToolCallStatus.COMPLETED,
        ToolCallStatus.FAILED,
        ToolCallStatus.EXPIRED,
        ToolCallStatus.CANCELLED,
    },
    ToolCallStatus.RUNNING: {
        ToolCallStatus.PENDING,
        ToolCallStatus.COMPLETED,
        ToolCallStatus.FAILED,
        ToolCallStatus.CANCELLED,
        ToolCallStatus.UNKNOWN,
    },
    ToolCallStatus.UNKNOWN: {
        ToolCallStatus.PENDING,
        ToolCallStatus.COMPLETED,
        ToolCallStatus.FAILED,
        ToolCallStatus.EXPIRED,
        ToolCallStatus.CANCELLED,
        ToolCallStatus.UNKNOWN,
    },
    ToolCallStatus.COMPLETED: (),
    ToolCallStatus.FAILED: (),
    ToolCallStatus.DENIED: (),
    ToolCallStatus.EXPIRED: (),
    ToolCallStatus.CANCELLED: (),
}
"""The statuses that may follow each status.

A call is ``unknown``, without an outcome, while a person is asked whether the tool has run. If the run continues
without the person's answer, ``unknown`` also becomes the call's outcome.
"""

AnyState = TypeVar("AnyState", ThreadStatus, StreamState, ToolCallStatus)
_TRANSITIONS: Mapping[Any, Mapping[Any, Collection[Any]]] = {
    ThreadStatus: THREAD_TRANSITIONS,
    StreamState: STREAM_TRANSITIONS,
    ToolCallStatus: TOOL_CALL_TRANSITIONS,
}


class IllegalTransitionError(RuntimeError):
    """The current state of a row does not allow the transition. This is a bug in this package."""


def next_state(current: str, new: AnyState) -> AnyState:
    """Return ``new``. Raises IllegalTransitionError if a row may not change from ``current`` to ``new``."""
    states = type(new)
    if new not in _TRANSITIONS[states][states(current)]:
        raise IllegalTransitionError(f"{states.__name__}: {new.value!r} may not follow {current!r}.")
    return new


class ToolKind(models.TextChoices):
    """Who runs a tool."""

    # A worker runs the tool, and the return value is the result.
    SYNC = "sync"
    # A worker runs the tool to start the work. The result is posted later.
    DEFERRED = "deferred"
    # The browser runs the tool and posts the result.
    CLIENT = "client"
    # The model's vendor runs the tool during the model call.
    PROVIDER = "provider"


class Role(models.TextChoices):
    """The role of a message's author."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


SUSPECT_CRASHES = 2
"""If this many workers have died while they held a row, the row is suspected of killing its workers. A worker that runs
such a row runs nothing else.
"""


def seconds_from_now(seconds: float) -> CombinedExpression:
    """Return the time this many seconds from now, by the database's clock."""
    return Now() + Value(timedelta(seconds=seconds))


def fairly(due: Any, limit: int) -> list[uuid.UUID]:
    """Return the primary keys of at most ``limit`` of these rows: first the oldest row of each owner, then the second
    oldest of each, and so on.

    For rows without an owner, each scope counts as an owner, because the scope distinguishes visitors.
    """
    whose = ("scope", "owner_id") if due.model is Stream else ("thread__scope", "thread__owner_id")
    turn = Window(RowNumber(), partition_by=[F(name) for name in whose], order_by=DUE_SINCE.asc())
    return list(due.annotate(turn=turn).order_by("turn", DUE_SINCE.asc()).values_list("pk", flat=True)[:limit])


DUE_SINCE = Coalesce("available_at", "pending_since")
"""The time at which a pending row becomes due. Use it only to sort rows and to compute their age.

Do not use it to decide whether a row may be claimed, because ``pending_since`` may come from another clock.
"""


def is_due() -> Q:
    """Return the condition that a pending row is due. A row that is due immediately has no ``available_at``. So its
    claim does not compare times from different clocks.
    """
    return Q(available_at__isnull=True) | Q(available_at__lte=Now())


def due_for(seconds: float) -> Q:
    """Return the condition that a pending row has been due for more than this many seconds."""
    before = seconds_from_now(-seconds)
    return Q(available_at__lt=before) | Q(available_at__isnull=True, pending_since__lt=before)


def one_of(field: str, choices: type[models.TextChoices], name: str) -> models.CheckConstraint:
    """Return a constraint that makes the database refuse values outside the enum."""
    return models.CheckConstraint(condition=Q(**{f"{field}__in": choices.values}), name=name)


def filled(field: str, name: str) -> models.Index:
    """Return an index of the rows that set this nullable foreign key.

    The index is used when the referenced row is deleted. Most rows do not set the key, and a partial index costs
    nothing for them.
    """
    return models.Index(fields=[field], name=name, condition=Q(**{f"{field}__isnull": False}))


class ThreadQuerySet(models.QuerySet["Thread"]):
    """Named queries for threads."""

    def running(self) -> ThreadQuerySet:
        """Threads with a current run."""
        return self.filter(in_run=True)

    def idle(self, days: float) -> ThreadQuerySet:
        """Threads without a current run that have not changed for this many days."""
        at_rest = self.exclude(status__in=RUNNING_STATUSES)
        return at_rest.filter(updated_at__lt=seconds_from_now(-days * 86_400))


def cascade_or_keep(
    collector: Collector, field: models.ForeignKey[object, object], sub_objs: models.QuerySet[models.Model], using: str
) -> None:
    """Delete the threads and attachments of a deleted user, or keep those that have a scope: an ``on_delete`` function.

    The setting ``OWNER_ON_DELETE`` decides. Kept rows have no owner any more. An attachment is kept only with a thread.
    """
    if config().owner_on_delete == "keep":
        shared = sub_objs.exclude(scope="")
        if sub_objs.model is Thread:
            # The id that the owner's client has chosen is unique only among the owner's threads. It has to be removed
            # first, because the queryset no longer finds the threads after their owner is removed.
            collector.add_field_update(Thread._meta.get_field("client_id"), None, shared)
            sub_objs = sub_objs.filter(scope="")
        else:
            shared = shared.filter(thread__isnull=False)
            sub_objs = sub_objs.filter(Q(scope="") | Q(thread__isnull=True))
        collector.add_field_update(field, None, shared)
    models.CASCADE(collector, field, sub_objs, using)


class Thread(models.Model):
    """A durable conversation. Every change of its state locks the thread's row first, except claims, heartbeats and
    appended deltas.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client_id = models.CharField(max_length=200, null=True, blank=True)
    agent = models.CharField(max_length=100)
    owner = models.ForeignKey(
        AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=cascade_or_keep,
        related_name="durable_threads",
        db_index=False,
    )
    scope = models.CharField(max_length=200, blank=True, default="")
    title = models.CharField(max_length=200, blank=True, default="")
    archived = models.BooleanField(default=False)
    status = models.CharField(max_length=24, choices=ThreadStatus, default=ThreadStatus.COMPLETED)
    rev = models.BigIntegerField(default=0, help_text="Counter of durable changes.")
    stop_rev = models.BigIntegerField(
        null=True, blank=True, help_text="Stop position: messages queued up to this rev wait for a resume."
    )
    last_position = models.BigIntegerField(default=0)
    last_number = models.BigIntegerField(default=0)
    run_steps = models.PositiveIntegerField(default=0, help_text="Model calls committed in this run.")
    metadata = models.JSONField(default=dict, blank=True, help_text="Written by clients: untrusted.")
    context = models.JSONField(default=dict, blank=True, help_text="Set by Python only: trusted.")
    error_code = models.CharField(max_length=64, blank=True, default="")
    error_message = models.TextField(blank=True, default="")
    retry = models.JSONField(null=True, blank=True)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    cost = models.DecimalField(max_digits=16, decimal_places=8, null=True, blank=True)
    parent_tool_call = models.ForeignKey(
        "ToolCall",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="child_threads",
        db_index=False,
    )
    forked_from = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="forks", db_index=False
    )
    created_at = InstantField(db_default=Now(), editable=False)
    updated_at = InstantField(db_default=Now(), editable=False, help_text="To ten seconds while a run is on.")
    in_run = models.GeneratedField(
        expression=ExpressionWrapper(Q(status__in=RUNNING_STATUSES), output_field=models.BooleanField()),
        output_field=models.BooleanField(),
        db_persist=True,
        help_text="Whether a run is on. It does not change with each step, as the status does, and nor does its index.",
    )

    deleted_by: Any = None
    """Who deletes this row, for the audit log: an actor, a user, or None for the project itself. It is not stored."""

    objects = ThreadQuerySet.as_manager()

    class Meta:
        ordering = ["-updated_at", "-id"]
        indexes = [
            models.Index(fields=["owner", "-updated_at", "-id"], name="da_thread_owner"),
            models.Index(fields=["scope", "-updated_at", "-id"], name="da_thread_scope"),
            models.Index(fields=["agent", "-updated_at", "-id"], name="da_thread_agent"),
            models.Index(fields=["owner", "scope"], name="da_thread_in_run", condition=Q(in_run=True)),
            filled("parent_tool_call", "da_thread_parent_call"),
            filled("forked_from", "da_thread_forked_from"),
        ]
        constraints = [
            one_of("status", ThreadStatus, "da_thread_status"),
            models.UniqueConstraint(
                fields=["owner", "scope", "client_id"],
                condition=Q(owner__isnull=False, client_id__isnull=False),
                name="da_thread_client_id",
            ),
            models.UniqueConstraint(
                fields=["scope", "client_id"],
                condition=Q(owner__isnull=True, client_id__isnull=False),
                name="da_thread_client_id_ownerless",
            ),
        ]

    def __str__(self) -> str:
        return self.title or f"{self.agent} {self.id}"

    @property
    def is_running(self) -> bool:
        """Whether there is a current run."""
        return ThreadStatus(self.status).is_running

    def next_rev(self) -> int:
        """Increment ``rev``, the counter of the thread's changes, and return it.

        The caller must have locked the thread's row, and must save the thread.
        """
        self.rev += 1
        return self.rev


class MessageQuerySet(models.QuerySet["Message"]):
    """Named queries for messages."""

    def shown(self) -> MessageQuerySet:
        """Messages that no edit or regeneration has replaced, in order, with queued messages last."""
        return self.filter(superseded_at__isnull=True).order_by(F("position").asc(nulls_last=True), "rev")

    def for_clients(self) -> MessageQuerySet:
        """Messages that clients see. System messages are excluded: the project writes them for the model."""
        return self.exclude(role=Role.SYSTEM)

    def in_history(self) -> MessageQuerySet:
        """Messages of the current history. Superseded and queued messages are not part of it."""
        return self.filter(superseded_at__isnull=True, position__isnull=False)

    def late_results(self) -> MessageQuerySet:
        """Messages that contain the late result of a tool call; see ``Message.is_late_result``."""
        return self.filter(role=Role.SYSTEM, text="")

    def find(self, shown_id: str) -> Message | None:
        """Return the message whose primary key or ``client_id`` is ``shown_id``, or None."""
        if not is_storable(shown_id):
            return None
        ours = Q(pk=shown_id) if is_uuid(shown_id) else Q()
        return self.filter(Q(client_id=shown_id) | ours).first()

    def queued(self) -> MessageQuerySet:
        """Messages that wait for the end of the run, the oldest first."""
        return self.filter(position__isnull=True, superseded_at__isnull=True).order_by("rev")


class Message(models.Model):
    """A message of a thread. The parts of an assistant message are not stored here but in its streams."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, related_name="messages", db_index=False)
    position = models.BigIntegerField(null=True, blank=True, help_text="Total order; none while queued.")
    queued_at = InstantField(null=True, blank=True)
    client_id = models.CharField(max_length=200, null=True, blank=True)
    role = models.CharField(max_length=16, choices=Role)
    sender = models.ForeignKey(
        AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
        help_text="Who wrote it.",
    )
    parts = models.JSONField(default=list, blank=True)
    text = models.TextField(blank=True, default="")
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="children", db_index=False
    )
    metadata = models.JSONField(default=dict, blank=True)
    superseded_at = InstantField(null=True, blank=True)
    rev = models.BigIntegerField()
    created_at = InstantField(db_default=Now(), editable=False)

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ["thread_id", F("position").asc(nulls_last=True), "rev"]
        indexes = [
            models.Index(fields=["thread", "rev"], name="da_message_rev"),
            filled("sender", "da_message_sender"),
            filled("parent", "da_message_parent"),
        ]
        constraints = [
            one_of("role", Role, "da_message_role"),
            models.UniqueConstraint(fields=["thread", "position"], name="da_message_position"),
            models.UniqueConstraint(
                fields=["thread", "client_id"],
                condition=Q(client_id__isnull=False, superseded_at__isnull=True),
                name="da_message_client_id",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.shown_id}"

    @property
    def is_late_result(self) -> bool:
        """Whether the message contains the late result of a tool call: its role is system and it has no text."""
        return self.role == Role.SYSTEM and not self.text

    @property
    def asks(self) -> bool:
        """Whether the model has to answer the message: it is a user's message, or the late result of a tool call."""
        return self.role == Role.USER or self.is_late_result

    @property
    def shown_id(self) -> str:
        """The id that clients see: the ``client_id`` if there is one, otherwise the primary key."""
        return self.client_id or str(self.id)


class Usage(models.Model):
    """The tokens and the cost of a model call.

    The input tokens include the cached and the cache-write tokens, and the output tokens include the reasoning tokens.
    The cost is in US dollars, or NULL if no price is known.
    """

    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    cost = models.DecimalField(max_digits=16, decimal_places=8, null=True, blank=True)
    usage_estimated = models.BooleanField(default=False)

    class Meta:
        abstract = True


ENDED_LEASE = {"lease_owner": "", "lease_expires_at": None, "fence": F("fence") + 1}
"""Keyword arguments for ``QuerySet.update`` that end the leases of many rows, as ``Held.end_lease`` does for one."""


class Held(models.Model):
    """A row that a worker may hold under a lease. Every claim increments ``fence``, the fencing token. A worker's write
    is refused unless the worker's token is the current one.
    """

    fence = models.BigIntegerField(default=0)
    attempt = models.PositiveIntegerField(default=1, help_text="Counted tries, this one included.")
    crashes = models.PositiveIntegerField(
        default=0, help_text="Deaths of the holder since the row last outlived a lonely start."
    )
    is_alone = models.BooleanField(
        default=False, db_default=False, help_text="Claimed by a process that held nothing else, and not cleared since."
    )
    lonely_crashes = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Deaths of the holder while it held nothing else."
    )
    excuses = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Deaths that were not counted, since other workers died at the same time."
    )
    clearances = models.PositiveIntegerField(
        default=0, db_default=0, help_text="How often the row has outlived a lonely start."
    )
    available_at = InstantField(null=True, blank=True, help_text="Not claimed before; empty is at once.")
    pending_since = InstantField(db_default=Now(), help_text="For order and age; decides no claim.")
    lease_owner = models.CharField(max_length=120, blank=True, default="")
    lease_expires_at = InstantField(null=True, blank=True)
    pool = models.CharField(max_length=64)

    LEASE_FIELDS = ("lease_owner", "lease_expires_at", "fence")

    class Meta:
        abstract = True

    def end_lease(self) -> None:
        """End the lease and increment ``fence``, so that later writes of the worker are refused. The caller must save
        ``LEASE_FIELDS``.
        """
        self.lease_owner, self.lease_expires_at = "", None
        self.fence += 1


def streams_of(code: Code) -> Q:
    """Return the condition that a process with this code can run a stream: it has the stream's agent."""
    return Q(agent__in=code)


def calls_of(code: Code) -> Q:
    """Return the condition that a process with this code can run a tool call: it has the call's agent and
    tool. A tool that a ``tool_resolver`` finds counts as known if the agent has a resolver.
    """
    agents_with: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for agent, tools in code.items():
        agents_with[frozenset(tools)].append(agent)
    known = (Q(thread__agent__in=agents, tool_name__in=tools) for tools, agents in agents_with.items())
    resolving = [agent for agent, tools in code.items() if RESOLVED_TOOLS in tools]
    declared = reduce(or_, known, Q(pk__in=[])) & Q(is_resolved=False)
    return declared | Q(is_resolved=True, thread__agent__in=resolving) if resolving else declared


class StreamQuerySet(models.QuerySet["Stream"]):
    """Named queries for streams."""

    def open(self) -> StreamQuerySet:
        """Streams that are pending or held by a worker. A thread has at most one such stream."""
        return self.filter(state__in=OPEN_STREAM_STATES)

    def held(self) -> StreamQuerySet:
        """Streams with a lease, even if the lease has expired."""
        return self.filter(state=StreamState.STREAMING)

    def due(self, pool: str | OuterRef, code: Code) -> StreamQuerySet:
        """Streams that a worker with this code may claim now. The stream that has been due for the longest time comes
        first.
        """
        due = self.filter(streams_of(code), state=StreamState.PENDING, pool=pool)
        return due.filter(is_due()).order_by(DUE_SINCE.asc())

    def overdue(self, seconds: float) -> StreamQuerySet:
        """Streams that have been due for more than this many seconds without being claimed."""
        return self.filter(due_for(seconds), state=StreamState.PENDING)

    def in_transcript(self) -> StreamQuerySet:
        """Streams that show parts in their message, in order: committed steps, and aborted streams with parts."""
        closed = self.filter(state__in=[StreamState.FINISHED, StreamState.ABORTED])
        return closed.exclude(parts=[]).order_by("number")


class Stream(Usage, Held):
    """One attempt at a step.

    These rows also record usage, so the rows of failed attempts are kept. If the setting ``USAGE_ON_DELETE`` is "keep",
    the rows of a deleted thread are kept, too, but lose their thread, message and content.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    thread = models.ForeignKey(Thread, null=True, on_delete=models.SET_NULL, related_name="streams", db_index=False)
    message = models.ForeignKey(Message, null=True, on_delete=models.SET_NULL, related_name="streams", db_index=False)
    agent = models.CharField(max_length=100, blank=True, default="")
    # The database has no constraint for this key. With a constraint, the commit of a new attempt would wait for every
    # other transaction that has locked the user's row.
    owner = models.ForeignKey(
        AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    scope = models.CharField(max_length=200, blank=True, default="")
    number = models.BigIntegerField(help_text="Rises per thread.")
    state = models.CharField(max_length=16, choices=StreamState, default=StreamState.PENDING)
    parts = models.JSONField(default=list, blank=True)
    text = models.TextField(blank=True, default="")
    model = models.CharField(max_length=200, blank=True, default="")
    finish_reason = models.CharField(max_length=32, blank=True, default="")
    goes_on = models.BooleanField(
        default=False, help_text="Begins with what a crashed attempt had said, as its delta 0."
    )
    error_code = models.CharField(max_length=64, blank=True, default="")
    error_detail = models.TextField(blank=True, default="")
    rev = models.BigIntegerField()
    created_at = InstantField(db_default=Now(), editable=False)
    started_at = InstantField(null=True, blank=True)
    finished_at = InstantField(null=True, blank=True)

    objects = StreamQuerySet.as_manager()

    class Meta:
        ordering = ["thread_id", "number"]
        indexes = [
            models.Index(fields=["thread", "rev"], name="da_stream_rev"),
            models.Index(fields=["message", "number"], name="da_stream_message"),
            filled("owner", "da_stream_owner"),
            models.Index(fields=["pool", "available_at"], name="da_stream_due", condition=Q(state=StreamState.PENDING)),
            models.Index(fields=["pool"], name="da_stream_held", condition=Q(state=StreamState.STREAMING)),
        ]
        constraints = [
            one_of("state", StreamState, "da_stream_state"),
            models.UniqueConstraint(fields=["thread", "number"], name="da_stream_number"),
            models.UniqueConstraint(
                fields=["thread"], condition=Q(state__in=OPEN_STREAM_STATES), name="da_stream_one_open"
            ),
        ]

    def __str__(self) -> str:
        return f"stream {self.number} ({self.state})"

    @property
    def answer(self) -> Message:
        """The message that this stream is part of. Raises ValueError if the thread was deleted."""
        if self.message is None:
            raise ValueError(f"stream {self.pk} has lost its thread")
        return self.message

    @property
    def answer_id(self) -> uuid.UUID:
        """The primary key of ``answer``. The message is not loaded. Raises ValueError if the thread was deleted."""
        if self.message_id is None:
            raise ValueError(f"stream {self.pk} has lost its thread")
        return self.message_id


class ToolCallQuerySet(models.QuerySet["ToolCall"]):
    """Named queries for tool calls."""

    def open(self) -> ToolCallQuerySet:
        """Calls without an outcome."""
        return self.filter(finished_at__isnull=True)

    def with_asker(self) -> ToolCallQuerySet:
        """Annotate each call with the user who caused it, so that ``asker_id`` and ``is_asked_by`` need fewer queries.

        ``asker_pk`` is the id of the user who caused the call. ``is_made_again`` says whether anybody has ever
        regenerated an answer or resumed a run in the call's thread.
        """
        said = Message.objects.filter(
            thread=OuterRef("thread"), role=Role.USER, position__lt=OuterRef("message__position")
        ).order_by("-position")
        asker = Subquery(said.values("sender")[:1])
        key = Thread._meta.get_field("owner").target_field
        again = AuditEntry.objects.filter(thread_id=OuterRef("thread"), action__in=MAKES_AGAIN)
        return self.annotate(asker_pk=Coalesce(asker, "thread__owner", output_field=key), is_made_again=Exists(again))

    def held(self) -> ToolCallQuerySet:
        """Calls with a lease, even if the lease has expired."""
        return self.filter(status=ToolCallStatus.RUNNING)

    def expired(self, grace_seconds: float) -> ToolCallQuerySet:
        """Calls without an outcome that have timed out. A call that a worker is running is included only if it timed
        out more than ``grace_seconds`` ago.
        """
        running = Q(status=ToolCallStatus.RUNNING, expires_at__gte=seconds_from_now(-grace_seconds))
        return self.filter(finished_at__isnull=True, expires_at__lt=Now()).exclude(running)

    def overdue(self, seconds: float) -> ToolCallQuerySet:
        """Calls that need a worker and have been due for more than this many seconds without being claimed."""
        pending = self.filter(status=ToolCallStatus.PENDING, needs_worker=True)
        return pending.filter(due_for(seconds))

    def due(self, pool: str | OuterRef, code: Code) -> ToolCallQuerySet:
        """Calls that a worker with this code may claim now. The call that has been due for the longest time comes
        first.
        """
        due = self.filter(calls_of(code), status=ToolCallStatus.PENDING, needs_worker=True, pool=pool)
        return due.filter(is_due()).order_by(DUE_SINCE.asc())


class ToolCall(Held):
    """One call of a tool by the model, with exactly one outcome."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, related_name="tool_calls", db_index=False)
    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="tool_calls")
    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="tool_calls", db_index=False)
    tool_call_id = models.CharField(max_length=64, help_text="Ours, unique per thread.")
    provider_call_id = models.TextField(blank=True, default="")
    tool_name = models.CharField(max_length=128)
    kind = models.CharField(max_length=16, choices=ToolKind, default=ToolKind.SYNC)
    is_resolved = models.BooleanField(
        default=False, db_default=False, help_text="The agent's tool_resolver finds its tool; no module declares it."
    )
    after_crash = models.CharField(
        max_length=16,
        blank=True,
        default="",
        db_default="",
        help_text="What happens if its worker dies. Empty: as the declared tool says.",
    )
    needs_worker = models.BooleanField(default=True, help_text="A worker has to run it, or to announce it.")
    answered_by = models.CharField(max_length=200, default="server", help_text="Who may give its result.")
    answered_by_user = models.ForeignKey(
        AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
        help_text="Who gave its result or error from outside.",
    )
    approved_by = models.CharField(max_length=200, default="owner", help_text="Who may approve it.")
    passed_at = InstantField(
        null=True, blank=True, help_text="The model was told that it is still running; its result comes later."
    )
    arguments = models.JSONField(default=dict, blank=True)
    approved_arguments = models.JSONField(null=True, blank=True)
    status = models.CharField(max_length=24, choices=ToolCallStatus, default=ToolCallStatus.PENDING)
    result = models.JSONField(null=True, blank=True)
    progress = models.JSONField(null=True, blank=True)
    error_code = models.CharField(max_length=64, blank=True, default="")
    error = models.TextField(blank=True, default="", help_text="Told to the model and shown.")
    error_detail = models.TextField(blank=True, default="", help_text="For the admin only.")
    max_attempts = models.PositiveIntegerField(default=1)
    timeout = models.DurationField(null=True, blank=True, help_text="Of one attempt, or of the wait for an answer.")
    expires_at = InstantField(null=True, blank=True, help_text="Given up then, as things stand.")
    approval_requested_at = InstantField(null=True, blank=True)
    approval_decided_at = InstantField(null=True, blank=True)
    approval_decided_by = models.ForeignKey(
        AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", db_index=False
    )
    approval_reason = models.TextField(blank=True, default="")
    approval_digest = models.CharField(max_length=64, blank=True, default="")
    rev = models.BigIntegerField()
    created_at = InstantField(db_default=Now(), editable=False)
    finished_at = InstantField(null=True, blank=True, help_text="Empty while the call has no outcome.")

    objects = ToolCallQuerySet.as_manager()

    class Meta:
        ordering = ["thread_id", "rev"]
        indexes = [
            models.Index(fields=["thread", "rev"], name="da_toolcall_rev"),
            models.Index(fields=["stream"], name="da_toolcall_stream"),
            filled("answered_by_user", "da_toolcall_answered_by"),
            filled("approval_decided_by", "da_toolcall_decided_by"),
            models.Index(
                fields=["pool", "available_at"],
                name="da_toolcall_due",
                condition=Q(status=ToolCallStatus.PENDING, needs_worker=True),
            ),
            models.Index(fields=["pool"], name="da_toolcall_held", condition=Q(status=ToolCallStatus.RUNNING)),
            models.Index(fields=["thread"], name="da_toolcall_open", condition=Q(finished_at__isnull=True)),
            models.Index(fields=["expires_at"], name="da_toolcall_expiry", condition=Q(finished_at__isnull=True)),
        ]
        constraints = [
            one_of("status", ToolCallStatus, "da_toolcall_status"),
            one_of("kind", ToolKind, "da_toolcall_kind"),
            models.UniqueConstraint(fields=["thread", "tool_call_id"], name="da_toolcall_id"),
        ]

    def __str__(self) -> str:
        return f"{self.tool_name} {self.tool_call_id} ({self.status})"

    @property
    def name_in_code(self) -> str:
        """The name of the call's tool among the tools that a process can run (see ``Code``). If a ``tool_resolver``
        finds the tool, this is a name that no declared tool has.
        """
        return RESOLVED_TOOLS if self.is_resolved else self.tool_name

    @property
    def decision_reason(self) -> str | None:
        """The reason that a person gave for the decision, maybe empty. None if there was no decision."""
        was_decided = self.approval_requested_at is not None and self.approval_decided_at is not None
        return self.approval_reason if was_decided else None

    def outcome(self) -> CallOutcome:
        """Return the fields of the call that are shown in messages, as an immutable value."""
        return CallOutcome(
            tool_call_id=self.tool_call_id,
            provider_call_id=self.provider_call_id,
            tool_name=self.tool_name,
            arguments=self.arguments,
            status=self.status,
            result=self.result,
            error=self.error,
            approved_arguments=self.approved_arguments,
            is_passed=self.passed_at is not None,
            decision_reason=self.decision_reason,
        )

    def asker_id(self) -> Any:
        """Return the id of the user who caused the call, or None for a visitor.

        The user is the sender of the message that the run answers. If the project sent that message, the user is the
        thread's owner.
        """
        # ``with_asker`` adds this annotation.
        if hasattr(self, "asker_pk"):
            return self.asker_pk
        question = self._question()
        sender_id = question.sender_id if question else None
        return self.thread.owner_id if sender_id is None else sender_id

    def is_asked_by(self, user: Any) -> bool:
        """Return whether this user caused the call. This is true for the user of ``asker_id``. It is also true for a
        user who regenerated the answer or resumed the run before the call was made.
        """
        if user.pk == self.asker_id():
            return True
        # ``with_asker`` adds this annotation. Without the annotation, the audit log has to be searched.
        if not getattr(self, "is_made_again", True):
            return False
        again = AuditEntry.objects.using(self._state.db).filter(
            thread_id=self.thread_id, action__in=MAKES_AGAIN, user=user, at__lte=self.created_at
        )
        question = self._question()
        return again.filter(at__gte=question.created_at).exists() if question else again.exists()

    def _question(self) -> Message | None:
        said = Message.objects.using(self._state.db).filter(thread_id=self.thread_id, role=Role.USER)
        return said.filter(position__lt=self.message.position).order_by("-position").first()

    @property
    def waits_for_worker(self) -> bool:
        """Whether the call depends on a worker: a worker is running it now, or still has to run it."""
        return self.status == ToolCallStatus.RUNNING or (self.status == ToolCallStatus.PENDING and self.needs_worker)


MAKES_AGAIN = ("regenerate", "resume_thread")
"""Actions in the audit log that make the model answer an earlier message again."""


class AuditEntry(models.Model):
    """One state change of a thread, and who caused it. Entries are never changed, and are kept when the thread is
    deleted.
    """

    thread_id = models.UUIDField(null=True, blank=True, help_text="It may be deleted since.")
    action = models.CharField(max_length=40)
    user = models.ForeignKey(
        AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="Who did it."
    )
    scope = models.CharField(max_length=200, blank=True, default="", help_text="Of a visitor without an account.")
    via = models.CharField(max_length=16, help_text="python, rest, chat, websocket, admin or cascade.")
    subject = models.CharField(max_length=200, blank=True, default="", help_text="Id of the message, call or thread.")
    arguments_hash = models.CharField(max_length=64, blank=True, default="", help_text="SHA-256 of what was given.")
    at = InstantField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["thread_id", "-id"], name="da_audit_thread"),
            models.Index(fields=["at"], name="da_audit_age"),
        ]

    def __str__(self) -> str:
        return f"{self.action} of {self.thread_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Add the entry. Raises TypeError if the entry is already stored."""
        if not self._state.adding:
            raise TypeError("Audit entries are not changed.")
        super().save(*args, **kwargs)

    @property
    def who(self) -> str:
        """The user's name, or the scope of a visitor, or a dash if neither is known."""
        return str(self.user.get_username()) if self.user is not None else self.scope or "-"


class DeltaQuerySet(models.QuerySet["Delta"]):
    """Named queries for deltas."""

    def after(self, stream_id: uuid.UUID, seq: int) -> DeltaQuerySet:
        """Return the deltas of one stream with a greater ``seq`` than this, in order."""
        return self.filter(stream_id=stream_id, seq__gt=seq).order_by("seq")

    def chunks_of(self, stream_id: uuid.UUID) -> list[dict[str, Any]]:
        """Return all stored chunks of one stream, in order."""
        return [chunk for chunks in self.after(stream_id, -1).values_list("chunks", flat=True) for chunk in chunks]

    def disposable(self) -> DeltaQuerySet:
        """Deltas of closed streams. They may be deleted, because the stream's row contains the parts to show."""
        return self.exclude(stream__state__in=OPEN_STREAM_STATES)


class Delta(models.Model):
    """One fragment of a stream: a list of UI message chunks. It may be deleted after the stream is closed."""

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="deltas", db_index=False)
    seq = models.PositiveIntegerField(help_text="Contiguous from 0 per stream.")
    chunks = models.JSONField()

    objects = DeltaQuerySet.as_manager()

    class Meta:
        ordering = ["stream_id", "seq"]
        constraints = [models.UniqueConstraint(fields=["stream", "seq"], name="da_delta_seq")]

    def __str__(self) -> str:
        return f"delta {self.seq} of {self.stream_id}"


class Pool(models.Model):
    """A named share of capacity. If a pool has a limit, each claim locks the pool's row, so that the limit applies to
    all processes together.
    """

    name = models.CharField(max_length=64, primary_key=True)
    limit = models.PositiveIntegerField()

    NO_LIMIT = 2**31 - 1
    """The value of ``limit`` for a pool without a limit. Workers of earlier releases cannot handle NULL."""

    def __str__(self) -> str:
        return self.name if self.limit == self.NO_LIMIT else f"{self.name} ({self.limit})"


class WorkerProblemQuerySet(models.QuerySet["WorkerProblem"]):
    """Named queries for problems of workers."""

    def open(self, seconds: float) -> WorkerProblemQuerySet:
        """Problems that have not ended and were reported within the last ``seconds``."""
        return self.filter(ended_at=None, seen_at__gt=seconds_from_now(-seconds))

    def ended_within(self, seconds: float) -> WorkerProblemQuerySet:
        """Problems that ended within the last ``seconds``."""
        return self.filter(ended_at__gt=seconds_from_now(-seconds))


class WorkerProblem(models.Model):
    """The reason why a worker process cannot work, for ``agents_doctor`` and the admin. Rows are kept for a day."""

    holder = models.CharField(max_length=200, help_text="The process, as a lease owner is named.")
    cluster = models.CharField(max_length=100, blank=True, default="")
    kind = models.CharField(max_length=16)
    detail = models.TextField(blank=True, default="")
    since = InstantField()
    seen_at = InstantField(db_default=Now())
    ended_at = InstantField(null=True, blank=True)

    objects = WorkerProblemQuerySet.as_manager()

    class Meta:
        ordering = ["-seen_at", "-pk"]
        constraints = [models.UniqueConstraint(fields=["holder", "kind"], name="da_worker_problem")]

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail[:80]}"


class Command(models.Model):
    """The stored reply to a command on the websocket. If the client sends the command again, it gets the same reply,
    and the command is not executed again.
    """

    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, related_name="commands")
    caller = models.CharField(max_length=64, blank=True, db_default="", help_text="A hash of whose command it was.")
    command = models.CharField(max_length=32, blank=True, db_default="")
    key = models.CharField(max_length=200)
    content_hash = models.CharField(max_length=64, blank=True, db_default="")
    result: Any = models.JSONField(default=dict)
    created_at = InstantField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["thread", "caller", "command", "key"], name="da_command_caller_key")
        ]
        indexes = [models.Index(fields=["created_at"], name="da_command_age")]

    def __str__(self) -> str:
        return self.key


ATTACHMENTS = "durable_agents/attachments"
"""The folder of attachments in the storage."""


def attachment_path(attachment: Attachment, filename: str) -> str:
    """Return the file's name in the storage. The name is random: it reveals nothing about the owner, and cannot be
    guessed even by somebody who knows the attachment's id.
    """
    name = uuid.uuid4().hex
    return f"{ATTACHMENTS}/{name[:2]}/{name}"


def attachment_storage() -> Storage:
    """Return the storage named ``durable_agents`` in the project's ``STORAGES``, or else the default storage."""
    return storages["durable_agents"] if "durable_agents" in storages.backends else default_storage


class AttachmentQuerySet(models.QuerySet["Attachment"]):
    """Named queries for attachments."""

    def unsent(self) -> AttachmentQuerySet:
        """Attachments that were not sent in a message."""
        return self.filter(thread__isnull=True)

    def forgotten(self, seconds: float) -> AttachmentQuerySet:
        """Unsent attachments that were created more than this many seconds ago."""
        return self.unsent().filter(created_at__lt=seconds_from_now(-seconds))


class Attachment(models.Model):
    """A file that a user has uploaded to the storage.

    Until the file is sent in a message, it belongs to its uploader alone. After that, it belongs to the message's
    thread and is deleted with the thread. A fork of the thread has its own row for the same file.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(AUTH_USER_MODEL, null=True, blank=True, on_delete=cascade_or_keep, related_name="+")
    scope = models.CharField(max_length=200, blank=True, default="")
    thread = models.ForeignKey(Thread, null=True, blank=True, on_delete=models.CASCADE, related_name="attachments")
    file = models.FileField(max_length=200, storage=attachment_storage, upload_to=attachment_path)
    media_type = models.CharField(max_length=127, help_text="By its content, whatever its sender said.")
    filename = models.CharField(max_length=255, blank=True, default="")
    size = models.BigIntegerField(help_text="In bytes.")
    created_at = InstantField(db_default=Now(), editable=False)

    objects = AttachmentQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["file"], name="da_attachment_file"),
            models.Index(fields=["created_at"], name="da_attachment_unsent", condition=Q(thread__isnull=True)),
        ]

    def __str__(self) -> str:
        return self.filename or str(self.id)

    @property
    def place(self) -> str:
        """The name of the file in the storage."""
        return str(self.file.name)


class Ticket(models.Model):
    """A ticket that a client exchanges for one websocket connection. It is for clients that authenticate with a header,
    because browsers cannot send headers of their own with a websocket.
    """

    digest = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of the ticket, in hex.")
    user = models.ForeignKey(AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    expires_at = InstantField()
    credential = models.TextField(
        null=True, help_text="What the ticket was fetched with, encrypted with the ticket, which is not stored."
    )

    class Meta:
        indexes = [models.Index(fields=["expires_at"], name="da_ticket_expiry")]

    def __str__(self) -> str:
        return f"ticket of user {self.user_id}"

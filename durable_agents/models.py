"""Rows and the legal states they may be in; who may move them is decided in ``lifecycle``.

Write to these rows only through the functions of the package. Reads of many rows are queryset methods named for a
state or a need.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any

from django.core.files.storage import Storage, default_storage, storages
from django.db import models
from django.db.models import F, OuterRef, Q, Value, Window
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now, RowNumber

from durable_agents.agents import Code
from durable_agents.conf import AUTH_USER_MODEL
from durable_agents.parts import CallOutcome
from durable_agents.strictjson import is_storable, is_uuid


class ThreadStatus(models.TextChoices):
    """Where a thread stands, as clients see it."""

    STREAMING = "streaming"  # a model step is due, running or about to be tried again
    AWAITING_TOOL_RESULTS = "awaiting_tool_results"  # tool calls are open
    COMPLETED = "completed"  # at rest: answered, or new and empty
    FAILED = "failed"  # at rest: an error ended the run; resume tries again
    STOPPED = "stopped"  # at rest: a person ended the run; resume goes on

    @property
    def is_running(self) -> bool:
        """Whether a run is going on."""
        return self in {ThreadStatus.STREAMING, ThreadStatus.AWAITING_TOOL_RESULTS}


class StreamState(models.TextChoices):
    """Where one attempt at a step stands."""

    PENDING = "pending"  # due at available_at, held by nobody
    STREAMING = "streaming"  # held under a lease
    FINISHED = "finished"  # its step is committed
    ABORTED = "aborted"  # failed, stopped, crashed or superseded; parts it has are kept in the transcript


class ToolCallStatus(models.TextChoices):
    """Where a tool call stands; each gets exactly one outcome."""

    APPROVAL_REQUESTED = "approval_requested"  # waits for a person's decision
    PENDING = "pending"  # due, or waits for somebody outside (deferred, client)
    RUNNING = "running"  # held under a lease
    COMPLETED = "completed"  # outcome: a result
    FAILED = "failed"  # outcome: an error
    DENIED = "denied"  # outcome: a person said no
    EXPIRED = "expired"  # outcome: nobody answered in time
    CANCELLED = "cancelled"  # outcome: the run was stopped or went on without it
    UNKNOWN = "unknown"  # the worker died, the tool may have run: the outcome, or a question to a person


class ToolKind(models.TextChoices):
    """Who runs a tool."""

    SYNC = "sync"  # a worker runs it and its return value is the result
    DEFERRED = "deferred"  # a worker announces it; the result comes later from outside
    CLIENT = "client"  # the browser runs it
    PROVIDER = "provider"  # the model's vendor ran it


class Role(models.TextChoices):
    """Who speaks in a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


RUNNING_STATUSES = (ThreadStatus.STREAMING.value, ThreadStatus.AWAITING_TOOL_RESULTS.value)
OPEN_STREAM_STATES = (StreamState.PENDING.value, StreamState.STREAMING.value)


SUSPECT_CRASHES = 2
"""A row whose holder died this often is run alone: it may be what kills them."""


def seconds_from_now(seconds: float) -> CombinedExpression:
    """That many seconds from now, by the database's clock."""
    return Now() + Value(timedelta(seconds=seconds))


def fairly(due: Any, limit: int) -> list[uuid.UUID]:
    """Primary keys of at most ``limit`` of these rows: every owner's first, then every owner's second, and so on."""
    owner = "owner_id" if due.model is Stream else "thread__owner_id"
    turn = Window(RowNumber(), partition_by=[F(owner)], order_by=F("available_at").asc())
    return list(due.annotate(turn=turn).order_by("turn", "available_at").values_list("pk", flat=True)[:limit])


def one_of(field: str, choices: type[models.TextChoices], name: str) -> models.CheckConstraint:
    """A constraint by which the database itself refuses a value outside the enum."""
    return models.CheckConstraint(condition=Q(**{f"{field}__in": choices.values}), name=name)


class ThreadQuerySet(models.QuerySet["Thread"]):
    """Threads by need."""

    def running(self) -> ThreadQuerySet:
        """Those with a run going on."""
        return self.filter(status__in=RUNNING_STATUSES)

    def idle(self, days: float) -> ThreadQuerySet:
        """Those at rest that nothing has changed for so long."""
        at_rest = self.exclude(status__in=RUNNING_STATUSES)
        return at_rest.filter(updated_at__lt=seconds_from_now(-days * 86_400))


class Thread(models.Model):
    """A durable conversation; the unit of mutual exclusion: every arrow but claim, append and heartbeat locks it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client_id = models.CharField(max_length=200, null=True, blank=True)
    agent = models.CharField(max_length=100)
    owner = models.ForeignKey(
        AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="durable_threads"
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
        "ToolCall", null=True, blank=True, on_delete=models.SET_NULL, related_name="child_threads"
    )
    forked_from = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="forks")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = ThreadQuerySet.as_manager()

    class Meta:
        ordering = ["-updated_at", "-id"]
        indexes = [
            models.Index(fields=["owner", "-updated_at", "-id"], name="da_thread_owner"),
            models.Index(fields=["scope", "-updated_at", "-id"], name="da_thread_scope"),
            models.Index(fields=["agent", "-updated_at", "-id"], name="da_thread_agent"),
            models.Index(fields=["status"], name="da_thread_running", condition=Q(status__in=RUNNING_STATUSES)),
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
        """Whether a run is going on."""
        return ThreadStatus(self.status).is_running

    def next_rev(self) -> int:
        """The rev of one more durable change; call it under the thread's lock only and save the thread after."""
        self.rev += 1
        return self.rev


class MessageQuerySet(models.QuerySet["Message"]):
    """Messages by need."""

    def shown(self) -> MessageQuerySet:
        """Those that were not edited or regenerated away, in order, queued ones last."""
        return self.filter(superseded_at__isnull=True).order_by(F("position").asc(nulls_last=True), "rev")

    def for_clients(self) -> MessageQuerySet:
        """Without those of the role system: what the project has written for the model is no client's."""
        return self.exclude(role=Role.SYSTEM)

    def find(self, shown_id: str) -> Message | None:
        """The one among these that clients know by this id: theirs or ours."""
        if not is_storable(shown_id):
            return None
        ours = Q(pk=shown_id) if is_uuid(shown_id) else Q()
        return self.filter(Q(client_id=shown_id) | ours).first()

    def queued(self) -> MessageQuerySet:
        """Those that wait for the end of the run, the oldest first."""
        return self.filter(position__isnull=True, superseded_at__isnull=True).order_by("rev")


class Message(models.Model):
    """One turn by a role. The parts of an assistant message are those of its streams."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, related_name="messages")
    position = models.BigIntegerField(null=True, blank=True, help_text="Total order; none while queued.")
    queued_at = models.DateTimeField(null=True, blank=True)
    client_id = models.CharField(max_length=200, null=True, blank=True)
    role = models.CharField(max_length=16, choices=Role)
    parts = models.JSONField(default=list, blank=True)
    text = models.TextField(blank=True, default="")
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="children")
    metadata = models.JSONField(default=dict, blank=True)
    superseded_at = models.DateTimeField(null=True, blank=True)
    rev = models.BigIntegerField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ["thread_id", F("position").asc(nulls_last=True), "rev"]
        indexes = [models.Index(fields=["thread", "rev"], name="da_message_rev")]
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
    def asks(self) -> bool:
        """Whether the model is to answer it: a user's, or the late result of a call, which a system message without
        text brings."""
        return self.role == Role.USER or (self.role == Role.SYSTEM and not self.text)

    @property
    def shown_id(self) -> str:
        """The id that clients see: their own where they gave one."""
        return self.client_id or str(self.id)


class Usage(models.Model):
    """What a model call cost. Tokens are counts; cached and cache-write tokens are part of the input tokens,
    reasoning tokens part of the output tokens; cost is in US dollars, NULL where no price is known."""

    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    cost = models.DecimalField(max_digits=16, decimal_places=8, null=True, blank=True)
    usage_estimated = models.BooleanField(default=False)

    class Meta:
        abstract = True


class Held(models.Model):
    """A row that a worker holds under a lease. ``fence`` is raised by every claim and presented on every write."""

    fence = models.BigIntegerField(default=0)
    attempt = models.PositiveIntegerField(default=1, help_text="Counted tries, this one included.")
    crashes = models.PositiveIntegerField(default=0, help_text="Deaths of the holder.")
    available_at = models.DateTimeField(db_default=Now(), help_text="Not claimed before.")
    lease_owner = models.CharField(max_length=120, blank=True, default="")
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    pool = models.CharField(max_length=64)

    class Meta:
        abstract = True


def streams_of(code: Code) -> Q:
    """Streams of agents that are in this code."""
    return Q(agent__in=code)


def calls_of(code: Code) -> Q:
    """Tool calls whose agents have their tools in this code."""
    agents_with: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for agent, tools in code.items():
        agents_with[frozenset(tools)].append(agent)
    known = (Q(thread__agent__in=agents, tool_name__in=tools) for tools, agents in agents_with.items())
    return reduce(or_, known, Q(pk__in=[]))


class StreamQuerySet(models.QuerySet["Stream"]):
    """Streams by need."""

    def open(self) -> StreamQuerySet:
        """Those pending or held; at most one per thread."""
        return self.filter(state__in=OPEN_STREAM_STATES)

    def held(self) -> StreamQuerySet:
        """Those under a lease, alive or not."""
        return self.filter(state=StreamState.STREAMING)

    def due(self, pool: str | OuterRef, code: Code) -> StreamQuerySet:
        """Those that a worker with this code may claim now, the longest due first."""
        due = self.filter(streams_of(code), state=StreamState.PENDING, pool=pool)
        return due.filter(available_at__lte=Now()).order_by("available_at")

    def overdue(self, seconds: float) -> StreamQuerySet:
        """Those that have been due for longer than this, and nobody came."""
        return self.filter(state=StreamState.PENDING, available_at__lt=seconds_from_now(-seconds))

    def in_transcript(self) -> StreamQuerySet:
        """Those whose parts belong to their message, in order: committed steps and what a stop kept."""
        closed = self.filter(state__in=[StreamState.FINISHED, StreamState.ABORTED])
        return closed.exclude(parts=[]).order_by("number")


class Stream(Usage, Held):
    """One attempt at a step. Stream rows are the usage ledger: failed attempts keep theirs, and with the setting
    ``USAGE_ON_DELETE`` "keep" those of a deleted thread stay, without thread, message and content."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    thread = models.ForeignKey(Thread, null=True, on_delete=models.SET_NULL, related_name="streams")
    message = models.ForeignKey(Message, null=True, on_delete=models.SET_NULL, related_name="streams")
    agent = models.CharField(max_length=100, blank=True, default="")
    owner = models.ForeignKey(AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
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
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = StreamQuerySet.as_manager()

    class Meta:
        ordering = ["thread_id", "number"]
        indexes = [
            models.Index(fields=["thread", "rev"], name="da_stream_rev"),
            models.Index(fields=["message", "number"], name="da_stream_message"),
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
        """The message that it is an attempt at. Raises ValueError for a stream of a deleted thread."""
        if self.message is None:
            raise ValueError(f"stream {self.pk} has lost its thread")
        return self.message

    @property
    def answer_id(self) -> uuid.UUID:
        """The id of that message, without loading it."""
        if self.message_id is None:
            raise ValueError(f"stream {self.pk} has lost its thread")
        return self.message_id


class ToolCallQuerySet(models.QuerySet["ToolCall"]):
    """Tool calls by need."""

    def open(self) -> ToolCallQuerySet:
        """Those without an outcome."""
        return self.filter(finished_at__isnull=True)

    def held(self) -> ToolCallQuerySet:
        """Those under a lease, alive or not."""
        return self.filter(status=ToolCallStatus.RUNNING)

    def expired(self, grace_seconds: float) -> ToolCallQuerySet:
        """Those without an outcome whose time is over; where a worker runs them, for longer than ``grace_seconds``."""
        running = Q(status=ToolCallStatus.RUNNING, expires_at__gte=seconds_from_now(-grace_seconds))
        return self.filter(finished_at__isnull=True, expires_at__lt=Now()).exclude(running)

    def overdue(self, seconds: float) -> ToolCallQuerySet:
        """Those for workers that have been due for longer than this, and nobody came."""
        pending = self.filter(status=ToolCallStatus.PENDING, needs_worker=True)
        return pending.filter(available_at__lt=seconds_from_now(-seconds))

    def due(self, pool: str | OuterRef, code: Code) -> ToolCallQuerySet:
        """Those that a worker with this code may claim now, the longest due first."""
        due = self.filter(calls_of(code), status=ToolCallStatus.PENDING, needs_worker=True, pool=pool)
        return due.filter(available_at__lte=Now()).order_by("available_at")


class ToolCall(Held):
    """One call of a tool by the model, with exactly one outcome."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, related_name="tool_calls")
    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="tool_calls")
    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="tool_calls")
    tool_call_id = models.CharField(max_length=64, help_text="Ours, unique per thread.")
    provider_call_id = models.TextField(blank=True, default="")
    tool_name = models.CharField(max_length=128)
    kind = models.CharField(max_length=16, choices=ToolKind, default=ToolKind.SYNC)
    needs_worker = models.BooleanField(default=True, help_text="A worker has to run it, or to announce it.")
    answered_by = models.CharField(max_length=8, default="server", help_text="Who may give its result.")
    approved_by = models.CharField(max_length=8, default="owner", help_text="Who may approve it.")
    passed_at = models.DateTimeField(
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
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Given up then, as things stand.")
    approval_requested_at = models.DateTimeField(null=True, blank=True)
    approval_decided_at = models.DateTimeField(null=True, blank=True)
    approval_decided_by = models.ForeignKey(
        AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    approval_reason = models.TextField(blank=True, default="")
    approval_digest = models.CharField(max_length=64, blank=True, default="")
    rev = models.BigIntegerField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    finished_at = models.DateTimeField(null=True, blank=True, help_text="Empty while the call has no outcome.")

    objects = ToolCallQuerySet.as_manager()

    class Meta:
        ordering = ["thread_id", "rev"]
        indexes = [
            models.Index(fields=["thread", "rev"], name="da_toolcall_rev"),
            models.Index(fields=["stream"], name="da_toolcall_stream"),
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
    def decision_reason(self) -> str | None:
        """Why the approval that the call asked for was given or refused; None where it was not asked or not decided."""
        was_decided = self.approval_requested_at is not None and self.approval_decided_at is not None
        return self.approval_reason if was_decided else None

    def outcome(self) -> CallOutcome:
        """The call as a value, for assembling messages and history."""
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

    @property
    def waits_for_worker(self) -> bool:
        """Whether a worker runs it or has yet to."""
        return self.status == ToolCallStatus.RUNNING or (self.status == ToolCallStatus.PENDING and self.needs_worker)


class DeltaQuerySet(models.QuerySet["Delta"]):
    """Deltas by need."""

    def after(self, stream_id: uuid.UUID, seq: int) -> DeltaQuerySet:
        """The deltas of one stream after ``seq``, in order."""
        return self.filter(stream_id=stream_id, seq__gt=seq).order_by("seq")

    def chunks_of(self, stream_id: uuid.UUID) -> list[dict[str, Any]]:
        """All chunks that are stored of one stream, in order."""
        return [chunk for chunks in self.after(stream_id, -1).values_list("chunks", flat=True) for chunk in chunks]

    def disposable(self) -> DeltaQuerySet:
        """Those of streams that are closed: nobody needs them to show the message."""
        return self.exclude(stream__state__in=OPEN_STREAM_STATES)


class Delta(models.Model):
    """One fragment of a stream: a list of UI message chunks. Disposable once its stream is closed."""

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="deltas")
    seq = models.PositiveIntegerField(help_text="Contiguous from 0 per stream.")
    chunks = models.JSONField()

    objects = DeltaQuerySet.as_manager()

    class Meta:
        ordering = ["stream_id", "seq"]
        constraints = [models.UniqueConstraint(fields=["stream", "seq"], name="da_delta_seq")]

    def __str__(self) -> str:
        return f"delta {self.seq} of {self.stream_id}"


class Pool(models.Model):
    """A named share of capacity. Claims lock its row, so that the limit holds over all processes."""

    name = models.CharField(max_length=64, primary_key=True)
    limit = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.name} ({self.limit})"


class Command(models.Model):
    """The stored answer to a live command, so that a client may send it again without doubling it."""

    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, related_name="commands")
    key = models.CharField(max_length=200)
    result: Any = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["thread", "key"], name="da_command_key")]
        indexes = [models.Index(fields=["created_at"], name="da_command_age")]

    def __str__(self) -> str:
        return self.key


ATTACHMENTS = "durable_agents/attachments"
"""Where in the storage they are."""


def attachment_path(attachment: Attachment, filename: str) -> str:
    """Where the storage keeps the bytes: a name that nobody can guess, not even from the attachment's id, and that
    says nothing of whose they are."""
    name = uuid.uuid4().hex
    return f"{ATTACHMENTS}/{name[:2]}/{name}"


def attachment_storage() -> Storage:
    """The storage that the project calls ``durable_agents`` in its ``STORAGES``, else the default one."""
    return storages["durable_agents"] if "durable_agents" in storages.backends else default_storage


class AttachmentQuerySet(models.QuerySet["Attachment"]):
    """Attachments by need."""

    def unsent(self) -> AttachmentQuerySet:
        """Those that no message carries."""
        return self.filter(thread__isnull=True)

    def forgotten(self, seconds: float) -> AttachmentQuerySet:
        """Those that no message has carried for so long."""
        return self.unsent().filter(created_at__lt=seconds_from_now(-seconds))


class Attachment(models.Model):
    """A file that a user gave, in the storage. Until a message carries it, it is its uploader's alone; from then on it
    belongs to that thread and its owner, and goes with it. Forks have rows of their own for the same file."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    scope = models.CharField(max_length=200, blank=True, default="")
    thread = models.ForeignKey(Thread, null=True, blank=True, on_delete=models.CASCADE, related_name="attachments")
    file = models.FileField(max_length=200, storage=attachment_storage, upload_to=attachment_path)
    media_type = models.CharField(max_length=127, help_text="By its content, whatever its sender said.")
    filename = models.CharField(max_length=255, blank=True, default="")
    size = models.BigIntegerField(help_text="In bytes.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

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
        """The name of its file in the storage."""
        return str(self.file.name)


class Ticket(models.Model):
    """A pass for one websocket, for clients that sign in by a header, which a browser's websocket cannot send."""

    digest = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of the ticket, in hex.")
    user = models.ForeignKey(AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    expires_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["expires_at"], name="da_ticket_expiry")]

    def __str__(self) -> str:
        return f"ticket of user {self.user_id}"

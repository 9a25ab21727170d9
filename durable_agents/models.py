"""The database models, with the states of their rows and the allowed changes between states.

Write to the rows only through the functions of this package. Queries for several rows are queryset methods, named after
a state or a purpose.
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
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from durable_agents.actors import User
from durable_agents.agents import RESOLVED_TOOLS, Code
from durable_agents.conf import AUTH_USER_MODEL, config
from durable_agents.parts import CallOutcome
from durable_agents.strictjson import is_storable, is_uuid
from durable_agents.utc_times import InstantField, instant


class ThreadStatus(models.TextChoices):
    """The status of a thread, as clients see it."""

    # The thread waits for a model call, which is running or will run.
    STREAMING = "streaming", _("Streaming")
    # The thread waits for the outcome of at least one tool call.
    AWAITING_TOOL_RESULTS = "awaiting_tool_results", _("Awaiting Tool Results")
    # Not running: every message is answered, or the thread is empty.
    COMPLETED = "completed", _("Completed")
    # Not running: an error ended the last run. ``resume_thread`` tries again.
    FAILED = "failed", _("Failed")
    # Not running: a person stopped the last run. ``resume_thread`` continues it.
    STOPPED = "stopped", _("Stopped")

    @property
    def is_running(self) -> bool:
        """Whether the thread is in a run: it waits for a model call or for tool calls."""
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
"""The statuses that can follow each status. ``streaming`` follows itself when the next attempt or step begins."""


class StreamState(models.TextChoices):
    """The state of one model call."""

    # No worker has claimed the model call. It can be claimed at ``available_at``, or at once if ``available_at`` is
    # empty.
    PENDING = "pending", _("Pending")
    # A worker holds the lease of the model call.
    STREAMING = "streaming", _("Streaming")
    # The result of the model call is committed.
    FINISHED = "finished", _("Finished")
    # The model call failed, crashed, or was stopped or replaced. If the row has parts, clients still see them.
    ABORTED = "aborted", _("Aborted")


OPEN_STREAM_STATES = (StreamState.PENDING.value, StreamState.STREAMING.value)
STREAM_TRANSITIONS: Mapping[StreamState, Collection[StreamState]] = {
    StreamState.PENDING: {StreamState.STREAMING, StreamState.ABORTED},
    StreamState.STREAMING: {StreamState.FINISHED, StreamState.ABORTED},
    StreamState.FINISHED: (),
    StreamState.ABORTED: (),
}
"""The states that can follow each state. A retry is a new row, so no state leads back to ``pending``."""


class ToolCallStatus(models.TextChoices):
    """The status of a tool call. Each call gets exactly one outcome."""

    # A person has to approve the call first.
    APPROVAL_REQUESTED = "approval_requested", _("Approval Requested")
    # The call waits for a worker, or a deferred or client call waits for its result from outside.
    PENDING = "pending", _("Pending")
    # A worker holds the call's lease.
    RUNNING = "running", _("Running")
    # The outcome is a result.
    COMPLETED = "completed", _("Completed")
    # The outcome is an error.
    FAILED = "failed", _("Failed")
    # A person has rejected the call.
    DENIED = "denied", _("Denied")
    # The deadline passed before a result, an approval or a rejection.
    EXPIRED = "expired", _("Expired")
    # The run was stopped, or continued without waiting for the result.
    CANCELLED = "cancelled", _("Cancelled")
    # The worker died, and it is unknown whether the tool ran. In some cases, a person has to decide the outcome.
    UNKNOWN = "unknown", _("Unknown")


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
"""The statuses that can follow each status.

A tool call with the status ``unknown`` has no outcome as long as a person is asked whether the tool has run. If the run
continues without waiting for the person's answer, the outcome is ``unknown``. Therefore, ``unknown`` can follow itself.
"""

AnyState = TypeVar("AnyState", ThreadStatus, StreamState, ToolCallStatus)
_TRANSITIONS: Mapping[Any, Mapping[Any, Collection[Any]]] = {
    ThreadStatus: THREAD_TRANSITIONS,
    StreamState: STREAM_TRANSITIONS,
    ToolCallStatus: TOOL_CALL_TRANSITIONS,
}


class IllegalTransitionError(RuntimeError):
    """The row's current state does not allow this change. This is a bug in this package."""


def next_state(current: str, new: AnyState) -> AnyState:
    """Return ``new``. Raises IllegalTransitionError if a row is not allowed to change from ``current`` to ``new``."""
    states = type(new)
    if new not in _TRANSITIONS[states][states(current)]:
        raise IllegalTransitionError(f"{states.__name__}: {new.value!r} may not follow {current!r}.")
    return new


class ToolKind(models.TextChoices):
    """Who runs a tool."""

    # A worker runs the tool. Its return value is the result.
    SYNC = "sync", _("Sync")
    # A worker runs the tool, which only starts the work. The result is added later.
    DEFERRED = "deferred", _("Deferred")
    # The browser runs the tool and sends the result.
    CLIENT = "client", _("Client")
    # The model's vendor runs the tool during the model call.
    PROVIDER = "provider", _("Provider")


class Role(models.TextChoices):
    """The role of a message's author."""

    SYSTEM = "system", _("System")
    USER = "user", _("User")
    ASSISTANT = "assistant", _("Assistant")


SUSPECT_CRASHES = 2
"""The number of dead workers that makes a row a suspect (a row whose earlier workers died). A worker that runs a
suspect runs nothing else.
"""


def seconds_from_now(seconds: float) -> CombinedExpression:
    """Return the database's time plus this many seconds, as an expression."""
    return Now() + Value(timedelta(seconds=seconds))


def fairly(due: Any, limit: int) -> list[uuid.UUID]:
    """Return at most ``limit`` primary keys, so that owners take turns: the oldest row of each owner, then the second
    oldest of each, and so on.

    Rows without an owner belong to anonymous visitors. For these rows, the scope is used instead of the owner.
    """
    whose = ("scope", "owner_id") if due.model is Stream else ("thread__scope", "thread__owner_id")
    turn = Window(RowNumber(), partition_by=[F(name) for name in whose], order_by=DUE_SINCE.asc())
    return list(due.annotate(turn=turn).order_by("turn", DUE_SINCE.asc()).values_list("pk", flat=True)[:limit])


DUE_SINCE = Coalesce("available_at", "pending_since")
"""The time at which a pending row becomes due. Use it only to sort rows and to compute their age.

To find out whether a row is due, use ``is_due`` instead, because the clocks that set ``pending_since`` can differ.
"""


def is_due() -> Q:
    """Return a filter for pending rows that can be claimed now.

    A row that is due at once has no ``available_at``. No time is stored for it, because the time could still be in the
    future by the clock of another machine.
    """
    return Q(available_at__isnull=True) | Q(available_at__lte=Now())


def due_for(seconds: float) -> Q:
    """Return a filter for pending rows that have been due for more than this many seconds."""
    before = seconds_from_now(-seconds)
    return Q(available_at__lt=before) | Q(available_at__isnull=True, pending_since__lt=before)


def one_of(field: str, choices: type[models.TextChoices], name: str) -> models.CheckConstraint:
    """Return a database constraint that allows only the values of this enum."""
    return models.CheckConstraint(condition=Q(**{f"{field}__in": choices.values}), name=name)


def filled(field: str, name: str) -> models.Index:
    """Return a partial index of the rows in which this foreign key is not NULL. The index is used when the referenced
    row is deleted.

    In most rows, the foreign key is NULL. These rows are not in the index, and cost nothing.
    """
    return models.Index(fields=[field], name=name, condition=Q(**{f"{field}__isnull": False}))


class ThreadQuerySet(models.QuerySet["Thread"]):
    def running(self) -> ThreadQuerySet:
        """Return threads that are in a run."""
        return self.filter(in_run=True)

    def idle(self, days: float) -> ThreadQuerySet:
        """Return threads that are not in a run and have not changed for this many days."""
        at_rest = self.exclude(status__in=RUNNING_STATUSES)
        return at_rest.filter(updated_at__lt=seconds_from_now(-days * 86_400))


def cascade_or_keep(
    collector: Collector, field: models.ForeignKey[object, object], sub_objs: models.QuerySet[models.Model], using: str
) -> None:
    """Handle the deletion of a user (``on_delete``): delete the user's threads and attachments, or keep them without an
    owner.

    With ``OWNER_ON_DELETE`` set to "keep", two kinds of rows are kept: threads with a scope, and attachments that have
    a scope and belong to a thread. All other rows are deleted.
    """
    if config().owner_on_delete == "keep":
        shared = sub_objs.exclude(scope="")
        if sub_objs.model is Thread:
            # Remove ``client_id``, because it must be unique among threads without an owner. Two users can have chosen
            # the same ``client_id``. Remove the owner last, because ``shared`` finds the threads by their owner.
            collector.add_field_update(Thread._meta.get_field("client_id"), None, shared)
            sub_objs = sub_objs.filter(scope="")
        else:
            shared = shared.filter(thread__isnull=False)
            sub_objs = sub_objs.filter(Q(scope="") | Q(thread__isnull=True))
        collector.add_field_update(field, None, shared)
    models.CASCADE(collector, field, sub_objs, using)


class Thread(models.Model):
    """A durable conversation.

    Every change of the thread's state locks this row first. Only claims, heartbeats and streamed text are written
    without the lock.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    client_id = models.CharField(_("client id"), max_length=200, null=True, blank=True)
    agent = models.CharField(_("agent"), max_length=100)
    agent_is_public = models.BooleanField(
        _("agent is public"),
        default=False,
        db_default=False,
        help_text=_("Whether the agent was public when the thread last changed. This counts if the agent is removed."),
    )
    owner = models.ForeignKey(
        AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=cascade_or_keep,
        related_name="durable_threads",
        db_index=False,
        verbose_name=_("owner"),
    )
    scope = models.CharField(_("scope"), max_length=200, blank=True, default="")
    title = models.CharField(_("title"), max_length=200, blank=True, default="")
    archived = models.BooleanField(_("archived"), default=False)
    status = models.CharField(_("status"), max_length=24, choices=ThreadStatus, default=ThreadStatus.COMPLETED)
    rev = models.BigIntegerField(_("rev"), default=0, help_text=_("Counts the changes of the thread."))
    stop_rev = models.BigIntegerField(
        _("stop rev"),
        null=True,
        blank=True,
        help_text=_("The rev at the last stop. Older queued messages wait until the thread is resumed."),
    )
    last_position = models.BigIntegerField(_("last position"), default=0)
    last_number = models.BigIntegerField(_("last number"), default=0)
    run_steps = models.PositiveIntegerField(
        _("run steps"), default=0, help_text=_("Successful model calls of the current run.")
    )
    metadata = models.JSONField(
        _("metadata"), default=dict, blank=True, help_text=_("Written by clients. Do not trust it.")
    )
    context = models.JSONField(
        _("context"), default=dict, blank=True, help_text=_("Set by server code only. Tools can trust it.")
    )
    error_code = models.CharField(_("error code"), max_length=64, blank=True, default="")
    error_message = models.TextField(_("error message"), blank=True, default="")
    retry = models.JSONField(_("retry"), null=True, blank=True)
    input_tokens = models.BigIntegerField(_("input tokens"), default=0)
    output_tokens = models.BigIntegerField(_("output tokens"), default=0)
    cached_input_tokens = models.BigIntegerField(_("cached input tokens"), default=0)
    cache_write_tokens = models.BigIntegerField(_("cache write tokens"), default=0)
    reasoning_tokens = models.BigIntegerField(_("reasoning tokens"), default=0)
    cost = models.DecimalField(_("cost"), max_digits=16, decimal_places=8, null=True, blank=True)
    parent_tool_call = models.ForeignKey(
        "ToolCall",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="child_threads",
        db_index=False,
        verbose_name=_("parent tool call"),
    )
    forked_from = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="forks",
        db_index=False,
        verbose_name=_("forked from"),
    )
    created_at = InstantField(_("created at"), db_default=Now(), editable=False)
    updated_at = InstantField(
        _("updated at"),
        db_default=Now(),
        editable=False,
        help_text=_("During a run, this may be up to ten seconds old."),
    )
    in_run = models.GeneratedField(
        expression=ExpressionWrapper(Q(status__in=RUNNING_STATUSES), output_field=models.BooleanField()),
        output_field=models.BooleanField(),
        db_persist=True,
        help_text=_(
            "Whether the thread is in a run. Unlike the status, this stays the same between the steps of a run."
        ),
        verbose_name=_("in run"),
    )

    deleted_by: Any = None
    """Who deletes this row, for the audit log: an actor, a user, or None for the project itself. This attribute is not
    stored.
    """

    objects = ThreadQuerySet.as_manager()

    class Meta:
        verbose_name = _("thread")
        verbose_name_plural = _("threads")
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
        """Whether the thread is in a run."""
        return ThreadStatus(self.status).is_running

    def next_rev(self) -> int:
        """Increment ``rev``, the counter of changes, and return the new value. The caller has locked the thread, and
        saves it afterwards.
        """
        self.rev += 1
        return self.rev


class MessageQuerySet(models.QuerySet["Message"]):
    def shown(self) -> MessageQuerySet:
        """Return messages that no edit or new answer has replaced, in order. Queued messages come last."""
        return self.filter(superseded_at__isnull=True).order_by(F("position").asc(nulls_last=True), "rev")

    def for_clients(self) -> MessageQuerySet:
        """Return messages that clients see: all except system messages, which are only for the model."""
        return self.exclude(role=Role.SYSTEM)

    def in_history(self) -> MessageQuerySet:
        """Return the messages of the current history, without superseded and queued ones."""
        return self.filter(superseded_at__isnull=True, position__isnull=False)

    def late_results(self) -> MessageQuerySet:
        """Return messages that contain the late result of a tool call (see ``Message.is_late_result``)."""
        return self.filter(role=Role.SYSTEM, text="")

    def find(self, shown_id: str) -> Message | None:
        """Return the message that clients see under this id, or None. The id is a ``client_id`` or a primary key."""
        if not is_storable(shown_id):
            return None
        ours = Q(pk=shown_id) if is_uuid(shown_id) else Q()
        return self.filter(Q(client_id=shown_id) | ours).first()

    def queued(self) -> MessageQuerySet:
        """Return messages that wait for the end of the current run, oldest first."""
        return self.filter(position__isnull=True, superseded_at__isnull=True).order_by("rev")


class Message(models.Model):
    """A message of a thread. The parts of an assistant message are stored in ``Stream`` rows, one per model call."""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    thread = models.ForeignKey(
        Thread, on_delete=models.CASCADE, related_name="messages", db_index=False, verbose_name=_("thread")
    )
    position = models.BigIntegerField(
        _("position"), null=True, blank=True, help_text=_("Order of the messages. Empty while the message is queued.")
    )
    queued_at = InstantField(_("queued at"), null=True, blank=True)
    client_id = models.CharField(_("client id"), max_length=200, null=True, blank=True)
    role = models.CharField(_("role"), max_length=16, choices=Role)
    sender = models.ForeignKey(
        AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
        help_text=_("The user who wrote the message."),
        verbose_name=_("sender"),
    )
    parts = models.JSONField(_("parts"), default=list, blank=True)
    text = models.TextField(_("text"), blank=True, default="")
    parent = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="children",
        db_index=False,
        verbose_name=_("parent"),
    )
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    superseded_at = InstantField(_("superseded at"), null=True, blank=True)
    rev = models.BigIntegerField(_("rev"))
    created_at = InstantField(_("created at"), db_default=Now(), editable=False)

    objects = MessageQuerySet.as_manager()

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
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
        return f"{self.get_role_display()} {self.shown_id}"

    @property
    def is_late_result(self) -> bool:
        """Whether the message contains the late result of a tool call: a system message without text."""
        return self.role == Role.SYSTEM and not self.text

    @property
    def asks(self) -> bool:
        """Whether the model has to answer this message. This is true of user messages and late tool results."""
        return self.role == Role.USER or self.is_late_result

    def question(self) -> Message | None:
        """Return the user message before this assistant message, with its sender. Return None if there is none."""
        said = Message.objects.using(self._state.db).filter(thread_id=self.thread_id, role=Role.USER)
        return said.filter(position__lt=self.position).select_related("sender").order_by("-position").first()

    @property
    def shown_id(self) -> str:
        """The id that clients see: the ``client_id``, or the primary key if there is none."""
        return self.client_id or str(self.id)


class Usage(models.Model):
    """The token counts and the cost of a model call.

    Input tokens include cached and cache-write tokens. Output tokens include reasoning tokens. The cost is in US
    dollars, or NULL if the price is unknown.
    """

    input_tokens = models.BigIntegerField(_("input tokens"), default=0)
    output_tokens = models.BigIntegerField(_("output tokens"), default=0)
    cached_input_tokens = models.BigIntegerField(_("cached input tokens"), default=0)
    cache_write_tokens = models.BigIntegerField(_("cache write tokens"), default=0)
    reasoning_tokens = models.BigIntegerField(_("reasoning tokens"), default=0)
    cost = models.DecimalField(_("cost"), max_digits=16, decimal_places=8, null=True, blank=True)
    usage_estimated = models.BooleanField(_("usage estimated"), default=False)

    class Meta:
        abstract = True


ENDED_LEASE = {"lease_owner": "", "lease_expires_at": None, "fence": F("fence") + 1}
"""Keyword arguments for ``QuerySet.update`` that end the leases of many rows. For one row, use ``Held.end_lease``."""


class Held(models.Model):
    """A row that a worker can claim and hold under a lease.

    Every claim increments ``fence``, the fencing token. A write with an old token is refused.
    """

    fence = models.BigIntegerField(_("fence"), default=0)
    attempt = models.PositiveIntegerField(
        _("attempt"), default=1, help_text=_("Number of this attempt, counted from 1.")
    )
    crashes = models.PositiveIntegerField(
        _("crashes"),
        default=0,
        help_text=_("How many workers have died while they held this row, since it last survived a trial."),
    )
    is_alone = models.BooleanField(
        _("on trial"),
        default=False,
        db_default=False,
        help_text=_("Whether the last worker that claimed the row held no other row."),
    )
    lonely_crashes = models.PositiveIntegerField(
        _("crashes on trial"),
        default=0,
        db_default=0,
        help_text=_("How many workers have died while they held only this row."),
    )
    excuses = models.PositiveIntegerField(
        _("uncounted crashes"),
        default=0,
        db_default=0,
        help_text=_("How many worker deaths were not counted, because other workers died at the same time."),
    )
    clearances = models.PositiveIntegerField(
        _("survived trials"),
        default=0,
        db_default=0,
        help_text=_("How often a worker has held only this row and survived."),
    )
    available_at = InstantField(
        _("available at"),
        null=True,
        blank=True,
        help_text=_("No worker claims the row before this time. Empty means at once."),
    )
    pending_since = InstantField(
        _("pending since"),
        db_default=Now(),
        help_text=_("When the row began to wait. Used only for its order and age."),
    )
    lease_owner = models.CharField(_("lease owner"), max_length=120, blank=True, default="")
    lease_expires_at = InstantField(_("lease expires at"), null=True, blank=True)
    pool = models.CharField(_("pool"), max_length=64)

    LEASE_FIELDS = ("lease_owner", "lease_expires_at", "fence")

    class Meta:
        abstract = True

    def end_lease(self) -> None:
        """End the lease, and increment ``fence`` so that later writes of the worker are refused. The caller saves
        ``LEASE_FIELDS``.
        """
        self.lease_owner, self.lease_expires_at = "", None
        self.fence += 1


def streams_of(code: Code) -> Q:
    """Return a filter for streams that a process can run. ``code`` lists the process's agents."""
    return Q(agent__in=code)


def calls_of(code: Code) -> Q:
    """Return a filter for tool calls that a process can run. ``code`` lists the process's agents and their tools.

    ``code`` does not list the tools that come from a ``tool_resolver``. For a call of one of these tools, it is enough
    that the agent has a ``tool_resolver``.
    """
    agents_with: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for agent, tools in code.items():
        agents_with[frozenset(tools)].append(agent)
    known = (Q(thread__agent__in=agents, tool_name__in=tools) for tools, agents in agents_with.items())
    resolving = [agent for agent, tools in code.items() if RESOLVED_TOOLS in tools]
    declared = reduce(or_, known, Q(pk__in=[])) & Q(is_resolved=False)
    return declared | Q(is_resolved=True, thread__agent__in=resolving) if resolving else declared


class StreamQuerySet(models.QuerySet["Stream"]):
    def open(self) -> StreamQuerySet:
        """Return streams that are pending or held by a worker. A thread has at most one."""
        return self.filter(state__in=OPEN_STREAM_STATES)

    def held(self) -> StreamQuerySet:
        """Return streams that a worker holds, even if the lease has expired."""
        return self.filter(state=StreamState.STREAMING)

    def due(self, pool: str | OuterRef, code: Code) -> StreamQuerySet:
        """Return streams that a worker can claim now, longest wait first. ``code`` lists what the worker can run."""
        due = self.filter(streams_of(code), state=StreamState.PENDING, pool=pool)
        return due.filter(is_due()).order_by(DUE_SINCE.asc())

    def overdue(self, seconds: float) -> StreamQuerySet:
        """Return streams that no worker has claimed although they have been due for more than this many seconds."""
        return self.filter(due_for(seconds), state=StreamState.PENDING)

    def in_transcript(self) -> StreamQuerySet:
        """Return the streams whose parts appear in messages, in order. They are finished or aborted, and have parts."""
        closed = self.filter(state__in=[StreamState.FINISHED, StreamState.ABORTED])
        return closed.exclude(parts=[]).order_by("number")


class Stream(Usage, Held):
    """One model call. If the call has to be repeated, the next attempt is a new row.

    Rows of failed attempts are kept, because they record usage. With ``USAGE_ON_DELETE`` set to "keep", all rows are
    kept when their thread is deleted, but without message and content.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    thread = models.ForeignKey(
        Thread, null=True, on_delete=models.SET_NULL, related_name="streams", db_index=False, verbose_name=_("thread")
    )
    message = models.ForeignKey(
        Message, null=True, on_delete=models.SET_NULL, related_name="streams", db_index=False, verbose_name=_("message")
    )
    agent = models.CharField(_("agent"), max_length=100, blank=True, default="")
    # This foreign key has no constraint in the database. With a constraint, inserting a stream would have to wait for
    # every transaction that has locked the user's row.
    owner = models.ForeignKey(
        AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
        db_constraint=False,
        verbose_name=_("owner"),
    )
    scope = models.CharField(_("scope"), max_length=200, blank=True, default="")
    number = models.BigIntegerField(
        _("number"), help_text=_("Number of this model call in its thread. Later calls have higher numbers.")
    )
    state = models.CharField(_("state"), max_length=16, choices=StreamState, default=StreamState.PENDING)
    parts = models.JSONField(_("parts"), default=list, blank=True)
    text = models.TextField(_("text"), blank=True, default="")
    model = models.CharField(_("model"), max_length=200, blank=True, default="")
    finish_reason = models.CharField(_("finish reason"), max_length=32, blank=True, default="")
    goes_on = models.BooleanField(
        _("continues earlier text"),
        default=False,
        help_text=_("Whether this attempt continues the text of an interrupted attempt. That text is its first delta."),
    )
    error_code = models.CharField(_("error code"), max_length=64, blank=True, default="")
    error_detail = models.TextField(_("error detail"), blank=True, default="")
    rev = models.BigIntegerField(_("rev"))
    created_at = InstantField(_("created at"), db_default=Now(), editable=False)
    started_at = InstantField(_("started at"), null=True, blank=True)
    finished_at = InstantField(_("finished at"), null=True, blank=True)

    objects = StreamQuerySet.as_manager()

    class Meta:
        verbose_name = _("stream")
        verbose_name_plural = _("streams")
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
        facts = {"number": self.number, "state": self.get_state_display()}
        return gettext("Stream %(number)s (%(state)s)") % facts

    @property
    def answer(self) -> Message:
        """The message that this stream belongs to. Raises ValueError if the thread was deleted."""
        if self.message is None:
            raise ValueError(f"stream {self.pk} has lost its thread")
        return self.message

    @property
    def answer_id(self) -> uuid.UUID:
        """The primary key of ``answer``, without a query. Raises ValueError if the thread was deleted."""
        if self.message_id is None:
            raise ValueError(f"stream {self.pk} has lost its thread")
        return self.message_id


class ToolCallQuerySet(models.QuerySet["ToolCall"]):
    def open(self) -> ToolCallQuerySet:
        """Return calls without an outcome."""
        return self.filter(finished_at__isnull=True)

    def with_asker(self) -> ToolCallQuerySet:
        """Add two annotations, so that ``asker_id`` and ``is_asked_by`` need fewer queries.

        - ``asker_pk``: the id of the user who caused the tool call.
        - ``is_made_again``: whether anybody has regenerated an answer or resumed a run in the chat thread.
        """
        again = AuditEntry.objects.filter(thread_id=OuterRef("thread"), action__in=MAKES_AGAIN)
        return self.with_asker_pk().annotate(is_made_again=Exists(again))

    def with_asker_pk(self) -> ToolCallQuerySet:
        """Annotate each call with the id of the user who caused it, as ``asker_pk``."""
        said = Message.objects.filter(
            thread=OuterRef("thread"), role=Role.USER, position__lt=OuterRef("message__position")
        ).order_by("-position")
        asker = Subquery(said.values("sender")[:1])
        key = Thread._meta.get_field("owner").target_field
        return self.annotate(asker_pk=Coalesce(asker, "thread__owner", output_field=key))

    def held(self) -> ToolCallQuerySet:
        """Return calls that a worker holds, even if the lease has expired."""
        return self.filter(status=ToolCallStatus.RUNNING)

    def expired(self, grace_seconds: float) -> ToolCallQuerySet:
        """Return calls without an outcome whose deadline has passed. If a worker is running the call, the deadline must
        have passed more than ``grace_seconds`` ago.
        """
        running = Q(status=ToolCallStatus.RUNNING, expires_at__gte=seconds_from_now(-grace_seconds))
        return self.filter(finished_at__isnull=True, expires_at__lt=Now()).exclude(running)

    def overdue(self, seconds: float) -> ToolCallQuerySet:
        """Return calls that no worker has claimed although they have been due for more than this many seconds."""
        pending = self.filter(status=ToolCallStatus.PENDING, needs_worker=True)
        return pending.filter(due_for(seconds))

    def due(self, pool: str | OuterRef, code: Code) -> ToolCallQuerySet:
        """Return tool calls that a worker can claim now, longest wait first. ``code`` lists what the worker can run."""
        due = self.filter(calls_of(code), status=ToolCallStatus.PENDING, needs_worker=True, pool=pool)
        return due.filter(is_due()).order_by(DUE_SINCE.asc())


class ToolCall(Held):
    """One call of a tool by the model, with exactly one outcome."""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    thread = models.ForeignKey(
        Thread, on_delete=models.CASCADE, related_name="tool_calls", db_index=False, verbose_name=_("thread")
    )
    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="tool_calls", verbose_name=_("message"))
    stream = models.ForeignKey(
        Stream, on_delete=models.CASCADE, related_name="tool_calls", db_index=False, verbose_name=_("stream")
    )
    tool_call_id = models.CharField(
        _("tool call id"),
        max_length=64,
        help_text=_("The id that this package gave the call. It is unique in the thread."),
    )
    provider_call_id = models.TextField(_("provider call id"), blank=True, default="")
    tool_name = models.CharField(_("tool name"), max_length=128)
    kind = models.CharField(_("kind"), max_length=16, choices=ToolKind, default=ToolKind.SYNC)
    is_resolved = models.BooleanField(
        _("from tool_resolver"),
        default=False,
        db_default=False,
        help_text=_("Whether the tool comes from the agent's tool_resolver instead of a module."),
    )
    after_crash = models.CharField(
        _("after crash"),
        max_length=16,
        blank=True,
        default="",
        db_default="",
        help_text=_("What happens if the worker dies. Empty means the current option of the tool."),
    )
    needs_worker = models.BooleanField(
        _("needs worker"),
        default=True,
        help_text=_("Whether a worker has to handle the call before its result can be added."),
    )
    answered_by = models.CharField(
        _("answered by"), max_length=200, default="server", help_text=_("Who may add the result.")
    )
    answered_by_user = models.ForeignKey(
        AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
        help_text=_("The user who added the result or error."),
        verbose_name=_("answered by user"),
    )
    approved_by = models.CharField(
        _("approved by"), max_length=200, default="owner", help_text=_("Who may approve the call.")
    )
    passed_at = InstantField(
        _("continued without result at"),
        null=True,
        blank=True,
        help_text=_("When the model went on without the result, which is added later."),
    )
    arguments = models.JSONField(_("arguments"), default=dict, blank=True)
    approved_arguments = models.JSONField(_("approved arguments"), null=True, blank=True)
    status = models.CharField(_("status"), max_length=24, choices=ToolCallStatus, default=ToolCallStatus.PENDING)
    result = models.JSONField(_("result"), null=True, blank=True)
    progress = models.JSONField(_("progress"), null=True, blank=True)
    error_code = models.CharField(_("error code"), max_length=64, blank=True, default="")
    error = models.TextField(
        _("error"), blank=True, default="", help_text=_("The error text for the model and for users.")
    )
    error_detail = models.TextField(
        _("error detail"), blank=True, default="", help_text=_("Details of the error, shown only in the admin.")
    )
    max_attempts = models.PositiveIntegerField(_("max attempts"), default=1)
    timeout = models.DurationField(
        _("timeout"), null=True, blank=True, help_text=_("The time limit of one attempt, or of the wait for an answer.")
    )
    expires_at = InstantField(
        _("expires at"), null=True, blank=True, help_text=_("Deadline: the call expires after this time.")
    )
    approval_requested_at = InstantField(_("approval requested at"), null=True, blank=True)
    approval_decided_at = InstantField(_("approval decided at"), null=True, blank=True)
    approval_decided_by = models.ForeignKey(
        AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
        verbose_name=_("approval decided by"),
    )
    approval_reason = models.TextField(_("approval reason"), blank=True, default="")
    approval_digest = models.CharField(_("approval digest"), max_length=64, blank=True, default="")
    rev = models.BigIntegerField(_("rev"))
    created_at = InstantField(_("created at"), db_default=Now(), editable=False)
    finished_at = InstantField(
        _("finished at"), null=True, blank=True, help_text=_("Empty while the call has no outcome.")
    )

    asker: User = None
    """The user who caused this call (see ``asker_id``), if a worker has loaded the user for the tool's context."""

    objects = ToolCallQuerySet.as_manager()

    class Meta:
        verbose_name = _("tool call")
        verbose_name_plural = _("tool calls")
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
        return f"{self.tool_name} {self.tool_call_id} ({self.get_status_display()})"

    @property
    def name_in_code(self) -> str:
        """The name that stands for this call's tool in ``Code`` (a process's agents and their tools).

        For a tool from a ``tool_resolver``, the name is ``RESOLVED_TOOLS``.
        """
        return RESOLVED_TOOLS if self.is_resolved else self.tool_name

    @property
    def decision_reason(self) -> str | None:
        """The reason that a person gave for approving or rejecting the call. The reason can be empty. Without a
        decision, the value is None.
        """
        was_decided = self.approval_requested_at is not None and self.approval_decided_at is not None
        return self.approval_reason if was_decided else None

    def outcome(self) -> CallOutcome:
        """Return what a message shows of this tool call."""
        return CallOutcome(
            tool_call_id=self.tool_call_id,
            provider_call_id=self.provider_call_id,
            tool_name=self.tool_name,
            arguments=self.arguments,
            status=self.status,
            result=self.result,
            error=self.error,
            progress=self.progress,
            approved_arguments=self.approved_arguments,
            is_passed=self.passed_at is not None,
            is_asked=self.was_asked_when_passed,
            decision_reason=self.decision_reason,
        )

    def asker_id(self) -> Any:
        """Return the id of the user who caused this call, or None for a visitor.

        The user is the sender of the message that the run answers. If the project's own code sent the message, the user
        is the thread's owner.
        """
        # ``asker_pk`` is an annotation from the queryset method ``with_asker``.
        if hasattr(self, "asker_pk"):
            return self.asker_pk
        question = self.message.question()
        sender_id = question.sender_id if question else None
        return self.thread.owner_id if sender_id is None else sender_id

    def is_asked_by(self, user: Any) -> bool:
        """Return whether this user caused the call: by sending the message, by regenerating the answer, or by resuming
        the run.
        """
        if user.pk == self.asker_id():
            return True
        # ``with_asker`` adds the annotation ``is_made_again``. If it is false, the query below would find nothing.
        if not getattr(self, "is_made_again", True):
            return False
        again = AuditEntry.objects.using(self._state.db).filter(
            thread_id=self.thread_id, action__in=MAKES_AGAIN, user=user, at__lte=self.created_at
        )
        question = self.message.question()
        return again.filter(at__gte=question.created_at).exists() if question else again.exists()

    @property
    def waits_for_worker(self) -> bool:
        """Whether a worker is running this call, or still has to run it."""
        return self.status == ToolCallStatus.RUNNING or (self.status == ToolCallStatus.PENDING and self.needs_worker)

    @property
    def waits_for_service(self) -> bool:
        """Whether a deferred call waits for its result from outside."""
        return self.kind == ToolKind.DEFERRED and self.status == ToolCallStatus.PENDING

    @property
    def was_asked_when_passed(self) -> bool:
        """Whether this tool call was waiting for a person or a browser when the run continued without waiting for the
        call's result.
        """
        if self.kind != ToolKind.DEFERRED or self.approval_requested_at is None or self.passed_at is None:
            return self.kind != ToolKind.DEFERRED
        decided_at = self.approval_decided_at
        return decided_at is None or instant(decided_at) > instant(self.passed_at)


MAKES_AGAIN = ("regenerate", "resume_thread")
"""Actions in the audit log that make the model answer an earlier message again."""


class AuditEntry(models.Model):
    """One state change of a thread, and who caused it. Entries never change, and outlive their thread."""

    thread_id = models.UUIDField(
        _("thread id"), null=True, blank=True, help_text=_("The thread may have been deleted.")
    )
    action = models.CharField(_("action"), max_length=40)
    user = models.ForeignKey(
        AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text=_("The user who made the change."),
        verbose_name=_("user"),
    )
    scope = models.CharField(
        _("scope"), max_length=200, blank=True, default="", help_text=_("The scope of a visitor without an account.")
    )
    via = models.CharField(
        _("via"),
        max_length=16,
        help_text=_("How the change was made: python, rest, chat, websocket, admin or cascade."),
    )
    subject = models.CharField(
        _("subject"),
        max_length=200,
        blank=True,
        default="",
        help_text=_("The id of the changed message, call or thread."),
    )
    arguments_hash = models.CharField(
        _("arguments hash"), max_length=64, blank=True, default="", help_text=_("SHA-256 of the arguments.")
    )
    at = InstantField(_("at"), db_default=Now(), editable=False)

    class Meta:
        verbose_name = _("audit entry")
        ordering = ["-pk"]
        verbose_name_plural = _("audit entries")
        indexes = [
            models.Index(fields=["thread_id", "-id"], name="da_audit_thread"),
            models.Index(fields=["at"], name="da_audit_age"),
        ]

    def __str__(self) -> str:
        return gettext("%(action)s, thread %(thread)s") % {"action": self.action, "thread": self.thread_id}

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert the entry. Raises TypeError if it is stored already."""
        if not self._state.adding:
            raise TypeError("Audit entries are not changed.")
        super().save(*args, **kwargs)

    @property
    def who(self) -> str:
        """The user's name, a visitor's scope, or a dash."""
        return str(self.user.get_username()) if self.user is not None else self.scope or "-"


class DeltaQuerySet(models.QuerySet["Delta"]):
    def after(self, stream_id: uuid.UUID, seq: int) -> DeltaQuerySet:
        """Return the deltas of a stream whose ``seq`` is greater than this, in order."""
        return self.filter(stream_id=stream_id, seq__gt=seq).order_by("seq")

    def chunks_of(self, stream_id: uuid.UUID) -> list[dict[str, Any]]:
        """Return all stored chunks of a stream, in order."""
        return [chunk for chunks in self.after(stream_id, -1).values_list("chunks", flat=True) for chunk in chunks]

    def disposable(self) -> DeltaQuerySet:
        """Return deltas that can be deleted: their stream is closed, and the stream's row contains the final parts."""
        return self.exclude(stream__state__in=OPEN_STREAM_STATES)


class Delta(models.Model):
    """A piece of streamed text: a list of UI message chunks. It can be deleted after its stream is closed."""

    stream = models.ForeignKey(
        Stream, on_delete=models.CASCADE, related_name="deltas", db_index=False, verbose_name=_("stream")
    )
    seq = models.PositiveIntegerField(_("seq"), help_text=_("Number of the delta in its stream, counted from 0."))
    chunks = models.JSONField(_("chunks"))

    objects = DeltaQuerySet.as_manager()

    class Meta:
        verbose_name = _("delta")
        verbose_name_plural = _("deltas")
        ordering = ["stream_id", "seq"]
        constraints = [models.UniqueConstraint(fields=["stream", "seq"], name="da_delta_seq")]

    def __str__(self) -> str:
        return gettext("Delta %(seq)s of %(stream)s") % {"seq": self.seq, "stream": self.stream_id}


class Pool(models.Model):
    """A named part of the workers' capacity. If the pool has a limit, every claim of work in the pool locks this row,
    so that all processes together keep the limit.
    """

    name = models.CharField(_("name"), max_length=64, primary_key=True)
    limit = models.PositiveIntegerField(_("limit"))

    NO_LIMIT = 2**31 - 1
    """The value of ``limit`` for a pool without a limit. Workers of earlier releases cannot handle NULL."""

    def __str__(self) -> str:
        return self.name if self.limit == self.NO_LIMIT else f"{self.name} ({self.limit})"


class WorkerProblemQuerySet(models.QuerySet["WorkerProblem"]):
    def open(self, seconds: float) -> WorkerProblemQuerySet:
        """Return problems that have not ended and were reported within the last ``seconds``."""
        return self.filter(ended_at=None, seen_at__gt=seconds_from_now(-seconds))

    def ended_within(self, seconds: float) -> WorkerProblemQuerySet:
        """Return problems that ended within the last ``seconds``."""
        return self.filter(ended_at__gt=seconds_from_now(-seconds))


class WorkerProblem(models.Model):
    """The reason why a worker process cannot work. ``agents_doctor`` and the admin show it. Rows are kept for a day."""

    holder = models.CharField(_("holder"), max_length=200, help_text=_("The worker process, as named in lease owner."))
    cluster = models.CharField(_("cluster"), max_length=100, blank=True, default="")
    kind = models.CharField(_("kind"), max_length=16)
    detail = models.TextField(_("detail"), blank=True, default="")
    since = InstantField(_("since"))
    seen_at = InstantField(_("seen at"), db_default=Now())
    ended_at = InstantField(_("ended at"), null=True, blank=True)

    objects = WorkerProblemQuerySet.as_manager()

    class Meta:
        verbose_name = _("worker problem")
        verbose_name_plural = _("worker problems")
        ordering = ["-seen_at", "-pk"]
        constraints = [models.UniqueConstraint(fields=["holder", "kind"], name="da_worker_problem")]

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail[:80]}"


class DeliveryReportQuerySet(models.QuerySet["DeliveryReport"]):
    def stored_within(self, seconds: float) -> DeliveryReportQuerySet:
        """Return reports that were stored within the last ``seconds``."""
        return self.filter(seen_at__gt=seconds_from_now(-seconds))


class DeliveryReport(models.Model):
    """One process's counts of events in live delivery to browsers, for one period. Rows are kept for a day.

    The command ``agents_doctor`` shows the counts.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    holder = models.CharField(max_length=200, help_text="The process, named as a lease owner.")
    since = InstantField()
    seen_at = InstantField(db_default=Now())
    counts: Any = models.JSONField(default=dict)

    objects = DeliveryReportQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery report")
        verbose_name_plural = _("delivery reports")
        ordering = ["-seen_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.holder}: {self.counts}"


class Command(models.Model):
    """The stored reply to a websocket command. If the client sends the command again, it gets this reply, and the
    command does not run again.
    """

    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, related_name="commands")
    caller = models.CharField(max_length=64, blank=True, db_default="", help_text="A hash that identifies the caller.")
    command = models.CharField(max_length=32, blank=True, db_default="")
    key = models.CharField(max_length=200)
    content_hash = models.CharField(max_length=64, blank=True, db_default="")
    result: Any = models.JSONField(default=dict)
    created_at = InstantField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = _("command")
        verbose_name_plural = _("commands")
        constraints = [
            models.UniqueConstraint(fields=["thread", "caller", "command", "key"], name="da_command_caller_key")
        ]
        indexes = [models.Index(fields=["created_at"], name="da_command_age")]

    def __str__(self) -> str:
        return self.key


ATTACHMENTS = "durable_agents/attachments"
"""The folder of attachments in the storage."""


def attachment_path(attachment: Attachment, filename: str) -> str:
    """Return a random name for the file in the storage. It reveals nothing about the owner. Nobody can guess it from
    the attachment's id.
    """
    name = uuid.uuid4().hex
    return f"{ATTACHMENTS}/{name[:2]}/{name}"


def attachment_storage() -> Storage:
    """Return the storage ``durable_agents`` from the ``STORAGES`` setting. If it is missing, return the default
    storage.
    """
    return storages["durable_agents"] if "durable_agents" in storages.backends else default_storage


class AttachmentQuerySet(models.QuerySet["Attachment"]):
    def unsent(self) -> AttachmentQuerySet:
        """Return attachments that are in no message yet."""
        return self.filter(thread__isnull=True)

    def forgotten(self, seconds: float) -> AttachmentQuerySet:
        """Return unsent attachments that are older than this many seconds."""
        return self.unsent().filter(created_at__lt=seconds_from_now(-seconds))


class Attachment(models.Model):
    """An uploaded file.

    Until the file is sent in a message, only its uploader can use it. A sent file belongs to the message's thread, and
    is deleted with that thread. A fork of the thread has its own row for the same stored file.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        AUTH_USER_MODEL, null=True, blank=True, on_delete=cascade_or_keep, related_name="+", verbose_name=_("owner")
    )
    scope = models.CharField(_("scope"), max_length=200, blank=True, default="")
    thread = models.ForeignKey(
        Thread, null=True, blank=True, on_delete=models.CASCADE, related_name="attachments", verbose_name=_("thread")
    )
    file = models.FileField(_("file"), max_length=200, storage=attachment_storage, upload_to=attachment_path)
    media_type = models.CharField(
        _("media type"),
        max_length=127,
        help_text=_("The type as determined from the content, not as declared by the sender."),
    )
    filename = models.CharField(_("filename"), max_length=255, blank=True, default="")
    size = models.BigIntegerField(_("size"), help_text=_("Size in bytes."))
    created_at = InstantField(_("created at"), db_default=Now(), editable=False)

    objects = AttachmentQuerySet.as_manager()

    class Meta:
        verbose_name = _("attachment")
        verbose_name_plural = _("attachments")
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
    """A ticket that opens one websocket. It is for clients that authenticate with a header, because browsers cannot
    send custom headers with a websocket.
    """

    digest = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of the ticket, in hex.")
    user = models.ForeignKey(AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    expires_at = InstantField()
    credential = models.TextField(
        null=True,
        help_text="The session or token that the ticket stands for, encrypted with the ticket.",
    )

    class Meta:
        verbose_name = _("ticket")
        verbose_name_plural = _("tickets")
        indexes = [models.Index(fields=["expires_at"], name="da_ticket_expiry")]

    def __str__(self) -> str:
        return f"ticket of user {self.user_id}"

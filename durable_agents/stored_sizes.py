"""Let the database measure messages and changes before they are read. The sizes are used to limit replies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, takewhile
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BigIntegerField, Func, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce
from django.db.models.sql.compiler import SQLCompiler

from durable_agents.models import Message, Role, Stream, ToolCall

REPLY_BYTES = 1_000_000
"""Maximum size in bytes of the stored messages or changes in one reply.

A reply is a snapshot, a page of older messages, a page of the HTTP API, or a set of changes that are read at once.
"""
ENVELOPE_BYTES = 300
"""The approximate size in bytes of the ids, names and times of a message or tool call."""
FIRST_COUNT = 51
"""The number of messages that are measured first. It is enough for a usual reply. A higher number would be slow,
because the database has to read each message to measure it.
"""


class StoredBytes(Func):
    """The size in bytes of a JSON or text field, as the database formats it. NULL has size 0.

    The database's text is a little longer than the JSON that clients get. On SQLite, it can be three times as long,
    because non-ASCII characters are stored as escapes.
    """

    output_field = BigIntegerField()
    template = "COALESCE(octet_length((%(expressions)s)::text), 0)"

    def as_sqlite(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra_context: str
    ) -> tuple[str, tuple[str | int, ...]]:
        """Return the SQL for SQLite, which has ``octet_length`` only since version 3.43."""
        template = "COALESCE(length(CAST(%(expressions)s AS BLOB)), 0)"
        sql, params = self.as_sql(compiler, connection, template=template, **extra_context)
        return sql, tuple(params)


@dataclass(frozen=True, kw_only=True)
class MessageSize:
    """The size of a stored message in bytes."""

    message_id: UUID
    position: int | None
    own: int
    """The size of the message without its steps. Only assistant messages have steps."""
    steps: Sequence[tuple[UUID, int]]
    """The primary key and the size of each stream that the answer shows, in order."""

    @property
    def whole(self) -> int:
        """The size with all steps."""
        return self.own + sum(size for _, size in self.steps)


def message_sizes(messages: QuerySet[Message], *, count: int, upto_rev: int | None = None) -> Iterator[MessageSize]:
    """Yield the sizes of these messages, in order, without reading the messages themselves.

    Only steps that were committed up to revision ``upto_rev`` are included. The messages are measured in batches while
    the caller iterates. Each batch has ``count`` messages, but the first has at most ``FIRST_COUNT``.
    """
    measured = messages.annotate(own=StoredBytes("parts") + StoredBytes("metadata") + Value(ENVELOPE_BYTES))
    start, end = 0, min(count, FIRST_COUNT)
    while True:
        rows = list(measured.values_list("pk", "role", "position", "own")[start:end])
        steps = _step_sizes([pk for pk, role, _, _ in rows if role == Role.ASSISTANT], upto_rev=upto_rev)
        for pk, _, position, own in rows:
            yield MessageSize(message_id=pk, position=position, own=own, steps=steps[pk])
        if len(rows) < end - start:
            return
        start, end = end, end + count


def count_that_fit(messages: QuerySet[Message]) -> int:
    """Return how many of these messages fit into one reply, counted from the first message. It is at least one."""
    totals = accumulate(size.whole for size in message_sizes(messages, count=FIRST_COUNT))
    return max(1, sum(1 for _ in takewhile(lambda total: total <= REPLY_BYTES, totals)))


def _step_sizes(message_ids: Sequence[UUID], *, upto_rev: int | None) -> defaultdict[UUID, list[tuple[UUID, int]]]:
    """Return the primary key and the size of each shown stream, by message. The size includes the tool calls."""
    sizes = defaultdict[UUID, list[tuple[UUID, int]]](list)
    if message_ids:
        streams = _measured_streams().filter(message_id__in=message_ids)
        if upto_rev is not None:
            streams = streams.filter(rev__lte=upto_rev)
        for message_id, pk, size in streams:
            sizes[message_id].append((pk, size))
    return sizes


@cache
def _measured_streams() -> QuerySet[Stream, tuple[UUID, UUID, int]]:
    """Return the message, the primary key and the size of each stream in a transcript.

    The query is built once and cached, because building it takes longer than running it.
    """
    return Stream.objects.in_transcript().values_list("message_id", "pk", _stream_bytes())


def _stream_bytes() -> Combinable:
    calls = ToolCall.objects.filter(stream=OuterRef("pk")).order_by().values("stream").annotate(size=Sum(_call_bytes()))
    return StoredBytes("parts") + Coalesce(Subquery(calls.values("size")), 0, output_field=BigIntegerField())


def _call_bytes() -> Combinable:
    fields = ("result", "approved_arguments", "error", "approval_reason", "progress")
    return sum(map(StoredBytes, fields), start=Value(ENVELOPE_BYTES))


def change_sizes(changed: Q) -> Sequence[tuple[int, int]]:
    """Return the revision and the size of each change, in order. This takes one query.

    ``changed`` selects the changed messages, streams and tool calls.
    """
    message = StoredBytes("parts") + StoredBytes("metadata") + Value(ENVELOPE_BYTES)
    sizes = [
        Message.objects.for_clients().filter(changed).order_by().values_list("rev", message),
        Stream.objects.filter(changed).order_by().values_list("rev", _stream_bytes()),
        ToolCall.objects.filter(changed).order_by().values_list("rev", _call_bytes()),
    ]
    totals = Counter[int]()
    # Remove the order. Django 6.1 would sort the union by the columns of the model's default ordering, but the union
    # does not select these columns.
    for rev, size in sizes[0].union(*sizes[1:], all=True).order_by():
        totals[rev] += size
    return sorted(totals.items())

"""Claim queries use the partial indexes made for them, whatever has piled up in the tables."""

import re
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from durable_agents import create_thread, lifecycle
from durable_agents.lifecycle.claims import _free_of
from durable_agents.models import Stream, Thread, ToolCall, fairly
from tests.lifecycle.stage import Worker, calling

pytestmark = pytest.mark.django_db
CLOSED = 1000
WAITING = 20
SCAN = re.compile(r"Seq Scan on durable_agents_(stream|toolcall)|SCAN (durable_agents_(stream|toolcall)|U\d)(?! USING)")
INDEXES = {
    "stream": re.compile("da_stream_due|da_stream_one_open"),
    "toolcall": re.compile("da_toolcall_due|da_toolcall_open|durable_agents_toolcall_pkey"),
}


@pytest.fixture
def history(agent, worker):
    """Fill the tables with what is over and what waits for its time, beside a few rows that are due."""
    for _ in range(3):
        create_thread(agent, prompt="Hi")
    worker.answer("", *[calling() for _ in range(3)], claim=worker.claim(streams=1)[0])
    lifecycle.release(worker.claim(streams=1, tools=0)[0])
    copy_stream(Stream.objects.filter(state="finished").get())
    copy_call(ToolCall.objects.first())
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def copy_stream(stream):
    """Store many closed streams, and one that waits in each of many threads."""
    threads = Thread.objects.bulk_create([Thread(agent="tested", status="streaming") for _ in range(WAITING)])
    waiting = {"state": "pending", "available_at": Now() + timedelta(hours=1), "lease_expires_at": None}
    rows = [copied(stream, number=number, rev=number) for number in range(1000, 1000 + CLOSED)]
    rows += [copied(stream, thread_id=thread.pk, **waiting) for thread in threads]
    Stream.objects.bulk_create(rows, batch_size=500)


def copy_call(call):
    """Store many settled calls, and many that wait."""
    waiting = {"status": "pending", "available_at": Now() + timedelta(hours=1)}
    rows = [copied(call, tool_call_id=f"settled{number}", status="completed") for number in range(CLOSED)]
    rows += [copied(call, tool_call_id=f"waiting{number}", **waiting) for number in range(WAITING)]
    ToolCall.objects.bulk_create(rows, batch_size=500)


def copied(row, **changes):
    """Return a copy of a row with these changes."""
    fields = {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
    return type(row)(**{**fields, "id": uuid4(), **changes})


@contextmanager
def statements():
    """Give the SELECTs of a block."""
    found = []

    def note(execute, sql, params, many, context):
        if sql.startswith("SELECT"):
            found.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield found


def plan(sql, params):
    """Return the database's plan of a statement, as text."""
    how = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with connection.cursor() as cursor:
        cursor.execute(f"{how} {sql}", params)
        return "\n".join(str(row) for row in cursor.fetchall())


def plans(found, table):
    """Return the plans of the statements that read from a table."""
    return [plan(*statement) for statement in found if f'FROM "durable_agents_{table}"' in statement[0]]


def test_due_rows_are_found_by_an_index_of_open_rows(history):
    """Both when looking and when winning: the cost of a claim does not grow with the history.

    PostgreSQL may choose between the index of due rows and that of open ones, by what it expects of each, and takes the
    primary key of calls that it has found.
    """
    with statements() as found:
        assert Worker().claim()
    for table, of_open_rows in INDEXES.items():
        texts = plans(found, table)
        assert len([text for text in texts if of_open_rows.search(text)]) >= len({"looking", "winning"})
        assert not [text for text in texts if SCAN.search(text)]


def test_turns_of_many_visitors_are_found_by_the_index_of_due_rows(history):
    """However many are due: the rows that are closed or wait are not read to know whose turn it is."""
    create_due(30)
    for model, table in ((Stream, "stream"), (ToolCall, "toolcall")):
        due = model.objects.due("agents", {"tested": frozenset({"plain", "again", "once"})})
        with statements() as found:
            assert fairly(due, 5)
        [text] = plans(found, table)
        assert INDEXES[table].search(text)
        assert not SCAN.search(text)


def create_due(count):
    """Make steps and calls due, each of a visitor of their own."""
    threads = [Thread(agent="tested", status="streaming", scope=f"visitor:{number}") for number in range(count)]
    Thread.objects.bulk_create(threads)
    due = {"state": "pending", "available_at": None, "lease_expires_at": None}
    stream = Stream.objects.filter(state="finished").first()
    Stream.objects.bulk_create([copied(stream, thread_id=row.pk, scope=row.scope, **due) for row in threads])
    call = ToolCall.objects.filter(status="completed").first()
    pending = {"status": "pending", "available_at": None, "lease_expires_at": None, "finished_at": None}
    ToolCall.objects.bulk_create(
        [copied(call, thread_id=row.pk, tool_call_id=f"due{row.scope}", **pending) for row in threads]
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def test_held_rows_are_counted_by_the_index_of_held_rows(history, worker):
    """The pool's limit costs what is held, not what was."""
    worker.claim(streams=1, tools=1)
    with statements() as found, transaction.atomic():
        _free_of(["agents"], limited=["agents"], most=8)
    for table in INDEXES:
        [text] = plans(found, table)
        assert f"da_{table}_held" in text
        assert not SCAN.search(text)


def test_heartbeats_touch_no_index():
    """No index covers the time of a lease, so that PostgreSQL updates it in place."""
    indexed = {name for model in (Stream, ToolCall) for index in model._meta.indexes for name in index.fields}
    assert "lease_expires_at" not in indexed

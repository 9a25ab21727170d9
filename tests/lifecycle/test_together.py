"""The ends of many rows in one transaction: as if each were alone, for far fewer statements."""

import json
import threading
from dataclasses import replace

import pytest
from django.db import IntegrityError, OperationalError, connection, connections, transaction

from durable_agents import create_thread, lifecycle, send_message, stop_thread
from durable_agents.agents import registry
from durable_agents.exceptions import LeaseLostError, ThreadNotFoundError
from durable_agents.lifecycle import CallResult, Ending, HandOver, ThreadHeldError, statements
from durable_agents.lifecycle.transaction import hold_thread
from durable_agents.models import Stream, Thread, ToolCall
from durable_agents.transcript import turns
from tests.lifecycle.stage import Worker, calling, outcome

MANY = 50


@pytest.fixture
def claims(db, agent, worker):
    """Return the claims of a step in each of many threads."""
    for _ in range(MANY):
        create_thread(agent, prompt="Hi")
    return worker.claim(streams=MANY)


@pytest.fixture
def hand_over(worker):
    """Return a function that makes what a worker with so many free slots takes over."""

    def made(streams=MANY, tools=MANY):
        return HandOver(
            holder=worker.holder, code=registry.code(), pools=["agents", "tools"], streams=streams, tools=tools
        )

    return made


def steps(claims, calls=0):
    """Return the ends of these attempts, each with so many calls."""
    return [Ending(claim=claim, outcome=outcome("Said.", *(calling() for _ in range(calls)))) for claim in claims]


def outcomes(ended):
    """Return the ends of the calls that were handed over."""
    return [Ending(claim=handed.claim, outcome=CallResult(result=7)) for item in ended for handed in item.handed]


def test_a_step_and_its_call_of_fifty_threads_cost_few_statements(claims, hand_over, django_assert_max_num_queries):
    """Savepoints included; the numbers do not rise with the threads."""
    with django_assert_max_num_queries(8):
        ended = lifecycle.end_together(steps(claims, calls=1), hand_over=hand_over())
    with django_assert_max_num_queries(8):
        ended = lifecycle.end_together(outcomes(ended), hand_over=hand_over())
    assert [handed.claim.kind for item in ended for handed in item.handed] == ["stream"] * MANY
    assert set(Thread.objects.values_list("status", flat=True)) == {"streaming"}
    assert ToolCall.objects.filter(status="completed", result=7).count() == MANY


def test_what_is_handed_over_is_held(claims, hand_over):
    """By this worker, with a lease, and no other may claim it."""
    [item, *_] = lifecycle.end_together(steps(claims[:1], calls=1), hand_over=hand_over())
    [handed] = item.handed
    row = ToolCall.objects.get(pk=handed.claim.row_id)
    assert (row.status, row.fence, row.lease_owner) == ("running", handed.claim.fence, hand_over().holder)
    assert row.lease_expires_at is not None
    assert not lifecycle.lost_claims([handed.claim])


def test_only_free_slots_are_taken_over(claims, hand_over, worker):
    """The rest is due for anybody."""
    ended = lifecycle.end_together(steps(claims[:5], calls=1), hand_over=hand_over(tools=2))
    assert sum(len(item.handed) for item in ended) == 2
    assert len(worker.claim(tools=10)) == 3


def test_a_thread_alone_and_among_others_ends_alike(agent, worker, hand_over, db):
    """Its rows are the same, one transaction for each or one for all."""
    alone, among, other = (create_thread(agent, prompt="Hi") for _ in range(3))
    claims = {claim.thread_id: claim for claim in worker.claim(streams=3)}
    lifecycle.commit_step(claims[alone.pk], outcome("Said.", calling()))
    lifecycle.end_together(steps([claims[among.pk], claims[other.pk]], calls=1))
    calls = {claim.thread_id: claim for claim in worker.claim(tools=3)}
    lifecycle.finish_tool_call(calls[alone.pk], CallResult(result=7))
    lifecycle.end_together([Ending(claim=calls[among.pk], outcome=CallResult(result=7))])
    rows = [facts(thread) for thread in (alone, among)]
    assert rows[0] == rows[1]


def facts(thread):
    """Return what is stored of a thread, without ids and times."""
    thread.refresh_from_db()
    streams = Stream.objects.filter(thread=thread).order_by("number")
    return (
        (thread.status, thread.rev, thread.last_position, thread.last_number, thread.run_steps, thread.input_tokens),
        list(streams.values_list("number", "state", "rev", "fence", "attempt", "text", "finish_reason", "pool")),
        list(ToolCall.objects.filter(thread=thread).values_list("status", "rev", "fence", "result", "attempt")),
        [len(turn.steps) for turn in turns(thread.pk)],
    )


def test_one_that_was_stopped_fails_alone(claims, hand_over):
    """The others are committed."""
    stop_thread(Thread.objects.get(pk=claims[3].thread_id))
    ended = lifecycle.end_together(steps(claims), hand_over=hand_over())
    assert [type(item.error) for item in ended if item.error] == [LeaseLostError]
    assert ended[3].error is not None
    assert Thread.objects.filter(status="completed").count() == MANY - 1


def test_one_whose_thread_was_deleted_fails_alone(claims):
    """The others are committed."""
    Thread.objects.filter(pk=claims[3].thread_id).delete()
    ended = lifecycle.end_together(steps(claims))
    assert [type(item.error) for item in ended if item.error] == [ThreadNotFoundError]
    assert Thread.objects.filter(status="completed").count() == MANY - 1


def test_one_that_the_database_refuses_fails_alone(claims, worker, hand_over):
    """Two calls of one id: the constraint of the database says no, and the others are committed."""
    twice = calling()
    endings = steps(claims[:9], calls=1)
    endings[4] = Ending(claim=claims[4], outcome=outcome("Said.", twice, twice))
    ended = lifecycle.end_together(endings, hand_over=hand_over())
    assert [isinstance(item.error, IntegrityError) for item in ended] == [number == 4 for number in range(9)]
    assert ToolCall.objects.count() == 8
    assert Stream.objects.filter(pk=claims[4].row_id, state="streaming").exists()


def test_one_that_meets_an_outage_among_single_transactions_is_tried_again(claims, monkeypatch):
    """The others were refused as a whole because of the first one."""
    twice, lock, asked = calling(), statements.lock_threads, []

    def failing(ids, **options):
        asked.append(ids)
        if len(asked) == 3:  # all of them, the first one, the second one
            raise OperationalError("server closed the connection unexpectedly")
        return lock(ids, **options)

    monkeypatch.setattr(statements, "lock_threads", failing)
    endings = steps(claims[:3])
    endings[0] = Ending(claim=claims[0], outcome=outcome("Said.", twice, twice))
    ended = lifecycle.end_together(endings)
    assert [type(item.error) for item in ended] == [IntegrityError, ThreadHeldError, type(None)]
    assert lifecycle.end_together(endings[1:2])[0].error is None


def test_both_calls_of_a_step_end_in_one_transaction(claims, hand_over):
    """The last one makes the next step due, once."""
    ended = lifecycle.end_together(steps(claims[:3], calls=2), hand_over=hand_over())
    ended = lifecycle.end_together(outcomes(ended), hand_over=hand_over())
    assert [item.error for item in ended] == [None] * 6
    assert [len(item.handed) for item in ended] == [0, 1] * 3


def test_a_message_sent_meanwhile_is_answered(claims, hand_over):
    """By a message of its own, as when each thread is committed alone."""
    thread = Thread.objects.get(pk=claims[0].thread_id)
    ended = lifecycle.end_together(steps(claims[:1], calls=1), hand_over=hand_over())
    send_message(thread, "And now?")
    [item] = lifecycle.end_together(outcomes(ended), hand_over=hand_over())
    [handed] = item.handed
    assert [turn.role for turn in turns(thread.pk)] == ["user", "assistant", "user", "assistant"]
    assert turns(thread.pk)[-1].steps == []
    assert Stream.objects.get(pk=handed.claim.row_id).message.position == 4


@pytest.mark.django_db(transaction=True)
def test_a_thread_that_somebody_holds_waits_alone(agent, worker):
    """On PostgreSQL; SQLite locks no rows."""
    if connection.vendor != "postgresql":
        pytest.skip("locks of rows")
    held, free = create_thread(agent, prompt="Hi"), create_thread(agent, prompt="Hi")
    claims = {claim.thread_id: claim for claim in worker.claim(streams=2)}
    is_held, may_end = threading.Event(), threading.Event()

    def hold():
        with hold_thread(held.pk):
            is_held.set()
            may_end.wait(10)
        connections.close_all()

    other = threading.Thread(target=hold)
    other.start()
    is_held.wait(10)
    ended = lifecycle.end_together(steps([claims[held.pk], claims[free.pk]]))
    may_end.set()
    other.join()
    assert [type(item.error) for item in ended] == [ThreadHeldError, type(None)]
    assert lifecycle.end_together(steps([claims[held.pk]]))[0].error is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("setting", ["lock_timeout", "statement_timeout"])
def test_a_row_that_somebody_locks_for_long_waits_alone(agent, worker, monkeypatch, setting):
    """On PostgreSQL with a time limit for locks or statements, a row other than the thread's is locked."""
    if connection.vendor != "postgresql":
        pytest.skip("locks of rows")
    for _ in range(3):
        create_thread(agent, prompt="Hi")
    claims = worker.claim(streams=3)
    is_held, may_end = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            Stream.objects.select_for_update().get(pk=claims[1].row_id)
            is_held.set()
            may_end.wait(10)
        connections.close_all()

    other = threading.Thread(target=hold)
    other.start()
    is_held.wait(10)
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", f"-c {setting}=100ms")
    connection.close()
    try:
        ended = lifecycle.end_together(steps(claims))
        alone = lifecycle.end_together(steps(claims[1:2]))
    finally:
        may_end.set()
        other.join()
        monkeypatch.undo()
        connection.close()
    assert [type(item.error) for item in ended] == [type(None), ThreadHeldError, type(None)]
    assert [type(item.error) for item in alone] == [ThreadHeldError]
    assert lifecycle.end_together(steps(claims[1:2]))[0].error is None


def test_rows_in_memory_have_the_values_that_a_query_gives(claims):
    """Down to the texts that a model's request is made of."""
    call = replace(
        calling(error="No such tool."), arguments={"zebra": {"bb": 1, "a": -0.0}, "\U0001f600": 1, "\uffff": 2}
    )
    value = {"longer": [1e16, 1.5, -1e22, 1e-7, True, None], "b": {"y": 1, "X": 2}, "a": 12345678901234567}
    [step] = lifecycle.end_together([Ending(claim=claims[0], outcome=outcome("Said.", calling(), call))])
    [due] = [row for row in step.new_calls if row.status == "pending"]
    [claim] = Worker().claim(streams=0)
    [ended] = lifecycle.end_together([Ending(claim=claim, outcome=CallResult(result=value))])
    stored = ToolCall.objects.in_bulk(row.pk for row in step.new_calls)
    assert json.dumps(ended.row.result) == json.dumps(stored[due.pk].result)
    assert [json.dumps(row.arguments) for row in step.new_calls] == [
        json.dumps(stored[row.pk].arguments) for row in step.new_calls
    ]
    assert json.dumps(step.row.parts) == json.dumps(Stream.objects.get(pk=step.row.pk).parts)

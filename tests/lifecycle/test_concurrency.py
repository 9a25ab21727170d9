"""Many at once: what one claim, one lock and one advance must hold against any interleaving.

On SQLite, which has one writer at a time, only the looks before a transaction can interleave.
"""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created

from durable_agents import create_thread, delete_thread, lifecycle, send_message
from durable_agents.exceptions import LeaseLostError, ThreadNotFoundError, TooManyRunningError
from durable_agents.lifecycle import Append
from durable_agents.models import Delta, Message, Pool, Stream, Thread, ToolCall
from tests.lifecycle.stage import Worker, calling, spoken

pytestmark = pytest.mark.django_db(transaction=True)
CLIENTS = 8
BATCH = 50


@pytest.fixture(autouse=True)
def _hasty():
    """Let commits not wait for the disk: what is tested is who sees what, not what survives a power cut."""

    def hasten(connection, **_):
        with connection.cursor() as cursor:
            on_sqlite = connection.vendor == "sqlite"
            cursor.execute("PRAGMA synchronous = OFF" if on_sqlite else "SET synchronous_commit = off")

    connection_created.connect(hasten)
    hasten(connection)
    yield
    connection_created.disconnect(hasten)
    connection.close()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite locks no rows")
def test_a_held_thread_with_nowait_raises_and_changes_nothing(agent, at_once):
    """A worker has other rows to work on meanwhile; a thread that is gone raises what it always does."""
    thread, other = create_thread(agent, prompt="Hi"), create_thread(agent, prompt="Hi")
    held, tried = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            send_message(thread, "And?")
            held.set()
            tried.wait(10)

    def come():
        held.wait(10)
        try:
            lifecycle.name_thread(other.pk, "Free", nowait=True)
            with pytest.raises(lifecycle.ThreadHeldError):
                lifecycle.name_thread(thread.pk, "Held", nowait=True)
            delete_thread(other)
            with pytest.raises(ThreadNotFoundError):
                lifecycle.name_thread(other.pk, "Gone", nowait=True)
        finally:
            tried.set()

    at_once(hold, come)
    lifecycle.name_thread(thread.pk, "Free now", nowait=True)
    thread.refresh_from_db()
    assert thread.title == "Free now"


@pytest.fixture
def at_once():
    """Return a function that calls functions in threads, released together, and gives their results."""
    with ThreadPoolExecutor(CLIENTS) as threads:

        def call(*functions):
            barrier = threading.Barrier(len(functions))

            def released(function):
                barrier.wait()
                return function()

            return [future.result(30) for future in [threads.submit(released, function) for function in functions]]

        yield call
        call(*[connections.close_all] * CLIENTS)


def give_all_back():
    """Make due again what is held."""
    Stream.objects.held().update(state="pending", lease_expires_at=None)


def test_two_claimers_never_win_the_same_row(agent, at_once, rounds):
    """One row, two workers: one wins each time."""
    create_thread(agent, prompt="Hi")
    workers = [Worker(holder=f"worker-{number}") for number in range(2)]
    for _ in range(rounds(1000)):
        first, second = at_once(*[partial(worker.claim, pools=["agents"]) for worker in workers])
        assert len(first) + len(second) == 1
        give_all_back()


def test_eight_claimers_never_exceed_the_limit_of_a_pool(declare, at_once, rounds, prove):
    """They know one of four agents each, so that they do not simply want the same rows; some want one row, some more.
    The limit is three, and twelve rows are due."""
    Pool.objects.filter(name="agents").update(limit=3)
    names = [declare(f"agent{number}").name for number in range(4)]
    for name in names * 3:
        create_thread(name, prompt="Hi")
    workers = [Worker(holder=f"worker-{number}", agents=[names[number % 4]]) for number in range(CLIENTS)]
    count, held, winners = rounds(1000), Counter(), Counter()
    for _ in range(count):
        claims = [partial(worker.claim, pools=["agents"], streams=n // 3 + 1) for n, worker in enumerate(workers)]
        won = at_once(*claims)
        assert sum(map(len, won)) == Stream.objects.held().count()
        held[sum(map(len, won))] += 1
        winners[sum(map(bool, won))] += 1
        give_all_back()
    prove(f"{count} rounds of {CLIENTS} claimers: rows held {listed(held)}; claimers that won any {listed(winners)}")
    assert set(held) <= {1, 2, 3}
    assert max(winners) > 1, "one of them won all each time: they did not compete"


def listed(counts: Counter) -> str:
    return ", ".join(f"{value} ({number} times)" for value, number in sorted(counts.items()))


def test_two_last_outcomes_give_one_next_step(agent, worker, at_once, rounds, prove):
    """Neither sees the other open and leaves it to it, and not both begin a step."""
    Pool.objects.filter(name="agents").update(limit=2 * BATCH)
    count = rounds(1000)
    for begun in range(0, count, BATCH):
        for first, second in last_calls(agent, worker, min(BATCH, count - begun)):
            at_once(partial(worker.settle, claim=first), partial(worker.settle, claim=second))
            steps = Stream.objects.filter(thread_id=first.thread_id).order_by("number")
            assert [stream.state for stream in steps] == ["finished", "pending"]
        Thread.objects.all().delete()
    prove(f"{count} times the two last calls of a step ended at once: one next step each time")


def last_calls(agent, worker, count):
    """So many pairs of running calls, each the last two of a thread's step."""
    with transaction.atomic():
        for _ in range(count):
            create_thread(agent, prompt="Hi")
            worker.answer("", calling(), calling())
        claims = worker.claim(streams=0, tools=2 * count)
    claims.sort(key=lambda claim: claim.thread_id)
    return list(zip(claims[::2], claims[1::2], strict=True))


def test_the_same_message_sent_at_once_is_one_message(agent, at_once):
    """A client that retries while its first request still runs."""
    thread = create_thread(agent)
    for number in range(20):
        sent = at_once(*[partial(send_message, thread, "Hi", client_id=f"m{number}")] * 4)
        assert len({message.pk for message in sent}) == 1
    assert Message.objects.filter(role="user").count() == 20


def test_the_same_thread_made_at_once_is_one_thread(agent, at_once):
    """The database decides who was first."""
    for number in range(20):
        made = at_once(*[partial(create_thread, agent, client_id=f"t{number}", prompt="Hi")] * 4)
        assert len({thread.pk for thread in made}) == 1
    assert Thread.objects.count() == Message.objects.filter(role="user").count() == 20


def test_the_same_command_sent_at_once_runs_once(agent, at_once):
    """And is answered alike."""
    thread = create_thread(agent)

    def command():
        return lifecycle.run_command(thread.pk, "k1", lambda: {"message": str(send_message(thread, "Hi").pk)})

    answers = at_once(*[command] * 4)
    assert len({answer["message"] for answer in answers}) == 1
    assert Message.objects.filter(role="user").count() == 1


def begun(begin):
    """Begin a run, and say whether that was let in."""
    try:
        begin()
    except TooManyRunningError:
        return False
    return True


@pytest.mark.parametrize("whose", ["owner", "scope"])
def test_runs_that_begin_at_once_never_exceed_the_limit_of_their_owner(
    agent, django_user_model, settings, at_once, rounds, prove, whose
):
    """By messages to threads at rest and by new threads; of those that want to begin, as many do as there is room."""
    settings.DURABLE_AGENTS = {"MAX_RUNNING_PER_OWNER": 3}
    own = {"owner": django_user_model.objects.create_user("me")} if whose == "owner" else {"scope": "shop"}
    count = rounds(250)
    for _ in range(count):
        resting = [create_thread(agent, **own) for _ in range(CLIENTS // 2)]
        sends = [partial(send_message, thread, "Hi") for thread in resting]
        creates = [partial(create_thread, agent, prompt="Hi", **own)] * (CLIENTS // 2)
        let_in = at_once(*[partial(begun, begin) for begin in (*sends, *creates)])
        assert sum(let_in) == Thread.objects.running().count() == 3
        Thread.objects.all().delete()
    prove(f"{count} times {CLIENTS} runs of one {whose} wanted to begin at once: 3 did each time")


def test_a_stop_and_the_end_of_a_step_at_once_leave_one_of_the_two(agent, worker, at_once):
    """Whoever comes second finds it settled."""

    def answer(claim):
        try:
            worker.answer("Hello.", claim=claim)
        except LeaseLostError:
            return "lost"
        return "committed"

    for _ in range(20):
        thread = create_thread(agent, prompt="Hi")
        claim = worker.claim_step()
        ended, stopped = at_once(partial(answer, claim), partial(lifecycle.stop_thread, thread))
        wanted = "completed" if ended == "committed" else "stopped"
        assert (stopped.status, Stream.objects.get(thread=thread).state == "finished") == (wanted, ended == "committed")


def waiting_for_a_lock():
    """Wait until another connection of this database waits for a lock."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 10
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(sql)
            if cursor.fetchone()[0]:
                return
            time.sleep(0.005)
    raise AssertionError("Nobody waits for a lock.")


def deleting(thread):
    """Delete a thread on a connection of its own."""
    try:
        delete_thread(thread)
    finally:
        connections.close_all()


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no row locks to wait for")
@pytest.mark.parametrize("meanwhile", ["send", "commit", "append"])
def test_a_delete_that_meets_a_transition_removes_what_it_wrote(agent, worker, meanwhile):
    """It comes second, and nothing of the thread is left."""
    thread = create_thread(agent, prompt="Hi")
    claim = worker.claim_step()
    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            match meanwhile:
                case "send":
                    send_message(thread, "Two")
                case "commit":
                    worker.answer("", calling(), claim=claim)
                case "append":
                    lifecycle.append_deltas([Append(claim=claim, seq=0, chunks=spoken("Hi", first=True))])
            deleted = threads.submit(deleting, thread)
            waiting_for_a_lock()
        deleted.result(10)
    assert not any(model.objects.exists() for model in (Thread, Message, ToolCall, Delta))
    assert not Stream.objects.exclude(thread=None, parts=[]).exists()

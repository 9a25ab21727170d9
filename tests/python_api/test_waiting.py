"""`wait_for_thread` returns the thread at rest, in time or not at all, and never waits for what cannot come."""

import asyncio
import contextlib
import threading
import time
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction

from durable_agents import (
    ThreadNotFoundError,
    WaitTimeoutError,
    await_for_thread,
    create_thread,
    delete_thread,
    stop_thread,
    wait_for_thread,
)
from durable_agents.models import Stream
from durable_agents.reading import follow_run
from tests.lifecycle.stage import Worker, make_due

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def elsewhere():
    """Call a function soon, in a thread and on a connection of its own."""
    begun = []

    def call(function, *, after_seconds=0.2):
        def work():
            time.sleep(after_seconds)
            with contextlib.closing(connection):
                function()

        begun.append(threading.Thread(target=work))
        begun[-1].start()

    yield call
    for thread in begun:
        thread.join()


class Clock:
    """A clock that goes only while somebody sleeps."""

    def __init__(self):
        self.pauses = []

    def monotonic(self):
        """Return the seconds that were slept."""
        return sum(self.pauses)

    def sleep(self, seconds):
        """Return at once; it is later then."""
        self.pauses.append(seconds)


@pytest.fixture
def clock(monkeypatch):
    """Return the clock by which threads are waited for."""
    made = Clock()
    monkeypatch.setattr(follow_run, "time", made)
    return made


def test_a_thread_at_rest_is_returned_at_once(agent, clock):
    """Also one that nothing was ever said in."""
    assert wait_for_thread(create_thread(agent)).status == "completed"
    assert clock.pauses == []


def test_it_waits_for_the_end_of_the_run(thread, elsewhere):
    """And returns the thread as it is then."""
    elsewhere(Worker().answer)
    found = wait_for_thread(thread.pk)
    assert (found.pk, found.status, found.is_running) == (thread.pk, "completed", False)


def test_a_failed_and_a_stopped_thread_are_at_rest(thread, worker, elsewhere):
    """Whatever ended the run, the waiting is over."""
    elsewhere(lambda: stop_thread(thread.pk))
    assert wait_for_thread(str(thread.pk)).status == "stopped"


def test_it_gives_up_in_time_and_the_run_goes_on(thread, clock):
    """The error names the thread."""
    with pytest.raises(WaitTimeoutError, match=str(thread.pk)):
        wait_for_thread(thread, timeout_seconds=3)
    assert sum(clock.pauses) == pytest.approx(3)
    assert max(clock.pauses) <= follow_run.MAX_POLL_SECONDS
    assert Stream.objects.open().filter(thread=thread).exists()


def test_no_time_is_one_look(thread, agent):
    """It says whether the thread is at rest."""
    with pytest.raises(WaitTimeoutError):
        wait_for_thread(thread, timeout_seconds=0)
    assert wait_for_thread(create_thread(agent), timeout_seconds=0)


def test_a_thread_that_goes_away_ends_the_waiting(thread, elsewhere):
    """As does one that never was."""
    elsewhere(lambda: delete_thread(thread.pk))
    with pytest.raises(ThreadNotFoundError):
        wait_for_thread(thread)
    with pytest.raises(ThreadNotFoundError):
        wait_for_thread(uuid4())


def test_inside_a_transaction_it_raises_whatever_the_state(thread, agent):
    """The worker does not see what is not committed: it would wait for ever."""
    at_rest = create_thread(agent)
    for waited in (thread, at_rest):
        with transaction.atomic(), pytest.raises(RuntimeError, match="inside a transaction"):
            wait_for_thread(waited, timeout_seconds=0)


def test_without_autocommit_it_raises(thread):
    """There, too, a transaction is open."""
    transaction.set_autocommit(False)
    try:
        with pytest.raises(RuntimeError, match="inside a transaction"):
            wait_for_thread(thread, timeout_seconds=0)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@pytest.mark.django_db(transaction=False)
def test_in_the_transaction_of_a_test_only_a_thread_at_rest_can_be_waited_for(agent, worker):
    """After `run_until_idle` it is; else the error says what to do."""
    thread = create_thread(agent, prompt="Question")
    with pytest.raises(RuntimeError, match="run_until_idle"):
        wait_for_thread(thread)
    worker.answer()
    assert wait_for_thread(thread).status == "completed"
    with transaction.atomic(), pytest.raises(RuntimeError):
        wait_for_thread(thread)


def test_whoever_waits_rings_for_what_nobody_came_for(thread, bells, monkeypatch):
    """Those who want the answer find out by themselves that a notification was lost."""
    monkeypatch.setattr("durable_agents.reading.follow_run.HEAL_SECONDS", 0.2)
    make_due(thread)
    bells.forget()
    with pytest.raises(WaitTimeoutError):
        wait_for_thread(thread, timeout_seconds=1)
    assert bells.workers


async def test_a_coroutine_waits_without_holding_the_thread_of_sync_code(agent, coroutine_side):
    """Other coroutines use the database meanwhile, in the one thread that Django gives them."""
    thread = await sync_to_async(create_thread)(agent, prompt="Question")
    waiting = asyncio.create_task(await_for_thread(thread))
    await asyncio.sleep(0.15)
    assert not waiting.done()
    await asyncio.wait_for(sync_to_async(Worker().answer)(), timeout=20)
    found = await waiting
    assert found.status == "completed"
    busy = await sync_to_async(create_thread)(agent, prompt="Question")
    with pytest.raises(WaitTimeoutError):
        await await_for_thread(busy, 0.2)

"""Rows that may be what kills workers: on trial alone, cleared once they have outlived it, ended when it was them."""

import pytest
from django.test import override_settings

from durable_agents import create_thread, lifecycle
from durable_agents.models import Stream, ToolCall
from tests.lifecycle.stage import Worker, call_of, calling, open_stream, status_of, stream_of

pytestmark = pytest.mark.django_db


def everybody(holder):
    """Say of every holder that it is gone."""
    return True


def die(*workers, **options):
    """Let these workers die, together."""
    holders = {worker.holder for worker in workers}
    lifecycle.reap(lambda holder: holder in holders)


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


def accuse(worker, *, deaths=2):
    """Let so many workers die with all that is due."""
    for _ in range(deaths):
        assert worker.claim()
        die(worker)


def on_trial(worker):
    """Return the one suspect that a process wins which holds nothing else."""
    [claim] = worker.claim(suspects=True)
    return claim


def test_a_suspect_that_has_outlived_its_trial_is_none_any_more(thread, worker):
    accuse(worker)
    claim = on_trial(worker)
    lifecycle.clear(claim)
    assert (stream_of(claim).crashes, stream_of(claim).is_alone, stream_of(claim).clearances) == (0, False, 1)
    die(worker)
    assert [again.is_suspect for again in worker.claim()] == [False]


def test_a_call_that_has_outlived_its_trial_is_none_any_more(thread, worker):
    worker.answer("", calling("again"))
    accuse(worker)
    claim = on_trial(worker)
    lifecycle.clear(claim)
    die(worker)
    assert (call_of(claim).crashes, call_of(claim).lonely_crashes, call_of(claim).clearances) == (1, 0, 1)
    assert worker.claim_call().row_id == claim.row_id


def test_a_clearance_that_comes_too_late_changes_nothing(thread, worker):
    accuse(worker)
    claim = on_trial(worker)
    die(worker)
    lifecycle.clear(claim)
    assert (open_stream(thread).crashes, open_stream(thread).clearances) == (3, 0)


def test_a_row_that_kills_after_its_trial_is_on_trial_again_after_one_death(thread, worker):
    """And for twice as long, by its clearances."""
    accuse(worker)
    lifecycle.clear(on_trial(worker))
    die(worker)
    accuse(worker, deaths=1)
    lifecycle.clear(on_trial(worker))
    die(worker)
    assert worker.claim() == []
    assert (on_trial(worker).clearances, open_stream(thread).crashes) == (2, 2)


@override_settings(DURABLE_AGENTS={"CRASH_LIMIT": 2})
def test_deaths_alone_are_remembered_over_a_clearance(thread, worker):
    accuse(worker)
    on_trial(worker)
    die(worker)
    lifecycle.clear(on_trial(worker))
    die(worker)
    accuse(worker, deaths=1)
    on_trial(worker)
    die(worker)
    assert status_of(thread) == "failed"


@override_settings(DURABLE_AGENTS={"CRASH_LIMIT": 1})
def test_deaths_beside_others_never_end_a_row(thread, worker):
    accuse(worker)
    for _ in range(20):
        lifecycle.clear(on_trial(worker))
        die(worker)
        while worker.claim():
            die(worker)
    assert (status_of(thread), open_stream(thread).lonely_crashes) == ("streaming", 0)


def test_workers_that_die_together_make_no_suspect_of_a_row(agent):
    first, second = Worker(holder="first"), Worker(holder="second")
    for _ in range(2):
        create_thread(agent, prompt="Hi")
    for _ in range(3):
        assert len(first.claim(streams=1) + second.claim()) == 2
        die(first, second)
    assert set(Stream.objects.open().values_list("crashes", "excuses")) == {(1, 3)}


def test_rows_of_one_bad_tool_that_kill_several_workers_at_once_are_suspects_in_the_end(agent):
    first, second = Worker(holder="first"), Worker(holder="second")
    for _ in range(2):
        create_thread(agent, prompt="Hi")
    for _ in range(4):
        assert len(first.claim(streams=1) + second.claim()) == 2
        die(first, second)
    assert first.claim() == []
    assert first.claim(suspects=True)


def test_a_death_on_trial_is_not_counted_when_other_workers_died_with_it(agent):
    one = Worker(holder="one")
    create_thread(agent, prompt="Hi")
    accuse(one)
    create_thread(agent, prompt="Hi")
    other = Worker(holder="other")
    assert other.claim()
    suspect = on_trial(one)
    die(one, other)
    new = open_stream(suspect.thread_id)
    assert (new.crashes, new.lonely_crashes, new.excuses) == (2, 0, 1)


@override_settings(DURABLE_AGENTS={"CRASH_LIMIT": 1})
def test_rows_on_trial_whose_workers_always_die_together_are_ended(agent):
    """After more of these deaths than those of others, because each of them harms no other row."""
    workers = [Worker(holder="first"), Worker(holder="second")]
    threads = [create_thread(agent, prompt="Hi") for _ in workers]
    accuse(workers[0])
    for _ in range(13):
        for worker in workers:
            on_trial(worker)
        die(*workers)
    assert {status_of(thread) for thread in threads} == {"streaming"}
    assert set(Stream.objects.open().values_list("crashes", "lonely_crashes", "excuses")) == {(2, 0, 13)}
    for worker in workers:
        on_trial(worker)
    die(*workers)
    assert {status_of(thread) for thread in threads} == {"failed"}


@override_settings(DURABLE_AGENTS={"CRASH_LIMIT": 3})
def test_of_deaths_before_a_survived_trial_only_one_counts(thread, worker):
    accuse(worker)
    for _ in range(2):
        on_trial(worker)
        die(worker)
    lifecycle.clear(on_trial(worker))
    die(worker)
    accuse(worker, deaths=1)
    assert open_stream(thread).lonely_crashes == 1
    for status in ("streaming", "failed"):
        on_trial(worker)
        die(worker)
        assert status_of(thread) == status


@pytest.fixture
def many(agent, worker):
    """Return sixteen suspects."""
    for _ in range(16):
        create_thread(agent, prompt="Hi")
    for _ in range(2):
        assert len(worker.claim(streams=16)) == 16
        die(worker)


@pytest.fixture
def few(agent, worker):
    """Return three suspects."""
    for _ in range(3):
        create_thread(agent, prompt="Hi")
    accuse(worker)


def test_of_few_suspects_one_at_a_time_is_on_trial(few, worker):
    [claim] = worker.claim(suspects=lifecycle.NEW_SUSPECTS)
    assert stream_of(claim).is_alone
    assert Worker(holder="busy").claim(suspects=lifecycle.MANY_NEW_SUSPECTS) == []


def test_of_many_suspects_some_are_on_trial_together(many, worker):
    """Most of them have only stood beside each other."""
    claims = worker.claim(suspects=lifecycle.NEW_SUSPECTS)
    assert len(claims) == 4
    assert not Stream.objects.filter(is_alone=True).exists()
    assert len(Worker(holder="busy").claim(suspects=lifecycle.MANY_NEW_SUSPECTS)) == 4


@override_settings(DURABLE_AGENTS={"CRASH_LIMIT": 1})
def test_whoever_dies_on_trial_together_is_alone_the_next_time(many, worker):
    """That death ends none of them."""
    claims = worker.claim(suspects=lifecycle.NEW_SUSPECTS)
    die(worker)
    ids = {claim.thread_id for claim in claims}
    assert set(Stream.objects.open().filter(thread__in=ids).values_list("crashes", "lonely_crashes")) == {(3, 0)}
    [alone] = worker.claim(suspects=lifecycle.TRIED_BEFORE)
    assert alone.thread_id in ids
    assert stream_of(alone).is_alone


def test_a_suspect_that_has_waited_is_on_trial_beside_others(few):
    busy = Worker(holder="busy")
    assert busy.claim(suspects=lifecycle.impatient()) == []
    Stream.objects.update(pending_since="2020-01-01T00:00Z")
    assert len(busy.claim(suspects=lifecycle.impatient())) == 3
    assert not Stream.objects.filter(is_alone=True).exists()


def test_a_suspect_that_has_died_alone_waits_for_a_process_without_other_rows(thread, worker):
    accuse(worker)
    on_trial(worker)
    die(worker)
    Stream.objects.update(pending_since="2020-01-01T00:00Z")
    busy = Worker(holder="busy")
    assert busy.claim(suspects=lifecycle.impatient()) == []
    assert busy.claim(suspects=lifecycle.MANY_NEW_SUSPECTS) == []
    assert worker.claim(suspects=lifecycle.TRIED_BEFORE)


def test_one_that_was_cleared_after_a_death_alone_goes_before_others_all_the_same(thread, worker):
    accuse(worker)
    on_trial(worker)
    die(worker)
    lifecycle.clear(on_trial(worker))
    die(worker)
    accuse(worker, deaths=1)
    assert worker.claim(suspects=lifecycle.NEW_SUSPECTS) == []
    assert worker.claim(suspects=lifecycle.TRIED_BEFORE)


def test_one_that_has_died_alone_three_times_goes_before_nobody(thread, worker):
    accuse(worker)
    for _ in range(3):
        on_trial(worker)
        die(worker)
    assert worker.claim(suspects=lifecycle.TRIED_BEFORE) == []
    assert on_trial(worker)


def test_the_longest_dead_are_reaped_first(agent, monkeypatch):
    """Whoever reaps may die in the middle; the next one would begin with the same rows."""
    early, late = Worker(holder="early"), Worker(holder="late")
    for _ in range(6):
        create_thread(agent, prompt="Hi")
    waiting = {claim.row_id for claim in early.claim(streams=3)}
    late.claim()
    order = []
    lifecycle.reap(everybody, spent=lambda stream: order.append(stream.pk) or lifecycle.Spent())
    assert set(order[:3]) == waiting


def test_a_given_back_suspect_stays_one(thread, worker):
    """A deploy is no proof."""
    worker.answer("", calling("again"))
    accuse(worker)
    lifecycle.release(on_trial(worker))
    assert worker.claim() == []
    assert ToolCall.objects.get().crashes == 2
    assert on_trial(worker)

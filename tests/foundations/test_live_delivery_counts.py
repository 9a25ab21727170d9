"""What a process counts about live delivery: sums of an hour, stored now and then."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db.models.functions import Now

from durable_agents import lifecycle
from durable_agents import live_delivery_counts as module
from durable_agents.live_delivery_counts import STORE_SECONDS, DeliveryCounts, delivery_counts
from durable_agents.models import DeliveryReport
from durable_agents.worker_identity import me


class Clock:
    """The monotonic clock, which stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock of the counts."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def here() -> Iterator[DeliveryCounts]:
    """Return the counts of this process, at zero before the test and after it."""
    delivery_counts().reset()
    yield delivery_counts()
    delivery_counts().reset()


def taken(counts: DeliveryCounts) -> dict[str, int] | None:
    """Return what must be stored now."""
    period = counts.take()
    return None if period is None else dict(period.counts)


def test_counts_are_due_when_they_have_changed_but_not_more_often_than_every_30_s(clock):
    counts = DeliveryCounts()
    assert taken(counts) is None
    counts.add("snapshot")
    assert taken(counts) == {"snapshot": 1}
    counts.add("snapshot", 2)
    assert taken(counts) is None
    clock.now += STORE_SECONDS
    assert taken(counts) == {"snapshot": 3}
    clock.now += STORE_SECONDS
    assert taken(counts) is None


def test_counts_that_could_not_be_stored_are_due_again(clock):
    counts = DeliveryCounts()
    counts.add("snapshot")
    counts.take()
    counts.put_back()
    clock.now += STORE_SECONDS
    assert taken(counts) == {"snapshot": 1}


def test_an_hour_after_the_first_count_a_new_period_begins_at_zero(clock):
    counts = DeliveryCounts()
    counts.add("snapshot")
    first = counts.take()
    clock.now += 3_000
    counts.add("snapshot")
    second = counts.take()
    clock.now += 601
    counts.add("snapshot")
    third = counts.take()
    assert [period.counts["snapshot"] for period in (first, second, third)] == [1, 2, 1]
    assert (first.id, second.seconds, third.seconds) == (second.id, 3_000, 0)
    assert third.id != second.id


def test_what_was_not_stored_yet_is_no_part_of_the_next_period(clock):
    """A process that stores nothing for hours loses nothing."""
    counts = DeliveryCounts()
    counts.add("snapshot")
    clock.now += 10_000
    counts.add("snapshot")
    assert taken(counts) == {"snapshot": 2}


FORK = """
import os
from durable_agents.live_delivery_counts import delivery_counts
delivery_counts().add("snapshot")
if os.fork() == 0:
    os._exit(2 if delivery_counts().are_due else 0)
assert os.wait()[1] == 0
assert delivery_counts().are_due
"""


def test_a_forked_child_begins_at_zero(child_env):
    subprocess.run([sys.executable, "-c", FORK], env=child_env, check=True)


@pytest.mark.django_db
def test_a_period_is_one_row(here, monkeypatch):
    monkeypatch.setattr(module, "STORE_SECONDS", 0.0)
    here.add("snapshot")
    lifecycle.store_delivery_counts()
    here.add("closed_1000")
    lifecycle.store_delivery_counts()
    [report] = DeliveryReport.objects.filter(holder=me())
    assert (report.holder, report.counts) == (me(), {"snapshot": 1, "closed_1000": 1})
    assert timedelta() <= report.seen_at - report.since < timedelta(seconds=20)


@pytest.mark.django_db
def test_nothing_is_written_if_nothing_has_changed(here, django_assert_num_queries):
    with django_assert_num_queries(0):
        lifecycle.store_delivery_counts()


@pytest.mark.django_db
def test_a_database_that_fails_loses_no_counts(here, monkeypatch):
    monkeypatch.setattr(module, "STORE_SECONDS", 0.0)
    here.add("snapshot")
    with monkeypatch.context() as patched:
        patched.setattr("durable_agents.lifecycle.live_delivery_reports.worker_identity.me", lambda: 1 / 0)
        lifecycle.store_delivery_counts()
    lifecycle.store_delivery_counts()
    assert DeliveryReport.objects.get(holder=me()).counts == {"snapshot": 1}


@pytest.mark.django_db
def test_reports_are_kept_for_a_day():
    DeliveryReport.objects.all().delete()
    for hours in (23, 25):
        seen_at = Now() - timedelta(hours=hours)
        DeliveryReport.objects.create(id=uuid4(), holder=f"{hours}", since=seen_at, seen_at=seen_at)
    lifecycle.prune()
    assert [report.holder for report in DeliveryReport.objects.all()] == ["23"]

"""Deltas and leases: stored for the holder only, many streams in one transaction."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from durable_agents import create_thread, delete_thread, lifecycle, stop_thread
from durable_agents.lifecycle import Append
from durable_agents.models import Delta, Stream
from tests.lifecycle.stage import call_of, calling, let_expire, spoken, stream_of

pytestmark = pytest.mark.django_db


def appended(claim, seq=0, text="Hello"):
    """Return a delta of a held stream."""
    return Append(claim=claim, seq=seq, chunks=spoken(text, first=seq == 0))


@pytest.fixture
def claims(agent, worker):
    """Return the claims of three steps."""
    for _ in range(3):
        create_thread(agent, prompt="Hi")
    return worker.claim()


def test_deltas_of_many_streams_are_stored_together(claims):
    """Each at its place."""
    stored, lost = lifecycle.append_deltas([appended(claim) for claim in claims])
    assert (stored, lost) == ({claim.row_id for claim in claims}, set())
    assert sorted(Delta.objects.values_list("stream_id", "seq")) == sorted((claim.row_id, 0) for claim in claims)


def test_a_stream_that_is_settled_is_lost_and_harms_no_other(claims):
    """The holder of the lost one stops working on it."""
    gone, *others = claims
    stop_thread(gone.thread_id)
    stored, lost = lifecycle.append_deltas([appended(claim) for claim in claims])
    assert (stored, lost) == ({claim.row_id for claim in others}, {gone.row_id})
    assert not Delta.objects.filter(stream_id=gone.row_id).exists()


def test_a_stream_with_another_holder_is_lost(claims, worker):
    """The fence tells the late one."""
    late = claims[0]
    Stream.objects.filter(pk=late.row_id).update(fence=late.fence + 1)
    assert lifecycle.append_deltas([appended(late)]) == (set(), {late.row_id})


def test_a_deleted_stream_is_lost(claims):
    """Nothing comes back to life."""
    delete_thread(claims[0].thread_id)
    assert lifecycle.append_deltas([appended(claims[0])]) == (set(), {claims[0].row_id})


def test_the_same_seq_twice_is_refused_by_the_database(claims):
    """No delta is ever stored twice."""
    lifecycle.append_deltas([appended(claims[0])])
    with pytest.raises(IntegrityError), transaction.atomic():
        lifecycle.append_deltas([appended(claims[0])])


def test_an_append_is_no_durable_change(claims):
    """Deltas are disposable, so the thread's rev stays."""
    before = stream_of(claims[0]).thread.rev
    lifecycle.append_deltas([appended(claims[0])])
    assert stream_of(claims[0]).thread.rev == before


def test_a_heartbeat_extends_leases_of_steps_and_calls(claims, worker):
    """All at once; what is not named stays as it is."""
    worker.answer("", calling(), claim=claims[0])
    held = [worker.claim_call(), claims[1]]
    for claim in [*held, claims[2]]:
        let_expire(claim)
    assert lifecycle.heartbeat(held) == set()
    assert call_of(held[0]).lease_expires_at > call_of(held[0]).pending_since
    assert Stream.objects.filter(lease_expires_at__gt=Now() + timedelta(seconds=20)).get().pk == claims[1].row_id


def test_a_heartbeat_tells_what_is_lost_and_does_not_extend_it(claims):
    """Whatever the reason."""
    stopped, fenced, deleted = claims
    stop_thread(stopped.thread_id)
    delete_thread(deleted.thread_id)
    let_expire(fenced)
    Stream.objects.filter(pk=fenced.row_id).update(fence=fenced.fence + 1)
    assert lifecycle.heartbeat(claims) == {claim.row_id for claim in claims}
    assert Stream.objects.filter(pk=fenced.row_id, lease_expires_at__lt=Now()).exists()


def test_lost_claims_are_told_without_writing(claims):
    """What a worker asks twice a second."""
    stop_thread(claims[1].thread_id)
    before = stream_of(claims[0]).lease_expires_at
    assert lifecycle.lost_claims(claims) == {claims[1].row_id}
    assert stream_of(claims[0]).lease_expires_at == before


def test_pruning_keeps_the_deltas_of_open_streams(claims, worker):
    """A snapshot needs them; those of closed ones go after a while."""
    for claim in claims:
        worker.say(claim, "a", "b")
    worker.answer("ab", claim=claims[0])
    worker.answer("ab", claim=claims[1])
    Stream.objects.filter(pk=claims[0].row_id).update(finished_at=Now() - timedelta(minutes=5))
    assert lifecycle.prune() == 2
    assert set(Delta.objects.values_list("stream_id", flat=True)) == {claims[1].row_id, claims[2].row_id}


def test_rows_that_do_not_exist_are_lost(claims):
    """A claim on nothing."""
    nothing = replace(claims[0], row_id=uuid4())
    assert lifecycle.lost_claims([nothing]) == {nothing.row_id}

"""Winning rows: at most what is asked for and what a pool has left, only known code, the longest due first."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from durable_agents import create_thread, lifecycle, send_message
from durable_agents.models import Pool, Stream, Thread
from tests.lifecycle.stage import Worker, calling, let_expire, open_stream, stream_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def threads(agent):
    """Return three threads, each with a step due, the last one for longest."""
    made = [create_thread(agent, prompt="Hi") for _ in range(3)]
    for ago, thread in enumerate(made, start=1):
        Stream.objects.filter(thread=thread).update(available_at=Now() - timedelta(minutes=ago))
    return made


@pytest.fixture
def limit():
    """Return a function that sets the limit of a pool."""
    return lambda pool, most: Pool.objects.filter(name=pool).update(limit=most)


def test_a_won_step_is_held_under_a_lease(threads, worker):
    """By the one who asked, from now on."""
    claim = worker.claim(streams=1)[0]
    stream = stream_of(claim)
    assert (stream.state, stream.lease_owner, stream.fence) == ("streaming", worker.holder, claim.fence)
    assert stream.lease_expires_at > stream.started_at
    assert (claim.kind, claim.thread_id, claim.attempt, claim.crashes) == ("stream", stream.thread_id, 1, 0)


def test_the_longest_due_is_won_first(threads, worker):
    """Nobody waits for ever."""
    order = [worker.claim(streams=1)[0].thread_id for _ in threads]
    assert order == [thread.pk for thread in reversed(threads)]


def test_no_more_is_won_than_was_asked_for(threads, worker):
    """A process knows its free slots."""
    assert len(worker.claim(streams=2)) == 2
    assert len(worker.claim(streams=0)) == 0


def test_what_is_held_is_not_won_again(threads, worker):
    """One holder per row."""
    assert len(worker.claim()) == 3
    assert Worker(holder="other").claim() == []


def test_what_falls_due_later_is_not_won(threads, worker):
    """A wait is a wait."""
    Stream.objects.filter(thread=threads[0]).update(available_at=Now() + timedelta(minutes=1))
    assert {claim.thread_id for claim in worker.claim()} == {threads[1].pk, threads[2].pk}


def test_a_full_pool_gives_nothing(threads, worker, limit):
    """The limit counts rows held by anybody."""
    limit("agents", 2)
    assert len(worker.claim()) == 2
    assert Worker(holder="other").claim() == []


def test_a_row_whose_lease_ran_out_takes_no_place(threads, worker, limit):
    """Its holder is dead; the pool must not stand still for it."""
    limit("agents", 1)
    let_expire(worker.claim()[0])
    assert len(Worker(holder="other").claim()) == 1


def test_a_pool_that_was_not_asked_for_gives_nothing(threads, worker):
    """Each cluster serves its own pools."""
    assert worker.claim(pools=["tools"]) == []


def test_a_pool_that_has_no_row_gives_nothing(threads, worker):
    """Its limit is not known yet; the other pools are served all the same."""
    worker.answer("", calling("once"), claim=worker.claim(streams=1)[0])
    Pool.objects.filter(name="agents").delete()
    assert [claim.kind for claim in worker.claim()] == ["tool"]


def test_steps_of_an_unknown_agent_are_left_to_others(threads):
    """A worker with older code does not touch them."""
    assert Worker(agents=["another"]).claim() == []


def test_calls_of_an_unknown_agent_are_left_to_others_although_another_has_the_tool(agent, worker):
    """The agent's own tool of that name may be another one."""
    create_thread(agent, prompt="Hi")
    worker.answer("", calling("plain"))
    code = {"another": ["plain"], "tested": ["again"]}
    assert lifecycle.claim(pools=["tools"], holder="other", streams=1, tools=1, code=code) == []


def test_calls_of_an_unknown_tool_are_left_to_others(agent, worker):
    """Nor calls whose function it does not have."""
    create_thread(agent, prompt="Hi")
    worker.answer("", calling("plain"))
    assert Worker(tool_names=["again"]).claim() == []
    assert [claim.kind for claim in worker.claim()] == ["tool"]


def test_calls_go_before_steps_within_a_pool(agent, worker, limit):
    """What has begun is brought to its end first."""
    create_thread(agent, prompt="Hi")
    worker.answer("", calling("plain"))
    create_thread(agent, prompt="Hi")
    limit("agents", 1)
    assert [claim.kind for claim in worker.claim()] == ["tool"]


def test_a_tool_with_a_pool_of_its_own_does_not_count_in_the_agents(agent, worker, limit):
    """Model steps and tools are limited apart."""
    create_thread(agent, prompt="Hi")
    worker.answer("", calling("once"))
    create_thread(agent, prompt="Hi")
    limit("agents", 1)
    assert sorted(claim.kind for claim in worker.claim()) == ["stream", "tool"]


def test_every_claim_raises_the_fence(agent, worker):
    """So that an earlier holder's writes are refused."""
    create_thread(agent, prompt="Hi")
    worker.answer("", calling("again"))
    fences = []
    for _ in range(3):
        claim = worker.claim_call()
        fences.append(claim.fence)
        lifecycle.release(claim)
    assert fences == sorted(set(fences))


def test_owners_are_served_in_turn(agent, worker, django_user_model):
    """One who has started many runs does not keep the others waiting."""
    ann, bob = (django_user_model.objects.create_user(name) for name in ("ann", "bob"))
    for owner in (ann, ann, ann, bob):
        create_thread(agent, owner=owner, prompt="Hi")
    won = worker.claim(streams=2)
    owners = Thread.objects.filter(pk__in=[claim.thread_id for claim in won]).values_list("owner", flat=True)
    assert set(owners) == {ann.pk, bob.pk}


FLOODS = {"visitors": ("visitor:1", "visitor:2"), "nobody and a visitor": ("", "visitor:2")}


@pytest.mark.parametrize(("flooding", "waiting"), FLOODS.values(), ids=FLOODS)
@pytest.mark.parametrize("kind", ["stream", "tool"])
def test_visitors_are_served_in_turn(agent, worker, flooding, waiting, kind):
    """They have no owner: a scope is what tells them apart, for steps and for tool calls alike."""
    for scope in (flooding, flooding, flooding, waiting):
        create_thread(agent, scope=scope, prompt="Hi")
    if kind == "tool":
        for claim in sorted(worker.claim(), key=lambda claim: str(claim.row_id)):
            worker.answer("", calling(), claim=claim)
        Thread.objects.filter(scope=waiting).get().tool_calls.update(pending_since=Now() + timedelta(seconds=1))
    won = worker.claim(streams=2, tools=0) if kind == "stream" else worker.claim(streams=0, tools=2)
    scopes = Thread.objects.filter(pk__in=[claim.thread_id for claim in won]).values_list("scope", flat=True)
    assert set(scopes) == {flooding, waiting}


def test_nothing_due_writes_nothing(agent, worker, django_assert_num_queries):
    """Idle workers only look."""
    thread = create_thread(agent)
    with django_assert_num_queries(1):
        assert worker.claim() == []
    send_message(thread, "Hi")
    assert open_stream(thread).state == "pending"

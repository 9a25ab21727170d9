"""The leases of the dead end, and the declaration of agent and tool decides what follows."""

import pytest
from django.test import override_settings

from durable_agents import create_thread, delete_thread, lifecycle, stop_thread
from durable_agents.agents import registry
from durable_agents.exceptions import LeaseLostError
from durable_agents.models import Stream, Thread, ToolCall
from tests.lifecycle.stage import Worker, call_of, calling, let_expire, open_stream, status_of, stream_of

pytestmark = pytest.mark.django_db


def nobody(holder):
    """Say of no holder that it is gone."""
    return False


def everybody(holder):
    """Say of every holder that it is gone."""
    return True


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


def test_a_living_holder_is_left_alone(thread, worker):
    """Its lease runs and its process is there."""
    claim = worker.claim_step()
    assert lifecycle.reap(nobody) == 0
    assert stream_of(claim).state == "streaming"


def test_a_step_whose_lease_ran_out_is_taken_over_by_a_fresh_attempt(thread, worker):
    """The dead one's deltas are superseded; its death is counted, its attempt is not."""
    claim = worker.claim_step()
    worker.say(claim, "half")
    let_expire(claim)
    assert lifecycle.reap(nobody) == 1
    old, new = stream_of(claim), open_stream(thread)
    assert (old.state, old.parts, old.finish_reason) == ("aborted", [], "crashed")
    assert (new.state, new.attempt, new.crashes) == ("pending", 1, 1)
    assert status_of(thread) == "streaming"


def test_a_step_of_a_gone_process_is_taken_over_before_its_lease_ends(thread, worker):
    """Who looks knows the machine."""
    claim = worker.claim_step()
    assert lifecycle.reap(lambda holder: holder == worker.holder) == 1
    assert stream_of(claim).state == "aborted"


def test_only_the_rows_of_the_gone_are_reaped(agent):
    """Their neighbours work on."""
    for _ in range(2):
        create_thread(agent, prompt="Hi")
    [dead] = Worker(holder="dead").claim(streams=1)
    [alive] = Worker(holder="alive").claim()
    assert lifecycle.reap(lambda holder: holder == "dead") == 1
    assert (stream_of(dead).state, stream_of(alive).state) == ("aborted", "streaming")


def test_what_a_reaped_holder_says_late_is_refused(thread, worker):
    """A zombie writes nothing."""
    claim = worker.claim_step()
    lifecycle.reap(everybody)
    with pytest.raises(LeaseLostError):
        worker.answer("Late.", claim=claim)
    assert lifecycle.append_deltas([lifecycle.Append(claim=claim, seq=0, chunks=[])]) == (set(), {claim.row_id})


def test_a_reaped_row_is_not_reaped_again(thread, worker):
    """Nobody holds it."""
    worker.claim_step()
    assert (lifecycle.reap(everybody), lifecycle.reap(everybody)) == (1, 0)


def test_a_step_whose_holders_died_twice_runs_alone(thread, worker):
    """It may be what kills them, so nothing else may be held beside it."""
    create_thread("tested", prompt="Hi")
    for _ in range(2):
        lifecycle.release(next(claim for claim in worker.claim() if claim.thread_id != thread.pk))
        lifecycle.reap(everybody)
    assert [claim.thread_id for claim in worker.claim()] != [thread.pk]
    [alone] = worker.claim(suspects=True)
    assert (alone.thread_id, alone.crashes, alone.is_suspect) == (thread.pk, 2, True)


@override_settings(DURABLE_AGENTS={"CRASH_LIMIT": 2})
def test_a_step_that_keeps_killing_its_lonely_holders_fails_the_thread(thread, worker):
    """After the limit, and not before; deaths in company do not count to it."""
    for suspects in (False, False, True):
        [_] = worker.claim(suspects=suspects)
        lifecycle.reap(everybody)
    assert status_of(thread) == "streaming"
    worker.claim(suspects=True)
    lifecycle.reap(everybody)
    assert Thread.objects.values_list("status", "error_code").get(pk=thread.pk) == ("failed", "crashed")
    assert not Stream.objects.open().exists()


def test_a_row_that_blocks_its_worker_runs_alone_after_one_death(thread, worker):
    """The watchdog has named it."""
    claim = worker.claim_step()
    lifecycle.blame(claim)
    lifecycle.reap(everybody)
    assert worker.claim() == []
    assert lifecycle.suspects_wait(["agents"], code={thread.agent: []})
    assert worker.claim(suspects=True)[0].crashes == 2


@pytest.mark.parametrize(("name", "status"), [("plain", "unknown"), ("once", "failed"), ("again", "pending")])
def test_a_call_whose_holder_died_is_settled_as_its_tool_declares(thread, worker, name, status):
    """Unknown, failed, or due again."""
    worker.answer("", calling(name))
    claim = worker.claim_call()
    assert lifecycle.reap(everybody) == 1
    assert call_of(claim).status == status


@pytest.mark.parametrize("name", ["plain", "once"])
def test_a_call_that_is_settled_by_a_death_lets_the_run_go_on(thread, worker, name):
    """The model is told that it may have run."""
    worker.answer("", calling(name))
    claim = worker.claim_call()
    lifecycle.reap(everybody)
    assert (call_of(claim).error_code, status_of(thread)) == ("crashed", "streaming")
    assert "may or may not have run" in call_of(claim).error


def test_a_call_that_may_run_again_keeps_its_attempt(thread, worker):
    """A death is counted apart."""
    worker.answer("", calling("again"))
    worker.claim_call()
    lifecycle.reap(everybody)
    claim = worker.claim_call()
    assert (claim.attempt, claim.crashes) == (1, 1)
    assert status_of(thread) == "awaiting_tool_results"


@override_settings(DURABLE_AGENTS={"CRASH_LIMIT": 1})
def test_a_call_that_keeps_killing_its_holders_fails_and_the_run_goes_on(thread, worker):
    """A poisoned tool does not end the thread."""
    worker.answer("", calling("again"))
    for suspects in (False, False, True):
        [claim] = worker.claim(suspects=suspects)
        lifecycle.reap(everybody)
    assert (call_of(claim).status, status_of(thread)) == ("failed", "streaming")


def test_a_call_of_a_tool_that_only_others_know_is_theirs_to_reap_for_the_grace(thread, worker, agent):
    """Whose declaration says that it may run again; after that it is unknown."""
    worker.answer("", calling("again"))
    claim = worker.claim_call()
    del agent.tools["again"]
    let_expire(claim)
    assert (lifecycle.reap(everybody), call_of(claim).status) == (0, "running")
    with override_settings(DURABLE_AGENTS={"UNKNOWN_CODE_GRACE_SECONDS": 0}):
        lifecycle.reap(everybody)
    assert call_of(claim).status == "unknown"


def test_a_step_of_an_agent_that_only_others_know_is_theirs_to_reap_for_the_grace(thread, worker):
    """After that it has failed."""
    claim = worker.claim_step()
    registry.remove("tested")
    let_expire(claim)
    assert (lifecycle.reap(everybody), stream_of(claim).state) == (0, "streaming")
    with override_settings(DURABLE_AGENTS={"UNKNOWN_CODE_GRACE_SECONDS": 0}):
        lifecycle.reap(everybody)
    assert Thread.objects.values_list("status", "error_code").get(pk=thread.pk) == ("failed", "unknown")
    assert "'tested'" in stream_of(claim).error_detail


def test_rows_that_were_settled_meanwhile_are_left_alone(thread, worker):
    """The reaper looks again under the lock."""
    worker.claim_step()

    def stop_first(holder):
        stop_thread(thread)
        return True

    assert lifecycle.reap(stop_first) == 0
    assert (status_of(thread), Stream.objects.count()) == ("stopped", 1)


def test_a_thread_that_was_deleted_meanwhile_is_no_error(thread, worker):
    """Nothing is left to reap."""
    worker.claim_step()

    def delete_first(holder):
        delete_thread(thread)
        return True

    assert lifecycle.reap(delete_first) == 0


def test_a_row_that_was_won_anew_meanwhile_is_left_alone(thread, worker):
    """The fence is compared."""
    worker.answer("", calling("again"))
    claim = worker.claim_call()

    def claim_anew(holder):
        lifecycle.release(claim)
        worker.claim_call()
        return True

    assert lifecycle.reap(claim_anew) == 0
    assert ToolCall.objects.get().status == "running"

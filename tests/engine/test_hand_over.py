"""What a worker's own transaction has made due, and the worker holds from its beginning: that nothing of it is lost."""

import time

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError

from durable_agents import create_thread, lifecycle, send_message, tool
from durable_agents.engine import model_step
from durable_agents.engine import worker as worker_module
from durable_agents.models import Thread, ToolCall
from durable_agents.testing import ScriptedModel, calls
from tests.testing.shop import opened


@tool
def ordered(zebra: int, bee: int, longer_name: int) -> dict[str, float]:
    """Return an object whose keys are in no order."""
    return {"zebra": zebra, "bee": bee, "longer_name": longer_name, "large": 1e22, "none": -0.0}


@tool
def plain() -> str:
    """Run once."""
    return "done"


running: list[int] = []
"""How many calls of ``slow`` were running whenever one began, itself included."""
_now: list[None] = []


@tool
def slow() -> str:
    """Keep the slot for a while."""
    _now.append(None)
    running.append(len(_now))
    time.sleep(0.02)
    _now.pop()
    return "done"


def test_the_same_history_reaches_the_model_from_memory_and_from_the_database(worker):
    """A provider would not find its cached prompt otherwise."""
    with (
        opened(name="orderly", tools=[ordered]),
        ScriptedModel(calls("ordered", zebra=1, bee=2, longer_name=3), "One.", "Two.") as model,
    ):
        thread = create_thread("orderly", prompt="Go.")
        worker.work(slot=0)
        send_message(thread, "More.")
        worker.work(slot=0)
    _, from_memory, from_rows = (request.messages for request in model.requests)
    assert from_rows[: len(from_memory)] == from_memory


def test_a_worker_that_leaves_during_a_commit_gives_back_what_that_hands_over(worker, settings, monkeypatch):
    """It has not begun, so it is due for other workers, although the tool may not run twice."""
    settings.DURABLE_AGENTS = {**settings.DURABLE_AGENTS, "DRAIN_SECONDS": 0.1}
    end_together = lifecycle.end_together

    def slow(*args, **kwargs):
        ended = end_together(*args, **kwargs)
        worker._on_sigterm()
        time.sleep(1.5)  # longer than the drain and the release of a row take
        return ended

    monkeypatch.setattr(lifecycle, "end_together", slow)
    monkeypatch.setattr(worker, "_leave", lambda: None)
    with opened(name="leaver", tools=[plain]), ScriptedModel(calls("plain"), "Done."):
        create_thread("leaver", prompt="Go.")
        worker.work(slot=0)
    assert not worker.held
    assert ToolCall.objects.values_list("status", "lease_owner").get() == ("pending", "")


@pytest.mark.parametrize("name", ["end_together", "claim"])
def test_what_was_taken_by_a_commit_whose_answer_was_lost_runs_soon(worker, monkeypatch, name):
    """It is leased to this process, which does not know: without a check it would wait for the end of its lease."""
    transition, lost = getattr(lifecycle, name), []

    def failing(*args, **kwargs):
        result = transition(*args, **kwargs)
        if result and not lost:
            lost.append(result)
            raise OperationalError("server closed the connection unexpectedly")
        return result

    monkeypatch.setattr(lifecycle, name, failing)
    with opened(name="loser", tools=[plain]), ScriptedModel(calls("plain"), "Done."):
        create_thread("loser", prompt="Go.")
        worker.work(slot=0)
    assert Thread.objects.values_list("status", flat=True).get() == "completed"
    assert ToolCall.objects.values_list("status", "crashes").get() == ("completed", 0)


def test_calls_get_the_one_slot_in_order_and_one_at_a_time(worker, settings, django_user_model):
    """New calls of an owner with many runs would keep another owner waiting otherwise."""
    settings.DURABLE_AGENTS = {**settings.DURABLE_AGENTS, "TOOL_THREADS": 1}
    busy, waiting = (django_user_model.objects.create(username=name) for name in ("busy", "waiting"))
    running.clear()
    with opened(name="queue", tools=[slow], max_steps=8), ScriptedModel(*[calls("slow")] * 200):
        for owner in [*[busy] * 12, waiting]:
            create_thread("queue", prompt="Go.", owner=owner)
        worker.work(slot=0)
    made = list(ToolCall.objects.values_list("created_at", "finished_at", "thread__owner"))
    own = [(created, finished) for created, finished, owner in made if owner == waiting.pk]
    overtakers = [sum(call[0] > created and call[1] < finished for call in made) for created, finished in own]
    assert len(own) == 8
    assert max(overtakers) <= 4, overtakers  # of eleven others; usually one or two, and more on a busy machine
    assert max(running) == 1, running


def test_a_user_whose_row_is_locked_delays_no_thread(own_postgres, worker_on_own_postgres):
    """Not that user's either: a project may hold such a lock for as long as a request takes."""
    own_postgres.execute("ALTER SYSTEM SET lock_timeout = '3s'")  # what waits for the lock fails
    own_postgres.execute("SELECT pg_reload_conf()")
    ann, bob = (get_user_model().objects.create_user(username=name) for name in ("ann", "bob"))
    with opened(name="owned", tools=[plain]), ScriptedModel(*[calls("plain")] * 2, "Done.", repeat_last=True):
        for user in (ann, bob):
            create_thread("owned", owner=user, prompt="Go.")
        with psycopg.connect(own_postgres.conninfo()) as session:
            session.execute("SELECT 1 FROM auth_user WHERE id = %s FOR UPDATE", [ann.pk])
            worker_on_own_postgres.work(slot=0)
    assert list(Thread.objects.values_list("status", flat=True)) == ["completed", "completed"]


def test_looking_for_work_does_not_take_the_slots_of_a_run_that_goes_on(worker, monkeypatch):
    """A call that finds no slot waits for the next claim, which takes the slots again: once, a run needed more claims
    than steps. Only the first row of the run is claimed.
    """
    claim, won = lifecycle.claim, []

    def recorded(*args, **kwargs):
        time.sleep(0.005)  # so that steps and calls end meanwhile
        claims = claim(*args, **kwargs)
        won.extend(claims)
        return claims

    monkeypatch.setattr(worker_module, "CLAIM_SECONDS", 0.001)
    monkeypatch.setattr(lifecycle, "claim", recorded)
    with opened(name="runner", tools=[plain]), ScriptedModel(*[calls("plain")] * 8, "Done."):
        thread = create_thread("runner", prompt="Go.")
        worker.work(slot=0)
    assert Thread.objects.get(pk=thread.pk).status == "completed"
    assert [item.kind for item in won] == ["stream"]
    assert len(worker.env.histories) == 0, "the history of a run that has ended is kept"


def test_a_history_is_kept_while_calls_that_were_not_handed_over_are_due(worker, monkeypatch):
    """Here all are left to the next claim, as where no slot is free; what they end is handed over, and known."""
    offer, loaded = worker.claimer.offer, []

    def without_tools(endings):
        offered = offer(endings)
        if offered is not None:
            offered.tools = 0
        return offered

    load = model_step._load_steps
    monkeypatch.setattr(worker.claimer, "offer", without_tools)
    monkeypatch.setattr(model_step, "_load_steps", lambda claims: loaded.extend(claims) or load(claims))
    with opened(name="waiting", tools=[plain]), ScriptedModel(*[calls("plain")] * 3, "Done."):
        thread = create_thread("waiting", prompt="Go.")
        worker.work(slot=0)
    assert Thread.objects.get(pk=thread.pk).status == "completed"
    assert len(loaded) == 1

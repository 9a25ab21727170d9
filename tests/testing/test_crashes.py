"""A worker can be made to die at every named point; the next one recovers what it held, by the rows' own rules."""

import pytest

from durable_agents import create_thread, tool
from durable_agents.models import Stream, ToolCall
from durable_agents.testing import POINTS, ScriptedModel, SimulatedCrash, calls, crash, crash_at, does, run_until_idle
from tests.project.models import Booking
from tests.testing.shop import add, opened

pytestmark = pytest.mark.django_db
BOOKED = [calls("book", name="Ada"), calls("again")]


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_any_point_is_recovered(shop, point):
    """Each tool has had its effect once, each call has one outcome, and there is one answer."""
    with ScriptedModel(lambda request: BOOKED if request.messages[-1]["role"] == "user" else "Done.", repeat_last=True):
        thread = create_thread("shop", prompt="Book.")
        with crash_at(point):
            run_until_idle()
        thread.refresh_from_db()
        assert thread.status != "completed"
        run_until_idle()
    thread.refresh_from_db()
    assert thread.status == "completed"
    assert Booking.objects.filter(name="Ada").count() == 1
    assert Booking.objects.count() == 2
    results = ToolCall.objects.filter(thread=thread).order_by("rev").values_list("status", "result")
    assert sorted(results) == [("completed", "booked for Ada"), ("completed", "done")]
    assert Stream.objects.filter(thread=thread, text="Done.").count() == 1


def test_a_plain_tool_that_died_may_have_run_and_the_model_is_told(shop):
    """By its declaration: nothing is run twice."""
    with ScriptedModel(calls("add", a=1, b=1), "I see.") as model:
        create_thread("shop", prompt="Add.")
        with crash_at("tool_ended"):
            run_until_idle()
        run_until_idle()
    assert ToolCall.objects.get().status == "unknown"
    assert "may or may not have run" in model.requests[-1].messages[-1]["content"]


def test_a_tool_may_crash_in_its_own_code():
    """``crash()`` is not an error that the tool has: the worker is gone."""

    @tool(atomic=True)
    def die_once() -> str:
        """Book, and die the first time."""
        Booking.objects.create(name="Ada")
        if not died:
            died.append(True)
            crash()
        return "done"

    died = []
    with opened(tools=[add, die_once]), ScriptedModel(calls("die_once"), "Done."):
        create_thread("shop", prompt="Go.")
        with pytest.raises(SimulatedCrash):
            run_until_idle()
        assert ToolCall.objects.get().status == "running"
        assert Booking.objects.count() == 0
        run_until_idle()
    assert ToolCall.objects.get().status == "completed"
    assert Booking.objects.count() == 1


def test_nothing_is_written_after_a_crash(shop):
    """Neither by what ran beside it nor by what cleans up."""
    with ScriptedModel(does(crash), "One.", "Two."):
        create_thread("shop", prompt="First.")
        create_thread("shop", prompt="Second.")
        with pytest.raises(SimulatedCrash):
            run_until_idle()
        assert set(Stream.objects.values_list("state", flat=True)) <= {"streaming", "finished"}
        assert Stream.objects.filter(state="streaming").exists()
        run_until_idle()
    assert sorted(Stream.objects.filter(state="finished").values_list("text", flat=True)) == ["One.", "Two."]


def test_the_nth_pass_can_be_meant(shop):
    """The first model call is committed, the second is not."""
    with ScriptedModel(calls("add", a=1, b=1), "Two.", "Two again."):
        create_thread("shop", prompt="Add.")
        with crash_at("answered", nth=2):
            run_until_idle()
        assert Stream.objects.filter(state="finished").count() == 1
        run_until_idle()
    assert Stream.objects.filter(state="finished").count() == 2


def test_a_point_that_is_never_reached_fails_the_test(shop):
    """A name that is none, too."""
    create_thread("shop", prompt="Hi.")
    missed = pytest.raises(AssertionError, match=r"'atomic_ran' 0 times.*atomic_committed")
    with ScriptedModel("Hello."), missed, crash_at("atomic_ran"):
        run_until_idle()


def test_points_mean_nothing_after_the_block(shop):
    """One test does not crash the next."""
    with ScriptedModel("Hello.", "Hello."):
        create_thread("shop", prompt="Hi.")
        with crash_at("answered"):
            run_until_idle()
        assert run_until_idle().model_calls == 1

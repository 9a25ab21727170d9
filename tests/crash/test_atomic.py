"""An atomic tool and its outcome happen both or not at all, wherever its worker is killed."""

from collections import Counter
from pathlib import Path

from durable_agents import create_thread
from durable_agents.models import ToolCall
from tests.crash.talk import asked, said, was_told
from tests.project.models import Booking
from tests.servers.model import Call, Reply
from tests.workers import at_rest, until

PLACES = {
    "before BEGIN": "claimed",
    "in user code": "in_user_code",
    "before the outcome": "atomic_ran",
    "before COMMIT": "atomic_settled",
    "after COMMIT": "atomic_committed",
}


def test_atomic_tool_killed_at_every_point_books_once(start, model_server, rounds, prove, tmp_path):
    armed = tmp_path / "crashpoint"
    model_server.answer_with(lambda request: answer(request, armed))
    cluster = start(3, DURABLE_AGENTS_CRASHPOINT=str(armed))
    kills: Counter[str] = Counter()
    for number in range(rounds(20)):
        for place in PLACES:
            name = f"{place} {number}"
            [thread] = at_rest(create_thread("toolbox", prompt=name), seconds=60)
            assert said(thread) == [("user", [name]), ("assistant", [f"Booked {name}."])]
            assert not armed.exists(), f"nobody died {place}"
            kills[place] += 1
            assert Booking.objects.filter(name=name).count() == 1
            call = ToolCall.objects.get(thread=thread)
            # A call that had not begun cannot have killed its worker.
            counted = int(place not in {"before BEGIN", "after COMMIT"})
            assert (call.status, call.result, call.crashes) == ("completed", name, counted)
            until(lambda: len(cluster.workers) >= 3, seconds=20)
    places = ", ".join(f"{number} {place}" for place, number in kills.items())
    prove(f"{kills.total()} kills, {places}: {Booking.objects.count()} business rows, one result each")
    assert Booking.objects.count() == ToolCall.objects.count() == kills.total()


def answer(request: dict, armed: Path) -> Reply:
    """Have the tool called, and the worker that calls it killed at the place that the question names."""
    if was_told(request):
        return Reply(text=f"Booked {was_told(request)[0]}.", delay_seconds=0)
    armed.write_text(PLACES[asked(request).rpartition(" ")[0]])
    return Reply(calls=(Call(name="book", arguments={"name": asked(request)}),), delay_seconds=0)

"""An atomic tool and its outcome happen both or not at all, wherever its worker is killed."""

from collections import Counter

from durable_agents import create_thread
from durable_agents.models import ToolCall
from tests.project.models import Booking
from tests.servers.model import Call, Reply
from tests.workers import at_rest, until

POINTS = ["atomic_begun", "in_user_code", "atomic_ran", "atomic_settled", "atomic_committed"]


def test_atomic_tool_killed_at_every_point_books_once(start, model_server, rounds, prove, tmp_path):
    armed = tmp_path / "crashpoint"

    def script(request):
        if request["messages"][-1]["role"] == "tool":
            return Reply(text="Booked.", delay_seconds=0)
        name = request["messages"][-1]["content"]
        return Reply(calls=(Call(name="book", arguments={"name": name}),), delay_seconds=0)

    model_server.answer_with(script)
    cluster = start(3, DURABLE_AGENTS_CRASHPOINT=str(armed))
    kills: Counter[str] = Counter()
    for number in range(rounds(20)):
        for point in POINTS:
            armed.write_text(point)
            name = f"{point} {number}"
            [thread] = at_rest(create_thread("toolbox", prompt=name), seconds=60)
            assert thread.status == "completed", thread.error_code
            assert not armed.exists(), f"nobody died at {point}"
            kills[point] += 1
            assert Booking.objects.filter(name=name).count() == 1
            call = ToolCall.objects.get(thread=thread)
            assert (call.status, call.result) == ("completed", name)
            until(lambda: len(cluster.workers) >= 3, seconds=20)
    prove(f"{sum(kills.values())} kills {dict(kills)}: {Booking.objects.count()} rows, one result each")
    assert Booking.objects.count() == sum(kills.values())

"""How long pages of long lists take through the whole of Django, in milliseconds: the median, and the slowest but one.

python -m tests.benchmarks.pages [--threads 100000] [--messages 5000] [--rounds 30]

One person has `--threads` threads, a tenth as many belong to others, and one thread has `--messages` messages with
their steps and tool calls. Prints figures for SQLite and, where `TEST_DATABASE_URL` names a database of the
benchmark's own, for PostgreSQL.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.benchmarks import standalone

BATCH = 5_000
LIMIT_MS = 50
SAID = "the harbour keeps seven small boats and one of them leaks a little when the tide is high"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=30)
    return parser.parse_args()


def main() -> None:
    from django.db import connection

    from durable_agents import Agent

    asked = options()
    Agent("librarian", model="openai/x", public=True)
    people = Rows(asked)
    people.fill()
    print(f"{connection.vendor}: {asked.threads} threads, {asked.messages} messages in one of them", flush=True)
    slow = [name for name, ms in figures(people, asked.rounds) if ms > LIMIT_MS]
    print(f"over {LIMIT_MS} ms at the median: {', '.join(slow) or 'none'}", flush=True)


class Rows:
    """The rows of one person with many threads, and of others."""

    def __init__(self, asked: argparse.Namespace) -> None:
        from django.contrib.auth.models import User

        self.asked = asked
        self.me = User.objects.create_user("reader")
        self.others = User.objects.bulk_create([User(username=f"other{number}") for number in range(10)])

    def fill(self) -> None:
        """Store them, and let the database look at what it has."""
        from django.db import connection

        self._many_threads()
        self.long = self._long_thread()
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")

    def _many_threads(self) -> None:
        """Each with a question and its answer; one in a thousand has a word of its own."""
        count = self.asked.threads + self.asked.threads // 10
        for start in range(0, count, BATCH):
            self._threads(range(start, min(start + BATCH, count)))

    def _threads(self, numbers: range) -> None:
        from datetime import timedelta

        from django.utils.timezone import now

        from durable_agents.models import Thread

        ago = now() - timedelta(days=30)
        threads = [
            Thread(
                agent="librarian",
                owner=self.me if number < self.asked.threads else self.others[number % 10],
                title=f"Boats {number}",
                updated_at=ago + timedelta(seconds=number),
                created_at=ago,
                last_position=2,
                last_number=1,
                rev=5,
            )
            for number in numbers
        ]
        Thread.objects.bulk_create(threads, batch_size=500)
        self._turns([(thread, 1, number) for thread, number in zip(threads, numbers, strict=True)])

    def _turns(self, turns: list[tuple[Any, int, int]]) -> None:
        """A question and its answer in each thread, from this position on."""
        from durable_agents.models import Message, Role, Stream, StreamState

        asked, answered, steps = [], [], []
        for thread, position, number in turns:
            said = f"{SAID} {'mackerel' if number % 1000 == 7 else ''} number{number}"
            facts = {"thread": thread, "rev": position}
            asked.append(Message(role=Role.USER, position=position, parts=[_text(said)], text=said, **facts))
            answer = Message(role=Role.ASSISTANT, position=position + 1, **facts)
            answered.append(answer)
            steps.append(
                Stream(
                    message=answer,
                    number=position,
                    agent="librarian",
                    state=StreamState.FINISHED,
                    parts=[{"type": "step-start"}, _text(said * 3)],
                    text=said * 3,
                    model="openai/x",
                    pool="agents",
                    input_tokens=10,
                    started_at=thread.created_at,
                    **facts,
                )
            )
        Message.objects.bulk_create([*asked, *answered], batch_size=500)
        Stream.objects.bulk_create(steps, batch_size=500)

    def _long_thread(self) -> Any:
        """A call in every answer, and at the end an open stream with what it has said so far."""
        from durable_agents.models import Delta, Message, Role, Stream, StreamState, Thread, ToolCall

        count = self.asked.messages // 2
        thread = Thread.objects.create(agent="librarian", owner=self.me, title="Long", status="streaming", rev=10**6)
        self._turns([(thread, 2 * number + 1, number) for number in range(count)])
        steps = Stream.objects.filter(thread=thread).only("message_id", "thread_id")
        calls = [
            ToolCall(
                thread=thread,
                message_id=step.message_id,
                stream=step,
                tool_call_id=f"call_{number}",
                tool_name="look",
                status="completed",
                result={"found": number},
                pool="tools",
                rev=number,
                finished_at=thread.created_at,
            )
            for number, step in enumerate(steps)
        ]
        ToolCall.objects.bulk_create(calls, batch_size=500)
        answer = Message.objects.create(thread=thread, role=Role.ASSISTANT, position=2 * count + 1, rev=1)
        last = Stream.objects.create(
            thread=thread, message=answer, number=2 * count + 1, state=StreamState.STREAMING, pool="agents", rev=1
        )
        Thread.objects.filter(pk=thread.pk).update(last_position=2 * count + 1, last_number=last.number)
        begun = [{"type": "start-step"}, {"type": "text-start", "id": "t"}]
        said = [{"type": "text-delta", "id": "t", "delta": "boat "}]
        Delta.objects.bulk_create(
            Delta(stream=last, seq=seq, chunks=[*(begun if seq == 0 else []), *said]) for seq in range(200)
        )
        return thread


def _text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said, "state": "done"}


def figures(rows: Rows, rounds: int) -> Iterator[tuple[str, float]]:
    """Names and medians, printed as they come."""
    from django.test import Client

    client = Client(SERVER_NAME="localhost")
    client.force_login(rows.me)
    messages = f"/agents/threads/{rows.long.pk}/messages/"
    pages = {
        "threads, first page": "/agents/threads/",
        "threads, in the middle": middle(client, "/agents/threads/", rows.asked.threads),
        "threads, archived=false&status=completed": "/agents/threads/?archived=false&status=completed",
        "threads, archived=true (none)": "/agents/threads/?archived=true",
        "threads, search of a common word": "/agents/threads/?search=boats",
        "threads, search of a rare word": "/agents/threads/?search=mackerel",
        "threads, search of two words": "/agents/threads/?search=leaks%20a",
        "threads, search of nothing there": "/agents/threads/?search=zeppelin",
        "messages, first page": messages,
        "messages, in the middle": middle(client, messages, rows.asked.messages),
        "messages, after a position": f"{messages}?after={rows.asked.messages // 2}",
        "messages, first page, streams=1": f"{messages}?streams=1",
        "messages, last page, streams=1": f"{messages}?streams=1&after={rows.asked.messages - 40}",
        "tool calls, first page": f"/agents/threads/{rows.long.pk}/tool-calls/",
        "usage": f"/agents/threads/{rows.long.pk}/usage/",
    }
    for name, path in pages.items():
        took = sorted(timed(lambda path=path: client.get(path)) for _ in range(rounds))
        median = statistics.median(took)
        print(f"  {median:7.1f} ms  {took[-2]:7.1f} ms  {name} ({queries(client, path)} queries)", flush=True)
        yield name, median


def timed(get: Callable[[], Any]) -> float:
    """Milliseconds that a page takes."""
    started = time.perf_counter()
    response = get()
    took = (time.perf_counter() - started) * 1000
    assert response.status_code == 200, response.content
    return took


def queries(client: Any, path: str) -> int:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        client.get(path)
    return len(captured)


def middle(client: Any, path: str, rows: int) -> str:
    """The link to the page in the middle of a list, found by following its pages."""
    page = client.get(f"{path}?limit=200").json()
    for _ in range(rows // 400 - 1):
        page = client.get(page["next"]).json()
    link: str = page["next"] or f"{path}?limit=200"
    return link.replace("limit=200", "limit=50")


if __name__ == "__main__":
    if os.environ.get("TEST_DATABASE_URL"):
        on_sqlite = {name: value for name, value in os.environ.items() if name != "TEST_DATABASE_URL"}
        command = [sys.executable, "-m", "tests.benchmarks.pages", *sys.argv[1:]]
        subprocess.run(command, cwd=standalone.ROOT, env=on_sqlite, check=True)
    standalone.run(main)

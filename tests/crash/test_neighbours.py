"""The project's own tasks do not wait for agents."""

import time

import pytest
from django_q.models import Task
from django_q.tasks import async_task

from durable_agents import create_thread
from durable_agents.models import Stream
from tests.crash.talk import words
from tests.servers.model import Reply
from tests.workers import at_rest, until

PER_SECOND = 5
BUSY = 50


@pytest.mark.slow
def test_ordinary_tasks_wait_no_longer_beside_busy_agents(start, model_server, rounds, prove):
    tasks = rounds(100)
    seconds = tasks / PER_SECOND + 15
    model_server.answer_with(Reply(text=words(int(seconds * 10)), delay_seconds=0.1))
    start(4, TEST_Q_TIMEOUT="60", TEST_Q_RETRY="90")
    alone = longest_wait(tasks)

    threads = [create_thread("talker", prompt="Go.") for _ in range(BUSY)]
    until(lambda: Stream.objects.held().count() == BUSY, seconds=30)
    beside = longest_wait(tasks)
    still_busy = Stream.objects.held().count()
    kept = Task.objects.filter(func="tests.project.tasks.nap", success=True).count()
    waits = f"{alone:.2f} s at most alone, {beside:.2f} s beside {BUSY} busy threads"
    prove(f"{tasks} tasks wait {waits}; {kept} results kept")
    assert still_busy == BUSY
    assert beside - alone <= 2
    assert kept == 2 * tasks
    assert {thread.status for thread in at_rest(*threads, seconds=seconds + 60)} == {"completed"}


def longest_wait(count: int) -> float:
    """Enqueue so many tasks, five a second; the longest time from the queue to the start."""
    asked = {}
    for _ in range(count):
        asked[async_task("tests.project.tasks.nap")] = time.time()
        time.sleep(1 / PER_SECOND)
    done = until(lambda: results(asked) if len(results(asked)) == count else None, seconds=60)
    return max(began - asked[task_id] for task_id, began in done.items())


def results(asked: dict[str, float]) -> dict[str, float]:
    """When each of these tasks began, as far as their results are kept."""
    return {task.id: task.result for task in Task.objects.filter(id__in=asked)}

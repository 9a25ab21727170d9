"""SQLite cannot be written, since somebody holds its lock or the disk is full: whoever writes is told so, in time."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from rest_framework.authtoken.models import Token

from durable_agents import create_thread
from durable_agents.models import Thread
from tests.chat.server import Server
from tests.crash.talk import asked, have_begun, said, words
from tests.live.wire import Wire
from tests.servers.disk import SmallDisk
from tests.servers.model import ModelUnderTest, Reply
from tests.servers.postgres import used_by_django
from tests.workers import ROOT, at_rest, running, until

pytestmark = pytest.mark.skipif("connection.vendor != 'sqlite'", reason="is about SQLite")
BUSY_SECONDS = 20
SLACK_SECONDS = 8
LOCK_SECONDS = 40
HOLDS_LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


@pytest.fixture
def headers(transactional_db: None) -> dict[str, str]:
    """Return what signs a user in."""
    user = get_user_model().objects.create(username="ada")
    return {"Authorization": f"Token {Token.objects.create(user=user).key}"}


@contextmanager
def write_lock() -> Iterator[None]:
    """Hold SQLite's one write lock, as a program that knows nothing of us."""
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def post(server: Server, headers: dict[str, str], text: str) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    body = {"agent": "talker", "prompt": text}
    answer = httpx.post(f"{server.url}/agents/threads/", json=body, headers=headers, timeout=90, trust_env=False)
    return answer, time.monotonic() - began


def doctor(env: dict[str, str], *before: str) -> tuple[int, list[str]]:
    """Return the exit code of the doctor and its errors."""
    command = [*before, sys.executable, "manage.py", "agents_doctor", "--json"]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    findings: list[dict[str, Any]] = json.loads(ended.stdout)["findings"]
    return ended.returncode, [finding["text"] for finding in findings if finding["level"] == "error"]


def assert_unavailable(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.slow
def test_write_lock_held_by_others_a_post_is_told_within_the_busy_timeout(worker_env, headers):
    with Server(worker_env) as server:
        assert post(server, headers, "before")[0].status_code == 201
        with write_lock():
            answer, seconds = post(server, headers, "meanwhile")
        assert BUSY_SECONDS - 1 < seconds < BUSY_SECONDS + SLACK_SECONDS, "the lock was not felt, or more than once"
        assert_unavailable(answer)
        assert post(server, headers, "after")[0].status_code == 201
    assert Thread.objects.count() == 2


@pytest.mark.slow
def test_write_lock_held_by_others_the_doctor_fails_with_the_reason(worker_env):
    before = Thread.objects.count()
    with write_lock():
        code, errors = doctor(worker_env)
    assert code == 2
    assert any("does not accept writes" in text and "database is locked" in text for text in errors)
    assert not any("does not accept writes" in text for text in doctor(worker_env)[1])
    assert Thread.objects.count() == before


@contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """Let a process write no file beyond what it has: for SQLite that is a disk without room."""
    limit = ["prlimit", f"--pid={pid}"]
    subprocess.run([*limit, "--fsize=40000:unlimited"], check=True)
    yield
    subprocess.run([*limit, "--fsize=unlimited:unlimited"], check=True)


@pytest.mark.slow
def test_disk_full_a_post_is_told_and_goes_through_when_there_is_room_again(worker_env, headers):
    with Server(worker_env) as server:
        assert post(server, headers, "before")[0].status_code == 201
        with full_disk(server.process.pid):
            answer, seconds = post(server, headers, "meanwhile")
        assert seconds < BUSY_SECONDS
        assert_unavailable(answer)
        assert post(server, headers, "after")[0].status_code == 201
    assert Thread.objects.count() == 2


@pytest.mark.slow
def test_disk_full_the_doctor_fails_with_the_reason(worker_env):
    code, errors = doctor(worker_env, "prlimit", "--fsize=40000:40000")
    assert code == 2
    assert any("does not accept writes" in text for text in errors), errors


@contextmanager
def locked_by_another_process(seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Have a process hold SQLite's write lock for so long; wait until it has let go."""
    command = [sys.executable, "-c", HOLDS_LOCK, connection.settings_dict["NAME"], str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            yield holder
            assert holder.wait(2 * seconds) == 0
        finally:
            holder.kill()


Answer = tuple[str, float]
"""The code of a refusal, and how long it took."""


def over_rest(server: Server, headers: dict[str, str], path: str, **body: Any) -> Answer:
    began = time.monotonic()
    answer = httpx.post(f"{server.url}/agents/{path}", headers=headers, timeout=90, trust_env=False, **body)
    return answer.json().get("code", f"{answer.status_code}"), time.monotonic() - began


def over_websocket(server: Server, headers: dict[str, str], **frame: Any) -> Answer:
    token = headers["Authorization"].removeprefix("Token ")
    with Wire(f"{server.url.replace('http', 'ws', 1)}/ws/agents/", token) as wire:
        began = time.monotonic()
        wire.tell(id="r1", **frame)
        until(lambda: any(given.get("id") == "r1" for given in wire.frames), seconds=90)
        [answer] = [given for given in wire.frames if given.get("id") == "r1"]
        return answer.get("code", answer["type"]), time.monotonic() - began


def doors(server: Server, headers: dict[str, str], thread: Thread) -> dict[str, Callable[[], Answer]]:
    """Return requests that write, one of each kind."""
    chat = {"id": "c1", "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hi."}]}]}
    rest: dict[str, dict[str, Any]] = {
        "threads/": {"json": {"agent": "talker", "prompt": "Hi."}},
        f"threads/{thread.pk}/messages/": {"json": {"prompt": "Hi."}},
        f"threads/{thread.pk}/stop/": {},
        "attachments/": {"files": {"file": ("a.txt", b"text", "text/plain")}},
        "chat/talker": {"json": chat},
    }
    frame = {"type": "send", "thread": str(thread.pk), "prompt": "Hi.", "key": "k1"}
    made: dict[str, Callable[[], Answer]] = {"websocket": lambda: over_websocket(server, headers, **frame)}
    for path, body in rest.items():
        made[path] = lambda path=path, body=body: over_rest(server, headers, path, **body)
    return made


@pytest.mark.slow
def test_write_lock_held_for_forty_seconds_every_door_is_told_within_the_busy_timeout(
    worker_env, headers, model_server: ModelUnderTest, prove
):
    """All doors at once; an answer that was being written is complete afterwards, and nothing of what was refused is
    stored."""
    user = get_user_model().objects.get()
    model_server.answer_with(lambda request: Reply(text=words(50, asked(request)), delay_seconds=0.1))
    with Server(worker_env) as server, running(worker_env, workers=2, TEST_MODEL_URL=model_server.url) as cluster:
        workers = set(cluster.workers)
        running_one = create_thread("talker", owner=user, prompt="before")
        until(lambda: have_begun(1))
        requests = doors(server, headers, running_one)
        with locked_by_another_process(LOCK_SECONDS) as holder, ThreadPoolExecutor(len(requests)) as threads:
            jobs = {name: threads.submit(request) for name, request in requests.items()}
            answers = {name: job.result() for name, job in jobs.items()}
            assert holder.poll() is None, "the lock was given back too early"
        after = post(server, headers, "after")[0]
        assert after.status_code == 201
        at_rest(*Thread.objects.all(), seconds=60)
        assert set(cluster.workers) == workers
    assert {name: code for name, (code, _) in answers.items()} == dict.fromkeys(answers, "database_unavailable")
    slowest = max(seconds for _, seconds in answers.values())
    assert slowest < BUSY_SECONDS + SLACK_SECONDS, answers
    assert {asked_text: said(thread) for thread in Thread.objects.all() for asked_text in said(thread)[0][1]} == {
        text: [("user", [text]), ("assistant", [words(50, text)])] for text in ("before", "after")
    }
    prove(f"{len(answers)} doors were told after {slowest:.1f} s at most of {LOCK_SECONDS} s")


@pytest.fixture
def disk_env(small_disk: SmallDisk, worker_env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Return the environment of processes on a database that lies on the small disk, the queue with it; this process's
    Django uses it, too."""
    path = small_disk.folder / "agents.sqlite3"
    with (
        closing(sqlite3.connect(connection.settings_dict["NAME"])) as source,
        closing(sqlite3.connect(path)) as copy,
    ):
        source.backup(copy)
    url = f"sqlite:///{path}"
    with used_by_django(url):
        yield worker_env | {"TEST_DATABASE_URL": url, "TEST_REDIS_URL": ""}


@pytest.mark.slow
def test_real_disk_full_everything_goes_on_when_there_is_room_again(
    headers, disk_env, small_disk: SmallDisk, model_server: ModelUnderTest, prove
):
    """The answer that was being written is complete in the end; who posts meanwhile, and the doctor, are told."""
    user = get_user_model().objects.get()
    model_server.answer_with(lambda request: Reply(text=words(80, asked(request)), delay_seconds=0.1))
    with Server(disk_env) as server, running(disk_env, workers=2, TEST_MODEL_URL=model_server.url) as cluster:
        workers = set(cluster.workers)
        threads = {"before": create_thread("talker", owner=user, prompt="before")}
        until(lambda: have_begun(1))
        with small_disk.full():
            answers = [post(server, headers, "x" * 20_000) for _ in range(3)]  # larger than what is left of a page
            code, errors = doctor(disk_env)
            until(lambda: "disk is full" in cluster.log, seconds=30, what=lambda: cluster.log)
        for answer, seconds in answers:
            assert_unavailable(answer)
            assert seconds < BUSY_SECONDS + SLACK_SECONDS
        assert code == 2
        assert any("does not accept writes" in text and "full" in text for text in errors), errors
        answer, _ = post(server, headers, "after")
        assert answer.status_code == 201, answer.text
        threads["after"] = Thread.objects.get(pk=answer.json()["id"])
        at_rest(*threads.values(), seconds=90)
        assert set(cluster.workers) == workers
        assert server.process.poll() is None
        refusals = cluster.log.count("disk is full")
    for name, thread in threads.items():
        assert said(thread) == [("user", [name]), ("assistant", [words(80, name)])]
    assert Thread.objects.count() == len(threads)
    assert not any("does not accept writes" in text for text in doctor(disk_env)[1])
    prove(f"{refusals} errors of a full disk in the log of the workers; both answers are complete")

"""A cluster is told to go; it hands on what it holds, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from durable_agents import create_thread
from durable_agents.models import Delta, Stream
from tests.crash.talk import said, words
from tests.processes import ROOT
from tests.proof import FULL
from tests.servers.model import Call, Reply
from tests.workers import Cluster, at_rest, holder_of, text_in, until

DRAIN_SECONDS = 8 if FULL else 3


@pytest.mark.slow
@pytest.mark.parametrize("how", ["main", "group", "ctrl-c"])
def test_drain_hands_the_thread_on(how, start, model_server, prove):
    """SIGTERM to the main process alone or to the whole group, or Ctrl-C, in a stream that would last ten minutes."""
    settings = {"TEST_DURABLE_AGENTS": json.dumps({"DRAIN_SECONDS": DRAIN_SECONDS})}
    leaving = start(2, **settings)
    model_server.answer_with(Reply(text=words(6000), delay_seconds=0.1), Reply(text=words(30), delay_seconds=0.01))
    thread = create_thread("talker", prompt="Tell me everything.")
    holder_of(thread)
    staying = start(2, **settings)
    until(lambda: Delta.objects.filter(stream__thread=thread).count() > 3)
    processes = leaving.processes()
    told_at = time.monotonic()
    tell(leaving, how)

    _, left = psutil.wait_procs(processes, timeout=DRAIN_SECONDS + 4)
    gone = time.monotonic() - told_at
    assert not left
    assert leaving.group() == []
    [thread] = at_rest(thread)
    released, answered = Stream.objects.filter(thread=thread)
    went_on = model_server.journal[1].received_at - released.finished_at.timestamp()
    prove(f"{len(processes)} processes gone after {gone:.1f} s; asked again {went_on:.2f} s after the release")
    assert went_on < 2
    assert said(thread)[-1] == ("assistant", [words(30)])
    assert (released.finish_reason, answered.finish_reason) == ("released", "stop")
    assert {(stream.attempt, stream.crashes) for stream in (released, answered)} == {(1, 0)}
    assert staying.process.poll() is None


def tell(cluster, how: str) -> None:
    """Tell the cluster to go, in one of the three ways."""
    if how == "main":
        cluster.process.terminate()
    else:
        os.killpg(cluster.process.pid, signal.SIGTERM if how == "group" else signal.SIGINT)


@pytest.mark.parametrize("how", ["main", "group", "ctrl-c"])
@pytest.mark.parametrize("moment", ["starting.", "ready for work", "running."])
def test_a_cluster_that_is_told_to_go_while_it_starts_goes_quietly(moment, how, worker_env):
    cluster = Cluster(worker_env)
    try:
        until(lambda: moment in cluster.log)
        tell(cluster, how)
        assert cluster.process.wait(DRAIN_SECONDS + 10) == 0, cluster.log
        assert cluster.group() == []
        assert "Traceback" not in cluster.log
    finally:
        cluster.stop()


SENTINEL = """
import os, signal, sys
import django
django.setup()
from django_q.cluster import Cluster
from durable_agents import task_queue
from durable_agents.task_queue.qcluster_hardening import SharedFlag
task_queue.harden(lambda: None)
cluster = Cluster(broker=object())
cluster.stop_event = SharedFlag()
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(status, cluster.stop_event.is_set())
"""


def test_a_sentinel_that_is_told_to_go_before_it_has_handlers_goes_quietly(worker_env):
    command = [sys.executable, "-c", SENTINEL]
    ran = subprocess.run(command, cwd=ROOT, env=worker_env, capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), "Traceback" in ran.stderr) == ("0 True", False), ran.stderr


MAIN = """
import os, signal, time
import django
django.setup()
import django_q.cluster
from durable_agents import task_queue
task_queue.harden(lambda: None)
django_q.cluster.Sentinel = lambda *_: time.sleep(60)
cluster = django_q.cluster.Cluster(broker=object())
def end_both(_):
    os.kill(cluster.sentinel.pid, signal.SIGKILL)
    cluster.sentinel.join()
    os.kill(os.getpid(), signal.SIGTERM)
django_q.cluster.sleep = end_both
{begin}
print("went on")
"""


@pytest.mark.parametrize("begin", ["cluster.start()", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_a_main_process_that_is_told_to_go_and_has_no_living_sentinel_goes_quietly(begin, worker_env):
    """Its sentinel has died of the same signal before it was ready, or has not been started."""
    command = [sys.executable, "-c", MAIN.replace("{begin}", begin)]
    ran = subprocess.run(command, cwd=ROOT, env=worker_env, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, "Traceback" in ran.stderr) == (0, "", False), ran.stderr


def test_hanging_sync_tool_does_not_keep_the_cluster_from_draining(start, model_server, tmp_path, prove):
    path = tmp_path / "notes"
    call = Call(name="note", arguments={"path": str(path), "text": "hangs", "seconds": 600})
    model_server.answer_with(Reply(calls=(call,)), Reply(text="Done."))
    cluster = start(2, TEST_DURABLE_AGENTS='{"DRAIN_SECONDS": 1}')
    create_thread("toolbox", prompt="Go.")
    until(lambda: text_in(path))
    processes = cluster.processes()
    told_at = time.monotonic()
    cluster.process.terminate()
    _, left = psutil.wait_procs(processes, timeout=1 + 4)
    assert not left
    prove(f"{len(processes)} processes gone after {time.monotonic() - told_at:.1f} s, of which 1 s is the drain")

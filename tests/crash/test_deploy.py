"""Workers of two releases on one database: each does what it knows, and what nobody knows any more ends visibly."""

import json
import subprocess
import sys
import time

import pytest

from durable_agents import create_thread
from durable_agents.calls_not_begun_files import calls_not_begun
from durable_agents.models import Stream, Thread, ToolCall
from tests.crash.talk import was_told
from tests.servers.model import Call, Reply, Stall
from tests.workers import ROOT, at_rest, until

GRACE_SECONDS = 6
SHORT = json.dumps({"UNKNOWN_CODE_GRACE_SECONDS": GRACE_SECONDS, "LEASE_SECONDS": 4, "TOOL_THREADS": 1})
NARROW = json.dumps({"STREAMS_PER_PROCESS": 2})
ARGUMENTS = {"search": {"text": "it"}, "find": {"text": "it"}, "add": {"a": 1, "b": 2}}


def uses_what_it_is_offered(request):
    """Call the first tool that this worker's code has, and then say what it gave."""
    if told := was_told(request):
        return Reply(text=f"I was told: {'; '.join(told)}")
    offered = [offer["function"]["name"] for offer in request.get("tools", ())]
    if not offered:
        return Stall(reply=Reply(text="A story without an end."), after=3, seconds=60)
    return Reply(text="Let me see. " * 10, calls=(Call(name=offered[0], arguments=ARGUMENTS[offered[0]]),))


def searches_three_times(request):
    """Call the tool of yesterday, for a minute each time."""
    offered = [offer["function"]["name"] for offer in request.get("tools", ())]
    if "search" in offered and not was_told(request):
        call = Call(name="search", arguments={"text": "it", "seconds": 60})
        return Reply(calls=(call, call, call))
    return uses_what_it_is_offered(request)


def statuses(thread):
    """Return status and error code of the calls of a thread."""
    return list(ToolCall.objects.filter(thread=thread).values_list("status", "error_code"))


def test_two_releases_side_by_side_no_call_fails(start, model_server, prove):
    model_server.answer_with(uses_what_it_is_offered)
    start(2, TEST_RELEASE="yesterday", TEST_DURABLE_AGENTS=NARROW)
    start(2, TEST_RELEASE="today", TEST_DURABLE_AGENTS=NARROW)
    threads = [create_thread(name, prompt="Go.") for name in ["archivist"] * 20 + ["newcomer"] * 10]

    rested = at_rest(*threads, seconds=60)
    assert {thread.status for thread in rested} == {"completed"}
    assert set(ToolCall.objects.values_list("status", flat=True)) == {"completed"}
    results = list(ToolCall.objects.filter(thread__agent="archivist").values_list("result", flat=True))
    yesterday, today = results.count("yesterday searched it"), results.count("today found it")
    assert yesterday + today == 20
    assert yesterday > 0
    assert today > 0
    prove(f"20 threads of an agent whose tool was renamed: {yesterday} called it as yesterday, {today} as today")


@pytest.fixture
def left_behind(start, model_server):
    """Return three threads that yesterday's workers left when they were killed, and when that was: one with a call that
    ran and two that waited, one with an answer half said, one that nobody had begun."""
    model_server.answer_with(searches_three_times)
    yesterday = start(2, TEST_RELEASE="yesterday", TEST_DURABLE_AGENTS=SHORT)
    caller, speaker = create_thread("archivist", prompt="Search."), create_thread("retired", prompt="Speak.")
    until(lambda: ToolCall.objects.held().exists() and Stream.objects.held().filter(agent="retired").exists())
    held = ToolCall.objects.held().get()
    until(lambda: held.pk not in calls_not_begun(held.lease_owner), what="the call begins")
    yesterday.kill_all()
    return (caller, speaker, create_thread("retired", prompt="Begin.")), time.time()


def nothing_ended(threads):
    """Whether all that was left behind is as it was."""
    running = Thread.objects.running().filter(pk__in=[thread.pk for thread in threads]).count()
    return running == len(threads) and ToolCall.objects.open().count() == 3


def sweep(env):
    """Run the sweep as a deploy's cron job would."""
    env = env | {"TEST_RELEASE": "today", "TEST_DURABLE_AGENTS": SHORT}
    subprocess.run([sys.executable, "manage.py", "agents_sweep"], cwd=ROOT, env=env, check=True, capture_output=True)


def test_yesterdays_work_waits_for_the_grace_and_then_ends_visibly(start, model_server, left_behind, worker_env):
    threads, killed_at = left_behind
    start(2, TEST_RELEASE="today", TEST_DURABLE_AGENTS=SHORT)
    [neighbour] = at_rest(create_thread("archivist", prompt="Go."))
    assert neighbour.status == "completed"
    sweep(worker_env)
    while time.time() < killed_at + GRACE_SECONDS - 1:
        assert nothing_ended(threads)
        time.sleep(0.2)

    time.sleep(GRACE_SECONDS)
    sweep(worker_env)
    caller, speaker, waiting = [at_rest(thread)[0] for thread in threads]
    assert caller.status == "completed"
    assert sorted(statuses(caller)) == [("failed", "tool_not_available")] * 2 + [("unknown", "crashed")]
    told = " ".join(was_told(model_server.requests[-1]))
    assert "'search' is not available any more" in told
    assert "may or may not have run" in told
    for thread in (speaker, waiting):
        assert (thread.status, thread.error_code) == ("failed", "unknown")
        assert "'retired'" in Stream.objects.filter(thread=thread).last().error_detail


def test_yesterdays_work_goes_on_when_its_release_comes_back(start, model_server, left_behind):
    threads, _ = left_behind
    start(1, TEST_RELEASE="today", TEST_DURABLE_AGENTS=json.dumps({"LEASE_SECONDS": 4}))
    assert nothing_ended(threads)
    model_server.answer_with(lambda request: Reply(text="Back again."))
    ToolCall.objects.update(arguments={"text": "it"})
    start(2, TEST_RELEASE="yesterday")

    caller, *others = at_rest(*threads)
    assert {thread.status for thread in (caller, *others)} == {"completed"}
    assert statuses(caller) == [("completed", "")] * 3

"""A whole site asks nobody but the model's host: web server, workers, recovery of a killed one, and the doctor.

The model's name is one for which a library would download a tokenizer, and its provider tells no usage.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from durable_agents import create_thread
from durable_agents.models import Delta, Stream
from tests.chat.server import Server
from tests.llm.wire import Wire, WireServer, says, whole
from tests.servers.lookups import Lookups
from tests.workers import ROOT, at_rest, holder_of, running, until

IN_TIME_SECONDS = 20
"""A download that nobody answers is given up after 23 seconds, and there would be several."""


@pytest.fixture
def model_server() -> Iterator[WireServer]:
    with WireServer() as server:
        yield server


@pytest.fixture
def lookups(tmp_path) -> Lookups:
    return Lookups(tmp_path)


@pytest.fixture
def watched(worker_env, lookups, model_server):
    """Return the environment of processes that are watched."""
    return lookups.env({**worker_env, "TEST_MODEL_URL": model_server.url})


@pytest.fixture
def answered_and_recovered(model_server):
    """Return a function that lets a worker answer, kills one in the middle of an answer and waits for the next
    attempt; it gives the three attempts, and how long the first commit and the recovery took."""

    def played():
        torn = Wire(pieces=says("Once upon ", "a time"), ending="hanging")
        model_server.answer_with(whole(*says("Hello ", "you")), torn, whole(*says("The ", "end")))
        begun_at = time.monotonic()
        first = create_thread("llama", prompt="Hi")
        at_rest(first, seconds=120)
        answered_at = time.monotonic()
        second = create_thread("llama", prompt="Tell me a story.")
        until(lambda: Delta.objects.filter(stream__thread=second).exists())
        killed_at = time.monotonic()
        os.kill(holder_of(second), signal.SIGKILL)
        at_rest(second, seconds=120)
        streams = Stream.objects.filter(thread__in=[first, second]).order_by("started_at")
        assert [stream.finish_reason for stream in streams] == ["stop", "crashed", "stop"]
        return list(streams), answered_at - begun_at, time.monotonic() - killed_at

    return played


def test_workers_that_answer_and_recover_a_killed_one_ask_the_models_host_alone(
    watched, lookups, model_server, answered_and_recovered
):
    with running(watched, workers=3):
        streams, answered, recovered = answered_and_recovered()
    assert lookups.elsewhere == set()
    assert {(stream.usage_estimated, stream.output_tokens > 0) for stream in streams} == {(True, True)}
    assert (("127.0.0.1", str(model_server.port)) in lookups.asked, len(lookups.processes) > 1) == (True, True)
    assert max(answered, recovered) < IN_TIME_SECONDS


def test_an_estimate_that_hangs_holds_up_neither_a_commit_nor_a_recovery(watched, answered_and_recovered):
    door = json.dumps({"MODEL_DOOR": "tests.project.doors.SlowEstimates"})
    with running(watched, workers=3, TEST_DURABLE_AGENTS=door):
        streams, answered, recovered = answered_and_recovered()
    assert {(stream.usage_estimated, stream.output_tokens) for stream in streams} == {(True, 0)}
    assert max(answered, recovered) < IN_TIME_SECONDS


def test_a_web_server_and_the_doctor_ask_nobody(watched, lookups):
    with Server(watched):
        doctor = [sys.executable, "manage.py", "agents_doctor", "--json", "--models"]
        subprocess.run(doctor, cwd=ROOT, env=watched, capture_output=True, timeout=120, check=False)
    assert lookups.elsewhere == set()


def test_a_lookup_of_a_watched_process_is_recorded(watched, lookups):
    asking = "import socket; socket.create_connection(('models.example', 443))"
    ran = subprocess.run([sys.executable, "-c", asking], env=watched, capture_output=True, timeout=60, check=False)
    assert (lookups.elsewhere, b"must not be asked" in ran.stderr) == ({"models.example"}, True)

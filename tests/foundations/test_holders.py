"""Who holds a lease, and whether they live."""

import os
import signal
import subprocess
import sys

import pytest

from durable_agents import worker_identity

SAY_AND_WAIT = (
    "import time; from durable_agents import worker_identity; print(worker_identity.me(), flush=True); time.sleep(60)"
)


@pytest.fixture
def child():
    """Return a process that has told its name as a holder."""
    process = subprocess.Popen([sys.executable, "-c", SAY_AND_WAIT], stdout=subprocess.PIPE, text=True)
    process.holder = process.stdout.readline().strip()
    yield process
    process.kill()
    process.communicate()


def test_this_process_is_not_gone():
    """And its name fits the column."""
    assert not worker_identity.is_gone(worker_identity.me())
    assert len(worker_identity.me()) <= 120


def test_a_living_process_of_this_machine_is_not_gone(child):
    """It has a name of its own."""
    assert not worker_identity.is_gone(child.holder)
    assert child.holder != worker_identity.me()


def test_a_killed_process_is_gone_before_its_parent_looks(child):
    """A zombie holds nothing."""
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert worker_identity.is_gone(child.holder)
    child.wait()
    assert worker_identity.is_gone(child.holder)


def test_a_stopped_process_is_not_gone(child):
    """It may go on: its lease has to run out."""
    child.send_signal(signal.SIGSTOP)
    assert not worker_identity.is_gone(child.holder)


def test_another_process_with_the_same_pid_is_not_the_holder():
    """Pids come again; the time of the start does not."""
    machine, _, _ = worker_identity.me().rpartition(":")
    assert worker_identity.is_gone(f"{machine}:1")


@pytest.mark.parametrize("holder", ["", "x", "a:b:c:d", "boot:1:99999999:5", "boot:1:-1:5"])
def test_a_process_of_another_machine_is_never_gone_by_this_measure(holder):
    """Its lease has to run out."""
    assert not worker_identity.is_gone(holder)

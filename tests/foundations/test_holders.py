"""Who holds a lease, and whether they live."""

import os
import signal
import subprocess
import sys

import pytest

from durable_agents import holders

SAY_AND_WAIT = "from durable_agents import holders; print(holders.me(), flush=True); import time; time.sleep(60)"


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
    assert not holders.is_gone(holders.me())
    assert len(holders.me()) <= 120


def test_a_living_process_of_this_machine_is_not_gone(child):
    """It has a name of its own."""
    assert not holders.is_gone(child.holder)
    assert child.holder != holders.me()


def test_a_killed_process_is_gone_before_its_parent_looks(child):
    """A zombie holds nothing."""
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert holders.is_gone(child.holder)
    child.wait()
    assert holders.is_gone(child.holder)


def test_a_stopped_process_is_not_gone(child):
    """It may go on: its lease has to run out."""
    child.send_signal(signal.SIGSTOP)
    assert not holders.is_gone(child.holder)


def test_another_process_with_the_same_pid_is_not_the_holder():
    """Pids come again; the time of the start does not."""
    machine, _, _ = holders.me().rpartition(":")
    assert holders.is_gone(f"{machine}:1")


@pytest.mark.parametrize("holder", ["", "x", "a:b:c:d", "boot:1:99999999:5", "boot:1:-1:5"])
def test_a_process_of_another_machine_is_never_gone_by_this_measure(holder):
    """Its lease has to run out."""
    assert not holders.is_gone(holder)

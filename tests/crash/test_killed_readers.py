"""A process that is killed while it takes a message from a queue leaves the queue readable to the others."""

import os
import socket
import subprocess
import sys

import pytest

from durable_agents.task_queue.qcluster_hardening import ends_of_queue
from tests.architecture.sources import ROOT

SCRIPT = """
import itertools, os, signal, socket, sys, time
from multiprocessing.connection import Connection
from durable_agents.task_queue.qcluster_hardening import WholeMessages

FILES = ("connection.py", "qcluster_hardening.py")
cls, size = {"whole": WholeMessages, "pipe": Connection}[sys.argv[1]], int(sys.argv[2])
messages = [b"1" * size, b"2" * size]


def read(reader, die_at):
    lines = itertools.count(1)

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.endswith(FILES):
            return None
        if event == "line" and next(lines) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    message = reader.recv_bytes()
    sys.settrace(None)
    os._exit(10 + messages.index(message))


def child(*arguments, seconds=5):
    if not (pid := os.fork()):
        try:
            read(*arguments)
        finally:
            os._exit(1)
    for _ in range(seconds * 100):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


for die_at in itertools.count(1):
    ends = socket.socketpair()
    reader, writer = cls(ends[0].detach(), writable=False), Connection(ends[1].detach(), readable=False)
    for message in messages:
        writer.send_bytes(message)
    first = child(reader, die_at)
    if first != -signal.SIGKILL:
        assert first == 10, first
        break
    second = child(reader, 0)
    if second not in (10, 11):
        sys.exit(f"after a death at line {die_at}, the next reader ends with {second}")
    reader.close()
    writer.close()
print(die_at)
"""


def deaths(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Let a reader die at each of its lines, and let another one read afterwards."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("size", [0, 1, 1000, 4092])
def test_a_reader_killed_anywhere_takes_a_whole_message_or_none(size):
    done = deaths("whole", str(size))
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 5


def test_a_reader_of_a_pipe_can_be_killed_within_a_message():
    """This is what the test above tests."""
    done = deaths("pipe", "1000")
    assert "the next reader ends with" in done.stderr


@pytest.mark.parametrize("size", [4093, 70_000])
def test_a_long_message_is_read_in_pieces(size):
    reader, writer = ends_of_queue().values()
    for message in (b"1" * size, b"2"):
        writer.send_bytes(message)
        assert reader.recv_bytes() == message
    writer.close()
    with pytest.raises(EOFError):
        reader.recv_bytes()
    reader.close()


def test_a_queue_waits_whatever_the_default_timeout_of_sockets_is():
    """Such a timeout would make its sockets raise errors instead of waiting."""
    socket.setdefaulttimeout(10)
    try:
        ends = ends_of_queue().values()
    finally:
        socket.setdefaulttimeout(None)
    assert [os.get_blocking(end.fileno()) for end in ends] == [True, True]
    for end in ends:
        end.close()

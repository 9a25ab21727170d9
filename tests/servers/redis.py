"""A Redis of the test's own, which it may stop, freeze, empty and kill.

def test_something(own_redis):
    own_redis.freeze()
    with running(worker_env | own_redis.env): ...
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.servers.postgres import free_port


class RedisUnderTest:
    """One server that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def env(self) -> dict[str, str]:
        """What makes processes of the tests use it, for the queue and the channel layer."""
        return {"TEST_REDIS_URL": self.url}

    def start(self) -> "RedisUnderTest":
        """Start it and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self._server = subprocess.Popen([program(), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self.answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("redis-server did not start")
            time.sleep(0.02)
        return self

    def answers(self) -> bool:
        """Whether it says PONG within a second."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as wire:
                wire.sendall(b"PING\r\n")
                return wire.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL it; also a frozen one. One that does not run: nothing."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(10)
            self._server = None

    def restart(self) -> None:
        """Kill it and start it empty on the same port."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stand, new ones are taken by the kernel, and nothing is answered."""
        psutil.Process(self._pid).suspend()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        psutil.Process(self._pid).resume()

    @property
    def _pid(self) -> int:
        if self._server is None:
            raise RuntimeError("redis-server does not run")
        return self._server.pid


def program() -> str:
    """Return the path of redis-server; skip the test where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server is installed")
    return found


@pytest.fixture
def own_redis() -> Iterator[RedisUnderTest]:
    """Return a running Redis of this test's own."""
    with tempfile.TemporaryDirectory(prefix="durable-agents-redis-") as name:
        server = RedisUnderTest(Path(name)).start()
        try:
            yield server
        finally:
            server.kill()

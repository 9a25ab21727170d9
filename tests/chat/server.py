"""A real web server for tests: daphne, uvicorn or hypercorn in a process of its own, on the test database."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Self

import httpx

from tests.workers import ROOT, until


class Server:
    """A context manager around a web server; inside it the site answers at `url`."""

    def __init__(
        self,
        env: dict[str, str],
        *,
        kind: str = "daphne",
        application: str = "tests.chat.asgi:application",
        **extra: str,
    ) -> None:
        self.kind = kind
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the server runs
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            place = str(listening.fileno())
            # hypercorn runs in this one process only without workers.
            where = ["--workers", "0", "--bind", f"fd://{place}"] if kind == "hypercorn" else ["--fd", place]
            command = [kind, *where, application]
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=env | extra,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                pass_fds=[listening.fileno()],
            )

    def __enter__(self) -> Self:
        try:
            until(self._answers, seconds=120, what=lambda: self.log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/agents/agents/", timeout=30, trust_env=False).status_code < 500
        except httpx.TransportError:
            return False

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self._log.close()

    @property
    def log(self) -> str:
        """Everything that the server has printed."""
        descriptor = self._log.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()

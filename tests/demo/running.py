"""A running demo: the real command with its real processes, on a database of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
DATABASE = "demo.sqlite3"
START_SECONDS = 60
STOP_SECONDS = 30
AT_REST = {"completed", "failed", "stopped"}


class RunningDemo:
    """A context manager around `manage.py demo`; inside it the site answers at `url`."""

    def __init__(self, folder: Path, *options: str, **env: str) -> None:
        self.lines: list[str] = []
        self.url = ""
        self.database = folder / DATABASE
        self._found = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "demo", "--no-browser", *options],
            cwd=ROOT,
            env=demo_environment(folder) | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        if not self._found.wait(START_SECONDS):
            self.stop(signal.SIGKILL)
            raise AssertionError(f"The demo printed no URL:\n{self.output}")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGTERM)
        self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if not self.url and (found := re.search(r"https?://\S+", line)):
                self.url = found[0]
                self._found.set()

    @property
    def output(self) -> str:
        """All that it has printed."""
        return "".join(self.lines)

    def client(self) -> httpx.Client:
        """Return an HTTP client of the site; the caller closes it."""
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False)

    @contextmanager
    def signed_in(self, name: str) -> Iterator[httpx.Client]:
        """Yield a client that is signed in, by token, as the user whose password is his name."""
        with self.client() as client:
            answer = client.post("/api-token-auth/", data={"username": name, "password": name})
            assert answer.status_code == 200, answer.text
            client.headers["Authorization"] = f"Token {answer.json()['token']}"
            yield client

    def children(self, word: str = "") -> list[psutil.Process]:
        """Return the processes below the command, or those with `word` on their command line."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in found if word in " ".join(child.cmdline())]

    def stop(self, number: int, *, whole_group: bool = False) -> list[str]:
        """Send a signal; return the command lines of what is still there after half a minute."""
        processes = [psutil.Process(self.process.pid), *self.children()]
        names = {process.pid: " ".join(process.cmdline()) for process in processes}
        deadline = time.monotonic() + STOP_SECONDS
        (os.killpg if whole_group else os.kill)(self.process.pid, number)
        left = processes
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            self.process.poll()
            left = [process for process in left if is_alive(process)]
        return [names[process.pid] for process in left]


def started_thread(client: httpx.Client, prompt: str) -> str:
    """Start a thread with `prompt` and return its URL."""
    answer = client.post("/agents/threads/", json={"agent": "assistant", "prompt": prompt})
    assert answer.status_code == 201, answer.text
    return f"/agents/threads/{answer.json()['id']}/"


def finished_thread(client: httpx.Client, prompt: str, *, seconds: float = 40) -> list[dict[str, Any]]:
    """Start a thread with `prompt` and return its messages once it is completed."""
    url = started_thread(client, prompt)
    deadline = time.monotonic() + seconds
    while (status := client.get(url).json()["status"]) not in AT_REST and time.monotonic() < deadline:
        time.sleep(0.2)
    assert status == "completed"
    return client.get(f"{url}messages/").json()["results"]


def wait_until_streaming(client: httpx.Client, url: str, *, seconds: float = 40) -> None:
    """Return once the answer in the thread at `url` has begun to arrive."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stream = client.get(f"{url}messages/", params={"streams": 1}).json()["stream"]
        if stream and stream["seq"] >= 0:
            return
        time.sleep(0.2)
    raise AssertionError("The answer did not begin.")


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process still runs; one that only waits to be collected does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def demo_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a demo that shares nothing with the one in this checkout."""
    private = ("DJANGO_SETTINGS_MODULE", "REDIS_URL", "DEMO_MODEL", "OPENAI_API_BASE", "OPENAI_API_KEY")
    env = {name: value for name, value in os.environ.items() if name not in private}
    return env | {"DATABASE_URL": f"sqlite:///{folder / DATABASE}", "SECRET_KEY": "only-for-tests-" + "0" * 40}

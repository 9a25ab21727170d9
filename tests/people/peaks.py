"""How much memory a server takes while people send it much."""

import threading
import time

import httpx
import psutil

MEGABYTE = 2**20


class Peak:
    """The most memory that a process has had while the block ran, over what it had before, and the longest wait of
    somebody else."""

    def __init__(self, server, person):
        self._process, self._person = psutil.Process(server.process.pid), person
        self._over = threading.Event()
        self.bytes = 0
        self.longest_wait = 0.0

    def __enter__(self):
        self._before = self._process.memory_info().rss
        self._threads = [threading.Thread(target=watch) for watch in (self._watch, self._wait)]
        for thread in self._threads:
            thread.start()
        return self

    def _watch(self):
        while not self._over.wait(0.01):
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._before)

    def _wait(self):
        with httpx.Client(trust_env=False, headers=self._person.headers, timeout=60) as client:
            while not self._over.wait(0.05):
                began = time.monotonic()
                assert client.get(f"{self._person.url}/agents/agents/").status_code == 200
                self.longest_wait = max(self.longest_wait, time.monotonic() - began)

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()

"""A resolver that records: which hosts Python processes look up or connect to, each refused unless it is loopback."""

import os
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = {"127.0.0.1", "::1", "localhost", "0.0.0.0", "::", ""}

SITE_CUSTOMIZE = f"""
import os, socket, sys

LOOPBACK = {LOOPBACK!r}
LOOKS_UP = {{"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.connect": 1, "socket.sendto": 1}}

def note(event, arguments):
    if event not in LOOKS_UP:
        return
    asked = arguments[LOOKS_UP[event]]
    if event.endswith(("connect", "sendto")):
        if not isinstance(asked, tuple):
            return  # a socket of this machine that has a path
        asked, port = asked[:2]
    else:
        port = arguments[1] if event == "socket.getaddrinfo" else ""
    host = (asked.decode() if isinstance(asked, bytes) else asked) or ""
    with open(os.environ["RECORDED_LOOKUPS"], "a") as file:
        file.write(f"{{os.getpid()}} {{host}} {{port}}\\n")
    if host not in LOOPBACK and host != socket.gethostname():
        raise socket.gaierror(f"{{host}} must not be asked")

sys.addaudithook(note)
"""


@dataclass(frozen=True)
class Lookups:
    """Records what processes with the environment `env` look up, from their first line on."""

    folder: Path

    def env(self, env: dict[str, str]) -> dict[str, str]:
        """Return the environment of a process whose look-ups are recorded."""
        (self.folder / "sitecustomize.py").write_text(SITE_CUSTOMIZE)
        paths = os.pathsep.join([str(self.folder), env.get("PYTHONPATH", "")])
        # No file of Hugging Face's that an earlier run has left, else nobody would have to be asked.
        return {**env, "PYTHONPATH": paths, "RECORDED_LOOKUPS": str(self._file), "HF_HOME": str(self.folder / "hf")}

    @property
    def _file(self) -> Path:
        return self.folder / "lookups"

    @property
    def asked(self) -> set[tuple[str, str]]:
        """Return the hosts and ports so far."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return {(line.split(" ")[1], line.split(" ")[2]) for line in lines}

    @property
    def elsewhere(self) -> set[str]:
        """Return the hosts so far that are not this machine."""
        return {host for host, _ in self.asked} - LOOPBACK - {os.uname().nodename}

    @property
    def processes(self) -> set[int]:
        """Return the ids of the processes that have looked something up: proof that they were watched."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return {int(line.split(" ")[0]) for line in lines}

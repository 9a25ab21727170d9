"""What the doctor says of a project, and which sessions its database has."""

import json
import subprocess
import sys
from collections.abc import Iterable

import psutil

from tests.workers import ROOT


def doctor(env: dict[str, str]) -> tuple[int, list[dict[str, str]]]:
    """What `manage.py agents_doctor` says: its exit code and the problems."""
    command = [sys.executable, "manage.py", "agents_doctor", "--json"]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    findings = json.loads(ended.stdout)["findings"]
    return ended.returncode, [finding for finding in findings if finding["level"] == "error"]


def holders(processes: Iterable[psutil.Process], port: int) -> dict[int, list[int]]:
    """For each connection to the server at this port, by its own port: the processes that have it open."""
    held: dict[int, list[int]] = {}
    for process in processes:
        for one in process.net_connections("tcp"):
            if one.raddr and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED:
                held.setdefault(one.laddr.port, []).append(process.pid)
    return held

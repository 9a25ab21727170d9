"""Workers killed without end, one by one and all at once, by `python -m tests.storm`."""

import os
import subprocess
import sys

import pytest
from django.db import connection

from tests.workers import ROOT


@pytest.mark.slow
def test_thirty_busy_threads_get_on_within_seconds_of_each_kill(rounds, child_env, prove):
    """Five minutes with all rounds."""
    kind = ["--postgres"] if connection.vendor == "postgresql" else []
    command = [sys.executable, "-m", "tests.storm", "--seconds", str(rounds(300)), *kind]
    env = {name: value for name, value in child_env.items() if name not in {"TEST_DATABASE_URL", "TEST_REDIS_URL"}}
    env["PYTHONPATH"] = os.fspath(ROOT)
    storm = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    report = storm.stdout.partition("\n\n")[2].strip()
    for line in report.splitlines():
        prove(line)
    assert storm.returncode == 0, report or storm.stderr[-2000:]

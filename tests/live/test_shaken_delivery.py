"""Websockets over a channel layer that loses, doubles and reorders messages, by `python -m tests.shaken_delivery`."""

import os
import subprocess
import sys

import pytest
from django.db import connection

from tests.servers.redis import program
from tests.workers import ROOT

OPTIONS = ["--operations", "100", "--clients", "8", "--rounds", "2", "--faults", "40"]


@pytest.mark.slow
def test_every_client_shows_what_is_stored_although_messages_are_lost_doubled_and_reordered(child_env):
    """A hundredth of the whole run, with more faults, so that each kind occurs."""
    assert program()  # this skips the test where Redis is not installed
    kind = ["--postgres"] if connection.vendor == "postgresql" else []
    command = [sys.executable, "-m", "tests.shaken_delivery", *OPTIONS, *kind]
    env = {name: value for name, value in child_env.items() if name not in {"TEST_DATABASE_URL", "TEST_REDIS_URL"}}
    run = subprocess.run(
        command, cwd=ROOT, env=env | {"PYTHONPATH": os.fspath(ROOT)}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    assert "100 operations" in run.stdout

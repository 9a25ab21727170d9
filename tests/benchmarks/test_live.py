"""The load `live` works: it is run small, with all that it can start."""

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.socket_clients import Client, Frame, Target
from tests.processes import ROOT
from tests.servers.postgres import binary
from tests.servers.redis import program

OPTIONS = ["--threads", "3", "--seconds", "1", "--viewers", "2", "--idle", "2", "--connects", "3", "--noisy", "2"]


def test_every_token_reaches_every_client(child_env: dict[str, str], tmp_path: Path) -> None:
    assert program()  # these two skip the test where a server is not installed
    assert binary("initdb")
    path = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.benchmarks", "live", *OPTIONS, "--report", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=child_env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(path.read_text(encoding="utf-8"))["loads"]["live"]["medians"]["ours"]
    assert figures["tokens seen"] == 3 * 50
    errors = ("tokens lost", "texts wrong", "sockets closed", "idle sockets closed", "viewers' texts wrong")
    errors += ("tokens lost, noisy", "texts wrong, noisy", "sockets closed, noisy")
    assert {name: figures[name] for name in errors} == dict.fromkeys(errors, 0)
    assert all(figures[name] > 0 for name in ("lag ms p50", "first token ms", "all four CPU us", "frames"))
    # The system counts CPU time in steps of 10 ms, which so few frames may not take.
    assert figures["bare web CPU us, viewer's frame"] >= 0
    assert figures["bare idle sockets closed"] == 0
    assert all(figures[name] > 0 for name in ("first snapshot ms p50", "lag ms p50, noisy", "lag ms p50, ratio"))


def delta(seq: int) -> Frame:
    """Return a delta of one token."""
    return {"type": "delta", "stream": "s", "seq": seq, "chunks": [{"type": "text-delta", "delta": f"{seq} "}]}


def test_a_client_that_lacks_a_delta_asks_once_for_a_snapshot() -> None:
    client = Client(Target(url="", cookie="", thread=""))
    assert [client.apply(delta(seq)) for seq in (0, 1, 1, 3, 4)] == [True, True, True, False, True]
    assert client.seen.text == "0 1 "
    answer = {"role": "assistant", "parts": [{"type": "text", "text": "0 1 2 3 4 "}]}
    client.apply({"type": "snapshot", "messages": [answer], "streams": [{"stream": "s", "seq": 4}]})
    client.apply(delta(5))
    assert client.seen.text == "0 1 2 3 4 5 "

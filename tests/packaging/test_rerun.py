"""`.ci/rerun.py` lets a few failed tests run once more, and reports each of them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

Run = Callable[..., tuple[int, list[str], int]]
FAILS_ONCE = """
from pathlib import Path
import os, signal

def first():
    mark = Path(__file__).with_suffix(".ran")
    ran = mark.exists()
    mark.touch()
    return not ran
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs tests with this source and gives the exit code, the report and the number of runs."""

    def ran(source: str, *options: str) -> tuple[int, list[str], int]:
        (tmp_path / "test_it.py").write_text(FAILS_ONCE + source, encoding="utf-8")
        (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        plain = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin", "PYTEST_ADDOPTS": ""}
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | plain
        command = [sys.executable, ROOT / ".ci/rerun.py", "flaky.txt", sys.executable, "-m", "pytest", *options]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        report = tmp_path / "flaky.txt"
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
        return done.returncode, lines, done.stdout.count("test session starts")

    return ran


def test_a_run_without_failures_is_not_repeated(run: Run):
    assert run("def test_one(): pass") == (0, [], 1)


def test_a_test_that_passes_the_second_time_is_reported(run: Run):
    source = "def test_one(): assert not first()\ndef test_two(): pass"
    assert run(source) == (0, ["test_it.py::test_one"], 2)


def test_a_test_that_fails_twice_fails_the_run(run: Run):
    assert run("def test_one(): assert False") == (1, [], 2)


def test_four_failures_are_not_repeated(run: Run):
    source = "import pytest\n@pytest.mark.parametrize('n', range(4))\ndef test_one(n): assert False"
    assert run(source) == (1, [], 1)


def test_a_run_that_a_signal_ended_is_repeated_and_reported(run: Run):
    code, report, runs = run("def test_one():\n    if first(): os.kill(os.getpid(), signal.SIGSEGV)")
    assert (code, runs) == (0, 2)
    assert [line.partition(":")[0] for line in report] == ["a whole run, ended by SIGSEGV"]


def test_a_process_of_several_that_a_signal_ended_is_reported_by_its_test(run: Run):
    source = "def test_one():\n    if first(): os.kill(os.getpid(), signal.SIGSEGV)\ndef test_two(): pass"
    assert run(source, "-n", "1") == (0, ["test_it.py::test_one"], 2)


def test_a_wrong_option_is_not_repeated(run: Run):
    assert run("def test_one(): pass", "--no-such-option") == (4, [], 0)

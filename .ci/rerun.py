#!/usr/bin/env python3
"""Run a command that ends in pytest; if up to three tests fail, run these once more, alone, and report them as flaky.

    .ci/rerun.py FLAKY COMMAND [ARGUMENT ...]

These tests kill and time dozens of processes, and another program may have taken the processor. So a rerun is allowed,
but never silent: a line is added to the file FLAKY for each test that passed only then, and for each run that a signal
ended. `.ci/run` prints these lines and fails at three. The environment variable PYTHON names the interpreter of the
rerun.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

MOST_RERUNS = 3
TESTS_FAILED = 1  # pytest's exit code; any other one says that the run itself went wrong


def main(flaky: Path, command: list[str]) -> int:
    """Run the command, and again what failed; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="tested-") as cache:
        os.environ["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} -o cache_dir={cache}".strip()
        code = run(command)
        if signal_of(code):
            note(flaky, [f"a whole run, ended by {signal_of(code)}: {' '.join(command)}"])
            print(f"\n--- ended by {signal_of(code)}: once more, as a whole", flush=True)
            code = run(command)
        failed = failed_tests(Path(cache))
        if code == TESTS_FAILED and 1 <= len(failed) <= MOST_RERUNS:
            print(f"\n--- {len(failed)} failed: once more, alone", flush=True)
            code = run(rerun_command())
            if code == 0:
                note(flaky, failed)
        return code if code >= 0 else 128 - code


def run(command: list[str]) -> int:
    """Run a command and return its exit code."""
    return subprocess.run(command, check=False).returncode


def signal_of(code: int) -> str:
    """Return the name of the signal that ended a command, or a shell's child; "" where none did."""
    number = -code if code < 0 else code - 128
    return signal.Signals(number).name if number in set(signal.Signals) else ""


def failed_tests(cache: Path) -> list[str]:
    """Return the names of the tests that failed, as pytest has noted them."""
    notes = cache / "v/cache/lastfailed"
    return sorted(json.loads(notes.read_text(encoding="utf-8"))) if notes.exists() else []


def rerun_command() -> list[str]:
    """Return the command that runs what failed, one after the other, whatever its markers are."""
    python = os.environ.get("PYTHON", sys.executable)
    return [python, "-m", "pytest", "--last-failed", "--last-failed-no-failures", "none", "-n", "0", "-m", ""]


def note(flaky: Path, lines: list[str]) -> None:
    """Add lines to the report."""
    with flaky.open("a", encoding="utf-8") as report:
        report.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

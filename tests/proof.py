"""The crash tests with all their rounds, and a report of them: python -m tests.proof [--keep FILE] [pytest arguments]

CI runs a tenth of the rounds. The report names the versions, every test with its outcome, and what each test prints of
what it counted and measured. `TEST_DATABASE_URL` and `TEST_REDIS_URL` say what it runs on: SQLite alone without them.
"""

import argparse
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/crash", "tests/lifecycle/test_concurrency.py")
PACKAGES = ("Django", "django-q2", "channels", "litellm")
FULL = os.environ.get("PROOF") == "full"
MINUTES = 40
"""How long it takes on two processors that do nothing else, as last measured."""


@pytest.fixture
def rounds() -> Callable[[int], int]:
    """How many of so many rounds to run: a tenth, or all of them with PROOF=full."""
    return lambda full: full if FULL else max(1, full // 10)


@pytest.fixture
def prove(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None], proof_versions: None
) -> Callable[[str], None]:
    """Print a line of the proof, with the name of the test, and note it for the report."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def prove(line: str) -> None:
        record_property("proof", line)
        with capture.global_and_fixture_disabled():
            print(f"\n[{request.node.name}] {line}", flush=True)

    return prove


@pytest.fixture(scope="session")
def proof_versions(
    django_db_setup: None, django_db_blocker: Any, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """Note for the report what database and queue the tests run on."""
    with django_db_blocker.unblock():
        record_testsuite_property("database", database())


def database() -> str:
    """Return name and version of the database and, where there is one, of the Redis."""
    from django.db import connection

    if connection.vendor == "sqlite":
        name = f"SQLite {sqlite3.sqlite_version}"
    else:
        with connection._nodb_cursor() as cursor:  # the test database is there only if a test of this run uses it
            cursor.execute("SHOW server_version")
            name = f"PostgreSQL {cursor.fetchone()[0].split()[0]}"
    url = os.environ.get("TEST_REDIS_URL")
    if not url:
        return f"{name}, which carries the queue as well"
    import redis

    with redis.Redis.from_url(url) as client:
        return f"{name}; queue and channel layer on Redis {client.info('server')['redis_version']}"


def main() -> int:
    """Run the tests and report on them; the exit code is pytest's."""
    parser = argparse.ArgumentParser(description="The crash tests with all their rounds; other arguments go to pytest.")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the report into this file as well")
    options, arguments = parser.parse_known_args()
    print(f"All rounds: about {MINUTES} minutes on two processors.", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            *TESTS,
            "-q",
            "-m",
            "slow or not slow",
            "-p",
            "no:randomly",
            "-n",
            "0",
            "-o",
            "timeout=1800",
        ]
        command += ["-o", "junit_family=xunit1"]  # the newer one has no place for what the tests say
        run = subprocess.run(
            [*command, f"--junitxml={results}", *arguments], cwd=ROOT, env={**os.environ, "PROOF": "full"}, check=False
        )
        if not results.exists():  # pytest did not take the command line, and said so
            return run.returncode
        report = report_of(ET.parse(results).getroot())
    print(f"\n{report}")
    if options.keep:
        options.keep.parent.mkdir(parents=True, exist_ok=True)
        options.keep.write_text(report, encoding="utf-8")
    return run.returncode


def report_of(results: ET.Element) -> str:
    """Return the report on a run, from what pytest wrote of it (JUnit's XML)."""
    cases = list(results.iter("testcase"))
    suite = {item.get("name"): item.get("value") for item in results.findall("./testsuite/properties/property")}
    minutes = sum(float(case.get("time", 0)) for case in cases) / 60
    outcomes = Counter(outcome_of(case) for case in cases)
    lines = [
        "Crash proof, all rounds",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit()}, {minutes:.0f} minutes",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        f"{suite.get('database', 'no database')}; {platform.system()}, {os.cpu_count()} processors",
        "",
        *(line for case in cases for line in lines_of(case)),
        "",
        ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())),
    ]
    return "\n".join(lines) + "\n"


def lines_of(case: ET.Element) -> list[str]:
    """Return how a test ended, and under it what it said."""
    folder = case.get("classname", "").removeprefix("tests.").replace(".", "/")
    said = [item.get("value", "") for item in case.findall("./properties/property")]
    if outcome_of(case) == "failed":
        problem = next(item for item in case if item.tag in {"failure", "error"}).get("message", "")
        said.append(problem.replace(str(ROOT), ".").partition("\n")[0][:300])
    head = f"{outcome_of(case)}  {folder}::{case.get('name')} ({float(case.get('time', 0)):.0f} s)"
    return [head, *(textwrap.indent(textwrap.fill(line, 110), " " * 8) for line in said)]


def outcome_of(case: ET.Element) -> str:
    """Return passed, failed or skipped."""
    tags = {item.tag for item in case}
    return "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"


def commit() -> str:
    """Return which version of the code was tested, and whether it had changes since."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())

"""Plugin: how many processes pytest-xdist uses, what must not run side by side, and samples of the tests.

`pytest` without arguments, or with directories, uses one process more than there are processors, since one of them
mostly waits for clusters and clocks; named files and single tests run in one process. `-n 0` and `-n 4` say otherwise.
`--one-in 5` runs a fifth of the tests, always the same.

Of a test that is marked `matrix`, a fixed part of the cases runs: each value of each parameter, and each combination of
the parameters that the marker names. `--all-cases` runs every case.
"""

import os
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ONE_AFTER_THE_OTHER = (
    "tests/crash/",
    "tests/engine/",
    "tests/live/",
    "tests/times/",
    "tests/chat/test_with_workers.py",
    "tests/agents/test_in_a_worker.py",
)
"""Tests that start clusters of processes, kill them and look at the clock."""

LONG = (
    "tests/websocket/test_credentials.py",
    "tests/demo/test_demo_command.py",
    "tests/policies/test_matrix.py",
    "tests/security/test_hostile_text.py",
    "tests/llm/test_slow_servers.py",
)
"""Files that take longest: begun early, so that no process waits for another's last one."""


class FileScheduling(LoadScopeScheduling):
    """Give each process whole files, and one of them all the tests that must not run side by side."""

    def _split_scope(self, nodeid: str) -> str:
        return "one after the other" if must_wait(nodeid) else nodeid.partition("::")[0]


def must_wait(nodeid: str) -> bool:
    """Return whether the test must not run beside others of its kind."""
    return nodeid.startswith(ONE_AFTER_THE_OTHER)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    """Distribute by file."""
    return FileScheduling(config, log)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes `-n auto` means: none beside pytest's own where only files are named."""
    return 0 if only_files(config.args) else len(os.sched_getaffinity(0)) + 1


def only_files(arguments: Sequence[str]) -> bool:
    """Return whether the arguments of pytest name nothing but files and tests."""
    return all(Path(argument.partition("::")[0]).is_file() for argument in arguments)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for samples."""
    parser.addoption("--one-in", type=int, default=1, metavar="N", help="run a sample: one test of N")
    parser.addoption("--all-cases", action="store_true", help="run every case of the tests that are marked `matrix`")


def is_in_sample(nodeid: str, *, one_in: int) -> bool:
    """Return whether a test is among the sample of this size."""
    return zlib.crc32(nodeid.encode()) % one_in == 0


def spread(items: Sequence[pytest.Item]) -> set[pytest.Item]:
    """Return the tests without the cases of a matrix that repeat values which other cases have."""
    seen: defaultdict[str, set[object]] = defaultdict(set)
    kept = set()
    for item in sorted(items, key=lambda item: zlib.crc32(item.nodeid.encode())):
        marker, has = item.get_closest_marker("matrix"), seen[item.nodeid.partition("[")[0]]
        shown = shown_by(item, marker.args) if marker else {item}
        if not shown <= has:
            kept.add(item)
            has |= shown
    return kept


def shown_by(item: Any, crossed: Sequence[str]) -> set[object]:
    """Return what a case is there for: the value of each parameter, and the combination of those that are `crossed`."""
    values = {name: repr(value) for name, value in item.callspec.params.items()}
    return {*values.items(), tuple(values[name] for name in crossed)}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the sample. Let what must run one after the other begin first and long files next, so that the other
    processes share the rest until the end.
    """
    one_in = config.getoption("--one-in")
    cases = set(items) if config.getoption("--all-cases") else spread(items)
    kept = [item for item in items if item in cases and is_in_sample(item.nodeid, one_in=one_in)]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=sorted(set(items) - set(kept), key=lambda item: item.nodeid))
        items[:] = kept
    items.sort(key=lambda item: (not must_wait(item.nodeid), not item.nodeid.startswith(LONG)))

"""One running demo for all of these tests, on this machine's Node."""

import os
from collections.abc import Iterator

import pytest

from tests.aisdk.playing import missing
from tests.aisdk.stage import Stage


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """Return a running demo whose model says what a test has written."""
    if problem := missing():
        # Where everything must hold nothing is left out.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(problem)
    with Stage() as stage:
        yield stage

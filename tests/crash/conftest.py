"""Clusters of real workers for the crash tests, and how many rounds a test takes."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.servers.model import ModelUnderTest
from tests.workers import Cluster, running


@pytest.fixture
def start(worker_env: dict[str, str], model_server: ModelUnderTest) -> Iterator[Callable[..., Cluster]]:
    """Start a cluster of ready workers on this test's database and model server; all are stopped at the end."""
    with ExitStack() as stack:

        def start(workers: int = 2, **extra: str) -> Cluster:
            return stack.enter_context(running(worker_env, workers=workers, TEST_MODEL_URL=model_server.url, **extra))

        yield start


@pytest.fixture
def rounds() -> Callable[[int], int]:
    """How many of so many rounds to run: a tenth, or all of them with PROOF=full (`python -m tests.proof`)."""
    return lambda full: full if os.environ.get("PROOF") == "full" else max(1, full // 10)


@pytest.fixture
def prove(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line of the proof, with the name of the test."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def prove(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n[{request.node.name}] {line}", flush=True)

    return prove

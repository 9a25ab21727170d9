"""What tests of agents stand on: agents for one test, in the shop of the test kit's own tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from durable_agents import Agent
from tests.testing.shop import opened

Open = Callable[..., Agent]


@pytest.fixture
def shop() -> Iterator[Open]:
    """Return what declares the shop's agent, with these options, until the end of the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(opened(**options))

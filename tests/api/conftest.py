"""A public agent, its owner with a client, and somebody else with another one."""

from typing import Any

import pytest

from durable_agents import Agent
from tests.api.calls import Api, person
from tests.lifecycle.stage import Bells, Declare, bells, declare, worker

__all__ = ["bells", "declare", "worker"]


@pytest.fixture(autouse=True)
def _quiet(bells: Bells) -> None:
    """Keep the queue out of it."""


@pytest.fixture
def agent(declare: Declare) -> Agent:
    """Return a public agent."""
    return declare(public=True, description="Made for a test.")


@pytest.fixture
def me(db: None) -> Any:
    """Return the user whom most tests are about."""
    return person("me")


@pytest.fixture
def api(me: Any) -> Api:
    """Return the API as that user sees it."""
    return Api(me)


@pytest.fixture
def stranger(db: None) -> Api:
    """Return the API as somebody else sees it."""
    return Api(person("stranger"))

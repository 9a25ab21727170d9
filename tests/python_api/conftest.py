"""Threads, and notifications that are noted instead of sent."""

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from durable_agents import create_thread
from tests.lifecycle.stage import Bells


@pytest.fixture(autouse=True)
def _quiet(bells: Bells) -> None:
    """Keep the queue out of it."""


@pytest.fixture
def thread(agent):
    """Return a thread with its first step due."""
    return create_thread(agent, prompt="Question")


@pytest.fixture
async def coroutine_side():
    """Close, after the test, the connection of the thread in which coroutines have their sync code run."""
    yield
    await sync_to_async(connections.close_all)()

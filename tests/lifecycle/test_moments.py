"""What the project is told of after a commit does not touch the commit, however that fails."""

import pytest

from durable_agents import create_thread, stop_thread
from durable_agents.callbacks import run_through, thread_status_changed
from tests.lifecycle.stage import status_of


@pytest.fixture
def broken():
    """Have this process unable to tell anything, as where its loop is closed."""

    def refuse(moment):
        raise RuntimeError("Event loop is closed")

    def listen(**facts):
        raise AssertionError

    before = run_through(refuse)
    thread_status_changed.connect(listen)
    yield
    thread_status_changed.disconnect(listen)
    run_through(before)


@pytest.mark.django_db(transaction=True)
def test_a_moment_that_cannot_be_told_is_logged_and_the_transition_is_committed(agent, broken, caplog):
    """Whoever drew it hears nothing of that."""
    thread = stop_thread(create_thread(agent, prompt="Hi"))
    assert status_of(thread) == "stopped"
    assert "Event loop is closed" in caplog.text

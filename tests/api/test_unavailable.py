"""A database that cannot be written or asked answers with a code, on SQLite and wherever the error is raised."""

import sqlite3

import pytest
from django.db import InterfaceError, InternalError, OperationalError, connection, connections

from durable_agents import create_thread
from durable_agents.api.views.threads import ThreadListView
from durable_agents.models import Message
from durable_agents.policies import OwnerPolicy
from tests.api.calls import problem


class BrokenPolicy(OwnerPolicy):
    """Asks a database that does not answer."""

    error: Exception

    def allows(self, request, action, *, agent=None, thread=None, tool_call=None):
        """Raise the error."""
        raise self.error


def unavailable(response):
    """Whether the caller is told to come again."""
    assert problem(response) == (503, "database_unavailable")
    assert response.headers["Retry-After"].isdigit()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="one writer at a time is SQLite's")
def test_a_database_that_somebody_else_writes_is_unavailable(api, agent, me):
    """For as long as the busy timeout; then nothing is lost and nothing stored."""
    thread = create_thread(agent, owner=me)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        unavailable(api.post(f"threads/{thread.pk}/messages/", {"prompt": "Hi"}))
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert Message.objects.count() == 0
    assert api.post(f"threads/{thread.pk}/messages/", {"prompt": "Hi"}).status_code == 202


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("error", [OperationalError("gone"), InterfaceError("closed"), InternalError("read-only")])
@pytest.mark.parametrize(("method", "path"), [("GET", "threads/"), ("POST", "threads/"), ("POST", "attachments/")])
def test_an_error_that_the_policy_meets_is_answered_alike(api, agent, settings, error, debug, method, path):
    """Whatever of the database's errors it is, and whether DEBUG is on or off."""
    settings.DEBUG = debug
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.BrokenPolicy"}
    BrokenPolicy.error = error
    unavailable(api.upload(b"text") if path == "attachments/" else api.send(method, path, {"agent": agent.name}))


def test_no_database_wraps_a_view_in_a_transaction(monkeypatch):
    """A router may keep threads in another database than the default one, with ATOMIC_REQUESTS of its own."""
    monkeypatch.setitem(connections.settings, "other", {**connections.settings["default"], "ATOMIC_REQUESTS": True})
    assert ThreadListView.as_view()._non_atomic_requests == {"default", "other"}

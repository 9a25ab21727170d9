"""An export over REST is what its person may have, as a file."""

import pytest

from durable_agents import add_message, create_thread, export_thread
from durable_agents.exceptions import ErrorKind
from tests.api.calls import problem
from tests.lifecycle.stage import calling

pytestmark = pytest.mark.django_db


@pytest.fixture
def talk(agent, me, worker):
    """Return a thread with a failed attempt, a tool call, and all that must not leave the server."""
    made = create_thread(agent, owner=me, scope="", client_id="talk", prompt="Hi", context={"key": "trusted-42"})
    worker.retry(worker.claim_step(), kind=ErrorKind.NETWORK, delay_seconds=0)
    worker.answer("Let me see.", calling())
    worker.settle({"found": 1})
    worker.answer("Found.")
    add_message(made, "system", "The codeword is marigold.")
    return made


@pytest.mark.parametrize("path", ["threads/{}/export/", "threads/{}/export"])
@pytest.mark.parametrize("by", ["pk", "client_id"])
def test_it_is_the_export_of_python_without_system_messages(api, talk, path, by):
    """In the same format."""
    response = api.get(path.format(getattr(talk, by)))
    expected = export_thread(talk)
    expected["messages"] = [message for message in expected["messages"] if message["role"] != "system"]
    assert (response.status_code, response.json()) == (200, expected)
    assert len(expected["messages"]) == 2
    assert expected == export_thread(talk, include_system=False)


def test_it_is_a_file(api, talk):
    """Browsers store it and do not show it."""
    response = api.get(f"threads/{talk.pk}/export/")
    assert response["Content-Disposition"] == f'attachment; filename="thread-{talk.pk}.json"'
    assert response["Content-Type"] == "application/json"


def keys(value):
    """Yield the names of all fields of a value."""
    if isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from keys(item)


def test_nothing_leaves_that_belongs_to_the_server(api, talk):
    """Trusted context, owner, scope, leases, details of failures, and what the model alone was told."""
    response = api.get(f"threads/{talk.pk}/export/")
    text = response.content.decode()
    assert [secret for secret in ("trusted-42", "marigold", "key-123", "boot:1:100:5") if secret in text] == []
    forbidden = {"owner", "scope", "context", "lease_owner", "fence", "error_detail", "provider_call_id", "pool"}
    assert forbidden & set(keys(response.json())) == set()


def test_an_export_is_read_only(api, talk):
    """There is nothing to send."""
    assert problem(api.post(f"threads/{talk.pk}/export/", {})) == (405, "method_not_allowed")


def test_a_running_thread_is_exported_as_it_is_committed(api, agent, me, worker):
    """Without what is being written."""
    thread = create_thread(agent, owner=me, prompt="Hi")
    worker.say(worker.claim_step(), "Hel")
    response = api.get(f"threads/{thread.pk}/export/")
    assert response.status_code == 200
    assert "Hel" not in response.content.decode()

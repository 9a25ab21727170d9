"""A new thread: at rest and empty, or with its first run due."""

import pytest
from django.contrib.auth import get_user_model

from durable_agents import AgentNotFoundError, InvalidPartsError, TooLargeError, create_thread
from durable_agents.lifecycle import update_thread
from durable_agents.models import Message, Stream, Thread

pytestmark = pytest.mark.django_db


def test_a_new_thread_without_a_prompt_is_completed_and_empty(agent):
    """There is nothing to answer, so it is at rest."""
    thread = create_thread("tested")
    assert (thread.status, thread.rev, thread.messages.count(), thread.streams.count()) == ("completed", 0, 0, 0)


def test_a_new_thread_with_a_prompt_has_its_first_step_due(agent):
    """The thread is returned as it is stored: running, with a question, its answer to be, and one attempt."""
    thread = create_thread(agent, prompt="Hi")
    assert thread.status == "streaming"
    assert list(thread.messages.values_list("role", "position")) == [("user", 1), ("assistant", 2)]
    assert Stream.objects.get(thread=thread).state == "pending"


def test_a_known_client_id_gives_back_the_first_thread_unchanged(agent):
    """A client that asks twice has one thread."""
    first = create_thread(agent, client_id="a", title="First", prompt="Hi")
    second = create_thread(agent, client_id="a", title="Second", prompt="Hi")
    assert (second.pk, second.title, Message.objects.filter(role="user").count()) == (first.pk, "First", 1)


def test_the_same_client_id_of_two_owners_makes_two_threads(agent):
    """What one owner calls a thread says nothing about another's."""
    users = [get_user_model().objects.create_user(name) for name in ("ann", "bob")]
    threads = {create_thread(agent, owner=owner, client_id="a").pk for owner in [None, *users]}
    assert len(threads) == 3


def test_the_same_client_id_in_two_scopes_makes_two_threads(agent):
    """Tenants do not meet."""
    assert create_thread(agent, scope="one", client_id="a").pk != create_thread(agent, scope="two", client_id="a").pk


def test_an_unknown_agent_is_refused(agent):
    """Its name would never be claimed."""
    with pytest.raises(AgentNotFoundError):
        create_thread("nobody")


def test_a_prompt_that_is_refused_leaves_no_thread(agent):
    """Thread and message come into being together or not at all."""
    with pytest.raises(Exception, match="empty"):
        create_thread(agent, prompt="   ")
    assert not Thread.objects.exists()


def test_what_cannot_be_stored_is_cleaned(agent):
    """PostgreSQL takes neither NUL nor lone surrogates."""
    thread = create_thread(agent, title="a\x00b", metadata={"k\ud800": "\x00"}, prompt="c\x00d")
    assert (thread.title, thread.metadata) == ("a\ufffdb", {"k\ufffd": "\ufffd"})
    assert thread.messages.get(role="user").text == "c\ufffdd"


def test_an_owner_who_is_deleted_takes_the_threads_along(agent, worker):
    """Whoever works on them finds nothing left."""
    owner = get_user_model().objects.create_user("ann")
    create_thread(agent, owner=owner, prompt="Hi")
    claim = worker.claim_step()
    worker.say(claim, "Hel")
    owner.delete()
    assert not Thread.objects.exists()


@pytest.mark.parametrize("client_id", ["a/b", "/", ".", ".."])
def test_an_id_that_no_path_reaches_is_refused(agent, client_id):
    """Or reaches another thread."""
    with pytest.raises(InvalidPartsError, match="URL"):
        create_thread(agent, client_id=client_id)
    assert Thread.objects.count() == 0


def test_a_title_has_an_end(agent):
    """The same one on every database."""
    title = "x" * 200
    thread = create_thread(agent, title=title)
    with pytest.raises(TooLargeError):
        create_thread(agent, title=f"{title}x")
    with pytest.raises(TooLargeError):
        update_thread(thread, title=f"{title}x")
    assert update_thread(thread, title=title[::-1]).title == title[::-1]
    assert Thread.objects.get().title == title

"""A live client's command with a key: done once, answered alike each time."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from durable_agents import ThreadBusyError, ThreadNotFoundError, create_thread, delete_thread, lifecycle
from durable_agents.models import Command, Message, Thread
from tests.lifecycle.stage import status_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(agent):
    """Return a new thread."""
    return create_thread(agent)


def sending(thread, prompt="Hi"):
    """Return a command that sends a message and tells its id."""
    return lambda: {"message": str(lifecycle.send_message(thread, prompt).pk)}


def test_the_same_key_again_gives_the_same_answer_and_does_nothing(thread):
    """A client whose connection broke may send again."""
    first = lifecycle.run_command(thread.pk, "k1", sending(thread))
    second = lifecycle.run_command(thread.pk, "k1", sending(thread))
    assert first == second
    assert Message.objects.filter(role="user").count() == 1


def test_another_key_is_another_command(thread):
    """As is the same key in another thread, and no key at all."""
    other = create_thread("tested")
    for target, key in [(thread, "k1"), (thread, "k2"), (other, "k1"), (thread, None), (thread, None)]:
        lifecycle.run_command(target.pk, key, sending(target))
    assert Message.objects.filter(role="user").count() == 5


def test_a_command_that_failed_is_not_remembered(thread):
    """The next try is a first one."""

    def refused():
        raise ThreadBusyError(thread.pk)

    with pytest.raises(ThreadBusyError):
        lifecycle.run_command(thread.pk, "k1", refused)
    lifecycle.run_command(thread.pk, "k1", sending(thread))
    assert Message.objects.filter(role="user").count() == 1


def test_a_command_to_a_thread_that_is_gone_is_refused(agent, thread):
    """Before it runs."""
    delete_thread(thread)
    with pytest.raises(ThreadNotFoundError):
        lifecycle.run_command(thread.pk, "k1", sending(thread))


def test_old_answers_are_pruned(thread):
    """After a day; nobody sends again that late."""
    for key in ("old", "new"):
        lifecycle.run_command(thread.pk, key, dict)
    Command.objects.filter(key="old").update(created_at=Now() - timedelta(days=2))
    lifecycle.prune()
    assert list(Command.objects.values_list("key", flat=True)) == ["new"]


def test_a_deleted_thread_is_gone_with_everything_in_it(agent, worker):
    """Rows of every table."""
    thread = create_thread(agent, prompt="Hi")
    claim = worker.claim_step()
    worker.say(claim, "Hel")
    lifecycle.run_command(thread.pk, "k1", dict)
    delete_thread(thread)
    assert [model.objects.count() for model in (Thread, Message, Command)] == [0, 0, 0]
    with pytest.raises(ThreadNotFoundError):
        delete_thread(thread)


def test_an_edit_changes_what_it_names_and_is_a_durable_change(thread):
    """None leaves a field as it is."""
    before = Thread.objects.get(pk=thread.pk).rev
    lifecycle.update_thread(thread, title="T\x00", metadata={"a": 1}, archived=True)
    lifecycle.update_thread(thread, title="Title")
    stored = Thread.objects.get(pk=thread.pk)
    assert (stored.title, stored.metadata, stored.archived, stored.rev) == ("Title", {"a": 1}, True, before + 2)


def test_an_edit_of_nothing_changes_nothing(thread):
    """Nor does it disturb a run."""
    lifecycle.send_message(thread, "Hi")
    before = Thread.objects.get(pk=thread.pk).rev
    lifecycle.update_thread(thread)
    assert (Thread.objects.get(pk=thread.pk).rev, status_of(thread)) == (before, "streaming")

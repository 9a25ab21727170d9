"""`manage.py agents_prune` deletes old threads at rest, and nothing that is running, young or held."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db.models import ProtectedError
from django.db.models.functions import Now

from durable_agents import create_thread, lifecycle
from durable_agents.lifecycle import run_command
from durable_agents.models import Command, Delta, Message, Stream, Thread

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("agent", "bells")]


def aged(days, **options):
    """Return a thread that nothing has changed for so many days."""
    thread = create_thread("tested", **options)
    Thread.objects.filter(pk=thread.pk).update(updated_at=Now() - timedelta(days=days))
    return thread


def prune(*arguments):
    """Run the command; return what it prints."""
    out = StringIO()
    call_command("agents_prune", *arguments, stdout=out, no_color=True)
    return out.getvalue().strip()


def left():
    """Return the ids of the threads that are left."""
    return set(Thread.objects.values_list("pk", flat=True))


def test_old_threads_at_rest_are_deleted_and_young_ones_stay(worker):
    """With their messages; what they cost stays in the ledger."""
    old = create_thread("tested", prompt="Hi")
    worker.answer()
    Thread.objects.filter(pk=old.pk).update(updated_at=Now() - timedelta(days=31))
    young = aged(29)
    assert prune("--older-than", "30").startswith("Deleted 1 threads")
    assert left() == {young.pk}
    assert Message.objects.count() == 0
    assert Stream.objects.get().input_tokens == 10


def test_running_threads_stay_however_old():
    """Somebody may be waiting for them."""
    running = aged(400, prompt="Hi")
    assert prune("--older-than", "30").startswith("Deleted 0 threads")
    assert left() == {running.pk}


def test_a_thread_that_wakes_up_meanwhile_stays():
    """It is looked at again under its lock."""
    thread = aged(400)
    lifecycle.send_message(thread, "Still there?")
    assert not lifecycle.delete_if_idle(thread, days=30)
    assert left() == {thread.pk}


def test_a_dry_run_changes_nothing():
    """It counts."""
    old = aged(31)
    aged(1)
    assert prune("--older-than", "30", "--dry-run") == "1 threads would be deleted."
    assert old.pk in left()


def test_more_than_a_batch_goes(monkeypatch):
    """Each thread in a transaction of its own."""
    monkeypatch.setattr("durable_agents.management.commands.agents_prune.BATCH", 2)
    for _ in range(5):
        aged(31)
    assert prune("--older-than", "30").startswith("Deleted 5 threads")
    assert left() == set()


def test_old_deltas_and_answers_to_commands_go_with_it(worker):
    """Of threads that stay, too."""
    thread = create_thread("tested", prompt="Hi")
    claim = worker.claim_step()
    worker.say(claim, "Hel", "lo.")
    worker.answer("Hello.", claim=claim)
    Stream.objects.update(finished_at=Now() - timedelta(hours=1))
    run_command(thread.pk, "once", dict)
    Command.objects.update(created_at=Now() - timedelta(days=2))
    assert prune("--older-than", "30") == "Deleted 0 threads, 2 deltas, 1 stored answers."
    assert (Delta.objects.count(), Command.objects.count()) == (0, 0)


@pytest.mark.parametrize("days", ["0", "-3", "nan", "inf", "soon", "1e9"])
def test_nonsense_is_refused(days):
    """Before anything is deleted."""
    aged(400)
    with pytest.raises(CommandError, match="number of days above 0"):
        prune(f"--older-than={days}")
    assert len(left()) == 1


def test_the_age_has_to_be_said():
    """There is no default that would delete something."""
    with pytest.raises(CommandError, match="--older-than"):
        prune()


def test_a_thread_that_rows_of_the_project_protect_is_kept_and_counted(monkeypatch):
    """The others go."""
    kept, gone = aged(31), aged(31)
    delete_thread = lifecycle.deletion.delete_thread

    def guarded(thread):
        if thread == kept.pk:
            raise ProtectedError("protected", set())
        delete_thread(thread)

    monkeypatch.setattr("durable_agents.lifecycle.deletion.delete_thread", guarded)
    printed = prune("--older-than", "30")
    assert "Deleted 1 threads" in printed
    assert "1 threads were kept" in printed
    assert left() == {kept.pk}
    assert gone.pk not in left()

"""A file goes with its last row, whoever deletes that, after the commit; and what nobody sends goes after a day."""

import os
import subprocess
import sys
import time
from datetime import timedelta
from io import StringIO

import pytest
from django.core.files.storage import InMemoryStorage
from django.core.management import CommandError, call_command
from django.db import OperationalError, transaction
from django.db.models.functions import Now

from durable_agents import create_thread, delete_thread, engine, erase, fork_thread, send_message, stop_thread
from durable_agents.models import ATTACHMENTS, Attachment, Thread
from tests.api.calls import Api, person
from tests.attachments.samples import PNG, embedded, named, places, stored
from tests.processes import ROOT

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("agent")]


@pytest.fixture
def thread(agent, me):
    """Return a thread at rest with two files."""
    made = create_thread(agent, owner=me, parts=[embedded(), embedded()])
    return stop_thread(made)


def test_a_deleted_thread_takes_its_files_along(thread, root):
    """All of them, and nobody else's."""
    other = create_thread("tested", parts=[embedded()])
    assert len(stored(root)) == 3
    delete_thread(thread)
    assert stored(root) == places()
    assert Attachment.objects.get().thread == other


def test_a_deletion_that_is_rolled_back_leaves_them(thread, root):
    """They go after the commit."""
    with transaction.atomic():
        delete_thread(thread)
        assert len(stored(root)) == 2
        transaction.set_rollback(True)
    assert len(stored(root)) == len(places()) == 2


@pytest.mark.parametrize("first", ["source", "fork"])
def test_a_file_that_a_fork_has_stays_until_both_are_gone(thread, root, first):
    """In whichever order."""
    fork = fork_thread(thread)
    assert (Attachment.objects.count(), len(stored(root))) == (4, 2)
    threads = [thread, fork] if first == "source" else [fork, thread]
    delete_thread(threads[0])
    assert (Attachment.objects.count(), len(stored(root))) == (2, 2)
    delete_thread(threads[1])
    assert stored(root) == set()


def test_a_fork_up_to_a_message_has_what_was_said_until_then(agent, thread, root):
    """And no row for more."""
    send_message(thread, parts=[embedded()])
    stop_thread(thread)
    fork = fork_thread(thread, thread.messages.filter(role="user").first().shown_id)
    assert fork.attachments.count() == 2
    assert thread.attachments.count() == 3


def test_a_deleted_user_takes_everything_along(thread, me, root):
    """What was sent and what was not; others' stays."""
    Api(me).upload(PNG)
    Api(person("other")).upload(PNG)
    me.delete()
    assert (len(stored(root)), Attachment.objects.count()) == (1, 1)


@pytest.mark.parametrize("whose", ["owner", "scope"])
def test_erasing_takes_unsent_files_along(agent, thread, me, root, whose):
    """They are the person's too."""
    Api(me).upload(PNG)
    Attachment.objects.update(scope="team")
    Thread.objects.update(scope="team")
    assert erase(**({"owner": me} if whose == "owner" else {"scope": "team"})) == 1
    assert (stored(root), Attachment.objects.count()) == (set(), 0)


def test_a_queryset_of_the_projects_takes_files_along(thread, root):
    """As Django's admin does."""
    Thread.objects.all().delete()
    assert stored(root) == set()


def test_a_file_that_cannot_be_deleted_is_logged(thread, root, monkeypatch, caplog):
    """The thread is gone all the same."""

    def broken(self, name):
        raise OSError("no route to host")

    monkeypatch.setattr("django.core.files.storage.FileSystemStorage.delete", broken)
    delete_thread(thread)
    assert not Thread.objects.filter(pk=thread.pk).exists()
    assert any(getattr(record, "action", "") == "discard" for record in caplog.records)


@pytest.mark.parametrize("cleaner", ["sweep", "prune"])
def test_what_nobody_sent_within_a_day_goes(api, me, agent, root, cleaner):
    """What was uploaded since stays, and what was sent, however old."""
    _, young, sent = (api.upload(PNG).json() for _ in range(3))
    thread = create_thread(agent, owner=me, parts=[named(sent)])
    Attachment.objects.exclude(pk=young["id"]).update(created_at=Now() - timedelta(hours=25))
    if cleaner == "sweep":
        engine.sweep()
    else:
        call_command("agents_prune", "--older-than", "30", stdout=StringIO())
    assert {str(row.pk) for row in Attachment.objects.all()} == {young["id"], sent["id"]}
    assert stored(root) == places()
    assert thread.attachments.count() == 1


def age(root, place, hours):
    """Make a stored file older."""
    past = time.time() - hours * 3600
    os.utime(root / place, (past, past))


def test_files_without_rows_are_deleted_where_that_is_asked_for(thread, api, root):
    """Their process died in between. Others may share the storage, so nobody is robbed by default."""
    api.upload(PNG)
    lost, fresh = f"{ATTACHMENTS}/ab/{'ab' * 16}", f"{ATTACHMENTS}/cd/{'cd' * 16}"
    for place in (lost, fresh):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(b"x")
    (root / "other.txt").write_bytes(b"x")
    for place in (lost, "other.txt", *places()):
        age(root, place, 25)
    call_command("agents_prune", "--older-than", "30", stdout=StringIO())
    assert lost in stored(root)
    out = StringIO()
    call_command("agents_prune", "--older-than", "30", "--leftover-files", stdout=out)
    assert "Deleted 1 files without a row." in out.getvalue()
    assert stored(root) == {fresh, "other.txt", *places()}


def test_a_storage_without_anything_has_no_leftovers(root):
    """That there is no folder yet is no error."""
    out = StringIO()
    call_command("agents_prune", "--older-than", "30", "--leftover-files", stdout=out)
    assert "Deleted 0 files without a row." in out.getvalue()


def test_a_storage_that_cannot_list_is_said_so(monkeypatch):
    """Nothing is deleted blindly."""

    class Blind(InMemoryStorage):
        def listdir(self, path):
            raise NotImplementedError

    monkeypatch.setattr(Attachment._meta.get_field("file"), "storage", Blind())
    with pytest.raises(CommandError, match="cannot list"):
        call_command("agents_prune", "--older-than", "30", "--leftover-files", stdout=StringIO())


OWN_STORAGE = """
import tests.settings
tests.settings.STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "durable_agents": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
}
import django
django.setup()
from durable_agents import attachment_storage
from durable_agents.models import Attachment
print(type(attachment_storage.storage()).__name__, type(Attachment().file.storage).__name__)
"""


def test_a_project_may_give_attachments_a_storage_of_their_own(child_env):
    """A private one, where its media are public."""
    result = subprocess.run(
        [sys.executable, "-c", OWN_STORAGE], cwd=ROOT, env=child_env, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["InMemoryStorage"] * 2, result.stderr


def test_a_database_that_is_gone_after_the_commit_loses_nothing(thread, monkeypatch, caplog):
    """What was to follow has failed, and that is logged by the name of what failed."""

    def broken(name, *, using):
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr("durable_agents.attachment_storage.discard_unused", broken)
    delete_thread(thread)
    assert not Thread.objects.filter(pk=thread.pk).exists()
    assert "server closed" in caplog.text

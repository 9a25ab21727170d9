"""What staff may do to threads: with the permission, through the state machine, each time with an entry in the log."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.messages import get_messages
from django.db.models import ProtectedError
from django.test import Client
from django.urls import reverse

from durable_agents import Agent, create_thread, lifecycle, stop_thread
from durable_agents.admin import threads
from durable_agents.agents import registry
from durable_agents.lifecycle import FailedAttempt
from durable_agents.models import Delta, Message, Stream, Thread
from durable_agents.transcript import get_thread
from tests.admin.pages import VIEW, html, listing, page
from tests.api.calls import person
from tests.lifecycle.stage import Worker, status_of

pytestmark = pytest.mark.django_db


def act(client, action, *threads):
    """Choose an action for threads of the list; return what is said afterwards."""
    selected = [str(thread.pk) for thread in threads]
    response = client.post(listing(Thread), {"action": action, "_selected_action": selected})
    assert response.status_code == 302, response.content
    return [str(message) for message in get_messages(response.wsgi_request)]


def move(client, name, thread):
    """Press a button on the page of a thread."""
    return client.post(reverse(f"admin:durable_agents_thread_{name}", args=[thread.pk]))


def entries():
    """Return what the log says was changed."""
    return list(LogEntry.objects.order_by("pk").values_list("object_id", "change_message"))


def test_stopping_threads_counts_and_logs_those_that_ran(keeper, agent, owner):
    """The others are left alone."""
    running = [create_thread(agent, owner=owner, prompt="Hi") for _ in range(2)]
    resting = create_thread(agent, owner=owner)
    assert act(keeper, "stop_selected", *running, resting) == ["2 threads were stopped."]
    assert {status_of(thread) for thread in running} == {"stopped"}
    assert status_of(resting) == "completed"
    assert sorted(entries()) == sorted((str(thread.pk), "Stopped the run.") for thread in running)


def test_what_a_worker_did_meanwhile_is_not_the_doing_of_staff(keeper, agent, owner, monkeypatch):
    """A thread that came to rest by itself after it was listed was not stopped by anybody."""
    thread = create_thread(agent, owner=owner, prompt="Hi")

    def answered_first(*arguments):
        Worker().answer("Hello.")
        return get_thread(*arguments)

    monkeypatch.setattr(threads, "get_thread", answered_first)
    assert act(keeper, "stop_selected", thread) == ["There was no run to stop."]
    assert (entries(), status_of(thread)) == ([], "completed")


def test_resuming_threads_counts_and_logs_those_that_go_on(keeper, agent, owner):
    """Those at rest by themselves stay so."""
    stopped, resting = create_thread(agent, owner=owner, prompt="Hi"), create_thread(agent, owner=owner)
    stop_thread(stopped)
    assert act(keeper, "resume_selected", stopped, resting) == ["1 thread goes on."]
    assert status_of(stopped) == "streaming"
    assert entries() == [(str(stopped.pk), "Resumed the thread.")]


def test_retrying_threads_leaves_alone_what_was_stopped(keeper, agent, owner):
    """Somebody stopped them on purpose."""
    failed, stopped = (create_thread(agent, owner=owner, prompt="Hi") for _ in range(2))
    stop_thread(stopped)
    lifecycle.fail_step(Worker().claim_step(), FailedAttempt(kind="auth", detail="401"))
    assert status_of(failed) == "failed"
    assert "../retry/" in html(keeper.get(page(failed)))
    assert act(keeper, "retry_selected", failed, stopped) == ["1 thread tries again."]
    assert (status_of(failed), status_of(stopped)) == ("streaming", "stopped")
    assert entries() == [(str(failed.pk), "Tried the failed run again.")]


@pytest.mark.parametrize(
    ("action", "said"), [("stop_selected", "There was no run"), ("resume_selected", "There was nothing to resume")]
)
def test_where_nothing_was_to_be_done_that_is_said(keeper, agent, owner, action, said):
    """And nothing is logged."""
    [message] = act(keeper, action, create_thread(agent, owner=owner))
    assert message.startswith(said)
    assert entries() == []


def test_a_thread_whose_agent_is_gone_cannot_be_resumed_and_the_others_are(keeper, agent, owner):
    """The error names what is missing."""
    Agent("gone", model="openai/x")
    lost, stopped = create_thread("gone", owner=owner, prompt="Hi"), create_thread(agent, owner=owner, prompt="Hi")
    registry.remove("gone")
    for thread in (lost, stopped):
        stop_thread(thread)
    messages = act(keeper, "resume_selected", lost, stopped)
    assert sorted(message.split(",")[0] for message in messages) == [
        "1 thread goes on.",
        "There is no agent 'gone' any more",
    ]


def test_the_page_of_a_thread_whose_agent_is_gone_says_so_and_offers_no_retry(keeper, declare, owner):
    """Only that the run is stopped."""
    declare("gone")
    thread = create_thread("gone", owner=owner, prompt="Hi")
    assert "any more" not in html(keeper.get(page(thread)))
    registry.remove("gone")
    shown = html(keeper.get(page(thread)))
    assert "There is no agent “gone” any more, so this thread cannot go on." in shown
    assert "../stop/" in shown
    stop_thread(thread)
    assert "../resume/" not in html(keeper.get(page(thread)))


@pytest.fixture
def rested(agent, owner, worker):
    """Return a thread at rest, with a message for the model only."""
    thread = create_thread(agent, owner=owner, messages=[{"role": "system", "content": "Be brief."}], prompt="Hi")
    worker.answer("Hello.")
    return thread


def test_a_fork_is_a_thread_of_its_own_and_both_logs_say_so(staff, rested):
    """By the button, which leads to it, and for several by the action; only for those who may add threads."""
    forker = staff(*VIEW, "add_thread")
    assert "../fork/" in html(forker.get(page(rested)))
    shown = move(forker, "fork", rested)
    fork = Thread.objects.exclude(pk=rested.pk).get()
    assert (shown.url, fork.forked_from, fork.owner) == (page(fork), rested, rested.owner)
    assert entries() == [(str(rested.pk), f"Forked as {fork.pk}."), (str(fork.pk), f"Forked from {rested.pk}.")]
    assert act(forker, "fork_selected", rested, fork)[-1] == "2 threads were forked."
    assert Thread.objects.count() == 4
    assert move(staff(*VIEW, "change_thread"), "fork", rested).status_code == 403


def test_a_running_thread_is_not_forked(staff, thread):
    """It is said why."""
    forker = staff(*VIEW, "add_thread")
    assert "../fork/" not in html(forker.get(page(thread)))
    [said] = act(forker, "fork_selected", thread)
    assert "is running" in said
    assert (Thread.objects.count(), entries()) == (1, [])


def test_an_export_has_everything_and_is_logged(staff, rested, thread):
    """For those who may read all that it consists of."""
    reader, half = staff(*VIEW), staff("view_thread")
    assert "../export/" in html(reader.get(page(rested)))
    file = move(reader, "export", rested)
    assert file["Content-Disposition"] == f'attachment; filename="thread-{rested.pk}.json"'
    assert [message["role"] for message in file.json()["messages"]] == ["system", "user", "assistant"]
    chosen = {"action": "export_selected", "_selected_action": [str(rested.pk), str(thread.pk)]}
    several = reader.post(listing(Thread), chosen).json()
    assert {each["thread"]["id"] for each in several} == {str(rested.pk), str(thread.pk)}
    assert entries().count((str(rested.pk), "Exported the thread.")) == 2
    assert "../export/" not in html(half.get(page(rested)))
    assert move(half, "export", rested).status_code == 403
    assert len(entries()) == 3


@pytest.mark.parametrize("action", ["stop_selected", "resume_selected", "retry_selected", "fork_selected"])
def test_without_permission_an_action_is_neither_offered_nor_done(reader, thread, action):
    """To look at threads is not to change them."""
    assert action not in html(reader.get(listing(Thread)))
    reader.post(listing(Thread), {"action": action, "_selected_action": [str(thread.pk)]})
    assert status_of(thread) == "streaming"
    assert entries() == []


def test_the_page_of_a_thread_has_the_button_that_fits(keeper, reader, thread):
    """For those who may press it."""
    assert "../stop/" in html(keeper.get(page(thread)))
    assert "../stop/" not in html(reader.get(page(thread)))
    assert move(keeper, "stop", thread).url == page(thread)
    assert status_of(thread) == "stopped"
    assert "../resume/" in html(keeper.get(page(thread)))
    move(keeper, "resume", thread)
    assert status_of(thread) == "streaming"
    assert [message for _, message in entries()] == ["Stopped the run.", "Resumed the thread."]


@pytest.mark.parametrize("name", ["stop", "resume", "retry"])
def test_a_button_can_be_pressed_by_post_with_permission_and_csrf_token_only(keeper, reader, thread, name):
    """A link in a mail stops nobody's run."""
    url = reverse(f"admin:durable_agents_thread_{name}", args=[thread.pk])
    forged = Client(enforce_csrf_checks=True)
    forged.cookies = keeper.cookies
    assert keeper.get(url).status_code == 405
    assert reader.post(url).status_code == 403
    assert forged.post(url).status_code == 403
    assert Client().post(url).status_code == 302
    assert keeper.post(url.replace(str(thread.pk), "x")).status_code == 404
    assert status_of(thread) == "streaming"


def test_deleting_needs_its_own_permission_and_takes_everything_along(staff, keeper, thread):
    """What goes is counted on the page that asks, not listed."""
    url = reverse("admin:durable_agents_thread_delete", args=[thread.pk])
    assert keeper.get(url).status_code == 403
    deleter = staff(*VIEW, "delete_thread")
    assert "messages: 2" in html(deleter.get(url)).lower()
    assert deleter.post(url, {"post": "yes"}).status_code == 302
    assert not any(model.objects.exists() for model in (Thread, Message, Delta))
    assert not Stream.objects.exclude(thread=None, parts=[], text="").exists()
    assert LogEntry.objects.get().object_id == str(thread.pk)


def test_a_thread_that_a_row_of_the_project_protects_is_not_deleted(staff, thread, monkeypatch):
    """Its page says what holds it."""

    def protected(*_, **__):
        raise ProtectedError("held", {owner_row})

    owner_row, client = thread.owner, staff(*VIEW, "delete_thread")
    monkeypatch.setattr("durable_agents.admin.threads.Collector.collect", protected)
    url = reverse("admin:durable_agents_thread_delete", args=[thread.pk])
    assert str(owner_row) in html(client.get(url))
    assert client.post(url, {"post": "yes"}).status_code == 200
    assert Thread.objects.filter(pk=thread.pk).exists()


def test_several_threads_are_deleted_at_once(staff, agent, owner):
    """Through the same function."""
    threads = [create_thread(agent, owner=owner, prompt="Hi") for _ in range(2)]
    data = {"action": "delete_selected", "_selected_action": [str(thread.pk) for thread in threads], "post": "yes"}
    assert staff(*VIEW, "delete_thread").post(listing(Thread), data).status_code == 302
    assert not Thread.objects.exists()


def test_a_user_with_threads_can_be_deleted_in_the_admin(thread, owner):
    """Their threads go with them, although no message can be deleted by itself."""
    root = Client()
    root.force_login(person("root", is_staff=True, is_superuser=True))
    model = get_user_model()
    user_admin = f"admin:{model._meta.app_label}_{model._meta.model_name}_delete"
    assert root.post(reverse(user_admin, args=[owner.pk]), {"post": "yes"}).status_code == 302
    assert not Thread.objects.exists()
    message = reverse("admin:durable_agents_message_delete", args=[owner.pk])
    assert root.post(message, {"post": "yes"}).status_code in {302, 403}

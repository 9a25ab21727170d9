"""The audit log has who did what through Python and commands, and the threads that were deleted with something else."""

import inspect
from datetime import timedelta
from io import StringIO

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import transaction
from django.db.models.functions import Now

import durable_agents
from durable_agents import create_thread, erase, functions, lifecycle, send_message
from durable_agents.actors import Actor
from durable_agents.lifecycle import NewCall
from durable_agents.models import AuditEntry, Command, Message, Thread, ToolCall
from tests.api.calls import person
from tests.lifecycle.stage import Worker

pytestmark = pytest.mark.django_db(transaction=True)


def entries(thread_id):
    """Return what the audit log has of a thread: action, user, scope, edge and subject."""
    rows = AuditEntry.objects.filter(thread_id=thread_id).order_by("pk")
    return [(row.action, row.user, row.scope, row.via, row.subject) for row in rows]


@pytest.fixture
def ann(transactional_db):
    """Return the owner of the thread."""
    return person("ann")


@pytest.fixture
def bob(transactional_db):
    """Return a colleague, on the staff."""
    return person("bob", is_staff=True)


@pytest.fixture
def asked(ann, declare):
    """Return a thread with an answered question, at rest, before anything is logged."""
    thread = create_thread(declare(), owner=ann, scope="team")
    send_message(thread, "Hi", client_id="m1")
    Worker().answer("Hello.")
    AuditEntry.objects.all().delete()
    return thread


THREADS = {
    "add_message": ("m2", lambda do, thread, by: do(thread, "user", "Ho", by=by)),
    "delete_thread": ("", lambda do, thread, by: do(thread, by=by)),
    "edit_message": ("m1", lambda do, thread, by: do(thread, "m1", "Hey", by=by)),
    "fork_thread": (None, lambda do, thread, by: do(thread, by=by)),
    "regenerate": ("m1", lambda do, thread, by: do(thread, by=by)),
    "resume_thread": ("", lambda do, thread, by: do(thread, "Ho", by=by)),
    "send_message": ("m2", lambda do, thread, by: do(thread, "Ho", client_id="m2", by=by)),
    "stop_thread": ("", lambda do, thread, by: do(thread, by=by)),
    "update_thread": ("", lambda do, thread, by: do(thread, title="Hey", by=by)),
}
"""How each function is called with a thread, and the subject of its entry; None where the database chooses it."""

CALLS = {
    "add_tool_error": ("client", {"error": "No date."}),
    "add_tool_result": ("client", {"result": "2026-12-01"}),
    "approve_tool_call": ("approval", {"reason": "Fine."}),
    "reject_tool_call": ("approval", {"reason": "No."}),
    "set_tool_call_timeout": ("client", {"seconds": 60}),
    "settle_tool_call": ("unknown", {"result": {"sent": 5}}),
}
"""The call that each function fits, and how it is called."""

NO_THREAD = {"create_thread", "erase"}
"""Functions with a test of their own below."""


def test_every_function_that_says_who_acts_is_tried():
    """A new one has to be added to these lists."""
    known = {name for name in durable_agents.__all__ if hasattr(functions, name) and not name.startswith("a_")}
    takes_by = {name for name in known if "by" in inspect.signature(getattr(functions, name)).parameters}
    tried = {*THREADS, *CALLS, *NO_THREAD}
    assert takes_by == tried | {f"a{name}" for name in tried}


def function(name, *, is_async):
    """Return a function of the package, called as from sync code."""
    return async_to_sync(getattr(durable_agents, f"a{name}")) if is_async else getattr(durable_agents, name)


@pytest.mark.parametrize("name", THREADS)
@pytest.mark.parametrize("is_somebody", [True, False])
@pytest.mark.parametrize("is_async", [False, True])
def test_python_says_who_changed_a_thread_or_that_it_was_the_project(bob, asked, name, is_somebody, is_async):
    """Exactly one entry, the sender of a new message is the same user."""
    if name == "stop_thread":
        send_message(asked, "More")
        AuditEntry.objects.all().delete()
    by = bob if is_somebody else None
    subject, call = THREADS[name]
    call(function(name, is_async=is_async), asked, by)
    [entry] = entries(asked.pk)
    assert entry[:4] == (name, by, "", "python")
    if name == "add_message":
        subject = str(Message.objects.latest("rev").pk)
    assert subject in {None, entry[4]}
    if name in {"add_message", "edit_message", "resume_thread", "send_message"}:
        assert Message.objects.filter(role="user").latest("rev").sender == by


@pytest.fixture
def waiting(ann, declare):
    """Return a function that makes a call that waits for somebody."""

    def made(kind):
        facts = {
            "client": {"kind": "client", "answered_by": "owner"},
            "approval": {"needs_approval": True},
            "unknown": {},
        }[kind]
        thread = create_thread(declare(), owner=ann, prompt="Hi")
        new = NewCall(tool_call_id="call_1", provider_call_id="", tool_name="plain", arguments={"word": "x"}, **facts)
        worker = Worker()
        worker.answer("", new)
        if kind == "unknown":
            worker.claim_call()
            asking = {"status": "unknown", "lease_owner": "", "lease_expires_at": None}
            ToolCall.objects.filter(thread=thread).update(**asking)
        AuditEntry.objects.all().delete()
        return ToolCall.objects.get(thread=thread)

    return made


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("is_somebody", [True, False])
@pytest.mark.parametrize("is_async", [False, True])
def test_python_says_who_answered_a_call_or_that_it_was_the_project(bob, waiting, name, is_somebody, is_async):
    """The call, too, says who gave its result or decided about it."""
    kind, given = CALLS[name]
    call, by = waiting(kind), bob if is_somebody else None
    function(name, is_async=is_async)(call.thread_id, "call_1", by=by, **given)
    assert entries(call.thread_id) == [(name, by, "", "python", "call_1")]
    call.refresh_from_db()
    is_answer = name in {"add_tool_result", "add_tool_error", "settle_tool_call"}
    is_decision = name in {"approve_tool_call", "reject_tool_call", "settle_tool_call"}
    assert call.answered_by_user == (by if is_answer else None)
    assert call.approval_decided_by == (by if is_decision else None)


@pytest.mark.parametrize("given", [{"result": None}, {"error": "Lost."}, {"run_again": True}])
def test_each_way_to_settle_a_call_is_one_entry_with_its_own_hash(bob, waiting, given):
    """Whoever has what was given can show that it was."""
    call = waiting("unknown")
    durable_agents.settle_tool_call(call.thread_id, "call_1", by=bob, **given)
    [entry] = AuditEntry.objects.filter(thread_id=call.thread_id)
    whole = {"result": None, "error": None, "run_again": False, "reason": ""} | given
    assert (entry.action, entry.user) == ("settle_tool_call", bob)
    assert entry.arguments_hash == durable_agents.strictjson.content_hash(whole)


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_a_message_of_any_role_is_kept_with_who_added_it(bob, asked, role):
    """An answer has no sender: it is the model's."""
    added = durable_agents.add_message(asked, role, "Ho", by=bob)
    assert entries(asked.pk) == [("add_message", bob, "", "python", added.shown_id)]
    assert added.sender == (None if role == "assistant" else bob)


def test_a_message_that_is_refused_leaves_no_entry(bob, asked):
    """As a role that there is not."""
    with pytest.raises(durable_agents.InvalidPartsError):
        durable_agents.add_message(asked, "robot", "Ho", by=bob)
    assert entries(asked.pk) == []


def test_a_call_that_waits_for_nothing_is_not_settled_and_leaves_no_entry(bob, waiting):
    """Its answer comes from elsewhere."""
    call = waiting("client")
    with pytest.raises(durable_agents.ToolCallNotPendingError):
        durable_agents.settle_tool_call(call.thread_id, "call_1", result=1, by=bob)
    assert entries(call.thread_id) == []


@pytest.mark.parametrize("is_async", [False, True])
def test_who_created_a_thread_and_who_erased_is_kept(ann, bob, declare, is_async):
    """The entries of what was erased are gone."""
    thread = function("create_thread", is_async=is_async)(declare(), owner=ann, by=bob)
    assert entries(thread.pk) == [("create_thread", bob, "", "python", "")]
    function("erase", is_async=is_async)(owner=ann, by=bob)
    assert entries(thread.pk) == []
    assert entries(None) == [("erase", bob, "", "python", "")]


# ------------------------------------------------------------------------------------- deleted with something else


DELETIONS = {
    "thread": (lambda thread: Thread.objects.get(pk=thread.pk).delete(), "python"),
    "threads": (lambda thread: Thread.objects.filter(pk=thread.pk).delete(), "python"),
    "owner": (lambda thread: thread.owner.delete(), "cascade"),
    "owners": (lambda thread: get_user_model().objects.filter(pk=thread.owner_id).delete(), "cascade"),
}


@pytest.mark.parametrize("what", DELETIONS)
def test_a_thread_that_is_deleted_without_our_function_leaves_an_entry(asked, what):
    """As when its owner is deleted: nobody is named, and the edge says that it went with something else."""
    delete, via = DELETIONS[what]
    delete(asked)
    assert not Thread.objects.filter(pk=asked.pk).exists()
    assert entries(asked.pk) == [("delete_thread", None, "", via, "")]


def test_each_thread_of_a_deleted_user_leaves_an_entry(ann, asked, declare):
    """Threads of others do not."""
    more, other = create_thread("tested", owner=ann), create_thread("tested", owner=person("eve"))
    AuditEntry.objects.all().delete()
    ann.delete()
    assert {row.thread_id for row in AuditEntry.objects.all()} == {asked.pk, more.pk}
    assert entries(other.pk) == []


def test_a_deletion_that_is_rolled_back_leaves_no_entry(asked):
    """The entry is of the same transaction."""
    with transaction.atomic():
        asked.owner.delete()
        transaction.set_rollback(True)
    assert entries(asked.pk) == []
    assert Thread.objects.filter(pk=asked.pk).exists()


def test_a_thread_that_is_pruned_leaves_an_entry(asked):
    """Of the project's."""
    Thread.objects.update(updated_at=Now() - timedelta(days=40))
    call_command("agents_prune", "--older-than", "30", stdout=StringIO())
    assert entries(asked.pk) == [("delete_thread", None, "", "python", "")]


# ----------------------------------------------------------------------------------------------------------- erasing


def command(thread, by, key="k1"):
    """Run a live client's command with a key, whose answer is stored."""
    lifecycle.run_command(thread.pk, key, lambda: {"said": "hello"}, command="send", by=by)


def test_erasing_takes_a_user_out_of_the_stored_commands_in_threads_of_others(ann, bob, declare):
    """Their caller is a hash of who they are, and their answer repeats what was written; those of others stay."""
    other = create_thread(declare(), owner=bob)
    command(other, ann, "k1")
    command(other, ann, "k2")
    command(other, bob, "k1")
    erase(owner=ann)
    assert [row.caller for row in Command.objects.all()] == [Actor.of(bob).digest]


def test_erasing_by_primary_key_takes_the_commands_too(ann, bob, declare):
    """``owner`` may be either."""
    command(create_thread(declare(), owner=bob), ann)
    erase(owner=ann.pk)
    assert not Command.objects.exists()


def test_erasing_a_scope_takes_a_visitor_out_of_the_stored_commands(declare):
    """In threads of another scope."""
    other = create_thread(declare(), scope="team")
    visitor, colleague = (Actor(scope=scope, via="websocket") for scope in ("visitor:v1", "team"))
    command(other, visitor)
    command(other, colleague)
    erase(scope="visitor:v1")
    assert [row.caller for row in Command.objects.all()] == [colleague.digest]


def test_erasing_a_user_in_one_scope_keeps_their_commands_in_threads_of_others(ann, bob, declare):
    """They are not erased as a person."""
    command(create_thread(declare(), owner=bob, scope="other"), ann)
    erase(owner=ann, scope="team")
    assert [row.caller for row in Command.objects.all()] == [Actor.of(ann).digest]

"""Who did it is kept with the row and in the audit log, whatever the edge, and never more than that."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import transaction
from django.test import Client

import durable_agents
from durable_agents import create_thread, erase, lifecycle, send_message
from durable_agents.lifecycle import NewCall
from durable_agents.models import AuditEntry, Message, ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle, says
from tests.api.calls import person
from tests.chat.client import user_message
from tests.lifecycle.stage import Worker, outcome

KINDS = {
    "client": {"kind": "client", "answered_by": "owner"},
    "approval": {"needs_approval": True},
    "unknown": {"kind": "client"},
}


def entries(thread_id):
    """Return what the audit log has of a thread but its beginning: action, user, scope, edge and subject."""
    rows = AuditEntry.objects.filter(thread_id=thread_id).exclude(action__in=["create_thread"]).order_by("pk")
    return [(row.action, row.user, row.scope, row.via, row.subject) for row in rows]


@pytest.fixture
def asked(thread):
    """Return the thread with an answered question, at rest."""
    send_message(thread, "Hi", client_id="m1")
    worker = Worker(agents=["chatty"])
    worker.answer("Hello.")
    AuditEntry.objects.all().delete()
    return thread


@pytest.fixture
def waiting(thread):
    """Return a function that makes a call that waits for somebody."""

    def made(kind, thread=thread):
        send_message(thread, "Hi")
        call = NewCall(
            tool_call_id="call_1",
            provider_call_id="",
            tool_name="pay" if kind == "approval" else "pick_a_date",
            arguments={"amount": 1} if kind == "approval" else {"label": "When?"},
            max_attempts=1,
            timeout_seconds=60,
            **KINDS[kind],
        )
        lifecycle.commit_step(Worker(agents=["chatty"]).claim_step(), outcome("", call))
        if kind == "unknown":  # its worker has died, and its tool asks a person what became of it
            ToolCall.objects.filter(thread=thread).update(status="unknown")
        AuditEntry.objects.all().delete()
        return ToolCall.objects.get(thread=thread)

    return made


REST = {
    "stop": ("POST", "stop/", None, "stop_thread", ""),
    "send": ("POST", "messages/", {"prompt": "Ho", "client_id": "m2"}, "send_message", "m2"),
    "resume": ("POST", "resume/", {"prompt": "Go on"}, "resume_thread", ""),
    "edit": ("PUT", "messages/m1/", {"prompt": "Hey"}, "edit_message", "m1"),
    "regenerate": ("POST", "regenerate/", {}, "regenerate", "m1"),
    "delete": ("DELETE", "", None, "delete_thread", ""),
    "title": ("PATCH", "", {"title": "Talk"}, "update_thread", ""),
    "archive": ("PATCH", "", {"archived": True}, "update_thread", ""),
    "metadata": ("PATCH", "", {"metadata": {"a": 1}}, "update_thread", ""),
}


@pytest.mark.parametrize("name", REST)
def test_what_a_colleague_does_over_rest_is_kept_with_their_name(bob, asked, name):
    """Every change that a person can make, the deletion included: the entry outlives the thread."""
    method, path, body, action, subject = REST[name]
    if name == "stop":
        send_message(asked, "More")
        AuditEntry.objects.all().delete()
    assert bob.post(f"threads/{asked.pk}/{path}", body, method=method).status_code < 300
    assert entries(asked.pk) == [(action, bob.user, "", "rest", subject)]


def test_a_fork_is_kept_with_both_threads(bob, asked):
    """Each names the other one."""
    fork = bob.post(f"threads/{asked.pk}/fork/").json()["id"]
    assert entries(asked.pk) == [("fork_thread", bob.user, "", "rest", fork)]
    [made] = AuditEntry.objects.filter(thread_id=fork)
    assert (made.action, made.user, made.subject) == ("create_thread", bob.user, str(asked.pk))


CALLS = {
    "result": ("client", {"result": "2026-12-01"}, "add_tool_result"),
    "error": ("client", {"error": "No date."}, "add_tool_error"),
    "approve": ("approval", {"reason": "Fine."}, "approve_tool_call"),
    "reject": ("approval", {}, "reject_tool_call"),
    "timeout": ("client", {"seconds": 60}, "set_tool_call_timeout"),
}


@pytest.mark.parametrize("name", CALLS)
def test_who_answers_a_call_over_rest_is_kept_with_it(comes, waiting, name):
    """Here staff, who may do each; the call itself says who gave its result or decided."""
    kind, body, action = CALLS[name]
    call, boss = waiting(kind), comes("boss", is_staff=True, first_name="Ada", last_name="Boss")
    answer = boss.post(f"threads/{call.thread_id}/tool-calls/{call.tool_call_id}/{name}/", body)
    assert answer.status_code == 200
    assert entries(call.thread_id) == [(action, boss.user, "", "rest", "call_1")]
    call.refresh_from_db()
    is_answer, is_decision = name in {"result", "error"}, name in {"approve", "reject"}
    assert (call.answered_by_user == boss.user, call.approval_decided_by == boss.user) == (is_answer, is_decision)
    who = {"id": str(boss.user.pk), "name": "Ada Boss"} if is_answer else None
    assert answer.json()["answered_by_user"] == who


SOCKET = {
    "send": ({"prompt": "Ho", "client_id": "m2"}, "send_message", "m2"),
    "resume": ({"prompt": "Go on"}, "resume_thread", ""),
    "edit": ({"message": "m1", "prompt": "Hey"}, "edit_message", "m1"),
    "regenerate": ({}, "regenerate", "m1"),
}


@pytest.mark.parametrize("name", SOCKET)
def test_what_a_colleague_does_by_websocket_is_kept_with_their_name(bob, asked, name):
    """With a key; the repetition is no second entry."""
    body, action, subject = SOCKET[name]
    for _ in range(2):
        assert bob.ask(type=name, thread=str(asked.pk), key="k1", **body)["type"] == "ok"
    assert entries(asked.pk) == [(action, bob.user, "", "websocket", subject)]


def test_who_stopped_a_run_is_a_query(bob, asked):
    """A stop of a thread at rest changed nothing, and is not kept."""
    send_message(asked, "More")
    for _ in range(2):
        bob.ask(type="stop", thread=str(asked.pk))
    [stopped] = AuditEntry.objects.filter(thread_id=asked.pk, action="stop_thread")
    assert (stopped.user, stopped.via, stopped.at is not None) == (bob.user, "websocket", True)


@pytest.mark.parametrize(
    ("kind", "frame", "action"),
    [
        ("client", {"type": "tool_result", "result": "today"}, "add_tool_result"),
        ("client", {"type": "tool_error", "error": "No."}, "add_tool_error"),
        ("approval", {"type": "approve"}, "approve_tool_call"),
        ("approval", {"type": "reject", "reason": "No."}, "reject_tool_call"),
    ],
)
def test_who_answers_a_call_by_websocket_is_kept_with_it(ann, waiting, kind, frame, action):
    """The owner, here."""
    call = waiting(kind)
    answer = ann.ask(thread=str(call.thread_id), tool_call_id="call_1", **frame)
    assert answer["type"] == "ok", answer
    assert entries(call.thread_id) == [(action, ann.user, "", "websocket", "call_1")]
    call.refresh_from_db()
    assert ann.user in {call.answered_by_user, call.approval_decided_by}


def test_what_a_colleague_sends_over_the_chat_is_kept_with_their_name(bob, asked):
    """As the message's sender, too; a stop as well."""
    assert bob.chat({"id": str(asked.pk), "messages": [user_message("Ho", "m2")]}) == {"code": "ok"}
    assert bob.post(f"chat/{asked.pk}/stop").json() == {"status": "stopped"}
    assert entries(asked.pk) == [
        ("send_message", bob.user, "", "chat", "m2"),
        ("stop_thread", bob.user, "", "chat", ""),
    ]
    assert Message.objects.get(client_id="m2").sender == bob.user


@pytest.mark.parametrize("gesture", ["edit", "regenerate"])
def test_what_a_colleague_changes_over_the_chat_is_kept_with_their_name(bob, asked, gesture):
    """An edit is a message of theirs."""
    more = {"messageId": "m1"} if gesture == "edit" else {"trigger": "regenerate-message"}
    body = {"id": str(asked.pk), "messages": [user_message("Hey" if gesture == "edit" else "Hi", "m1")], **more}
    assert bob.chat(body) == {"code": "ok"}
    action = {"edit": "edit_message", "regenerate": "regenerate"}[gesture]
    assert entries(asked.pk) == [(action, bob.user, "", "chat", "m1")]


def test_a_visitor_is_kept_by_scope(visitor):
    """Nobody is signed in."""
    made = visitor.post("threads/", {"agent": "chatty", "prompt": "Hi"}).json()["id"]
    visitor.ask(type="stop", thread=made)
    visitor.post(f"threads/{made}/", method="DELETE")
    rows = AuditEntry.objects.filter(thread_id=made).order_by("pk")
    assert [(row.action, row.user, row.scope, row.via) for row in rows] == [
        ("create_thread", None, "visitor:v1", "rest"),
        ("stop_thread", None, "visitor:v1", "websocket"),
        ("delete_thread", None, "visitor:v1", "rest"),
    ]


def test_a_visitor_approves_their_own_call_and_is_kept(visitor, waiting):
    """The thread is nobody's; what identifies them is its scope."""
    thread = create_thread("chatty", scope="visitor:v1")
    call = waiting("approval", thread)
    assert visitor.ask(type="approve", thread=str(thread.pk), tool_call_id=call.tool_call_id)["type"] == "ok"
    assert entries(thread.pk) == [("approve_tool_call", None, "visitor:v1", "websocket", "call_1")]


def test_a_signed_in_user_is_kept_where_the_thread_is_nobodys(bob, waiting):
    """Not as nobody: their name is known."""
    thread = create_thread("chatty", scope="team")
    call = waiting("client", thread)
    assert bob.post(f"threads/{thread.pk}/stop/").status_code == 200
    assert entries(thread.pk)[0][:4] == ("stop_thread", bob.user, "", "rest")
    call.refresh_from_db()
    assert call.status == "cancelled"


# ------------------------------------------------------------------------------------------------------------- admin

MOVES = {"stop": "stop_thread", "resume": "resume_thread", "fork": "fork_thread", "delete": "delete_thread"}


@pytest.fixture
def staff(transactional_db):
    """Return a client of somebody who may do everything in the admin."""
    user = person("boss", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="durable_agents"))
    client = Client()
    client.force_login(user)
    client.user = user
    return client


@pytest.mark.parametrize("move", MOVES)
def test_what_staff_do_to_a_thread_in_the_admin_is_in_both_logs(staff, asked, move):
    """Django's and ours."""
    if move != "fork":
        send_message(asked, "More")
    if move == "resume":
        lifecycle.stop_thread(asked)
    AuditEntry.objects.all().delete()
    staff.post(f"/admin/durable_agents/thread/{asked.pk}/{move}/", {"post": "yes"})
    assert entries(asked.pk)[0][:4] == (MOVES[move], staff.user, "", "admin")
    assert LogEntry.objects.filter(user=staff.user, object_id=str(asked.pk)).count() == 1


@pytest.mark.parametrize(
    ("kind", "name", "form", "action"),
    [
        ("approval", "approve", {}, "approve_tool_call"),
        ("approval", "reject", {}, "reject_tool_call"),
        ("client", "result", {"result": "1"}, "add_tool_result"),
        ("client", "error", {"result": "Closed."}, "add_tool_error"),
        ("client", "timeout", {"seconds": "900"}, "set_tool_call_timeout"),
        ("unknown", "settle", {"result": "1"}, "settle_tool_call"),
        ("unknown", "settle-failed", {"result": "Lost."}, "settle_tool_call"),
        ("unknown", "run-again", {}, "settle_tool_call"),
    ],
)
def test_what_staff_do_to_a_call_in_the_admin_is_in_both_logs(staff, waiting, kind, name, form, action):
    """The call itself says who gave its result or decided."""
    call = waiting(kind)
    staff.post(f"/admin/durable_agents/toolcall/{call.pk}/{name}/", form)
    assert entries(call.thread_id)[0][:4] == (action, staff.user, "", "admin")
    assert LogEntry.objects.filter(user=staff.user, object_id=str(call.pk)).count() == 1
    call.refresh_from_db()
    is_answer, is_decision = name in {"result", "error", "settle", "settle-failed"}, kind != "client"
    assert call.answered_by_user == (staff.user if is_answer else None)
    assert call.approval_decided_by == (staff.user if is_decision else None)


def test_the_admin_shows_who_did_what(staff, bob, asked):
    """On the thread's page, and in a list that has deleted threads too."""
    bob.post(f"threads/{asked.pk}/regenerate/")
    shown = staff.get(f"/admin/durable_agents/thread/{asked.pk}/change/").content.decode()
    assert "<code>regenerate</code>" in shown
    assert bob.user.get_username() in shown
    bob.post(f"threads/{asked.pk}/", method="DELETE")
    listed = staff.get("/admin/durable_agents/auditentry/", {"q": str(asked.pk)}).content.decode()
    assert "delete_thread" in listed


# ------------------------------------------------------------------------------------------------------ the entries


def test_what_is_rolled_back_leaves_no_entry(bob, asked):
    """The entry is of the same transaction."""
    with transaction.atomic():
        durable_agents.delete_thread(asked, by=bob.user)
        transaction.set_rollback(True)
    assert entries(asked.pk) == []


def test_an_entry_is_not_changed(asked):
    """The log is added to, and nothing else."""
    durable_agents.delete_thread(asked)
    entry = AuditEntry.objects.get(thread_id=asked.pk)
    entry.action = "nothing"
    with pytest.raises(TypeError):
        entry.save()


def test_the_arguments_are_kept_as_a_hash(asked):
    """Whoever has them can show that these were given; whoever has not, reads nothing."""
    send_message(asked, "A canary")
    entry = AuditEntry.objects.get(thread_id=asked.pk)
    assert len(entry.arguments_hash) == 64
    assert "canary" not in str(AuditEntry.objects.values().get(pk=entry.pk))


# ---------------------------------------------------------------------------------------------------------- erasing


def test_a_deleted_user_is_nobody_in_the_log(bob, asked):
    """What was done stays, and who did it is not known any more."""
    bob.post(f"threads/{asked.pk}/regenerate/")
    bob.user.delete()
    assert entries(asked.pk)[0][:3] == ("regenerate", None, "")


def test_erasing_takes_the_entries_of_the_threads_along(ann, bob, asked):
    """And who did the rest; only that somebody erased is kept."""
    other = create_thread("chatty", owner=bob.user, scope="team", prompt="Hi")
    durable_agents.stop_thread(other, by=ann.user)
    durable_agents.regenerate(asked, by=bob.user)
    erase(owner=ann.user, by=bob.user)
    assert AuditEntry.objects.filter(thread_id=asked.pk).count() == 0
    assert entries(other.pk)[0][:2] == ("stop_thread", None)
    [erased] = AuditEntry.objects.filter(action="erase")
    assert (erased.user, erased.thread_id, erased.subject, erased.scope) == (bob.user, None, "", "")


def test_erasing_takes_the_name_off_what_was_done_in_threads_of_others(ann, bob):
    """What was written, decided and answered there stays."""
    ann.user.is_staff = True
    other = create_thread("chatty", owner=bob.user, scope="team", prompt="Hi")
    with ScriptedModel([calls("pay", amount=1), calls("pick_a_date", label="x")], says("Done.")):
        run_until_idle()
        pay, date = (ToolCall.objects.get(thread=other, tool_name=name) for name in ("pay", "pick_a_date"))
        durable_agents.approve_tool_call(other, pay.tool_call_id, by=ann.user)
        durable_agents.add_tool_result(other, date.tool_call_id, "today", by=ann.user)
        run_until_idle()
    said = send_message(other, "From Ann", by=ann.user)
    erase(owner=ann.user)
    pay.refresh_from_db()
    date.refresh_from_db()
    said.refresh_from_db()
    assert (pay.approval_decided_by, date.answered_by_user, said.sender) == (None, None, None)
    assert (pay.status, date.result, said.parts[0]["text"]) == ("completed", "today", "From Ann")


def test_erasing_a_scope_takes_a_visitor_out_of_the_log(visitor):
    """Their name is nowhere in it."""
    made = visitor.post("threads/", {"agent": "chatty", "prompt": "Hi"}).json()["id"]
    visitor.post(f"threads/{made}/", method="DELETE")
    erase(scope="visitor:v1")
    assert "visitor:v1" not in str(list(AuditEntry.objects.values()))


def test_pruning_takes_old_entries_of_deleted_threads(asked):
    """Those of threads that are there stay."""
    gone = create_thread("chatty")
    durable_agents.delete_thread(gone)
    send_message(asked, "More")
    AuditEntry.objects.update(at="2020-01-01T00:00Z")
    lifecycle.prune_audit(30)
    assert {row.thread_id for row in AuditEntry.objects.all()} == {asked.pk}

"""Who may do what in the admin: each of its addresses has a permission of its own here, or is closed to everybody.

An address that is added without one fails the first test.
"""

from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.shortcuts import resolve_url
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from durable_agents import create_thread, lifecycle, stop_thread
from durable_agents.lifecycle import FailedAttempt
from durable_agents.models import Attachment, AuditEntry, Delta, Message, Pool, Stream, Thread, ToolCall, WorkerProblem
from tests.admin.pages import VIEW
from tests.api.calls import person
from tests.attachments.samples import embedded
from tests.lifecycle.stage import Worker

pytestmark = pytest.mark.django_db

MODELS = (Thread, Message, Stream, ToolCall, Delta, Pool, Attachment, AuditEntry, WorkerProblem)
NAMES = [model._meta.model_name for model in MODELS]
READ = {f"{name}_{page}": f"view_{name}" for name in NAMES for page in ("changelist", "change", "history")}
CLOSED = {f"{name}_add" for name in NAMES} | {f"{name}_delete" for name in NAMES if name != "thread"}
MOVES: dict[str, tuple[str, str, dict[str, str]]] = {
    "thread_stop": ("change_thread", "thread", {}),
    "thread_resume": ("change_thread", "stopped", {}),
    "thread_retry": ("change_thread", "failed", {}),
    "thread_fork": ("add_thread", "stopped", {}),
    "thread_delete": ("delete_thread", "thread", {"post": "yes"}),
    "toolcall_approve": ("change_toolcall", "approval", {}),
    "toolcall_reject": ("change_toolcall", "approval", {"reason": "No."}),
    "toolcall_result": ("change_toolcall", "browser", {"result": "1"}),
    "toolcall_error": ("change_toolcall", "deferred", {"result": "Closed."}),
    "toolcall_settle": ("change_toolcall", "unknown", {"result": "1"}),
    "toolcall_settle-failed": ("change_toolcall", "unknown", {"result": "Lost."}),
    "toolcall_run-again": ("change_toolcall", "unknown", {}),
    "toolcall_timeout": ("change_toolcall", "approval", {"seconds": "900"}),
}
"""What can be done: the permission that it needs, to which row (a fixture), and what is posted."""
READ["toolcall_inbox"] = "view_toolcall"
TAKEN = {"thread_export": ("view_thread", "view_message", "view_stream", "view_toolcall")}
"""What can be taken away, by those who may read all of it."""


@pytest.fixture
def stopped(thread):
    """Return a thread whose run was stopped."""
    return stop_thread(thread)


@pytest.fixture
def failed(agent, owner):
    """Return a thread whose run failed."""
    thread = create_thread(agent, owner=owner, prompt="Hi")
    lifecycle.fail_step(Worker().claim_step(), FailedAttempt(kind="auth", detail="401"))
    return thread


@pytest.fixture
def attached(agent):
    """Return a thread with a file."""
    return create_thread(agent, parts=[embedded()])


@pytest.fixture
def problem():
    """Return what a worker said that it could not do."""
    return WorkerProblem.objects.create(holder="boot:1:2:3", kind="claims", detail="read-only", since=timezone.now())


@pytest.fixture
def row(request):
    """Return a function that gives the row to which something is done, or any row for a page."""

    def found(name: str) -> Any:
        if name in MOVES:
            return request.getfixturevalue(MOVES[name][1])
        fixtures = {"attachment": "attached", "workerproblem": "problem"}
        request.getfixturevalue(fixtures.get(name.partition("_")[0], "thread"))
        return apps.get_model("durable_agents", name.partition("_")[0])._default_manager.first()

    return found


def address(name: str, target: Any) -> str:
    """Return where it is."""
    has_id = not name.endswith(("_changelist", "_add", "_inbox"))
    return reverse(f"admin:durable_agents_{name}", args=[target.pk] if has_id else [])


def stored() -> list[str]:
    """Return every row of the app's tables, and what the admin's log has."""
    models = [*apps.get_app_config("durable_agents").get_models(), LogEntry]
    return [str(item) for model in models for item in model._default_manager.values().order_by("pk")]


def everything_but(permission: str) -> list[str]:
    """Return every permission of the app but this one."""
    known = Permission.objects.filter(content_type__app_label="durable_agents").exclude(codename=permission)
    return list(known.values_list("codename", flat=True))


def test_every_address_has_its_permission():
    """Whoever adds one says here who may use it, and how."""
    names = {
        pattern.name.removeprefix("durable_agents_")
        for model, shown in admin.site._registry.items()
        for pattern in (shown.get_urls() if model._meta.app_label == "durable_agents" else ())
        if pattern.name
    }
    known = READ.keys() | MOVES.keys() | TAKEN.keys() | CLOSED
    assert names - known == set(), "add it to READ, MOVES, TAKEN or CLOSED"
    assert known - names == set(), "take it out"


@pytest.mark.parametrize("name", sorted({*READ, *MOVES, *TAKEN, *CLOSED}))
def test_who_is_no_staff_is_sent_to_sign_in(row, owner, name):
    """Whether signed in or not, and though the thread is theirs."""
    place = address(name, row(name))
    signed_in = Client()
    signed_in.force_login(owner)
    before = stored()
    for client in (Client(), signed_in):
        for method in (client.get, client.post):
            response = method(place)
            assert response.status_code == 302
            assert response.url.partition("?")[0] in {reverse("admin:login"), resolve_url(settings.LOGIN_URL)}
    assert stored() == before


@pytest.mark.parametrize("name", sorted(READ))
def test_a_page_needs_the_permission_to_view_its_model(staff, row, name):
    """Every other one is not enough, and that one is."""
    place, needed = address(name, row(name)), READ[name]
    others = [known for known in everything_but(needed) if known.partition("_")[2] != needed.partition("_")[2]]
    assert staff(*others).get(place).status_code == 403
    assert staff(needed).get(place).status_code == 200


@pytest.mark.parametrize("name", sorted(READ))
def test_a_page_changes_nothing(reader, row, name):
    """Whatever is posted to it."""
    place = address(name, row(name))
    before = stored()
    everything = {"action": "delete_selected", "_selected_action": [str(row(name).pk)], "post": "yes", "title": "x"}
    assert reader.post(place, everything).status_code in {200, 302, 403}
    assert stored() == before


@pytest.mark.parametrize("name", sorted(CLOSED))
def test_what_is_closed_is_closed_to_a_superuser(row, name):
    """Rows are made and ended by the state machine only."""
    root = Client()
    root.force_login(person("root", is_staff=True, is_superuser=True))
    place = address(name, row(name))
    before = stored()
    assert {root.get(place).status_code, root.post(place, {"post": "yes"}).status_code} == {403}
    assert stored() == before


@pytest.mark.parametrize("name", sorted(MOVES))
def test_nothing_is_done_without_its_permission(staff, reader, row, name):
    """To view everything is not to change, nor is every other permission together."""
    permission, _, given = MOVES[name]
    place = address(name, row(name))
    before = stored()
    for client in (reader, staff(*everything_but(permission))):
        assert client.post(place, given).status_code == 403
    assert stored() == before


@pytest.mark.parametrize("name", sorted(MOVES))
def test_what_is_done_needs_a_post_with_a_token_and_is_logged(staff, row, name):
    """Once, with who did it."""
    permission, _, given = MOVES[name]
    place, client = address(name, row(name)), staff(*VIEW, permission)
    forged = Client(enforce_csrf_checks=True)
    forged.cookies = client.cookies
    before = stored()
    assert forged.post(place, given).status_code == 403
    assert client.get(place).status_code == (200 if name == "thread_delete" else 405)
    assert stored() == before
    assert client.post(place, given).status_code == 302
    entries = LogEntry.objects.values_list("user_id", flat=True)
    assert len(entries) == (2 if name == "thread_fork" else 1)  # a fork has an entry of its own
    assert {str(user) for user in entries} == {client.session["_auth_user_id"]}
    assert stored() != before


@pytest.mark.parametrize("name", sorted(TAKEN))
def test_what_is_taken_away_needs_every_permission_to_read_it(staff, row, name):
    """By a post with a token, which is logged; nothing else is changed."""
    place, needed = address(name, row(name)), TAKEN[name]
    for permission in needed:
        assert staff(*everything_but(permission)).post(place).status_code == 403
    client = staff(*needed)
    forged = Client(enforce_csrf_checks=True)
    forged.cookies = client.cookies
    assert forged.post(place).status_code == 403
    assert client.get(place).status_code == 405
    assert LogEntry.objects.count() == 0
    assert client.post(place).status_code == 200
    assert str(LogEntry.objects.get().user_id) == client.session["_auth_user_id"]
    assert client.post(place.replace(str(row(name).pk), "x")).status_code == 404


@pytest.mark.parametrize("name", sorted(MOVES))
def test_a_row_that_is_not_there_is_not_found(staff, row, name):
    """By an id of the right shape, or of none."""
    permission, _, given = MOVES[name]
    target = row(name)
    client, place = staff(*VIEW, permission), address(name, target)
    for other in ("x", "0" * 32, "%00", "..%2F.."):
        response = client.post(place.replace(str(target.pk), other), given)
        is_sent_home = response.status_code == 302 and response.url == reverse("admin:index")
        assert response.status_code == 404 or is_sent_home
    assert LogEntry.objects.count() == 0

"""`update_thread`, and values of `metadata` and `context` that are not JSON objects."""

from datetime import date
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model

from durable_agents import (
    InvalidJSONObjectError,
    aget_thread,
    aupdate_thread,
    create_thread,
    fork_thread,
    get_thread,
    send_message,
    update_thread,
)
from durable_agents.models import AuditEntry, Thread

pytestmark = pytest.mark.django_db
KEY = UUID("12345678-1234-5678-1234-567812345678")


@pytest.fixture
def thread(agent):
    return create_thread(agent, title="Old", metadata={"a": 1}, context={"b": 2})


FIELDS = {"title": "New", "archived": True, "metadata": {"c": 3}, "context": {"d": 4}}


@pytest.mark.parametrize("name", FIELDS)
def test_an_update_changes_the_field_that_is_passed_and_no_other(thread, name):
    """Metadata and context are replaced as a whole."""
    before = {field: getattr(thread, field) for field in FIELDS} | {"rev": thread.rev}
    returned = update_thread(thread, **{name: FIELDS[name]})
    stored = get_thread(thread)
    expected = before | {name: FIELDS[name], "rev": before["rev"] + 1}
    assert {field: getattr(stored, field) for field in expected} == expected
    assert {field: getattr(returned, field) for field in expected} == expected


def test_an_update_by_a_person_is_in_the_audit_log(thread):
    """One entry for all fields of one call."""
    ada = get_user_model().objects.create_user("ada")
    update_thread(str(thread.pk), title="New", context={}, by=ada)
    entry = AuditEntry.objects.get(action="update_thread")
    assert (entry.user, entry.thread_id, Thread.objects.get().context) == (ada, thread.pk, {})


@pytest.mark.parametrize("form", [lambda row: row, lambda row: row.pk, lambda row: str(row.pk)])
def test_get_thread_takes_what_the_other_functions_take(thread, form):
    """A row, its key, or the key as text."""
    update_thread(thread.pk, title="New")
    assert get_thread(form(thread)).title == "New"


@pytest.mark.django_db(transaction=True)
async def test_both_have_async_versions(agent):
    """They take the same arguments."""
    thread = await Thread.objects.acreate(agent=agent.name)
    await aupdate_thread(thread, archived=True)
    assert (await aget_thread(thread)).archived


WRONG = {
    "list": [1],
    "text": "x",
    "set of pairs": {("a", 1)},
    "model instance": {"fine": 1, "bad": Thread()},
    "object": {"bad": object()},
}
WAYS = {
    "create": lambda thread, **given: create_thread(thread.agent, **given),
    "send": lambda thread, **given: send_message(thread, "Hi", **given),
    "update": update_thread,
}


@pytest.mark.parametrize("field", ["metadata", "context"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_json_object_is_refused_with_an_error_that_says_so(thread, field, way, wrong):
    """Nothing is stored."""
    with pytest.raises(InvalidJSONObjectError, match=rf"^{field} must be a JSON object") as refused:
        WAYS[way](thread, **{field: WRONG[wrong]})
    if isinstance(WRONG[wrong], dict):
        assert "'bad'" in str(refused.value)
    assert [row.rev for row in Thread.objects.all()] == [thread.rev]


def test_the_context_of_a_fork_is_checked_too(thread):
    with pytest.raises(InvalidJSONObjectError, match="it is a list"):
        fork_thread(thread, context=[1])


def test_values_that_have_a_json_form_are_converted(thread):
    """As in the results of tools."""
    update_thread(thread, context={"organisation": KEY, "since": date(2026, 1, 2)})
    assert get_thread(thread).context == {"organisation": str(KEY), "since": "2026-01-02"}

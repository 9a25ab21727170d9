"""The hand-written tables of the reference are whole."""

import re

import pytest
from django.apps import apps

from docs._site.public_names import DOCS, INTERNAL_MODELS
from durable_agents import models
from durable_agents.policies import OwnerPolicy

PAGE = (DOCS / "reference" / "database.md").read_text(encoding="utf-8")
MODELS = [model.__name__ for model in apps.get_app_config("durable_agents").get_models()]
PUBLIC = [name for name in MODELS if name not in INTERNAL_MODELS]
CHOICES = ["ThreadStatus", "StreamState", "ToolCallStatus", "ToolKind", "Role"]
HELD = {
    *("fence", "crashes", "is_alone", "lonely_crashes", "excuses", "clearances", "available_at", "pending_since"),
    *("lease_owner", "lease_expires_at", "pool", "rev"),
}
INTERNAL = {
    "Thread": {"stop_rev", "last_position", "last_number", "run_steps", "parent_tool_call"},
    "Message": {"queued_at", "parent", "rev"},
    "Stream": {*HELD, "goes_on"},
    "ToolCall": {
        *HELD,
        *("provider_call_id", "is_resolved", "after_crash", "needs_worker", "passed_at", "timeout", "approval_digest"),
    },
    "Attachment": set(),
    "Delta": {"id"},
    "AuditEntry": {"id"},
}
"""Fields that are not promised. A new field has to be listed here or on the page."""


def rows(title):
    """Return the names of a section's table, each with what stands beside it."""
    [section] = re.findall(rf"^###? {title}\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return dict(re.findall(r"^\| `(\w+)` \| `?([^`|]*)`? \|", section, re.MULTILINE))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_field_of_a_model_is_listed_with_its_type_or_is_internal(name):
    fields = {field.name: field.get_internal_type() for field in getattr(models, name)._meta.concrete_fields}
    assert rows(name) == {field: kind for field, kind in fields.items() if field not in INTERNAL[name]}


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_listed(name):
    assert list(rows(name)) == getattr(models, name).values


def test_every_related_name_that_the_page_names_exists():
    """Such as `thread.messages`."""
    owners = {"thread": models.Thread, "message": models.Message, "stream": models.Stream}
    named = re.findall(r"`(thread|message|stream)\.(\w+)`", PAGE)
    assert named
    assert [(owner, name) for owner, name in named if not hasattr(owners[owner], name)] == []


def test_every_action_of_policies_is_listed():
    page = (DOCS / "reference" / "policies.md").read_text(encoding="utf-8")
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)))
    described = re.findall(r"\w+", (OwnerPolicy.allows.__doc__ or "").partition(":")[2])
    assert sorted(listed) == sorted(set(described) - {"or"})

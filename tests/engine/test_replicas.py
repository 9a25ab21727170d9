"""A project whose reads go to a replica: it may lag behind, so what decides about runs never asks it."""

import pytest
from django.test import override_settings

from durable_agents import create_thread, tool
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, fails, run_until_idle
from tests.lifecycle.stage import status_of
from tests.testing.shop import opened


class ReadsElsewhere:
    """A router of a project with a replica, which nobody may ask here."""

    def db_for_read(self, model, **hints):
        if model._meta.app_label == "durable_agents":
            raise AssertionError(f"A replica was asked for {model.__name__}.")

    def db_for_write(self, model, **hints):
        return "default"


@tool(needs_approval=lambda ctx, args: False)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.django_db
def test_a_worker_asks_no_replica():
    """From the first claim to the title, through a failed attempt and a tool."""
    functions = {"instructions": lambda thread: "Be brief.", "title": lambda thread: "Sum"}
    functions["on_message_complete"] = lambda **facts: None
    with (
        opened(name="careful", tools=[add], **functions),
        ScriptedModel(fails("network"), calls("add", a=1, b=2), "Three."),
    ):
        thread = create_thread("careful", prompt="Add.")
        with override_settings(DATABASE_ROUTERS=["tests.engine.test_replicas.ReadsElsewhere"]):
            with pytest.raises(AssertionError, match="A replica was asked"):
                ToolCall.objects.first()
            run_until_idle()
    assert (status_of(thread), ToolCall.objects.get().result) == ("completed", 3)

"""The examples of docs/howto/agents.md run as they are written, and its tables are whole."""

import inspect
import re
from types import SimpleNamespace

import pytest
from django.apps import AppConfig
from django.contrib.auth import get_user_model

import durable_agents
from durable_agents import Agent, create_thread, step_finished, tool
from durable_agents.agents import CALLABLES, registry
from durable_agents.models import Thread
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.architecture.sources import ROOT

PAGE = (ROOT / "docs" / "howto" / "agents.md").read_text(encoding="utf-8")
FIRST, CONFIGURE, RENAMED, REMOVED, TRANSFORM, PROVIDER, TITLE, STATUS, BILLING = re.findall(
    r"```python\n(.*?)```", PAGE, re.DOTALL
)


@tool
def find_order(number: int) -> str:
    """Find an order."""
    return f"order {number}"


@tool
def refund(number: int) -> str:
    """Pay an order back."""
    return f"refunded {number}"


class Tickets(dict):
    """What the page calls tickets."""

    def filter(self, *, conversation):
        """Return those of one thread."""
        return SimpleNamespace(update=lambda *, agent_status: self.setdefault(conversation, []).append(agent_status))


def run_example(source, **names):
    """Run one block of the page; return what it defines."""
    space = {"Agent": Agent, "find_order": find_order, "refund": refund, "__name__": "shop.agents", **names}
    exec(compile(source, "agents.md", "exec"), space)
    return space


@pytest.fixture(autouse=True)
def _forget():
    """The page's agents are for one test."""
    yield
    for name in ("support", "reader"):
        registry.remove(name)


def test_the_renamed_agent_and_tool_are_known_by_their_old_names():
    """The example runs as it is written."""
    space = run_example(RENAMED, tool=tool)
    assert registry.get("helpdesk") is space["support"]
    assert space["support"].find_tool("search") is space["find_order"]
    assert registry.code()["helpdesk"] == {"find_order", "search"}


@pytest.mark.django_db
def test_the_threads_of_the_removed_agent_are_deleted(shop):
    """And no others."""
    shop(name="concierge")
    create_thread("concierge")
    registry.remove("concierge")
    shop()
    kept = create_thread("shop")
    run_example(REMOVED)
    assert list(Thread.objects.all()) == [kept]


@pytest.mark.django_db
def test_the_examples_work_together(shop):
    """An agent that is configured, cut, named and listened to."""
    plan = SimpleNamespace(model="openai/cheap", steps=5, may_refund=False)
    plans = SimpleNamespace(objects=SimpleNamespace(get=lambda organisation: plan))
    tickets = Tickets()
    configure = run_example(CONFIGURE, Plan=plans)["configure"]
    registry.remove("support")
    shop(
        tools=[find_order, refund],
        configure=configure,
        transform_messages=run_example(TRANSFORM)["transform_messages"],
        title=run_example(TITLE)["title"],
        on_status_change=run_example(STATUS, Ticket=SimpleNamespace(objects=tickets))["on_status_change"],
    )
    owner = get_user_model().objects.create(username="ada")
    with ScriptedModel(calls("refund", number=7), "I cannot.") as model:
        thread = create_thread("shop", prompt="My money, please.", owner=owner, scope="acme")
        run_until_idle()
    thread.refresh_from_db()
    assert (thread.status, thread.title) == ("completed", "My money, please.")
    assert [request.model for request in model.requests] == ["openai/cheap"] * 2
    assert [item["function"]["name"] for item in model.requests[0].tools] == ["find_order"]
    assert "There is no tool 'refund'" in model.requests[1].messages[-1]["content"]
    assert tickets[thread.pk] == ["streaming", "completed"]


@pytest.mark.parametrize(("block", "name"), [(FIRST, "support"), (PROVIDER, "reader")])
def test_the_declarations_are_right(block, name):
    """As they stand."""
    run_example(block)
    assert registry.find(name) is not None


def test_the_receiver_is_connected_as_the_page_does_it():
    """With Django's own app configuration."""
    config = run_example(BILLING)["BillingConfig"]
    assert issubclass(config, AppConfig)
    config.ready(SimpleNamespace())
    assert step_finished.disconnect(dispatch_uid="billing")


def test_every_callback_and_every_signal_is_in_a_table():
    """And nothing that is none."""
    callbacks = {name for name in CALLABLES if name.startswith("on_")}
    assert set(re.findall(r"^\| `(on_\w+)\(", PAGE, re.MULTILINE)) == callbacks
    signals = {name for name in durable_agents.__all__ if type(getattr(durable_agents, name)).__name__ == "Signal"}
    assert set(re.findall(r"^\| `(\w+)` \| `[A-Z]", PAGE, re.MULTILINE)) == signals
    assert signals


def test_what_the_page_says_can_be_given_is_an_option():
    """The functions that are no callbacks, too."""
    options = inspect.signature(Agent).parameters
    for name in ("configure", "transform_messages", "title", "provider_tools", "instructions"):
        assert f"`{name}" in PAGE
        assert name in options

"""The examples of docs/howto/testing.md run as they are written, and its tables are whole."""

import re
import sys
import unittest
from decimal import Decimal
from types import ModuleType, SimpleNamespace

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import TestCase
from django.urls import path

from durable_agents import ToolContext, create_thread, get_thread, testing, tool
from durable_agents.agents import registry
from durable_agents.llm import ModelRequest
from tests.architecture.sources import ROOT
from tests.policies.documented import SupportDeskPolicy
from tests.project.models import Booking
from tests.testing.shop import opened

PAGE = (ROOT / "docs" / "howto" / "testing.md").read_text(encoding="utf-8")
FIRST, FUNCTION, SCRIPT, LATE, APPROVAL, WEBHOOK, CRASH, PYTEST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


class Order:
    """What the page calls an order."""

    pk, total, refunded = 7, 20, False
    objects: "Order"

    def create(self, total):
        """Make one."""
        return self

    def refresh_from_db(self):
        """Nothing to do: there is one only."""


class Payment:
    """What the page calls a payment."""

    objects = Booking.objects


@tool(after_crash="retry")
def refund(ctx: ToolContext, order: int, amount: Decimal) -> str:
    """Pay an order back."""
    Order.refunded = True
    Booking.objects.get_or_create(name=ctx.idempotency_key)
    return f"refunded {amount}"


@pytest.fixture
def names():
    """Return what the page's examples may use, with the agent of which they speak."""
    Order.objects = Order()
    with opened(name="support", tools=[refund]):
        kit = {name: getattr(testing, name) for name in testing.__all__}
        yield kit | {
            "Order": Order,
            "Payment": Payment,
            "TestCase": TestCase,
            "create_thread": create_thread,
            "get_thread": get_thread,
            "pytest": pytest,
        }


def run_cases(code, names, *, count=1):
    """Run the test case that `code` defines, with so many tests."""
    exec(code, names)
    cases = [value for value in names.values() if isinstance(value, type) and issubclass(value, TestCase)]
    [case] = [case for case in cases if case is not TestCase]
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun == count
    assert not result.failures + result.errors, result.failures + result.errors


@pytest.mark.django_db(transaction=True)
def test_the_first_example_runs(names):
    """A test case as a project writes it."""
    run_cases(FIRST, names)


@pytest.mark.django_db
def test_the_example_of_a_tool_as_a_function_runs(names):
    """With a tool that stops when it should."""

    @tool
    def export(ctx: ToolContext, year: int) -> str:
        """Export a year."""
        assert (ctx.owner, ctx.scope) == ("ada", "acme")
        return "stopped" if ctx.stop_requested else "done"

    body = "".join(f"    {line}\n" for line in FUNCTION.splitlines())
    run_cases(
        f"class ExportTests(TestCase):\n    ada = 'ada'\n{body}", names | {"export": export, "ToolContext": ToolContext}
    )


@pytest.mark.django_db(transaction=True)
def test_the_approval_example_runs(names, monkeypatch):
    """From Python and over REST, with the policy of the other page."""
    content_type = ContentType.objects.create(app_label="shop", model="refund")
    Permission.objects.create(content_type=content_type, codename="approve_refund", name="Can approve refunds")
    shop = {name: ModuleType(name) for name in ("shop", "shop.models", "shop.policies")}
    shop["shop.models"].Refund = Payment
    shop["shop.policies"].SupportDeskPolicy = SupportDeskPolicy
    for name, module in shop.items():
        monkeypatch.setitem(sys.modules, name, module)

    @tool(name="refund", needs_approval=True, approved_by=("shop.approve_refund", "other"))
    def refund_if_approved(order: int, amount: Decimal) -> str:
        """Pay an order back."""
        Booking.objects.create(name=str(order))
        return f"refunded {amount}"

    registry.remove("support")
    with opened(name="support", tools=[refund_if_approved], public=True):
        run_cases(APPROVAL, names, count=2)


class Inquiry(SimpleNamespace):
    """What the pages call an inquiry; there is one only."""

    pk = 7
    objects: SimpleNamespace


@pytest.mark.django_db(transaction=True)
def test_the_webhook_example_runs(names, settings, monkeypatch):
    """On the view of the other page."""
    tools = (ROOT / "docs" / "howto" / "tools.md").read_text(encoding="utf-8")
    [view] = [code for code in re.findall(r"```python\n(.*?)```", tools, re.DOTALL) if "def stock_counted" in code]
    shop = ModuleType("shop")
    shop.models = ModuleType("shop.models")
    shop.models.Inquiry = Inquiry
    for module in (shop, shop.models):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    @tool(kind="deferred")
    def ask_the_warehouse(ctx: ToolContext, sku: str) -> None:
        """Ask how many are in stock."""
        row = Inquiry(thread_id=ctx.thread_id, call=ctx.tool_call_id)
        Inquiry.objects = SimpleNamespace(get=lambda thread: row)

    monkeypatch.setattr("django.shortcuts.get_object_or_404", lambda model, pk: model.objects.get(thread=None))
    space = {"__name__": "shop.views", "__package__": "shop"}
    exec(view, space)
    urls = ModuleType("shop.urls")
    urls.urlpatterns = [path("webhook/", space["stock_counted"])]
    settings.ROOT_URLCONF, settings.WEBHOOK_SECRET = urls, "secret"
    registry.remove("support")
    with opened(name="support", tools=[ask_the_warehouse]):
        run_cases(WEBHOOK, names, count=2)


@pytest.mark.django_db(transaction=True)
def test_the_crash_example_runs(names):
    """It is the method of such a case."""
    body = "".join(f"    {line}\n" for line in CRASH.splitlines())
    run_cases(f"class CrashTests(TestCase):\n{body}", names)


@pytest.mark.django_db
def test_the_example_of_a_script_is_one(names):
    """Three answers."""
    exec(SCRIPT, names)
    assert names["model"].left == 3


def test_the_answer_that_knows_late_outcomes_calls_the_tool_once(names):
    """It asks a question, reads the first result, and reads the late one."""
    exec(LATE, names)
    asked = {"role": "user", "content": "Refund order 7."}
    late = {"role": "user", "content": '[The call of refund that was still open has its result: "refunded 20"]'}
    answers = [
        names["answer"](ModelRequest(model="x", messages=messages))
        for messages in ([asked], [asked, {"role": "tool", "content": "waits"}], [asked, late])
    ]
    assert answers == [testing.calls("refund", order=7, amount="20"), "I have asked a colleague.", "It is done."]


@pytest.mark.django_db
def test_the_pytest_example_runs(names, scripted_model, run_until_idle):
    """With the plugin's fixtures."""
    exec(PYTEST, names)
    names["test_hello"](scripted_model, run_until_idle)
    assert connection.in_atomic_block


def test_the_page_lists_every_crash_point_and_every_piece():
    """A reader can trust its tables."""
    crash_table = PAGE[PAGE.index("| point |") :]
    assert tuple(re.findall(r"^\| `(\w+)` \|", crash_table, re.MULTILINE)) == testing.POINTS
    pieces = {"says", "thinks", "calls", "fails", "hangs", "does", "ends"}
    assert {name for name in pieces if f"`{name}(" in PAGE} == pieces

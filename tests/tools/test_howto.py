"""The examples of the README, of docs/howto/tools.md and of docs/howto/approvals.md run as they are written."""

import ast
import hmac
import json
import re
import sys
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.template import RequestContext, Template
from django.test import Client
from django.test.utils import isolate_apps

import durable_agents
from durable_agents import Agent, ToolContext, add_tool_result, create_thread, thread_status_changed, tool
from durable_agents.agents import registry
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.architecture.sources import ROOT

pytestmark = pytest.mark.django_db


def blocks(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


AN_AGENT, ITS_THREAD, _ = blocks("README.md")
FIND_ORDERS, EXPORT, CHARGE, INQUIRY, WAREHOUSE, WEBHOOK, ITS_URL, PICK_A_DATE, FROM_SCHEMAS, TICKET = blocks(
    "docs/howto/tools.md"
)
REFUND_AND_PAY, DECISIONS, APPROVERS, INBOX, REFUND_MODEL, REFUND_TOOL, TELL_STAFF = blocks("docs/howto/approvals.md")


@dataclass
class Receipt:
    """What the page calls a receipt."""

    number: str
    amount: Decimal


class Orders(list):
    """What the pages call `Order.objects`: the rows, and what was asked of them."""

    def filter(self, **asked):
        """Return all of them."""
        self.asked = asked
        return self

    def values(self, *names):
        """Return what `values` does: only these."""
        return [{name: row[name] for name in names} for row in self]

    def first(self):
        """Return the first, as an object."""
        return SimpleNamespace(**self[0]) if self else None

    def iterator(self):
        """Return each."""
        return iter(self)


@pytest.fixture
def orders(monkeypatch):
    """Return one order, which the pages' apps have in their `models`."""
    orders = Orders([{"number": 1017, "status": "sent", "expected_on": date(2026, 5, 4)}])
    for app in ("myapp", "shop"):
        models_of_app = ModuleType(f"{app}.models")
        models_of_app.Order = SimpleNamespace(objects=orders)
        monkeypatch.setitem(sys.modules, app, ModuleType(app))
        monkeypatch.setitem(sys.modules, f"{app}.models", models_of_app)
    return orders


@pytest.fixture
def owner(django_user_model, monkeypatch):
    """Return a user with a card."""
    monkeypatch.setattr(django_user_model, "card", "4242", raising=False)
    return django_user_model.objects.create(username="ada")


@pytest.fixture(autouse=True)
def _forget():
    """The pages' agents are for one test."""
    yield
    for name in ("support", "shop", "helpdesk"):
        registry.remove(name)


def run_example(source: str, **names: Any) -> dict[str, Any]:
    """Run one block, or a part of one; return what is defined then."""
    space = {"tool": tool, "ToolContext": ToolContext, "Decimal": Decimal, "__name__": "shop.agents", **names}
    exec(compile(source, "a page", "exec"), space)
    return space


def called(owner: Any, *tools: Any, **arguments: Any) -> ToolCall:
    """Let a model call the first of these tools; return the call as it is once nothing more is due."""
    registry.remove("shop")
    Agent("shop", model="openai/x", tools=list(tools))
    with ScriptedModel(calls(tools[0].name, **arguments), "Done."):
        thread = create_thread("shop", prompt="Please.", owner=owner)
        run_until_idle()
    return ToolCall.objects.select_related("thread").get(thread=thread)


def run_on(call: ToolCall) -> ToolCall:
    """Let its run go on; return the call as it is then."""
    with ScriptedModel("Done."):
        run_until_idle()
    call.refresh_from_db()
    return call


@pytest.fixture
def order_status(orders):
    """Return the README's tool, in an app with a model."""
    return run_example(AN_AGENT, __name__="myapp.agents", __package__="myapp")["order_status"]


def test_the_agent_of_the_readme_answers(owner, orders, order_status):
    """The second message steers the same run."""
    with ScriptedModel(calls("order_status", number=1017), "It is sent.") as model:
        run_example(ITS_THREAD, request=SimpleNamespace(user=owner))
        run_until_idle()
    asked, told = model.requests[0].messages, model.requests[-1].messages[-1]
    assert [message["content"] for message in asked if message["role"] == "user"][-1] == "And when does it arrive?"
    assert orders.asked == {"customer": owner, "number": 1017}
    assert json.loads(told["content"]) == {"status": "sent", "expected": "2026-05-04"}


def test_the_model_reads_the_error_of_the_readmes_tool(owner, orders, order_status):
    """There is no such order."""
    orders.clear()
    call = called(owner, order_status, number=7)
    assert (call.status, call.error) == ("failed", "There is no order 7.")


def test_the_first_tool_finds_the_customers_orders(owner, orders):
    """Dates and all."""
    space = run_example(FIND_ORDERS, __package__="shop")
    call = called(owner, space["find_orders"], status="sent")
    assert call.result == [{"number": 1017, "status": "sent", "expected_on": "2026-05-04"}]
    assert orders.asked == {"customer": owner, "status": "sent"}
    assert registry.get("support").public


def test_the_export_says_how_far_it_is(owner, orders):
    """And writes every order."""
    exported = []
    space = run_example(EXPORT, Order=SimpleNamespace(objects=orders), write=exported.append)
    call = called(owner, space["export"], year=2026)
    assert (call.result, call.progress, exported) == ("done", {"done": 1}, list(orders))


def test_the_card_is_charged_once_however_often_it_is_tried(owner):
    """Every attempt has the same key."""
    keys = []

    async def charge(card, amount, *, idempotency_key):
        keys.append(idempotency_key)
        if len(keys) < 3:
            raise TimeoutError
        return Receipt(number=card, amount=amount)

    space = run_example(CHARGE, Receipt=Receipt, bank=SimpleNamespace(charge=charge))
    call = called(owner, space["charge"], amount="12.50")
    assert (call.status, call.result) == ("completed", {"number": "4242", "amount": "12.50"})
    assert (len(keys), len(set(keys))) == (3, 1)


class Inquiries(list):
    """What the page calls `Inquiry.objects`, and the warehouse."""

    def get_or_create(self, **facts):
        """Add a row that nobody has added before."""
        self.append(SimpleNamespace(pk=len(self) + 1, **facts))
        return self[-1], True

    def count(self, sku, *, inquiry):
        """Take the order to count."""
        self.counted = sku, inquiry


@pytest.fixture
def inquiries(monkeypatch, owner):
    """Return the inquiries of the page's app, which has the page's model."""
    with isolate_apps("tests.project"):
        run_example(INQUIRY, __name__="tests.project.models")["Inquiry"]._meta.get_field("call")
    inquiries = Inquiries()
    models_of_app = ModuleType("shop.models")
    models_of_app.Inquiry = SimpleNamespace(objects=inquiries)
    monkeypatch.setitem(sys.modules, "shop", ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.models", models_of_app)
    return inquiries


def asked_of_the_warehouse(owner, inquiries):
    """Return a call of the page's tool."""
    asking = WAREHOUSE.partition("# the view")[0]
    space = run_example(asking, Inquiry=SimpleNamespace(objects=inquiries), warehouse=inquiries)
    return called(owner, space["ask_the_warehouse"], sku="cup")


def test_the_warehouse_answers_later(owner, inquiries):
    """By what was kept of the call."""
    call = asked_of_the_warehouse(owner, inquiries)
    assert (call.status, inquiries.counted) == ("pending", ("cup", 1))
    run_example(WAREHOUSE.partition("# the view")[2].partition("\n")[2], inquiry=inquiries[0])
    assert run_on(call).result == {"in_stock": 3}


def test_the_webhook_answers_every_delivery_without_a_server_error(owner, inquiries, settings, rf, monkeypatch):
    """Only the first result counts; afterwards the chat is deleted."""
    settings.WEBHOOK_SECRET = "sécret"
    call = asked_of_the_warehouse(owner, inquiries)
    monkeypatch.setattr("django.shortcuts.get_object_or_404", lambda model, pk: inquiries[pk - 1])
    view = run_example(WEBHOOK, __package__="shop")["stock_counted"]

    def delivered(in_stock: int, signature: str = "") -> int:
        body = json.dumps({"inquiry": 1, "in_stock": in_stock})
        headers = {"X-Signature": signature or hmac.new("sécret".encode(), body.encode(), "sha256").hexdigest()}
        return int(view(rf.post("/", body, content_type="application/json", headers=headers)).status_code)

    assert [delivered(3, signature=wrong) for wrong in ("wrong", "\xe9", "0" * 64)] == [403, 403, 403]
    assert [delivered(number) for number in (3, 3, 4)] == [204, 204, 409]
    assert run_on(call).result == {"in_stock": 3}
    durable_agents.delete_thread(call.thread)
    assert delivered(3) == 404


def test_the_webhook_has_a_secret_and_a_url(monkeypatch):
    views = ModuleType("shop.views")
    views.stock_counted = lambda request: None
    monkeypatch.setitem(sys.modules, "shop.views", views)
    monkeypatch.setenv("WEBHOOK_SECRET", "secret")
    space = run_example(ITS_URL, urlpatterns=[])
    assert space["WEBHOOK_SECRET"] == "secret"
    assert [(str(one.pattern), one.callback) for one in space["urlpatterns"]] == [("webhook/", views.stock_counted)]


@pytest.fixture
def refund_permission():
    """Create the permission that a migration of the page's app creates."""
    with isolate_apps("tests.project"):
        meta = run_example(REFUND_MODEL, __name__="tests.project.models")["Refund"]._meta
    [(codename, name)] = meta.permissions
    content_type = ContentType.objects.create(app_label="shop", model="refund")
    return Permission.objects.create(content_type=content_type, codename=codename, name=name)


@pytest.fixture
def refund_waits(monkeypatch, django_user_model, refund_permission):
    """Return a call of the page's tool, whose requester has the permission, too, and the refunds that it pays."""
    paid = []
    refunds = SimpleNamespace(create=lambda **facts: paid.append(facts))
    monkeypatch.setitem(sys.modules, "shop", ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.models", ModuleType("shop.models"))
    sys.modules["shop.models"].Refund = SimpleNamespace(objects=refunds)
    run_example(REFUND_TOOL, __package__="shop")
    ada = django_user_model.objects.create_user("ada", is_staff=True)
    ada.user_permissions.set([refund_permission])
    with ScriptedModel(calls("refund", order=7, amount="20")):
        thread = create_thread("support", prompt="Refund order 7.", owner=ada)
        run_until_idle()
    return ToolCall.objects.select_related("thread").get(thread=thread, status="approval_requested"), paid


def test_the_group_of_approvers_may_do_all_that_the_page_says_in_the_admin(refund_waits, django_user_model):
    """The requester may not, as a member of the group either."""
    call, paid = refund_waits
    group = run_example(APPROVERS)["approvers"]
    bob = django_user_model.objects.create_user("bob", is_staff=True)
    group.user_set.add(bob, call.thread.owner)
    for user, is_allowed in ((call.thread.owner, False), (bob, True)):
        client = Client()
        client.force_login(user)
        inbox = "/admin/durable_agents/toolcall/inbox/"
        listed = client.get("/admin/durable_agents/thread/").content.decode()
        assert inbox in listed
        approve = f"/admin/durable_agents/toolcall/{call.pk}/approve/"
        for page in (inbox, f"/admin/durable_agents/thread/{call.thread_id}/change/"):
            html = client.get(page).content.decode()
            assert "refund" in html
            assert (approve in html) is is_allowed, page
        client.post(approve, {"reason": "Talked to her."})
        call.refresh_from_db()
        assert (call.approval_decided_by == bob) is is_allowed
    assert run_on(call).status == "completed", call.error
    assert paid == [{"order": 7, "amount": Decimal(20)}]


def test_a_colleague_with_the_permission_approves_over_rest_by_the_id_of_the_thread(
    refund_waits, refund_permission, django_user_model, settings
):
    """If the policy shows them the thread."""
    call, paid = refund_waits
    bob = django_user_model.objects.create_user("bob")
    bob.user_permissions.set([refund_permission])

    def approved_by(user: Any) -> int:
        client = Client()
        client.force_login(user)
        url = f"/agents/threads/{call.thread_id}/tool-calls/{call.tool_call_id}/approve/"
        return int(client.post(url, {"reason": "Talked to her."}, content_type="application/json").status_code)

    assert approved_by(bob) == 404
    settings.DURABLE_AGENTS = {"POLICY": "tests.policies.documented.SupportDeskPolicy"}
    assert [approved_by(user) for user in (call.thread.owner, bob, bob)] == [403, 200, 409]
    assert run_on(call).status == "completed", call.error
    assert paid == [{"order": 7, "amount": Decimal(20)}]


def test_the_inbox_lists_and_decides_what_the_user_may_decide(settings, rf, django_user_model):
    """Nobody's own request is in it."""
    settings.DURABLE_AGENTS = {"POLICY": "tests.policies.documented.SupportDeskPolicy"}
    ada, sue = (django_user_model.objects.create_superuser(name, password="x") for name in ("ada", "sue"))

    @tool(needs_approval=True, approved_by=("shop.approve_refund", "other"))
    def refund(order: int) -> str:
        """Pay an order back."""
        return f"refunded {order}"

    Agent("shop", model="openai/x", tools=[refund], public=True)
    with ScriptedModel(calls("refund", order=7)):
        thread = create_thread("shop", prompt="Please.", owner=ada)
        run_until_idle()
    space = run_example(INBOX)
    [page] = re.findall(
        r"^```html\n(.*?)^```$", (ROOT / "docs/howto/approvals.md").read_text(), re.DOTALL | re.MULTILINE
    )

    def seen_by(user: Any) -> str:
        request = rf.get("/waiting/")
        request.user = user
        space["render"] = lambda request, name, context: Template(page).render(RequestContext(request, context))
        return str(space["waiting"](request))

    assert "Nothing waits for you." in seen_by(ada)
    html = seen_by(sue)
    form = dict(re.findall(r'name="(next|tool_call_id)" value="([^"]*)"', html))
    client = Client()
    client.force_login(sue)
    [approve, reject] = re.findall(r'action="([^"]*)"', html)
    assert reject == approve.replace("approve", "reject")
    response = client.post(approve, urlencode(form), content_type="application/x-www-form-urlencoded")
    assert (response.status_code, response["Location"]) == (303, "/waiting/")
    assert ToolCall.objects.get(thread=thread).approval_decided_by == sue
    assert "Nothing waits for you." in seen_by(sue)


def test_the_browser_gives_the_date(owner):
    """The function is never called."""
    call = called(owner, run_example(PICK_A_DATE)["pick_a_date"], label="Start")
    assert (call.status, call.kind) == ("pending", "client")
    add_tool_result(call.thread, call.tool_call_id, "2026-05-04")
    assert run_on(call).status == "completed"


@isolate_apps("tests.project")
def test_a_row_may_belong_to_a_thread():
    """A model of the project's."""
    ticket = run_example(TICKET, models=models, __name__="tests.project.models")["Ticket"]
    assert ticket._meta.get_field("thread").remote_field.model == "durable_agents.Thread"


@pytest.mark.parametrize(
    ("number", "status", "amount"), [(0, "completed", "20"), (1, "completed", "50"), (2, "denied", "20")]
)
def test_each_of_the_decisions_can_be_made(owner, number, status, amount):
    """The page shows all three, of which a call takes one."""
    call = called(owner, run_example(REFUND_AND_PAY)["refund"], order=7, amount="20")
    assert call.status == "approval_requested"
    imports, *decisions = ast.parse(DECISIONS).body
    chosen = ast.unparse([imports, decisions[number]])
    asked = {"thread": call.thread, "tool_call_id": call.tool_call_id, "request": SimpleNamespace(user=owner)}
    run_example(chosen, **asked)
    run_on(call)
    assert call.status == status, call.error
    assert (call.approved_arguments or call.arguments)["amount"] == amount


@pytest.mark.parametrize(("amount", "status"), [(100, "completed"), (101, "approval_requested")])
def test_staff_is_asked_about_large_amounts_and_told_so(owner, amount, status):
    """By the signal that the page listens to."""
    told = []
    space = run_example(TELL_STAFF, notify_staff=told.append)
    try:
        call = called(owner, run_example(REFUND_AND_PAY)["pay"], amount=amount)
    finally:
        assert thread_status_changed.disconnect(space["tell_staff"])
    assert (call.status, call.approved_by) == (status, "staff"), call.error
    assert told == ([call] if status == "approval_requested" else [])


def test_a_tool_of_an_mcp_server_runs_for_its_organisation_only(owner, orders):
    """Another organisation has no such tool."""
    asked = []

    class Rows(list):
        def filter(self, organisation, name="search"):
            return Rows(row for row in self if (row.organisation, row.name) == (organisation, name))

        def first(self):
            return self[0] if self else None

    async def call_tool(server, name, arguments, key):
        asked.append((server, name, arguments))
        return {"found": 2}

    schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    facts = {"server": "https://mcp.example", "description": "Search.", "input_schema": schema, "writes": False}
    rows = Rows([SimpleNamespace(organisation="acme", name="search", **facts)])
    find_orders = run_example(FIND_ORDERS, __package__="shop")["find_orders"]
    run_example(
        FROM_SCHEMAS,
        mcp=SimpleNamespace(call_tool=call_tool),
        McpTool=SimpleNamespace(objects=rows),
        find_orders=find_orders,
    )
    results = {}
    for scope in ("acme", "other"):
        with ScriptedModel(calls("search", query="boots"), "Done."):
            thread = create_thread("helpdesk", prompt="Search.", owner=owner, scope=scope)
            run_until_idle()
        call = ToolCall.objects.get(thread=thread)
        results[scope] = (call.status, call.result)
    assert results == {"acme": ("completed", {"found": 2}), "other": ("failed", None)}
    assert asked == [("https://mcp.example", "search", {"query": "boots"})]

"""docs/reference/rest.md is whole, and its examples run as they are written."""

import json
import re
from decimal import Decimal

import pytest

from durable_agents import ToolContext, create_thread, exceptions, tool
from durable_agents.api.openapi.error_responses import problems_of
from durable_agents.api.request_serializers import Query
from durable_agents.live import frames
from durable_agents.live.close_codes import CloseCode
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from durable_agents.urls import urlpatterns
from tests.api.calls import Api
from tests.architecture.sources import ROOT
from tests.testing.shop import opened
from tests.websocket.protocol import CLOSE_CODES

PAGE = (ROOT / "docs" / "reference" / "rest.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(
    r"^```http\n(\w+) /agents/(\S+)\n(.*?)^```$(?:\n\n```json\n(.*?)^```$)?", PAGE, re.DOTALL | re.MULTILINE
)
PLACEHOLDERS = {"thread_id": "thread", "message_id": "message", "attachment_id": "id"}
METHODS = ("get", "post", "put", "patch", "delete")


def operations():
    """Return the operations of every path that has a name, with the method and the path as the page writes it."""
    for pattern in urlpatterns:
        path = re.sub(r"<str:(\w+)>", lambda found: f"{{{PLACEHOLDERS.get(found[1], found[1])}}}", str(pattern.pattern))
        allowed = pattern.callback.view_class.http_method_names
        for method in [method for method in METHODS if method in allowed] if pattern.name else ():
            operation = getattr(getattr(pattern.callback.view_class, method, None), "operation", None)
            if operation is not None:
                yield method.upper(), path, operation


@tool(needs_approval=True, timeout_seconds=None)
def refund(ctx: ToolContext, order: int, amount: Decimal) -> str:
    """Pay a customer back."""
    return "paid back"


def is_named(method: str, path: str) -> bool:
    """Whether the page has this path in one of its tables; of a tool call's, the end is enough."""
    short = re.sub(r"^threads/\{thread\}/(?=tool-calls/\{)", "…/", path)
    short = short.removesuffix("/") if path.startswith("chat") else short
    return f"`{method} {short}" in PAGE


@pytest.mark.parametrize(("method", "path", "operation"), list(operations()))
def test_every_operation_is_on_the_page_with_its_fields_and_errors(method, path, operation):
    """So a reader finds what the schema has."""
    assert is_named(method, path)
    fields = set((operation.body or operation.query or Query)().fields)
    assert {name for name in fields if not re.search(rf"`{name}`|[?&]{name}=|`{name}=", PAGE)} == set()
    codes = {problem.code for problem in problems_of(operation, path)}
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()


def test_every_status_of_an_error_is_right():
    """Each code stands in the row of its status."""
    table = re.findall(r"^\| (\d+(?:, \d+)*) (`.*?) \|", PAGE, re.MULTILINE)
    statuses = {(status, code) for status, codes in table for code in re.findall(r"`(\w+)`", codes)}
    leaves = [
        error for error in vars(exceptions).values() if isinstance(error, type) and getattr(error, "status_code", 0)
    ]
    assert {error.code for error in leaves if (str(error.status_code), error.code) not in statuses} == set()


def test_every_code_that_closes_a_websocket_is_in_the_table():
    """And no other."""
    listed = {int(code) for code in re.findall(r"^\| (\d{4}) \|", PAGE, re.MULTILINE)}
    assert listed == set(CloseCode) == set(CLOSE_CODES)


def test_every_frame_that_a_client_sends_is_named():
    """By its type."""
    section = PAGE.partition("## Websocket")[2]
    assert {name for name in frames.FRAMES if f"`{name}`" not in section} == set()


def form(value):
    """What must be the same in an answer on the page and in the real one: the names of fields, all the way down."""
    if isinstance(value, dict):
        return {name: form(item) for name, item in value.items() if isinstance(item, dict)} | {"": sorted(value)}
    return None


@pytest.mark.django_db
def test_the_examples_run_one_after_the_other(me):
    """As somebody would send them who reads the page; what is shown of an answer has its fields."""
    api = Api(me)
    answers = ScriptedModel("It is on its way.", repeat_last=True)
    with opened(name="support", tools=[refund], public=True):
        with ScriptedModel(calls("refund", order=1018, amount="500")):
            create_thread("support", owner=me, client_id="order-1018", prompt="My money, please.")
            run_until_idle()
        call_id = ToolCall.objects.get().tool_call_id
        with answers:
            for method, path, body, shown in EXAMPLES:
                response = api.send(method, path.replace("call_7Qe2", call_id), body.strip() or None)
                assert response.status_code in {200, 201, 202}, (method, path, response.content)
                assert not shown or form(response.json()) == form(json.loads(shown)), (path, response.json())
                run_until_idle()
    assert len(EXAMPLES) == PAGE.count("```http") == 11
    assert ToolCall.objects.get().result == "paid back"

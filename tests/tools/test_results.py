"""What Django projects return, report and pass on becomes JSON that every database stores, on every way into a row."""

import datetime as dt
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import models
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from durable_agents import (
    Agent,
    ToolContext,
    ToolError,
    add_message,
    add_tool_error,
    add_tool_result,
    approve_tool_call,
    create_thread,
    edit_message,
    fork_thread,
    reject_tool_call,
    send_message,
    tool,
)
from durable_agents.agents import registry
from durable_agents.lifecycle import update_thread
from durable_agents.models import Message, Thread, ToolCall
from durable_agents.strictjson import clean
from durable_agents.testing import ScriptedModel, calls, run_until_idle

pytestmark = pytest.mark.django_db


class Status(models.TextChoices):
    """States of an order."""

    OPEN = "open", _("Open")
    SENT = "sent", _("Sent")


class Size(models.IntegerChoices):
    """Sizes."""

    SMALL = 1, _("Small")


@dataclass
class Order:
    """An order, with a text that is translated when it is shown."""

    label: Any
    status: Status
    total: Decimal = Decimal("1.50")


class Answer(BaseModel):
    """An answer with anything in it."""

    text: Any
    by_status: dict[Any, Any] = {}


VALUES: dict[str, tuple[Any, Any]] = {
    "a lazy text": (_("Open"), "Open"),
    "a lazy text within": ({"a": [_("Open"), (_("Sent"),)]}, {"a": ["Open", ["Sent"]]}),
    "a formatted lazy text": (format_lazy("{a}!", a=_("Open")), "Open!"),
    "a lazy object": (SimpleLazyObject(lambda: "later"), "later"),
    "a label": (Status.OPEN.label, "Open"),
    "a member": (Status.OPEN, "open"),
    "a member of numbers": (Size.SMALL, 1),
    "choices": (Status.choices, [["open", "Open"], ["sent", "Sent"]]),
    "labels by value": (dict(Status.choices), {"open": "Open", "sent": "Sent"}),
    "keys that are members": ({Status.OPEN: 1, Size.SMALL: 2}, {"open": 1, "1": 2}),
    "keys that are lazy": ({_("Open"): _("Sent")}, {"Open": "Sent"}),
    "keys that are no texts": (
        {1: "a", False: "c", 2.5: "d"},
        {"1": "a", "false": "c", "2.5": "d"},
    ),
    "half a character": ("a\ud800b", "a\ufffdb"),
    "a key with half a character": ({"k\ud800": {"\udfff": 1}}, {"k\ufffd": {"\ufffd": 1}}),
    "NUL": ({"a\x00": ["b\x00"]}, {"a\ufffd": ["b\ufffd"]}),
    "no numbers": ([float("nan"), float("inf"), -float("inf"), 1.5], [None, None, None, 1.5]),
    "a set": ({"s": {3, 1, 2}, "f": frozenset(["a"])}, {"s": [1, 2, 3], "f": ["a"]}),
    "a set of lazy texts": ({_("Open")}, ["Open"]),
    "bytes": ([b"abc", bytearray(b"d"), b"\xff\x00"], ["abc", "d", "\ufffd\ufffd"]),
    "safe markup": (mark_safe("<b>x</b>"), "<b>x</b>"),
    "times": ({"d": dt.date(2026, 1, 2), "l": _("Open")}, {"d": "2026-01-02", "l": "Open"}),
    "decimals and ids": ([Decimal("1.50"), UUID(int=1), _("Open")], ["1.50", str(UUID(int=1)), "Open"]),
    "a queue": (deque([1, _("Open")]), [1, "Open"]),
    "a dataclass": (Order(_("Open"), Status.SENT), {"label": "Open", "status": "sent", "total": "1.50"}),
    "a Pydantic model": (Answer(text=_("Open"), by_status={Status.OPEN: {"\ud800"}}), None),
    "a model in a list": ([Answer(text=_("Sent"))], [{"text": "Sent", "by_status": {}}]),
}
VALUES["a Pydantic model"] = (VALUES["a Pydantic model"][0], {"text": "Open", "by_status": {"open": ["\ufffd"]}})

GIVEN: dict[str, Any] = {}


@tool
def give() -> Any:
    """Return what the test gives."""
    return GIVEN["value"]


@tool
def give_text() -> str:
    """Return what the test gives, said to be a text."""
    return GIVEN["value"]  # type: ignore[no-any-return]


@tool(atomic=True)
def give_atomically() -> dict[str, Any]:
    """Return what the test gives."""
    return {"value": GIVEN["value"]}


@tool
async def give_soon(ctx: ToolContext) -> None:
    """Report what the test gives."""
    ctx.progress(GIVEN["value"])


@tool
def fail() -> None:
    """Fail with what the test gives."""
    raise ToolError(GIVEN["value"])


@tool(kind="client")
def ask() -> Any:
    """Ask the browser."""


@tool(needs_approval=True)
def pay(amount: Decimal, note: str = "") -> str:
    """Pay."""
    return f"{amount} {note}"


@pytest.fixture(autouse=True)
def _agent() -> Iterator[None]:
    Agent("giving", model="openai/x", tools=[give, give_text, give_atomically, give_soon, fail, ask, pay])
    yield
    registry.remove("giving")


def called(name: str, **arguments: Any) -> ToolCall:
    """Let the model call a tool, and return the call as it is stored."""
    with ScriptedModel(calls(name, **arguments), *["Done."] * 3):
        create_thread("giving", prompt="Go.")
        run_until_idle()
    return ToolCall.objects.get()


@pytest.mark.parametrize("what", VALUES)
def test_a_tool_may_return_it(what):
    """Whatever its annotation says, and inside a transaction."""
    GIVEN["value"], stored = VALUES[what]
    with ScriptedModel([calls("give"), calls("give_text"), calls("give_atomically")], "Done."):
        create_thread("giving", prompt="Go.")
        run_until_idle()
    found = {call.tool_name: (call.status, call.error_detail, call.result) for call in ToolCall.objects.all()}
    assert found == {
        "give": ("completed", "", stored),
        "give_text": ("completed", "", stored),
        "give_atomically": ("completed", "", {"value": stored}),
    }


@pytest.mark.parametrize("what", VALUES)
def test_a_tool_may_report_it(what):
    """As progress."""
    GIVEN["value"], stored = VALUES[what]
    call = called("give_soon")
    assert (call.status, call.progress) == ("completed", stored)


TEXTS = [name for name, (_given, stored) in VALUES.items() if isinstance(stored, str)]


@pytest.mark.parametrize("what", TEXTS)
def test_a_tool_error_may_have_it_as_its_text(what):
    """The model reads it."""
    GIVEN["value"], stored = VALUES[what]
    call = called("fail")
    assert (call.status, call.error, call.error_code) == ("failed", stored, "tool_error")


@pytest.mark.parametrize("what", VALUES)
def test_a_result_from_outside_may_be_it(what):
    """The same value again is the same result."""
    given, stored = VALUES[what]
    call = called("ask")
    for _again in range(2):
        add_tool_result(call.thread_id, call.tool_call_id, given)
        call.refresh_from_db()
        assert (call.status, call.result) == ("completed", stored)


@pytest.mark.parametrize("what", TEXTS)
def test_an_error_from_outside_may_be_it(what):
    """The same text again is the same error."""
    given, stored = VALUES[what]
    call = called("ask")
    for _again in range(2):
        add_tool_error(call.thread_id, call.tool_call_id, given)
        call.refresh_from_db()
        assert (call.status, call.error) == ("failed", stored)


@pytest.mark.parametrize("what", VALUES)
def test_metadata_and_context_may_have_it(what):
    """Of a new thread, of a message, and when they are changed."""
    given, stored = VALUES[what]
    thread = create_thread("giving", metadata={"a": given}, context={"b": given})
    thread.refresh_from_db()
    assert (thread.metadata, thread.context) == ({"a": stored}, {"b": stored})
    message = send_message(thread, "Hi", metadata={"c": given}, context={"d": given})
    message.refresh_from_db()
    thread.refresh_from_db()
    assert (message.metadata, thread.context) == ({"c": stored}, {"d": stored})
    update_thread(thread, metadata={"e": given})
    thread.refresh_from_db()
    assert thread.metadata == {"e": stored}


def test_arguments_of_an_approver_may_be_python_values():
    """They are stored as JSON, and run as the tool's types."""
    call = called("pay", amount="500")
    arguments = {"amount": Decimal("5.50"), "note": _("Open")}
    approve_tool_call(call.thread_id, call.tool_call_id, by=None, arguments=arguments, reason=_("Sent"))
    with ScriptedModel("Done."):
        run_until_idle()
    call.refresh_from_db()
    assert (call.result, call.approved_arguments) == ("5.50 Open", {"amount": "5.50", "note": "Open"})
    assert call.approval_reason == "Sent"


def test_a_refusal_may_have_a_lazy_reason():
    """The model reads it."""
    call = called("pay", amount="500")
    reject_tool_call(call.thread_id, call.tool_call_id, by=None, reason=_("Sent"))
    call.refresh_from_db()
    assert call.error.endswith(" Sent")


def test_messages_and_titles_may_be_lazy_texts():
    """Wherever Python says them."""
    history = [
        {"role": "user", "content": _("Open")},
        {"role": "assistant", "parts": [{"type": "text", "text": _("Sent")}]},
    ]
    thread = create_thread("giving", messages=history, title=_("Open"))
    add_message(thread, "user", _("Sent"))
    with ScriptedModel(*["Done."] * 5):
        sent = send_message(thread, _("Open"))
        run_until_idle()
        edit_message(thread, sent.pk, _("Sent"))
        run_until_idle()
    thread.refresh_from_db()
    assert thread.title == "Open"
    texts = Message.objects.shown().filter(thread=thread, role="user").values_list("text", flat=True)
    assert list(texts) == ["Open", "Sent", "Sent"]
    assert fork_thread(thread).title


def test_instructions_and_descriptions_may_be_lazy_texts():
    """They are translated when the model is asked."""

    @tool(description=_("Sent"))
    def send() -> None: ...

    try:
        Agent(
            "lazy",
            model="openai/x",
            tools=[send],
            instructions=_("Open"),
            configure=lambda t: {"instructions": _("Sent")},
        )
        with ScriptedModel("Hello.") as model:
            create_thread("lazy", prompt="Hi")
            run_until_idle()
    finally:
        registry.remove("lazy")
    [request] = model.requests
    assert request.messages[0] == {"role": "system", "content": "Sent"}
    assert request.tools[0]["function"]["description"] == "Sent"


NO_JSON: dict[str, Any] = {
    "an instance": User(),
    "an instance within": {"users": [User()]},
    "a query": [User.objects.none()],
    "an object": object(),
    "a function": {"f": print},
    "too many digits": 10**5000,
}


@pytest.mark.parametrize("what", NO_JSON)
def test_what_is_no_json_is_the_tools_error_and_leaves_nothing_behind(what):
    """The log says what it was; the run goes on."""
    GIVEN["value"] = NO_JSON[what]
    call = called("give")
    assert (call.status, call.error, call.result) == ("failed", "The tool failed.", None)
    assert "TypeError" in call.error_detail
    assert Thread.objects.get().status == "completed"


@pytest.mark.parametrize("what", NO_JSON)
def test_what_is_no_json_is_refused_from_outside(what):
    """Before anything changes."""
    call = called("ask")
    with pytest.raises(TypeError):
        add_tool_result(call.thread_id, call.tool_call_id, NO_JSON[what])
    with pytest.raises(TypeError):
        create_thread("giving", metadata={"a": NO_JSON[what]})
    call.refresh_from_db()
    assert call.status == "pending"


def test_what_is_json_already_is_left_as_it_is():
    """Types, order and all."""
    value = {"b": [1, 1.5, True, None, "x", {"c": []}], "a": 10**400}
    assert clean(value) == value
    assert list(clean(value)) == ["b", "a"]
    assert [type(item) for item in clean(value)["b"]] == [int, float, bool, type(None), str, dict]

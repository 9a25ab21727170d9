"""What tools give and models ask of them: of any size and shape it is kept whole, told cut, and breaks nothing."""

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from durable_agents import create_thread, tool
from durable_agents.agents import registry
from durable_agents.conf import config
from durable_agents.models import ToolCall
from durable_agents.strictjson import is_storable
from durable_agents.testing import ScriptedModel, calls, run_until_idle, says
from tests.api.calls import Api, person
from tests.security.places import pages

pytestmark = pytest.mark.django_db

MEGABYTES = 5 * 1024 * 1024
BIG: dict[str, Any] = {
    "a text": "x" * MEGABYTES,
    "rows": [{"n": number, "text": "y" * 1000} for number in range(MEGABYTES // 1024)],
    "wide characters": "\U0001f433" * (MEGABYTES // 4),
}
RAN: list[Any] = []


@tool
def big(which: str) -> Any:
    """Return megabytes."""
    return BIG[which]


@tool
def take(value: Any = None, number: int = 0, rows: list[dict[str, int]] | None = None) -> str:
    """Take anything."""
    RAN.append((value, number, rows))
    return "taken"


@pytest.fixture(autouse=True)
def _agents(bells, declare):
    """Declare the agent, and keep the queue out of it."""
    RAN.clear()
    declare(public=True, tools=[big, take])


@pytest.fixture
def owner():
    """Return whose threads these are."""
    return person("owner")


def talk(owner: Any, *script: Any) -> tuple[Any, ScriptedModel]:
    """Have a conversation with a scripted model; return its thread and what the model was told."""
    with ScriptedModel(*script) as model:
        thread = create_thread("tested", owner=owner, prompt="Hi")
        run_until_idle()
    thread.refresh_from_db()
    return thread, model


@pytest.mark.parametrize("which", BIG)
def test_a_result_of_megabytes_is_kept_whole_and_told_cut(owner, which):
    """With a note of how much there is; the run goes on."""
    thread, model = talk(owner, calls("big", which=which), "That was long.")
    call = ToolCall.objects.get()
    assert thread.status == "completed"
    assert (call.status, call.result) == ("completed", BIG[which])
    told = model.requests[-1].messages[-1]["content"]
    limit = config().max_tool_result_bytes
    kept, _, note = told.rpartition("\n")
    assert limit - 4 <= len(kept.encode()) <= limit
    whole = BIG[which] if isinstance(BIG[which], str) else json.dumps(BIG[which], ensure_ascii=False)
    assert note == f"[cut: {len(whole.encode())} bytes in all, the first {limit} are shown]"


def test_lists_and_pages_stay_usable(owner):
    """No list of the API or the admin carries the megabytes of others' rows; a page of the admin is cut."""
    thread, _ = talk(owner, calls("big", which="a text"), "That was long.")
    api = Api(owner)
    assert len(api.get("threads/").content) < 2000
    assert len(api.get(f"threads/{thread.pk}/").content) < 2000
    [shown] = api.get(f"threads/{thread.pk}/tool-calls/").json()["results"]
    assert len(shown["result"]) == MEGABYTES
    assert max(len(page) for _, page in pages()) < 200_000


def called(raw: str) -> list[Any]:
    """Return an answer that calls ``take`` with these raw arguments."""
    return [says("Let me see."), calls("take", raw)]


NESTED_LISTS = '{"value": %s1%s}'
REFUSED = {
    "no JSON": "{value: 1",
    "no object": '["take"]',
    "a bare NaN": '{"value": NaN}',
    "an infinity": '{"value": [Infinity]}',
    "an overflow": '{"value": 1e999}',
    "5,000 digits": '{"number": ' + "9" * 5000 + "}",
    "depth 33": NESTED_LISTS % ("[" * 32, "]" * 32),
    "depth 100,000": NESTED_LISTS % ("[" * 100_000, "]" * 100_000),
    "a wrong type": '{"number": "many", "rows": {"a": 1}}',
    "text after the end": '{"value": 1} and so on',
    "half a character and no end": '{"value": "\ud800',
}


@pytest.mark.parametrize("what", REFUSED)
def test_arguments_that_are_none_run_nothing_and_the_model_is_told(owner, what):
    """It may try again; the thread is not poisoned."""
    thread, model = talk(owner, called(REFUSED[what]), calls("take", number=1), "Done.")
    refused, taken = ToolCall.objects.order_by("created_at", "rev")
    assert thread.status == "completed"
    assert (refused.status, taken.status) == ("failed", "completed")
    assert RAN == [(None, 1, None)]
    assert model.requests[1].messages[-1]["content"].startswith("Error: ")
    assert is_storable(str(refused.arguments))
    assert len(str(refused.arguments)) < 5000
    assert Api(owner).get(f"threads/{thread.pk}/messages/").status_code == 200


CLEANED = {
    "NUL and half a character": ('{"value": "a\\u0000b\\ud800"}', "a\ufffdb\ufffd"),
    "such a key": ('{"value": {"\\u0000": 1}}', {"\ufffd": 1}),
    "the same key twice": ('{"value": 1, "value": 2}', 2),
    "a prototype": ('{"value": {"__proto__": {"x": 1}, "__class__": "y"}}', {"__proto__": {"x": 1}, "__class__": "y"}),
    "markup": ('{"value": "<script>alert(1)</script>"}', "<script>alert(1)</script>"),
}


@pytest.mark.parametrize("what", CLEANED)
def test_odd_arguments_reach_the_tool_as_they_are_stored(owner, what):
    """Without what no database keeps."""
    raw, value = CLEANED[what]
    thread, _ = talk(owner, called(raw), "Done.")
    assert thread.status == "completed"
    assert [(value, 0, None)] == RAN
    assert ToolCall.objects.get().arguments == {"value": value}
    for _, page in pages():
        assert "<script>alert" not in page


def test_megabytes_of_arguments_are_shown_cut(owner):
    """They run: a tool may want a document."""
    thread, _ = talk(owner, called(json.dumps({"value": "z" * 1_000_000})), "Done.")
    assert thread.status == "completed"
    assert len(RAN[0][0]) == 1_000_000
    root = Client()
    root.force_login(person("root2", is_staff=True, is_superuser=True))
    page = reverse("admin:durable_agents_toolcall_change", args=[ToolCall.objects.get().pk])
    assert len(root.get(page).content) < 100_000


def test_a_tool_that_there_is_not_runs_nothing(owner):
    """Whatever it is called, and though another agent has it."""
    names = ("no_such_tool", "__import__", "x" * 5000, "a b\n<c>", "")
    script = [[says("."), calls(name, "{}")] for name in names]
    thread, _ = talk(owner, *script, "Done.")
    assert thread.status == "completed"
    assert set(ToolCall.objects.values_list("status", flat=True)) == {"failed"}
    assert RAN == []
    assert "take" in registry.get("tested").tools

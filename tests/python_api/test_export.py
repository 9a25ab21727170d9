"""An exported thread has everything that belongs to its person, and nothing that belongs to the server."""

import json
from decimal import Decimal

import pytest
from django.contrib.auth import get_user_model
from django.db.models.functions import Now

from durable_agents import ThreadNotFoundError, create_thread, export_thread, send_message, settle_tool_call
from durable_agents.lifecycle import commit_step
from durable_agents.llm import ModelUsage
from durable_agents.models import Message, Role, Stream, ToolCall, ToolCallStatus
from tests.lifecycle.stage import calling, outcome

pytestmark = pytest.mark.django_db

THREAD = {
    *("id", "client_id", "agent", "title", "status", "archived", "metadata", "error", "retry", "usage", "forked_from"),
    *("created_at", "updated_at", "read_only"),
}
MESSAGE = {
    *("id", "client_id", "role", "parts", "metadata", "sender", "position", "parent", "created_at", "queued_at"),
    "superseded_at",
}
STREAM = {
    *("id", "message", "number", "attempt", "state", "model", "finish_reason", "error_code", "usage"),
    *("created_at", "started_at", "finished_at"),
}
CALL = {
    *("tool_call_id", "message", "stream", "tool_name", "kind", "arguments", "approved_arguments", "status", "result"),
    *("progress", "error", "attempt", "max_attempts", "approval", "created_at", "expires_at", "finished_at"),
}


@pytest.fixture
def owner():
    """Return the person whose thread it is."""
    return get_user_model().objects.create_user("ada")


@pytest.fixture
def thread(agent, owner, worker):
    """Return a thread with two steps, a failed attempt, a tool call and a queued message."""
    made = create_thread(
        agent, owner=owner, scope="tenant-7", prompt="Question", context={"key": "secret-context"}, metadata={"a": 1}
    )
    worker.retry(worker.claim_step(), delay_seconds=0)
    usage = ModelUsage(input_tokens=100, output_tokens=20, cost=Decimal("0.00123"))
    commit_step(worker.claim_step(), outcome("Let me see.", calling(), usage=usage))
    worker.settle({"found": 1})
    worker.answer("Done.")
    return made


def test_the_format_is_pinned(thread):
    """A field may be added; then say so in the docs. None goes away and none changes within a version."""
    exported = export_thread(thread)
    assert list(exported) == ["format", "version", "thread", "messages", "streams", "tool_calls", "attachments"]
    assert (exported["format"], exported["version"]) == ("durable_agents.thread", 1)
    assert set(exported["thread"]) == THREAD
    assert [set(message) for message in exported["messages"]] == [MESSAGE] * 2
    assert [set(stream) for stream in exported["streams"]] == [STREAM] * 3
    assert [set(call) for call in exported["tool_calls"]] == [CALL]


def test_it_is_json_and_the_same_each_time(thread):
    """Strictly: what another program reads."""
    text = json.dumps(export_thread(thread), allow_nan=False)
    assert json.loads(text) == export_thread(str(thread.pk))


def test_attempts_carry_their_usage(thread):
    """Failed ones too, in order."""
    streams = export_thread(thread)["streams"]
    assert [(stream["number"], stream["state"], stream["error_code"]) for stream in streams] == [
        (1, "aborted", "network"),
        (2, "finished", ""),
        (3, "finished", ""),
    ]
    assert streams[1]["usage"] == {
        "input_tokens": 100,
        "output_tokens": 20,
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "cost": "0.00123000",
        "estimated": False,
    }
    assert export_thread(thread)["thread"]["usage"]["input_tokens"] == 110


def test_calls_name_their_message_and_step(thread):
    """Their outcome is in the parts as well."""
    exported = export_thread(thread)
    [call] = exported["tool_calls"]
    question, answer = exported["messages"]
    assert (call["status"], call["result"], call["arguments"]) == ("completed", {"found": 1}, {"word": "x"})
    assert (call["message"], call["stream"]) == (answer["id"], exported["streams"][1]["id"])
    assert answer["parent"] == question["id"]
    assert {"found": 1} in [part.get("output") for part in answer["parts"]]


def test_decisions_say_who_and_why(thread, owner, worker):
    """By the name that the person has in this project."""
    send_message(thread, "More")
    worker.answer("", calling())
    claim = worker.claim_call()
    ToolCall.objects.filter(pk=claim.row_id).update(status=ToolCallStatus.UNKNOWN)
    call_id = ToolCall.objects.get(pk=claim.row_id).tool_call_id
    settle_tool_call(thread, call_id, result="ran", by=owner, reason="I saw it.")
    first, second = export_thread(thread)["tool_calls"]
    assert first["approval"] is None
    assert (second["approval"]["decided_by"], second["approval"]["reason"]) == ("ada", "I saw it.")


def test_messages_that_are_not_shown_are_in_it_and_marked(thread):
    """Edited away, of the system, queued: they belong to the person all the same."""
    texts = {"old": {"superseded_at": Now(), "position": -2}, "system": {"role": Role.SYSTEM, "position": -1}}
    texts["queued"] = {"queued_at": Now()}
    for text, facts in texts.items():
        fields = {"role": Role.USER, "rev": 1, "parts": [{"type": "text", "text": text}], **facts}
        Message.objects.create(thread=thread, **fields)
    messages = export_thread(thread)["messages"]
    told = [(message["parts"][-1]["text"], message["superseded_at"] is not None) for message in messages]
    assert told == [("old", True), ("system", False), ("Question", False), ("Done.", False), ("queued", False)]
    assert messages[-1]["queued_at"] is not None


def test_nothing_of_the_servers_is_in_it(thread):
    """Trusted context, tenant, leases, and what the provider said when it refused."""
    Stream.objects.filter(thread=thread).update(lease_owner="boot:1:2", error_detail="refused: key-123")
    ToolCall.objects.filter(thread=thread).update(error_detail="Traceback", provider_call_id="toolu_1")
    text = json.dumps(export_thread(thread))
    for kept in ("secret-context", "tenant-7", "boot:1", "key-123", "Traceback", "toolu_1"):
        assert kept not in text


def test_a_long_thread_is_read_in_parts(agent, monkeypatch):
    """Every message once, in order."""
    monkeypatch.setattr("durable_agents.reading.export._ROWS_AT_ONCE", 3)
    thread = create_thread(agent)
    rows = [Message(thread=thread, role=Role.USER, position=n, rev=n, parts=[]) for n in range(1, 11)]
    Message.objects.bulk_create(rows)
    assert [message["position"] for message in export_thread(thread)["messages"]] == list(range(1, 11))


def test_a_thread_that_is_not_there_is_not_found():
    """As everywhere."""
    with pytest.raises(ThreadNotFoundError):
        export_thread("no id")

"""Over a running server and workers, a tool call that needs approval runs only as the right person has approved it."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.db.models.functions import Now

from durable_agents.models import Thread, ToolCall
from tests.api.calls import person
from tests.crash.talk import asked, was_told
from tests.people.visitors import Person
from tests.project.models import Booking
from tests.servers.model import Call, ModelUnderTest, Reply
from tests.workers import at_rest, running, until

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "spend the default": ("spend", {}),
    "refund what is altered": ("refund", {"amount": 5}),
    "refund without the tool": ("refund", {"amount": 6}),
    "refund": ("refund", {"amount": 7}),
    "transfer": ("transfer", {"amount": 8}),
}


def calls_as_asked(request: dict[str, Any]) -> Reply:
    """Call the tool that the user's words stand for, and then say what it returned."""
    if told := was_told(request):
        return Reply(text=told[-1], delay_seconds=0)
    name, arguments = CALLS[asked(request)]
    return Reply(calls=(Call(name=name, arguments=arguments),), delay_seconds=0)


def approve(one: Person, call: ToolCall) -> httpx.Response:
    """Approve a call over REST."""
    return one.post(f"threads/{call.thread_id}/tool-calls/{call.tool_call_id}/approve/", {})


def alter(call: ToolCall, amount: int) -> None:
    """Have a waiting call look as if it were approved with another amount, as somebody does who can only write rows."""
    arguments = {"amount": amount}
    text = json.dumps([call.tool_name, arguments], sort_keys=True, separators=(",", ":"))
    facts = {"approval_digest": hashlib.sha256(text.encode()).hexdigest(), "approval_decided_at": Now()}
    rows = ToolCall.objects.filter(pk=call.pk, status="approval_requested")
    assert rows.update(status="pending", pending_since=Now(), arguments=arguments, needs_worker=True, **facts) == 1


@pytest.mark.slow
def test_calls_that_need_approval_run_only_as_they_were_approved(
    servers: Callable[..., Any], model_server: ModelUnderTest
):
    """Each call in a thread of its own: one that leaves out its large amount, one whose row is altered, one whose tool
    was taken away, one that is approved, and one that who asked approves."""
    model_server.answer_with(calls_as_asked)
    env, [site] = servers(1)
    ann, bob = (Person(site.url, user=person(name, is_staff=True)) for name in ("ann", "bob"))
    with running(env, workers=2, TEST_MODEL_URL=model_server.url):
        for prompt in CALLS:
            ann.post("threads/", {"agent": "cashier", "prompt": prompt}).raise_for_status()
        until(lambda: ToolCall.objects.filter(status="approval_requested").count() == len(CALLS))
        assert not Booking.objects.exists()
        calls = {call.thread.messages.earliest("position").text: call for call in ToolCall.objects.all()}
        alter(calls["refund what is altered"], 5000)
        Thread.objects.filter(tool_calls=calls["refund without the tool"]).update(metadata={"without": "refund"})
        refused = approve(ann, calls["transfer"])
        assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
        for prompt in ("refund without the tool", "refund"):
            approve(ann, calls[prompt]).raise_for_status()
        approve(bob, calls["transfer"]).raise_for_status()
        at_rest(*(calls[prompt].thread for prompt in list(CALLS)[1:]))
    outcomes = {}
    for prompt, call in calls.items():
        call.refresh_from_db()
        outcomes[prompt] = (call.status, call.error_code or call.result)
    assert outcomes == {
        "spend the default": ("approval_requested", None),
        "refund what is altered": ("failed", "approval_invalid"),
        "refund without the tool": ("failed", "tool_not_available"),
        "refund": ("completed", "refunded 7"),
        "transfer": ("completed", "transferred 8"),
    }
    assert sorted(Booking.objects.values_list("name", flat=True)) == ["refunded 7", "transferred 8"]

"""What was approved is what runs: whoever can write rows, but does not know the keys, can have nothing else run."""

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks
from django.db.models.functions import Now

from durable_agents import approve_tool_call
from durable_agents.models import ToolCall
from durable_agents.testing import ScriptedModel, run_until_idle
from tests.tools.outcomes import Done, told

pytestmark = pytest.mark.django_db

TEXT = "Error: The approval of this call is not valid, so it did not run. Make the call again if it is still wanted."
OLD, NEW = "an old key of a project", "a new key of a project"

Asked = Callable[..., tuple[Any, ToolCall]]


def unkeyed(tool_name: str, arguments: Any) -> str:
    """Return the digest as releases before had it, which anybody can compute."""
    text = json.dumps([tool_name, arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def alter(call: ToolCall, **facts: Any) -> None:
    """Change a row as somebody does who can only write rows."""
    ToolCall.objects.filter(pk=call.pk).update(**facts)


def run_on(call: ToolCall) -> list[str]:
    """Run on; return what the model was told."""
    with ScriptedModel("I see.") as model:
        run_until_idle()
    call.refresh_from_db()
    return told(model)


@pytest.mark.parametrize("column", ["arguments", "approved_arguments"])
def test_altered_arguments_with_a_recomputed_digest_do_not_run(asked: Asked, done: Done, ada, caplog, column):
    """Of an approved call; the model is told, and the log says so."""
    thread, call = asked("refund", amount=5)
    approve_tool_call(thread, call.tool_call_id, by=ada)
    alter(call, **{column: {"amount": 5000}}, approval_digest=unkeyed("refund", {"amount": 5000}))
    assert (run_on(call), done.ran, call.error_code) == ([TEXT], [], "approval_invalid")
    [record] = [record for record in caplog.records if record.action == "approval_invalid"]
    assert (record.levelno, record.tool_call) == (logging.ERROR, call.tool_call_id)


@pytest.mark.parametrize("is_dated", [True, False])
@pytest.mark.parametrize("was_asked", [True, False])
def test_a_call_that_nobody_has_approved_cannot_be_marked_as_approved(
    asked: Asked, done: Done, ada, is_dated, was_asked
):
    """Nor as one that needs no approval."""
    _, call = asked("refund", amount=5)
    facts = {"approval_decided_at": Now(), "approval_decided_by": ada} if is_dated else {}
    alter(call, status="pending", approval_digest=unkeyed("refund", {"amount": 5}), **facts)
    if not was_asked:
        alter(call, approval_requested_at=None)
    assert (run_on(call), done.ran) == ([TEXT], [])


def test_a_call_that_a_function_let_wait_cannot_be_marked_as_free(asked: Asked, done: Done):
    """The function is asked again."""
    _, call = asked("pay", amount=500)
    alter(call, status="pending", approval_requested_at=None, approval_digest=unkeyed("pay", {"amount": 500}))
    assert (run_on(call), done.ran) == ([TEXT], [])


def test_the_approval_of_another_call_is_none_of_this_one(asked: Asked, done: Done, ada):
    """Same tool, same arguments, another thread."""
    thread, approved = asked("refund", amount=5)
    approve_tool_call(thread, approved.tool_call_id, by=ada)
    approved.refresh_from_db()
    run_on(approved)
    _, call = asked("refund", amount=5)
    alter(call, status="pending", approval_decided_at=Now(), approval_digest=approved.approval_digest)
    assert (run_on(call), done.ran) == ([TEXT], [5])


@pytest.mark.parametrize("name", ["fire", "pay"])
def test_the_approval_of_another_tool_is_none_of_this_one(asked: Asked, done: Done, ada, name):
    """Who may refund may not fire."""
    thread, call = asked("refund", amount=5)
    approve_tool_call(thread, call.tool_call_id, by=ada)
    alter(call, tool_name=name, arguments={"name": "Eve"} if name == "fire" else {"amount": 500})
    assert (run_on(call), done.ran) == ([TEXT], [])


def test_keys_are_changed_while_calls_are_open(asked: Asked, done: Done, ada, settings):
    """The first signs, all verify."""
    settings.DURABLE_AGENTS = {"APPROVAL_KEYS": [OLD]}
    thread, call = asked("refund", amount=5)
    approve_tool_call(thread, call.tool_call_id, by=ada)
    settings.DURABLE_AGENTS = {"APPROVAL_KEYS": [NEW, OLD]}
    assert (run_on(call), done.ran) == (["refunded 5"], [5])
    thread, call = asked("refund", amount=6)
    approve_tool_call(thread, call.tool_call_id, by=ada)
    settings.DURABLE_AGENTS = {"APPROVAL_KEYS": [NEW]}
    assert (run_on(call), done.ran) == (["refunded 6"], [5, 6])


def test_an_approval_whose_key_is_gone_does_not_run(asked: Asked, done: Done, ada, settings):
    """It is asked for anew when the model calls again."""
    settings.DURABLE_AGENTS = {"APPROVAL_KEYS": [OLD]}
    thread, call = asked("refund", amount=5)
    approve_tool_call(thread, call.tool_call_id, by=ada)
    settings.DURABLE_AGENTS = {"APPROVAL_KEYS": [NEW]}
    assert (run_on(call), done.ran) == ([TEXT], [])


def test_without_keys_of_its_own_the_secret_key_and_its_fallbacks_count(asked: Asked, done: Done, ada, settings):
    """As for Django's sessions."""
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = OLD, []
    thread, call = asked("refund", amount=5)
    approve_tool_call(thread, call.tool_call_id, by=ada)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    assert (run_on(call), done.ran) == (["refunded 5"], [5])


def test_what_an_older_release_approved_is_to_be_approved_again(asked: Asked, done: Done, ada):
    """Its digest could be anybody's; the row looks as that release left it."""
    _, call = asked("refund", amount=5)
    digest = unkeyed("refund", {"amount": 5})
    alter(call, status="pending", approval_decided_at=Now(), approval_decided_by=ada, approval_digest=digest)
    assert (run_on(call), done.ran) == ([TEXT], [])


def test_what_waits_since_an_older_release_is_approved_as_ever(asked: Asked, done: Done, ada):
    """The approval signs."""
    thread, call = asked("refund", amount=5)
    alter(call, approval_digest=unkeyed("refund", {"amount": 5}))
    approve_tool_call(thread, call.tool_call_id, by=ada)
    assert (run_on(call), done.ran) == (["refunded 5"], [5])


@pytest.mark.parametrize(("tool", "amount"), [("pay", 5), ("add", 1)])
def test_what_an_older_release_let_run_without_approval_runs(asked: Asked, tool, amount):
    """Where the tool says now, too, that it needs none."""
    _, call = asked(tool, **({"amount": amount} if tool == "pay" else {"a": amount, "b": 2}))
    digest = unkeyed(tool, call.arguments)
    alter(call, status="pending", finished_at=None, result=None, approval_digest=digest, fence=0)
    thread = call.thread
    type(thread).objects.filter(pk=thread.pk).update(status="awaiting_tool_results")
    run_until_idle()
    call.refresh_from_db()
    assert (call.status, call.result is None) == ("completed", False)


@pytest.mark.parametrize("number", [1e22, 1.0, -0.0, 1e-7, 10**30, 0.1, 1e300])
def test_numbers_are_the_same_after_the_database_has_had_them(asked: Asked, ada, number):
    """PostgreSQL writes some of them otherwise."""
    thread, call = asked("wire", amount=number)
    approve_tool_call(thread, call.tool_call_id, by=ada)
    run_on(call)
    assert call.status == "completed"


@pytest.mark.parametrize("keys", [[], "a text of many characters", ["short"], [None], {}])
def test_keys_that_are_none_are_an_error_that_shows_none(settings, keys):
    """Checks are printed and kept."""
    settings.DURABLE_AGENTS = {"APPROVAL_KEYS": keys}
    [found] = [message for message in run_checks() if message.id == "durable_agents.E006"]
    assert "APPROVAL_KEYS" in found.msg
    assert "short" not in found.msg + found.hint


def test_a_tried_again_approval_still_counts(asked: Asked, done: Done, ada):
    """A wait changes nothing of it."""
    thread, call = asked("refund", amount=5)
    approve_tool_call(thread, call.tool_call_id, by=ada)
    alter(call, available_at=Now() + timedelta(seconds=5), attempt=1)
    assert (run_on(call), done.ran) == (["refunded 5"], [5])

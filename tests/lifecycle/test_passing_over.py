"""A run that goes on without a call: what the model is told of it, and when a user's message lets it."""

from dataclasses import replace

import pytest

from durable_agents import add_tool_result, create_thread, lifecycle, resume_thread, send_message, stop_thread
from durable_agents.llm import openai_messages
from durable_agents.models import Stream, ToolCall
from durable_agents.parts import STILL_RUNNING
from durable_agents.transcript import turns
from tests.lifecycle.stage import calling, status_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(agent, worker):
    """Return a thread with a call that a service is at, and a message that lets the run go on without it."""
    made = create_thread(agent, prompt="One?")
    worker.answer("I ask.", replace(calling(), kind="deferred"))
    lifecycle.announce_tool_call(worker.claim_call())
    send_message(made, "Two?")
    return made


def told_of_calls(thread):
    """Return what the model is told as the results of its calls."""
    history = openai_messages("", turns(thread.pk), max_result_bytes=1000)
    return [message["content"] for message in history if message["role"] == "tool"]


def test_the_model_is_told_to_expect_the_result(thread):
    """As long as it may come."""
    assert told_of_calls(thread) == [STILL_RUNNING]


def test_the_model_expects_nothing_of_a_call_that_a_stop_has_cancelled(thread):
    """It would wait for a message that nobody sends."""
    stop_thread(thread)
    resume_thread(thread)
    assert told_of_calls(thread) == ["Error: The run was stopped before the tool call had a result."]


def test_a_late_result_does_not_make_a_message_unsaid(thread, worker):
    """A person was asked, and the user went on, while a worker ran something else: nobody waits for that person."""
    late = ToolCall.objects.get()
    worker.answer("I ask more.", replace(calling(), needs_approval=True), calling("again"))
    running = worker.claim_call()
    send_message(thread, "Three?")
    add_tool_result(thread, late.tool_call_id, "late")
    worker.settle(claim=running)
    assert {call.status for call in ToolCall.objects.exclude(pk=late.pk)} == {"completed", "cancelled"}
    assert status_of(thread) == "streaming"
    assert Stream.objects.open().filter(thread=thread).count() == 1

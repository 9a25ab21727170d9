"""A model's answer is stored whole, by its holder only, and decides what follows."""

from decimal import Decimal

import pytest

from durable_agents import create_thread, lifecycle, stop_thread
from durable_agents.exceptions import LeaseLostError, ThreadNotFoundError
from durable_agents.llm import ModelUsage
from durable_agents.models import Message, Stream, Thread, ToolCall
from durable_agents.transcript import ui_messages
from tests.lifecycle.stage import calling, open_stream, outcome, status_of, stream_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


def shown(thread):
    """Return the parts of the thread's last message as clients see them."""
    return ui_messages(Message.objects.shown().filter(thread=thread))[-1]["parts"]


def test_an_answer_without_calls_completes_the_thread(thread, worker):
    """Its parts are the message's."""
    claim = worker.answer("Hello.")
    stream = stream_of(claim)
    assert (status_of(thread), stream.state, stream.text) == ("completed", "finished", "Hello.")
    assert (stream.lease_owner, stream.lease_expires_at, stream.model) == ("", None, "openai/x")
    assert shown(thread) == [{"type": "step-start"}, {"type": "text", "text": "Hello.", "state": "done"}]


def test_calls_of_an_answer_are_due_and_the_thread_waits_for_them(thread, worker):
    """Each in the pool that its tool declares."""
    calls = [calling("plain", provider_call_id="p1"), calling("once")]
    worker.answer("Let me see.", *calls)
    assert status_of(thread) == "awaiting_tool_results"
    rows = ToolCall.objects.order_by("rev").values_list("tool_call_id", "provider_call_id", "status", "pool")
    assert list(rows) == [
        (calls[0].tool_call_id, "p1", "pending", "agents"),
        (calls[1].tool_call_id, "", "pending", "tools"),
    ]


def test_a_call_that_cannot_run_is_settled_at_once(thread, worker):
    """Unknown tool or bad arguments: the model is told, and the run goes on."""
    worker.answer("", calling("nonsense", error="There is no tool 'nonsense'."))
    call = ToolCall.objects.get()
    assert (call.status, call.error_code, call.error) == ("failed", "invalid_call", "There is no tool 'nonsense'.")
    assert call.finished_at is not None
    assert (status_of(thread), open_stream(thread).number) == ("streaming", 2)


def test_a_call_that_cannot_run_beside_one_that_can_waits_for_it(thread, worker):
    """The next step has every outcome."""
    worker.answer("", calling("nonsense", error="no such tool"), calling("plain"))
    assert status_of(thread) == "awaiting_tool_results"
    worker.settle()
    assert (status_of(thread), open_stream(thread).number) == ("streaming", 2)


def test_steps_of_one_run_make_one_message(thread, worker):
    """One assistant message from the first step to the last."""
    worker.answer("One.", calling())
    worker.settle()
    worker.answer("Two.")
    assert Message.objects.filter(role="assistant").count() == 1
    kinds = [part["type"] for part in shown(thread)]
    assert kinds == ["step-start", "text", "tool-plain", "step-start", "text"]


def test_usage_is_kept_by_the_step_and_summed_by_the_thread(thread, worker):
    """Costs too, where they are known."""
    usages = [
        ModelUsage(input_tokens=10, output_tokens=5, cached_input_tokens=4, cost=Decimal("0.01")),
        ModelUsage(input_tokens=20, output_tokens=6, reasoning_tokens=3, cache_write_tokens=2),
    ]
    first = worker.claim_step()
    lifecycle.commit_step(first, outcome("", calling(), usage=usages[0]))
    worker.settle()
    lifecycle.commit_step(worker.claim_step(), outcome("Done.", usage=usages[1]))
    total = Thread.objects.get(pk=thread.pk)
    assert (stream_of(first).input_tokens, stream_of(first).cost) == (10, Decimal("0.01"))
    assert (total.input_tokens, total.output_tokens, total.cost) == (30, 11, Decimal("0.01"))
    assert (total.cached_input_tokens, total.cache_write_tokens, total.reasoning_tokens) == (4, 2, 3)


def test_a_fenced_out_holder_writes_nothing(thread, worker):
    """A zombie's answer is refused, and its calls with it."""
    claim = worker.claim_step()
    Stream.objects.filter(pk=claim.row_id).update(fence=claim.fence + 1)
    before = Thread.objects.get(pk=thread.pk).rev
    with pytest.raises(LeaseLostError):
        worker.answer("Late.", calling(), claim=claim)
    assert (stream_of(claim).state, stream_of(claim).parts, ToolCall.objects.count()) == ("streaming", [], 0)
    assert Thread.objects.get(pk=thread.pk).rev == before


def test_an_answer_after_a_stop_is_refused(thread, worker):
    """The run is settled."""
    claim = worker.claim_step()
    stop_thread(thread)
    with pytest.raises(LeaseLostError):
        worker.answer("Late.", claim=claim)
    assert (status_of(thread), stream_of(claim).parts) == ("stopped", [])


def test_the_same_answer_twice_is_refused_the_second_time(thread, worker):
    """One commit per attempt."""
    claim = worker.answer("Hello.")
    with pytest.raises(LeaseLostError):
        worker.answer("Hello.", claim=claim)
    assert Stream.objects.count() == 1


def test_an_answer_to_a_deleted_thread_is_refused(thread, worker):
    """There is nothing to write to."""
    claim = worker.claim_step()
    Thread.objects.all().delete()
    with pytest.raises(ThreadNotFoundError):
        worker.answer("Late.", claim=claim)


def test_a_run_that_used_up_its_steps_fails_visibly(declare, worker):
    """A model that calls tools for ever must end."""
    thread = create_thread(declare(max_steps=2), prompt="Hi")
    for _ in range(2):
        worker.answer("", calling())
        worker.settle()
    stored = Thread.objects.get(pk=thread.pk)
    assert (stored.status, stored.error_code, stored.run_steps) == ("failed", "max_steps", 2)
    assert not Stream.objects.open().exists()


def test_the_steps_of_each_run_are_counted_anew(declare, worker):
    """A new message may use as many again."""
    thread = create_thread(declare(max_steps=1), prompt="Hi")
    worker.answer("One.")
    lifecycle.send_message(thread, "Again")
    worker.answer("Two.")
    assert status_of(thread) == "completed"


def test_what_the_model_says_is_cleaned(thread, worker):
    """Else PostgreSQL would refuse the step for ever."""
    claim = worker.answer("a\x00b\ud800")
    assert stream_of(claim).text == "a\ufffdb\ufffd"

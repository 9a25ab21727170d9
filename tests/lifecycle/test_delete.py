"""A deleted thread is gone with all that belongs to it, by whatever way; what its attempts have cost may stay."""

import pytest
from django.contrib.auth import get_user_model
from django.test import override_settings

from durable_agents import create_thread, delete_thread
from durable_agents.exceptions import LeaseLostError, ThreadNotFoundError
from durable_agents.lifecycle import record_usage, run_command
from durable_agents.llm import ModelUsage
from durable_agents.models import Command, Delta, Message, Stream, Thread, ToolCall
from tests.lifecycle.stage import calling

pytestmark = pytest.mark.django_db
CONTENT = (Thread, Message, ToolCall, Delta, Command)
CANARY = "canary-5cf1"


@pytest.fixture
def owner():
    """Return a user."""
    return get_user_model().objects.create(username="ada")


@pytest.fixture
def thread(agent, worker, owner):
    """Return a running thread with something of everything."""
    made = create_thread(agent, owner=owner, scope="acme", prompt=f"Hi {CANARY}")
    worker.answer(CANARY, calling(word=CANARY))
    worker.settle(CANARY)
    claim = worker.claim_step()
    worker.say(claim, CANARY)
    run_command(made.pk, "k1", lambda: {"said": CANARY})
    made.claim = claim
    return made


def by_function(thread):
    delete_thread(thread)


def by_model(thread):
    Thread.objects.get(pk=thread.pk).delete()


def by_queryset(thread):
    Thread.objects.filter(pk=thread.pk).delete()


def by_user(thread):
    get_user_model().objects.filter(pk=thread.owner_id).delete()


WAYS = pytest.mark.parametrize("delete", [by_function, by_model, by_queryset, by_user])


def values_of(model):
    """Everything that a table says, as text."""
    return str(list(model.objects.values()))


@WAYS
def test_its_content_is_gone(thread, delete):
    """Nothing that anybody said is left anywhere."""
    assert CANARY in values_of(Message)
    delete(thread)
    assert not any(model.objects.exists() for model in CONTENT)
    assert CANARY not in values_of(Stream)


@WAYS
def test_what_it_has_cost_stays(thread, delete):
    """By agent, scope and model, with the tokens of every attempt."""
    delete(thread)
    facts = Stream.objects.order_by("number").values_list("agent", "scope", "model", "input_tokens", "state", "thread")
    assert list(facts) == [
        ("tested", "acme", "openai/x", 10, "finished", None),
        ("tested", "acme", "", 0, "aborted", None),
    ]


@WAYS
def test_or_it_goes_too(thread, delete):
    """The setting says so."""
    with override_settings(DURABLE_AGENTS={"USAGE_ON_DELETE": "drop"}):
        delete(thread)
    assert not Stream.objects.exists()


@WAYS
def test_whoever_works_on_it_finds_its_row_gone(thread, worker, delete):
    """And writes nothing."""
    delete(thread)
    with pytest.raises(ThreadNotFoundError):
        worker.answer("Late.", claim=thread.claim)
    with pytest.raises(LeaseLostError):
        worker.say(thread.claim, "late")
    assert worker.claim() == []


def test_other_threads_stay(agent, thread, worker):
    """Whole."""
    other = create_thread(agent, prompt="Hi")
    delete_thread(thread)
    assert Thread.objects.get() == other
    assert Message.objects.count() == len({"question", "answer"})
    worker.answer("Hello.")


def test_a_deleted_thread_is_not_deleted_again(thread):
    """It says that there is none."""
    delete_thread(thread)
    with pytest.raises(ThreadNotFoundError):
        delete_thread(thread)


def test_what_a_call_used_is_noted_after_its_thread_is_gone(thread):
    """Its worker learns of it in the middle of the answer; with ``drop`` there is nothing to note it with."""
    delete_thread(thread)
    record_usage(thread.claim, model="openai/x", usage=ModelUsage(input_tokens=7, output_tokens=2))
    row = Stream.objects.get(pk=thread.claim.row_id)
    assert (row.model, row.input_tokens, row.output_tokens, row.thread_id) == ("openai/x", 7, 2, None)
    row.delete()
    record_usage(thread.claim, model="openai/x", usage=ModelUsage(input_tokens=7))

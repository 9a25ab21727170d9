"""A conversation of very many messages: it reaches the model, and no other thread waits for it."""

import pytest

from durable_agents import create_thread, send_message
from durable_agents.engine import model_step
from durable_agents.llm import MANY_MESSAGES
from durable_agents.models import Thread
from durable_agents.testing import ScriptedModel
from tests.testing.shop import opened
from tests.workers import until

MESSAGES = MANY_MESSAGES + 100


def conversation(size=40):
    """Return messages to begin a thread with, each as long as given."""
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": f"{number:05} ".ljust(size, ".")} for number in range(MESSAGES)]


def contents(request):
    """Return the texts of a request's messages."""
    return [message["content"] for message in request.messages if message["role"] != "system"]


def test_the_whole_conversation_reaches_the_model_in_order(worker):
    with opened(name="long_reader"), ScriptedModel("One.", "Two.") as model:
        thread = create_thread("long_reader", messages=conversation())
        send_message(thread, "Go.")
        worker.work(slot=0)
        send_message(thread, "More.")
        worker.work(slot=0)
    first, second = (contents(request) for request in model.requests)
    assert [text[:5] for text in first[:-1]] == [f"{number:05}" for number in range(MESSAGES)]
    assert first[-1] == "Go."
    assert second == [*first, "One.", "More."]


def test_messages_that_no_model_could_take_are_left_out_with_a_note(worker, settings, caplog):
    settings.DURABLE_AGENTS = {**settings.DURABLE_AGENTS, "MAX_HISTORY_BYTES": 10_000}
    with opened(name="long_reader"), ScriptedModel("One.") as model:
        thread = create_thread("long_reader", messages=conversation(size=1000))
        send_message(thread, "Go.")
        worker.work(slot=0)
    note, *kept, last = contents(model.requests[0])
    assert last == "Go."
    assert [text[:5] for text in kept] == [f"{number:05}" for number in range(MESSAGES - len(kept), MESSAGES)]
    assert 5 <= len(kept) < 10
    assert note.startswith(f"[{MESSAGES - len(kept)} earlier messages are left out")
    assert "messages were left out" in caplog.text


@pytest.mark.parametrize("part", ["read", "converted"])
def test_other_threads_go_on_while_it_is_read_and_converted(worker, monkeypatch, part):
    """The long one does not go on before the other one has its answer."""
    names = {"read": "histories", "converted": "openai_messages"}
    original, waited = getattr(model_step, names[part]), []

    def waiting(*args, **kwargs):
        result = original(*args, **kwargs)
        turns = next(iter(result.values()), ()) if part == "read" else result
        if len(turns) > MANY_MESSAGES:
            waited.append(until(lambda: Thread.objects.get(pk=short.pk).status == "completed"))
        return result

    monkeypatch.setattr(model_step, names[part], waiting)
    with opened(name="long_reader"), ScriptedModel("Done.", repeat_last=True):
        long = create_thread("long_reader", messages=conversation())
        send_message(long, "Go.")
        short = create_thread("long_reader", prompt="Short.")
        worker.work(slot=0)
    assert len(waited) == 1
    assert set(Thread.objects.values_list("status", flat=True)) == {"completed"}

"""Threads and messages are listed as clients see them, in a number of queries that does not grow."""

from dataclasses import FrozenInstanceError, replace
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model

from durable_agents import (
    ThreadNotFoundError,
    create_thread,
    list_messages,
    list_messages_with_streams,
    list_threads,
    send_message,
    stop_thread,
)
from durable_agents.models import Message, Role
from durable_agents.transcript import ui_messages
from tests.lifecycle.stage import calling

pytestmark = pytest.mark.django_db


def texts(messages):
    """Return the plain texts of messages."""
    return [message.text for message in messages]


@pytest.fixture
def people(agent, declare):
    """Return two users, each with threads of their own."""
    ada, bob = (get_user_model().objects.create_user(name) for name in ("ada", "bob"))
    create_thread(agent, owner=ada, title="first")
    create_thread(agent, owner=ada, scope="shop", title="second", prompt="Hi")
    create_thread(declare("other"), owner=bob, title="third")
    return ada, bob


@pytest.mark.parametrize(
    ("asked", "titles"),
    [
        ({}, ["first", "second", "third"]),
        ({"scope": "shop"}, ["second"]),
        ({"scope": ""}, ["first", "third"]),
        ({"agent": "other"}, ["third"]),
        ({"status": "streaming"}, ["second"]),
        ({"status": "completed", "agent": "tested"}, ["first"]),
    ],
)
def test_threads_are_listed_by_what_is_asked(people, asked, titles):
    """All of it must hold; what is not asked does not matter."""
    assert sorted(list_threads(**asked).values_list("title", flat=True)) == titles


def test_threads_are_listed_by_owner(people, agent):
    """A user or their key; the result is a queryset, the last changed first."""
    ada, bob = people
    assert [thread.title for thread in list_threads(owner=ada)] == ["second", "first"]
    assert list_threads(owner=bob.pk).get().title == "third"
    assert list_threads(owner=ada, agent=agent).filter(title__startswith="f").count() == 1


def test_a_status_that_does_not_exist_is_an_error():
    """An empty list would hide the slip."""
    with pytest.raises(ValueError, match="asleep"):
        list_threads(status="asleep")


def test_messages_are_what_clients_see(thread, worker):
    """Field by field, the parts of calls with their outcomes."""
    send_message(thread, "More", client_id="m2", metadata={"a": 1})
    worker.answer("Let me see.", calling())
    worker.settle("found")
    worker.answer("Done.")
    shown = ui_messages(Message.objects.shown().filter(thread=thread))
    listed = list_messages(thread)
    assert [vars(message) | {"created_at": message.created_at.isoformat()} for message in listed] == shown
    assert texts(listed) == ["Question", "More", "Let me see.\n\nDone."]
    assert [message.position for message in listed] == sorted(message.position for message in listed)
    assert (listed[1].id, listed[1].metadata) == ("m2", {"a": 1})


def test_messages_are_values(thread):
    """Nobody writes to a row by them."""
    [message] = list_messages(thread)
    with pytest.raises(FrozenInstanceError):
        message.role = "system"
    assert replace(message, id="x").id == "x"


def test_queued_messages_come_last(declare, worker):
    """In the order in which they will be answered."""
    thread = create_thread(declare(when_busy="queue"), prompt="One")
    for text in ("Two", "Three"):
        send_message(thread, text)
    worker.answer("First.")
    listed = list_messages(thread)
    assert texts(listed) == ["One", "First.", "Two", "Three"]
    assert [message.position is None for message in listed] == [False, False, False, True]


def test_part_of_the_messages_is_listed_by_position_and_limit(thread, worker):
    """As pages: what comes after the last one that was seen."""
    worker.answer("First.")
    send_message(thread, "More")
    worker.answer("Second.")
    first = list_messages(thread, limit=2)
    assert texts(first) == ["Question", "First."]
    assert texts(list_messages(thread, after=first[-1].position)) == ["More", "Second."]
    assert texts(list_messages(thread, after=first[-1].position, limit=1)) == ["More"]


def test_system_messages_are_listed_on_request(thread):
    """Clients do not see them."""
    Message.objects.create(thread=thread, role=Role.SYSTEM, position=0, rev=1, parts=[{"type": "text", "text": "Be."}])
    assert texts(list_messages(thread)) == ["Question"]
    assert texts(list_messages(thread, include_system=True)) == ["Be.", "Question"]


def test_an_answer_is_listed_as_soon_as_it_has_parts(thread, worker):
    """Committed ones; with streams, also those that are being written."""
    claim = worker.claim_step()
    assert texts(list_messages(thread)) == texts(list_messages_with_streams(thread).messages) == ["Question"]
    worker.say(claim, "Hel", "lo")
    assert texts(list_messages(thread)) == ["Question"]
    messages, stream = list_messages_with_streams(thread)
    assert texts(messages) == ["Question", "Hello"]
    assert (stream.id, stream.number, stream.seq, stream.message) == (str(claim.row_id), 1, 1, messages[-1].id)


def test_the_open_stream_follows_what_is_committed(thread, worker):
    """Within the same message."""
    worker.answer("Let me see.", calling())
    worker.settle("found")
    worker.say(worker.claim_step(), "Fou")
    messages, stream = list_messages_with_streams(thread)
    assert [part["type"] for part in messages[-1].parts][-3:] == ["tool-plain", "step-start", "text"]
    assert stream.number == 2


def test_a_stream_below_the_number_asked_for_is_not_shown(thread, worker):
    """Nor is one that has ended."""
    worker.say(worker.claim_step(), "Hel")
    messages, stream = list_messages_with_streams(thread, from_number=2)
    assert (texts(messages), stream) == (["Question"], None)
    stop_thread(thread)
    messages, stream = list_messages_with_streams(thread)
    assert (texts(messages), stream) == (["Question", "Hel"], None)


def test_the_number_of_queries_does_not_grow(thread, worker, django_assert_num_queries):
    """Four; six with the open stream."""
    for count in range(3):
        worker.answer("Let me see.", calling())
        worker.settle("found")
        worker.answer("Done.")
        send_message(thread, f"More {count}")
    claim = worker.claim_step()
    worker.say(claim, "a", "b", "c")
    with django_assert_num_queries(4):
        assert len(list_messages(thread)) == 7
    with django_assert_num_queries(6):
        assert len(list_messages_with_streams(thread.pk).messages) == 8


@pytest.mark.parametrize("function", [list_messages, list_messages_with_streams])
def test_a_thread_that_is_not_there_is_not_found(function):
    """By an id that is none, and by one of nobody's."""
    for missing in ("no id", uuid4()):
        with pytest.raises(ThreadNotFoundError):
            function(missing)

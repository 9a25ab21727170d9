"""What a project writes and what it says to a thread are one transaction."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from durable_agents import create_thread, send_message
from durable_agents.models import Message, Stream
from tests.crash.talk import asked, said
from tests.project.models import Booking
from tests.servers.model import Reply
from tests.workers import at_rest


class ChangedMindError(Exception):
    """The project's own work failed."""


def test_message_and_business_row_are_sent_together_or_not_at_all(start, model_server, rounds, prove):
    """With workers that look for work all the time."""
    model_server.answer_with(lambda request: Reply(text=f"You said {asked(request)}.", delay_seconds=0))
    start(3)
    count = rounds(100)
    thread = create_thread("talker", prompt="Hello")
    at_rest(thread)
    for number in range(count):
        before = (said(thread), len(model_server.journal), Message.objects.count(), Stream.objects.count())
        with pytest.raises(ChangedMindError):
            book_and_tell(thread, f"rolled back {number}", fails=True)
        time.sleep(0.1)
        assert (said(thread), len(model_server.journal), Message.objects.count(), Stream.objects.count()) == before
        book_and_tell(thread, f"committed {number}")
        at_rest(thread)
        assert said(thread)[-2:] == [
            ("user", [f"committed {number}"]),
            ("assistant", [f"You said committed {number}."]),
        ]
    names = set(Booking.objects.values_list("name", flat=True))
    assert names == {f"committed {number}" for number in range(count)}
    assert not any("rolled back" in str(request) for request in model_server.requests)
    prove(f"{count} messages rolled back with their rows left nothing, {count} committed were answered")


@transaction.atomic
def book_and_tell(thread, name: str, *, fails: bool = False) -> None:
    Booking.objects.create(name=name)
    send_message(thread, name)
    if fails:
        raise ChangedMindError


def test_same_client_id_sent_twice_is_one_message(start, model_server, rounds, prove):
    """One after the other, and both at once, as a client that tries again too early does."""
    model_server.answer_with(lambda request: Reply(text=f"You said {asked(request)}.", delay_seconds=0))
    start(2)
    thread = create_thread("talker", prompt="Hello")
    at_rest(thread)
    count = rounds(100)
    with ThreadPoolExecutor(2) as clients:
        for number in range(count):
            at_once = list(clients.map(send_once_more, [(thread, f"message {number}")] * 2))
            again = send_message(thread, f"message {number}", client_id=f"message {number}")
            assert set(at_once) == {again.pk}
            at_rest(thread)
    texts = [text for role, [text] in said(thread) if role == "user"]
    assert texts == ["Hello", *(f"message {number}" for number in range(count))]
    answers = [text for role, [text] in said(thread) if role == "assistant"]
    assert answers == [f"You said {text}." for text in texts]
    prove(f"{count} messages sent three times each: {len(texts) - 1} messages, each answered once")


def send_once_more(given):
    thread, text = given
    try:
        return send_message(thread, text, client_id=text).pk
    finally:
        connection.close()

"""A thread without a title gets one from the agent after its first answer, and never fails over it."""

import logging

import pytest

from durable_agents import create_thread, send_message
from durable_agents.lifecycle import name_thread, update_thread
from durable_agents.testing import ScriptedModel, calls, run_until_idle
from tests.project.models import Booking

pytestmark = pytest.mark.django_db


def answered(*answers, thread=None, **created):
    """Run a thread of the shop to its rest and return it."""
    with ScriptedModel(*(answers or ["Hi."])):
        thread = thread or create_thread("shop", prompt="Hello.", **created)
        run_until_idle()
    thread.refresh_from_db()
    return thread


def count(thread):
    """Look into the database, as a sync function may."""
    return f"Thread {thread.agent}, {Booking.objects.count()} bookings"


async def count_async(thread):
    """Look into the database, as a coroutine function may."""
    return f"Thread {thread.agent}, {await Booking.objects.acount()} bookings"


@pytest.mark.parametrize("title", [count, count_async])
def test_the_first_answer_brings_the_title(shop, title):
    """When the turn is over, not in the middle of it."""
    shop(title=title)
    assert answered(calls("book", name="Ada"), "Done.").title == "Thread shop, 1 bookings"


def test_a_title_that_is_there_stays(shop):
    """The function is not even asked."""
    asked = []
    shop(title=asked.append)
    assert answered(title="Mine").title == "Mine"
    assert asked == []


def test_a_title_is_asked_for_once(shop):
    """The second answer changes nothing."""
    titles = iter(["First", "Second"])
    shop(title=lambda thread: next(titles))
    thread = answered()
    send_message(thread, "And now?")
    assert answered("Bye.", thread=thread).title == "First"
    assert next(titles) == "Second"


def test_a_title_given_meanwhile_stays(shop):
    """A person was quicker."""
    shop(title=lambda thread: update_thread(thread, title="Mine") and "Made up")
    assert answered().title == "Mine"


@pytest.mark.parametrize("said", ["", "  ", None])
def test_nothing_is_no_title(shop, said):
    """The next answer asks again."""
    titles = iter([said, "At last"])
    shop(title=lambda thread: next(titles))
    thread = answered()
    assert thread.title == ""
    send_message(thread, "And now?")
    assert answered("Bye.", thread=thread).title == "At last"


def test_a_long_title_is_cut_and_a_strange_one_cleaned(shop):
    """A model has written it."""
    shop(title=lambda thread: "a\x00b" + "c" * 300)
    title = answered().title
    assert (len(title), "\x00" in title) == (200, False)


def test_a_title_that_cannot_be_made_fails_nothing(shop, caplog):
    """It is logged with its traceback."""

    def broken(thread):
        raise KeyError

    shop(title=broken)
    with caplog.at_level(logging.ERROR, logger="durable_agents"):
        thread = answered()
    assert (thread.status, thread.title) == ("completed", "")
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (record.action, record.callback, record.exc_info[0]) == ("callback", "title", KeyError)


def test_browsers_are_told_of_the_title(shop):
    """It is a change of the thread."""
    shop()
    thread = answered()
    before = thread.rev
    name_thread(thread.pk, "A title")
    thread.refresh_from_db()
    assert (thread.title, thread.rev) == ("A title", before + 1)

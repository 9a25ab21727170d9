"""Threads are found by their title and by what is said in them, by their owner only, and whatever is looked for."""

from datetime import timedelta

import pytest
from django.db import connection

from durable_agents import add_message, create_thread, edit_message, lifecycle, regenerate, send_message, stop_thread
from durable_agents.models import Message, Stream, Thread
from tests.api.calls import all_pages, person, problem

pytestmark = pytest.mark.django_db

ON_POSTGRESQL = connection.vendor == "postgresql"


def found(api, text, **query):
    """Return the titles of the threads that a search gives."""
    response = api.get("threads/", search=text, **query)
    assert response.status_code == 200, response.content
    return {row["title"] for row in response.json()["results"]}


@pytest.fixture
def talk(agent, me, worker):
    """Return a thread with a question and its answer."""
    made = create_thread(agent, owner=me, title="Travel", prompt="Where does the ferry leave?")
    worker.answer("From the northern harbour.")
    create_thread(agent, owner=me, title="Other", messages=[{"role": "user", "content": "Something else."}])
    return made


@pytest.mark.parametrize("text", ["travel", "TRAVEL", "ferry", "Ferry", "harbour", "northern harbour", "  harbour  "])
def test_title_question_and_answer_are_searched(api, talk, text):
    """In any case."""
    assert found(api, text) == {"Travel"}


@pytest.mark.parametrize("text", ["aeroplane", "ferry aeroplane", "%", "_", "\\", "'", '"', "**", "a OR b --"])
def test_what_nobody_said_is_not_found(api, talk, text):
    """No character means anything to the database."""
    assert found(api, text) == set()


def test_a_character_with_a_meaning_is_found_as_it_stands(api, agent, me):
    """Where texts are looked for, not words."""
    create_thread(agent, owner=me, title="100%_sure\\")
    create_thread(agent, owner=me, title="100 sure")
    asked = {"%": {"100%_sure\\"}, "100%": {"100%_sure\\"}, "\\": {"100%_sure\\"}, "0_s": set()}
    if not ON_POSTGRESQL:
        assert {text: found(api, text) for text in asked} == asked


@pytest.mark.skipif(not ON_POSTGRESQL, reason="the full text search of PostgreSQL")
@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("harbour northern", True),
        ('"northern harbour"', True),
        ('"harbour northern"', False),
        ("harbour -northern", False),
        ("aeroplane or harbour", True),
        ("harb", False),
        ("ferry harbour", False),
    ],
)
def test_web_searches_are_understood(api, talk, text, is_found):
    """All words are in one message, and each is whole."""
    assert found(api, text) == ({"Travel"} if is_found else set())


@pytest.mark.parametrize("text", ["\x00", "\ud800", "fer\x00ry", "((", "!!!", "& | <-> :*", "'; DROP", "a" * 200, "🐳"])
def test_nothing_that_is_looked_for_is_an_error(api, talk, text):
    """Whatever it is made of."""
    assert found(api, text.encode("utf-8", "surrogatepass")) == set()


@pytest.mark.parametrize("length", [201, 100_000])
def test_a_very_long_search_is_refused(api, talk, length):
    """With the limit."""
    response = api.get("threads/", search="x" * length)
    assert problem(response) == (400, "invalid")
    assert "200" in response.json()["detail"]


def test_only_ones_own_threads_are_found(api, stranger, talk):
    """Words are no way round the policy."""
    assert found(stranger, "ferry") == found(stranger, "travel") == set()


def test_threads_of_internal_agents_are_not_found(api, declare, me):
    """As they are not listed."""
    create_thread(declare("inside"), owner=me, title="Plans", prompt="Secret")
    assert found(api, "plans") == found(api, "secret") == set()


def test_what_was_edited_or_regenerated_away_is_not_found(api, talk, worker):
    """Nobody sees it any more; what is there instead is found."""
    asked = Message.objects.get(thread=talk, role="user")
    edit_message(talk, asked.pk, "Where does the train leave?")
    assert found(api, "ferry") == found(api, "harbour") == set()
    worker.answer("From the southern station.")
    assert found(api, "train") == found(api, "station") == {"Travel"}
    regenerate(talk)
    assert found(api, "station") == set()


def test_system_messages_are_not_searched(api, agent, me):
    """What nobody is shown cannot be guessed at word by word."""
    thread = create_thread(agent, owner=me, title="Quiet")
    add_message(thread, "system", "The codeword is marigold.")
    assert found(api, "marigold") == set()


def test_what_a_stop_has_kept_is_found(api, agent, me, worker):
    """It is shown too."""
    thread = create_thread(agent, owner=me, title="Half", prompt="Hi")
    worker.say(worker.claim_step(), "The lighthouse ")
    assert found(api, "lighthouse") == set()
    stop_thread(thread)
    assert found(api, "lighthouse") == {"Half"}


def test_what_a_failed_attempt_has_said_is_not_found(api, agent, me, worker):
    """It is not shown."""
    create_thread(agent, owner=me, title="Twice", prompt="Hi")
    claim = worker.claim_step()
    worker.say(claim, "The lighthouse ")
    worker.retry(claim, delay_seconds=0)
    assert found(api, "lighthouse") == set()


def test_a_thread_is_found_once_and_with_the_other_filters(api, talk, worker):
    """However often it says it."""
    send_message(talk, "Another ferry?")
    worker.answer("No other ferry.")
    assert len(api.get("threads/", search="ferry").json()["results"]) == 1
    lifecycle.update_thread(talk, archived=True)
    assert found(api, "ferry", archived="true", agent="tested", status="completed") == {"Travel"}
    assert found(api, "ferry", archived="false") == set()


def test_found_threads_come_in_pages(api, agent, me):
    """As all lists do."""
    for number in range(5):
        boat = create_thread(agent, owner=me, title=f"Boat {number}")
        # Two threads of the same millisecond would come in any order.
        Thread.objects.filter(pk=boat.pk).update(updated_at=boat.updated_at + timedelta(seconds=number))
        create_thread(agent, owner=me, title=f"Train {number}")
    rows = all_pages(api, "threads/", search="boat", limit=2)
    assert [row["title"] for row in rows] == [f"Boat {number}" for number in (4, 3, 2, 1, 0)]


def test_an_answer_longer_than_words_can_be_indexed_is_stored(api, agent, me, worker):
    """Its beginning is searched; no length and no alphabet makes the database refuse it."""
    kept = create_thread(agent, owner=me, title="Long", prompt="Hi")
    letters = [chr(number) for number in range(0x20000, 0x2A6D0)]
    pairs = " ".join(f"{a}-{b}" for a, b in zip(letters, reversed(letters), strict=True))
    worker.answer(f"Lighthouse {pairs} {pairs[::-1]} " + " ".join(map(str, range(200_000))))
    assert Stream.objects.get(thread=kept).state == "finished"
    assert found(api, "lighthouse") == {"Long"}


@pytest.mark.skipif(not ON_POSTGRESQL, reason="the full text search of PostgreSQL")
def test_the_indexes_are_those_of_the_search(talk):
    """An expression that differs by a letter would read every text there is."""
    other = person("other")
    Thread.objects.bulk_create(Thread(agent="tested", owner=other, title=f"Boat {n}") for n in range(3000))
    threads = Thread.objects.filter(agent="tested")
    Message.objects.bulk_create(
        Message(thread=thread, role="user", position=1, rev=1, text=f"word{thread.pk.hex}", parts=[])
        for thread in threads.filter(owner=other)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    from durable_agents.reading import threads_with_text

    assert "da_message_words" in threads_with_text(threads, "ferry").explain()


@pytest.mark.parametrize("query", [{"status": "sleeping"}, {"archived": "perhaps"}, {"agent": "a\x00"}])
def test_a_filter_that_means_nothing_is_refused(api, talk, query):
    """With what is wrong."""
    response = api.get("threads/", search="ferry", **query)
    assert problem(response) == (400, "invalid")
    assert next(iter(query)) in response.json()["detail"]

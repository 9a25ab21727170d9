"""A page costs as many queries with many rows as with few."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_agents import create_thread, send_message
from durable_agents.models import Message, Role, Stream, StreamState, Thread
from tests.api.operations import queries
from tests.lifecycle.stage import calling

pytestmark = pytest.mark.django_db


@pytest.fixture
def conversation(agent, me, worker):
    """Return a function that makes a thread of so many rounds."""

    def made(rounds):
        thread = create_thread(agent, owner=me)
        for _ in range(rounds):
            send_message(thread, "Question")
            worker.answer("Let me see.", calling(), calling("again"))
            worker.settle("a")
            worker.settle("b")
            worker.answer("Found.")
        return thread

    return made


@pytest.mark.parametrize(
    "path", ["", "messages/", "messages/?streams=1", "messages/?after=1", "tool-calls/", "usage/", "export/"]
)
def test_a_long_thread_costs_what_a_short_one_does(api, conversation, path):
    """Messages, steps and calls are read in one query each."""
    short, long = conversation(1), conversation(6)
    counts = [queries(api, f"threads/{thread.pk}/{path}") for thread in (short, long)]
    assert counts[0] == counts[1] <= 10


def test_many_threads_cost_what_one_does(api, agent, me):
    """Their open streams are read together."""
    create_thread(agent, owner=me, prompt="Hi")
    few = queries(api, "threads/")
    for _ in range(5):
        create_thread(agent, owner=me, prompt="Hi")
    assert queries(api, "threads/") == few <= 4


def test_a_page_of_five_thousand_messages_costs_what_one_of_a_few_does(api, agent, me):
    """At the beginning, in the middle, and with the open stream; so does what they have used."""
    long = create_thread(agent, owner=me, prompt="Hi")
    facts = {"thread": long, "rev": 1}
    answers = [Message(role=Role.ASSISTANT, position=position, **facts) for position in range(101, 5101)]
    Message.objects.bulk_create(answers)
    step = {"state": StreamState.FINISHED, "parts": [{"type": "text", "text": "Hi"}], "pool": "agents", **facts}
    Stream.objects.bulk_create(
        Stream(message=answer, number=answer.position, started_at=long.created_at, **step) for answer in answers
    )
    for path in (
        "messages/",
        "messages/?streams=1",
        "messages/?after=2500",
        "messages/?streams=1&after=5090",
        "usage/",
    ):
        assert queries(api, f"threads/{long.pk}/{path}") <= 11
    page = api.get(f"threads/{long.pk}/messages/", after=2500).json()
    assert len(page["results"]) == 50
    with CaptureQueriesContext(connection) as captured:
        assert len(api.follow(page["next"]).json()["results"]) == 50
    assert len(captured) <= 9


@pytest.fixture
def many_threads(agent, me):
    """Make threads of several people, with a time of their own or the same one, as the database writes it or we do."""
    Thread.objects.bulk_create(Thread(agent="tested", owner=me, title=f"Thread {number}") for number in range(2000))
    Thread.objects.bulk_create(Thread(agent="tested", scope=str(number)) for number in range(500))
    later = list(Thread.objects.filter(owner=me)[:500])
    for number, thread in enumerate(later):
        thread.updated_at = later[number // 2].updated_at
    Thread.objects.bulk_update(later, ["updated_at"])


@pytest.mark.usefixtures("many_threads")
@pytest.mark.parametrize("query", ["", "?search=thread", "?archived=false&status=completed&agent=tested"])
def test_every_page_of_a_long_list_costs_the_same(api, query):
    """Forth to the end and back, with each thread once."""
    seen, link, counts = [], f"/agents/threads/{query}", set()
    while link:
        with CaptureQueriesContext(connection) as captured:
            page = api.follow(link).json()
        counts.add(len(captured))
        seen += [row["id"] for row in page["results"]]
        link, back = page["next"], page["previous"]
    assert (len(seen), len(set(seen)), len(counts)) == (2000, 2000, 1)
    behind = []
    while back:
        page = api.follow(back).json()
        behind = [row["id"] for row in page["results"]] + behind
        back = page["previous"]
    assert behind == seen[: len(behind)]
    assert len(behind) == 1950


@pytest.mark.usefixtures("many_threads")
def test_pages_of_threads_are_read_by_their_index(api):
    """Nothing is sorted, at the beginning or in the middle."""
    first = api.get("threads/", limit=200).json()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    for link in (first["next"].replace("limit=200", "limit=50"), "/agents/threads/"):
        with CaptureQueriesContext(connection) as captured:
            api.follow(link)
        [listing] = [query["sql"] for query in captured if "updated_at" in query["sql"] and "ORDER BY" in query["sql"]]
        with connection.cursor() as cursor:
            explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
            cursor.execute(f"{explain} {listing}")
            plan = str(cursor.fetchall())
        assert "da_thread_owner" in plan, plan
        assert "Sort" not in plan, plan
        assert "TEMP B-TREE" not in plan, plan


def test_a_page_of_messages_reads_the_steps_of_its_own_messages_only(api, conversation):
    """Neither those of all threads, as PostgreSQL would with EXISTS, nor those of the whole thread for each message."""
    for _ in range(3):
        thread = conversation(3)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    with CaptureQueriesContext(connection) as captured:
        api.get(f"threads/{thread.pk}/messages/")
    [listing] = [query["sql"] for query in captured if "turn" in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"{'EXPLAIN' if connection.vendor == 'postgresql' else 'EXPLAIN QUERY PLAN'} {listing}")
        plan = str(cursor.fetchall())
    assert "hashed" not in plan, plan
    assert "durable_agents_stream_thread" not in plan, plan

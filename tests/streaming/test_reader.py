"""A reader gives exactly what is missing: from any cursor, at any moment, of any history."""

import json
import random

import pytest
from django.db import connection
from django.db.models import JSONField
from django.test.utils import CaptureQueriesContext

from durable_agents import (
    ThreadNotFoundError,
    add_message,
    create_thread,
    delete_thread,
    lifecycle,
    send_message,
    stop_thread,
)
from durable_agents.lifecycle import edit_message
from durable_agents.live.reader import Cursor, Sign, ThreadReader, signs_of
from durable_agents.models import Message, Thread
from durable_agents.stored_sizes import FIRST_COUNT, REPLY_BYTES, message_sizes
from tests.lifecycle.histories import History
from tests.lifecycle.stage import calling, let_expire, open_stream
from tests.streaming.client import Client
from tests.streaming.truth import truth

pytestmark = pytest.mark.django_db


def newcomer(thread):
    """Return a reader and a client that has just subscribed."""
    reader = ThreadReader(thread.pk)
    return reader, Client().take([reader.snapshot(tail=500)])


@pytest.fixture(params=range(4))
def history(request, declare):
    """Return a thread at the beginning of a random history."""
    agent = declare(when_busy=("steer", "queue", "interrupt")[request.param % 3], max_steps=4)
    return History(create_thread(agent), seed=100 + request.param)


def test_every_client_shows_what_is_stored_whenever_it_looks(history):
    """One follows from the start, one subscribes anew each time, and one comes back now and then with its cursor."""
    thread, chance = history.thread, random.Random(history.seed)
    follower, following = newcomer(thread)
    _, returning = newcomer(thread)
    for _ in range(40):
        history.go_on()
        expected = truth(thread)
        if chance.random() < 0.7:
            assert following.take(follower.news()).shown() == expected
        if chance.random() < 0.3:
            reader = ThreadReader(thread.pk, returning.cursor)
            assert returning.take(reader.news()).shown() == expected
        assert newcomer(thread)[1].shown() == expected
    history.come_to_rest()
    status = Thread.objects.get(pk=thread.pk).status
    assert following.take(follower.news()).shown() == truth(thread)
    assert following.status == status
    assert returning.take(ThreadReader(thread.pk, returning.cursor).news()).shown() == truth(thread)


def all_news(reader):
    """Read until nothing is left, and return all frames."""
    frames = reader.news()
    while reader.has_more:
        frames += reader.news()
    return frames


@pytest.mark.parametrize("limits", [{"REPLY_BYTES": 1, "MAX_DELTAS": 1}, {"REPLY_BYTES": 1500}, {"MAX_DELTAS": 2}])
def test_every_client_shows_what_is_stored_however_little_is_read_at_once(history, monkeypatch, limits):
    """One follows all the time, and one is away for a while."""
    for name, value in (limits | {"MAX_UNMEASURED": 0}).items():
        monkeypatch.setattr(f"durable_agents.live.reader.{name}", value)
    follower, following = newcomer(history.thread)
    reader, slow = newcomer(history.thread)
    parts = 0
    for number in range(40):
        history.go_on()
        assert following.take(all_news(follower)).shown() == truth(history.thread)
        if number % 8 == 7:
            slow.take(reader.news())
            parts += reader.has_more
            assert slow.take(all_news(reader)).shown() == truth(history.thread)
    assert (slow.rev, slow.status) == (following.rev, following.status)
    assert parts or "REPLY_BYTES" not in limits


@pytest.fixture
def thread(agent):
    """Return a thread with a step due."""
    return create_thread(agent, prompt="Hi")


def kinds(frames):
    """Return the types of frames."""
    return [frame["type"] for frame in frames]


def test_what_the_project_wrote_for_the_model_is_no_clients(agent, worker):
    """As over REST: neither in a snapshot nor in older messages nor as news."""
    secret = [{"role": "system", "content": "SECRET"}, {"role": "user", "content": "Hi"}]
    thread = create_thread(agent, messages=secret)
    reader = ThreadReader(thread.pk)
    frames = [reader.snapshot(), {"messages": reader.older(10, limit=5)[0]}]
    assert [[message["role"] for message in frame["messages"]] for frame in frames] == [["user"], ["user"]]
    add_message(thread, "system", "SECRET, too")
    add_message(thread, "user", "Ho")
    assert kinds(reader.news()) == ["message", "thread"]
    assert "SECRET" not in str(ThreadReader(thread.pk, Cursor(rev=1)).begin())


def test_what_happens_while_a_cursor_is_served_comes_as_news(thread, worker, monkeypatch):
    """Whoever comes back is told one state of the thread, not the news of one and the rev of a later one."""
    reader = ThreadReader(thread.pk, Cursor(rev=thread.rev))
    read = ThreadReader._durable_changes

    def overtaken(self, *seen):
        frames = read(self, *seen)
        worker.answer("Hello.")
        return frames

    send_message(thread, "And?")
    monkeypatch.setattr(ThreadReader, "_durable_changes", overtaken)
    frames = reader.begin()
    assert frames[-1]["rev"] == reader.cursor.rev < Thread.objects.get(pk=thread.pk).rev
    monkeypatch.undo()
    assert "step" in kinds(reader.news())


def test_a_reading_that_fails_leaves_the_cursor(thread, worker, monkeypatch):
    """What it had found already would be lost."""
    reader, _ = newcomer(thread)
    worker.answer("Hello.")
    before = reader.cursor
    monkeypatch.setattr("durable_agents.live.reader.stream_open_at", lambda thread: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reader.news()
    monkeypatch.undo()
    assert reader.cursor == before
    assert "step" in kinds(reader.news())


def test_news_tell_each_change_once(thread, worker):
    """And nothing when nothing happened."""
    reader, _ = newcomer(thread)
    worker.answer("Let me see.", calling())
    assert kinds(reader.news()) == ["step", "thread"]
    assert reader.news() == []
    worker.settle("done")
    frames = reader.news()
    assert kinds(frames) == ["tool", "thread"]
    assert (frames[0]["status"], frames[0]["output"]) == ("completed", "done")


def test_deltas_come_in_order_each_once(thread, worker):
    """Then the step that replaces them."""
    reader, _ = newcomer(thread)
    claim = worker.claim_step()
    worker.say(claim, "a", "b")
    assert [frame["seq"] for frame in reader.news()] == [0, 1]
    worker.say(claim, "c")
    assert [frame["seq"] for frame in reader.news()] == [2]
    worker.answer("abc", claim=claim)
    assert kinds(reader.news()) == ["step", "thread"]


def test_a_superseded_attempt_vanishes(thread, worker):
    """Its stream is told to be dropped, and the next one begins anew."""
    reader, client = newcomer(thread)
    claim = worker.claim_step()
    worker.say(claim, "half")
    client.take(reader.news())
    let_expire(claim)
    lifecycle.reap(lambda _: False)
    frames = reader.news()
    told = [(frame["type"], frame["status"]) for frame in frames]
    assert told == [("stream", "superseded"), ("thread", "streaming")]
    assert client.take(frames).shown()[-1]["parts"] == []


def test_a_late_delta_of_a_closed_stream_is_not_passed_on(thread, worker):
    """Notifications may come late: after the news of its end a stream has no more to say."""
    reader, client = newcomer(thread)
    claim = worker.claim_step()
    worker.say(claim, "a")
    client.take(reader.news())
    stop_thread(thread)
    client.take(reader.news())
    late = {"type": "delta", "stream": str(claim.row_id), "message": "m", "seq": 1, "chunks": []}
    assert not reader.accept(late)


def test_a_published_delta_is_passed_on_when_it_is_the_next(thread, worker):
    """A gap, a repetition or another stream makes the reader look."""
    claim = worker.claim_step()
    worker.say(claim, "a")
    reader, _ = newcomer(thread)
    stream = str(claim.row_id)
    seen = [reader.accept({"stream": s, "seq": n}) for s, n in [(stream, 0), (stream, 2), ("other", 1), (stream, 1)]]
    assert seen == [False, False, False, True]
    assert reader.cursor.seq == 1


def test_a_snapshot_holds_what_has_been_said_so_far(thread, worker):
    """With the seq that it includes."""
    claim = worker.claim_step()
    worker.say(claim, "So ", "far")
    snapshot = ThreadReader(thread.pk).snapshot()
    assert snapshot["messages"][-1]["parts"][-1] == {"type": "text", "text": "So far", "state": "streaming"}
    message = snapshot["messages"][-1]["id"]
    entry = {"stream": str(claim.row_id), "message": message, "seq": 1, "status": "streaming"}
    assert snapshot["streams"] == [entry]


@pytest.mark.slow
def test_news_that_are_read_at_once_are_bounded_in_bytes(thread, worker, read_bytes):
    """As snapshots are. What is left comes with the next call, each change once and in order."""
    worker.answer("Hello.")
    reader, client = newcomer(thread)
    for number in range(20):
        send_message(thread, f"{number}", metadata={"note": "x" * 90_000})
        worker.answer("y" * 90_000)
    reads = []
    while not reads or reader.has_more:
        read_bytes.clear()
        client.take(reader.news())
        reads.append(sum(read_bytes))
    assert len(reads) == 4
    assert max(reads) <= REPLY_BYTES
    assert client.shown() == truth(thread)


def test_a_change_that_is_larger_than_what_is_read_at_once_comes_alone(thread, worker, monkeypatch):
    """Otherwise, nothing would ever come."""
    reader, client = newcomer(thread)
    monkeypatch.setattr("durable_agents.live.reader.REPLY_BYTES", 10)
    monkeypatch.setattr("durable_agents.live.reader.MAX_UNMEASURED", 0)
    worker.answer("Hello.")
    send_message(thread, "And?")
    frames = reader.news()
    assert (kinds(frames), reader.has_more) == (["step"], True)
    assert client.take(frames).take(all_news(reader)).shown() == truth(thread)
    assert not reader.has_more


def test_changes_that_are_too_large_to_resume_with_make_it_a_snapshot(thread, worker, monkeypatch):
    """The client gets them in one reply, which is bounded."""
    cursor = Cursor(rev=thread.rev)
    worker.answer("Hello.")
    send_message(thread, "And?")
    assert kinds(ThreadReader(thread.pk, cursor).begin())[0] == "resumed"
    monkeypatch.setattr("durable_agents.live.reader.REPLY_BYTES", 10)
    monkeypatch.setattr("durable_agents.live.reader.MAX_UNMEASURED", 0)
    reader = ThreadReader(thread.pk, cursor)
    assert kinds(reader.begin()) == ["snapshot"]
    assert not reader.has_more


def test_few_changes_are_not_measured(thread, worker):
    """It would be one more query for every change that people see."""
    reader, _ = newcomer(thread)
    worker.answer("Hello.")
    with CaptureQueriesContext(connection) as queries:
        reader.news()
    assert not [query for query in queries.captured_queries if "UNION" in query["sql"]]


def test_a_snapshot_of_a_thread_at_rest_has_no_stream(thread, worker):
    """Nothing is open."""
    worker.answer("Hello.")
    snapshot = ThreadReader(thread.pk).snapshot()
    assert (snapshot["streams"], snapshot["status"], snapshot["hasOlder"]) == ([], "completed", False)


def test_a_snapshot_has_the_last_messages_and_older_ones_are_fetched(thread, worker):
    """Page by page, oldest first, nothing twice."""
    worker.answer("0")
    for number in range(1, 5):
        send_message(thread, f"{number}")
        worker.answer(f"{number}")
    snapshot = ThreadReader(thread.pk).snapshot(tail=3)
    assert ([message["position"] for message in snapshot["messages"]], snapshot["hasOlder"]) == ([8, 9, 10], True)
    reader, found, more = ThreadReader(thread.pk), [8], True
    while more:
        page, more = reader.older(found[0], limit=3)
        found = [message["position"] for message in page] + found
    assert found == list(range(1, 9))


def size(messages):
    """Return how much messages are as they travel."""
    return len(json.dumps(messages, ensure_ascii=False, separators=(",", ":")).encode())


def test_a_snapshot_is_capped(thread, worker, monkeypatch):
    """In bytes as stored, of whole messages; whatever is in it, one message is."""
    worker.answer("wörd " * 1000)
    send_message(thread, "Again", metadata={"note": "x" * 500})
    worker.answer("wörd " * 1000)
    whole = ThreadReader(thread.pk).snapshot()["messages"]
    stored = [measured.whole for measured in message_sizes(Message.objects.shown(), count=4)]
    assert all(bytes_stored >= size(message) for bytes_stored, message in zip(stored, whole, strict=True))
    for limit, count in ((sum(stored), 4), (sum(stored) - 1, 3), (sum(stored[2:]) - 1, 1), (10, 1)):
        monkeypatch.setattr("durable_agents.live.reader.REPLY_BYTES", limit)
        snapshot = ThreadReader(thread.pk).snapshot()
        assert (snapshot["messages"], snapshot["hasOlder"]) == (whole[-count:], count < 4)


@pytest.fixture
def read_bytes(monkeypatch):
    """Note how many bytes of JSON are read from the database."""
    read = []
    convert = JSONField.from_db_value

    def noted(field, value, expression, connection):
        read.append(len(value or ""))
        return convert(field, value, expression, connection)

    monkeypatch.setattr(JSONField, "from_db_value", noted)
    return read


def test_what_does_not_fit_is_not_read(thread, worker, read_bytes):
    """Nor is what nobody is shown: the metadata and the context of the thread."""
    large = {"note": "x" * 190_000}
    Thread.objects.filter(pk=thread.pk).update(metadata=large, context=large)
    worker.answer("y" * 1_500_000)
    for _ in range(50):
        send_message(thread, "Again", metadata=large)
        worker.answer("Hello.")
    read_bytes.clear()
    snapshot = ThreadReader(thread.pk).snapshot(tail=200)
    assert len(snapshot["messages"]) == 2 * REPLY_BYTES // 191_000 + 1
    assert snapshot["hasOlder"]
    assert sum(read_bytes) <= REPLY_BYTES
    read_bytes.clear()
    page, has_older = ThreadReader(thread.pk).older(4, limit=200)
    assert ([message["position"] for message in page], has_older) == ([3], True), "not the long answer before it"
    assert sum(read_bytes) <= REPLY_BYTES


def test_the_database_measures_only_what_may_fit(thread):
    """A few messages first, and no more if they fill the snapshot."""
    stop_thread(thread)
    for _ in range(2 * FIRST_COUNT):
        add_message(thread, "user", "Again")
    sizes = message_sizes(Message.objects.shown().reverse(), count=201)
    with CaptureQueriesContext(connection) as captured:
        for _ in range(FIRST_COUNT):
            next(sizes)
    assert len(captured) == 1, "there are no answers, whose steps would be measured, too"


def test_an_answer_that_is_too_long_is_told_from_its_last_steps_on(thread, worker, monkeypatch):
    """How many are left out is told, and they are fetched as older messages are."""
    for number in range(30):
        worker.answer(f"{number} ".ljust(1000, "x"), calling())
        worker.settle("done")
    worker.answer("Done.")
    [question, answer] = ThreadReader(thread.pk).snapshot()["messages"]
    monkeypatch.setattr("durable_agents.live.reader.REPLY_BYTES", 10_000)
    snapshot = ThreadReader(thread.pk).snapshot()
    [cut] = snapshot["messages"]
    assert snapshot["hasOlder"]
    assert 5_000 < size([cut]) <= 10_000
    assert cut["parts"][0] == {"type": "step-start"}
    assert cut["parts"] == answer["parts"][-len(cut["parts"]) :]
    starts = sum(part["type"] == "step-start" for part in cut["parts"])
    assert cut["omitted"] == 31 - starts
    [more], has_more = ThreadReader(thread.pk).older(2, limit=50, steps=cut["omitted"])
    assert has_more
    assert (more["id"], more["parts"]) == (answer["id"], answer["parts"][: -len(cut["parts"])][-len(more["parts"]) :])
    monkeypatch.setattr("durable_agents.live.reader.REPLY_BYTES", 1_000_000)
    page, has_more = ThreadReader(thread.pk).older(2, limit=50, steps=3)
    assert ([message["id"] for message in page], has_more) == ([question["id"], answer["id"]], False)
    assert sum(part["type"] == "step-start" for part in page[1]["parts"]) == 3


def test_a_step_is_told_whole_however_long_it_is(declare, worker, monkeypatch):
    """Also the open one, to which deltas are added, with what is queued behind it."""
    thread = create_thread(declare(when_busy="queue"), prompt="Hi")
    worker.answer("word " * 100, calling())
    worker.settle("done")
    claim = worker.claim_step()
    worker.say(claim, "so far " * 100)
    send_message(thread, "Queued")
    monkeypatch.setattr("durable_agents.live.reader.REPLY_BYTES", 10)
    for tail in (1, 50):
        snapshot = ThreadReader(thread.pk).snapshot(tail=tail)
        [answer, queued] = snapshot["messages"]
        assert [part["type"] for part in answer["parts"]] == ["step-start", "text"]
        assert (answer["omitted"], snapshot["hasOlder"], queued["position"]) == (1, True, None)
        assert snapshot["streams"][0]["message"] == answer["id"]


def test_a_page_of_a_message_that_is_gone_has_those_before_it(thread, worker):
    """It was edited away meanwhile."""
    worker.answer("Hello.", calling())
    worker.settle("done")
    worker.answer("Done.")
    edit_message(thread, Message.objects.get(role="user").pk, "Ho")
    page, _ = ThreadReader(thread.pk).older(2, limit=5, steps=1)
    assert page == []


def fetched(thread, *, chance, limit):
    """Return a client that has fetched everything, page by page; each is as small as it has to be."""
    reader, client = newcomer(thread)
    while client.has_older:
        before = client.lacks
        messages, more = reader.older(limit=chance.randint(1, 4), **before)
        client.take([{"type": "page", "messages": messages, "hasOlder": more}])
        is_one_step = len(messages) == 1 and sum(part["type"] == "step-start" for part in messages[0]["parts"]) < 2
        assert size(messages) <= limit + 2 or is_one_step
        assert not client.has_older or client.lacks != before, "each page has something"
    return client


def test_snapshot_and_pages_are_the_whole_transcript(history, monkeypatch):
    """However little fits into one, and whatever is going on."""
    chance = random.Random(history.seed)
    for _ in range(40):
        history.go_on()
        expected = truth(history.thread)
        for limit in (10, chance.randint(100, 3000)):
            monkeypatch.setattr("durable_agents.live.reader.REPLY_BYTES", limit)
            assert fetched(history.thread, chance=chance, limit=limit).shown() == expected


def test_a_cursor_of_this_thread_can_be_resumed(thread):
    """One from the future, from nowhere or from far back cannot."""
    rev = Thread.objects.get(pk=thread.pk).rev
    assert [ThreadReader(thread.pk, Cursor(rev=given)).can_resume() for given in (rev, 1, 0, rev + 1, -1)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    Thread.objects.filter(pk=thread.pk).update(rev=rev + 501)
    assert not ThreadReader(thread.pk, Cursor(rev=rev)).can_resume()


def test_a_gap_is_filled_from_rows(thread, worker):
    """Until they are pruned, and of this thread only."""
    claim = worker.claim_step()
    worker.say(claim, "a", "b", "c")
    reader = ThreadReader(thread.pk)
    assert [row["seq"] for row in reader.deltas(str(claim.row_id), first=1, last=None)] == [1, 2]
    assert [row["seq"] for row in reader.deltas(str(claim.row_id), first=0, last=1)] == [0, 1]
    foreign = ThreadReader(create_thread("tested").pk)
    assert foreign.deltas(str(claim.row_id), first=0, last=None) == []


def test_a_thread_that_is_gone_is_not_found(thread):
    """Whatever is asked of its reader."""
    reader, _ = newcomer(thread)
    delete_thread(thread)
    for question in (reader.news, reader.snapshot, reader.can_resume, reader.thread_frame):
        with pytest.raises(ThreadNotFoundError):
            question()


def test_the_sign_of_a_thread_changes_with_everything_a_client_sees(thread, worker):
    """So that one poller can watch many threads with two queries."""
    signs = [signs_of([thread.pk])]
    claim = worker.claim_step()
    worker.say(claim, "a")
    signs.append(signs_of([thread.pk]))
    worker.say(claim, "b")
    signs.append(signs_of([thread.pk]))
    worker.answer("ab", claim=claim)
    signs.append(signs_of([thread.pk]))
    assert [sign[thread.pk].seq for sign in signs] == [-1, 0, 1, -1]
    assert len({sign[thread.pk] for sign in signs}) == len(signs)
    assert isinstance(signs[0][thread.pk], Sign)


def test_a_thread_that_is_gone_has_no_sign(thread):
    """Its watchers are told to look."""
    delete_thread(thread)
    assert signs_of([thread.pk]) == {}


def test_reading_costs_the_same_however_long_the_thread_is(thread, worker, django_assert_num_queries):
    """News are found by rev, not by reading everything."""
    for _ in range(4):
        worker.answer("", calling())
        worker.settle()
    reader, _ = newcomer(thread)
    with django_assert_num_queries(3):
        reader.news()
    worker.answer("", calling())
    worker.settle()
    with django_assert_num_queries(7):
        reader.news()


def test_one_open_stream_is_read_by_its_own_rows(thread, worker):
    """Deltas of earlier attempts are not mixed in."""
    first = worker.claim_step()
    worker.say(first, "old")
    lifecycle.release(first)
    second = worker.claim_step()
    worker.say(second, "new")
    assert open_stream(thread).pk == second.row_id
    parts = ThreadReader(thread.pk).snapshot()["messages"][-1]["parts"]
    assert [part["text"] for part in parts if part["type"] == "text"] == ["new"]

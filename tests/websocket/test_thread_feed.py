"""What further viewers of a thread cost: neither a read, nor an encoding, nor a message of the channel layer."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from durable_agents import send_message
from durable_agents.exceptions import ThreadNotFoundError
from durable_agents.live import encoded_frame, thread_feed
from durable_agents.live.encoded_frame import EncodedFrame
from durable_agents.live.reader import Cursor, Sign, ThreadReader, signs_of
from durable_agents.live.thread_feed import Subscription, ThreadFeed
from durable_agents.live_delivery_counts import DeliveryCounts, Event, delivery_counts
from durable_agents.models import Thread
from durable_agents.notifications import publish_through
from tests.websocket.sockets import Socket, act, send_here


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the reads of threads and the encodings of frames."""
    counted: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        original = getattr(module, name)

        def counting(*args: Any, **options: Any) -> Any:
            counted[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(module, name, counting)

    count(encoded_frame, "encode")
    count(ThreadReader, "news")
    return counted


@pytest.fixture
def layer_counts(counts: Counter[str]) -> Any:
    """Count the messages of the channel layer, too."""

    def send(group: str, message: dict[str, Any]) -> None:
        counts["messages"] += 1
        send_here(group, message)

    publish_through(send)
    yield counts
    publish_through(None)


async def deliver(sockets: list[Socket], thread: Thread) -> Counter[str]:
    """Let a message be sent; return which frames each socket receives."""
    await act(send_message, thread, "Hi")
    received = [await socket.hear_status("streaming") for socket in sockets]
    kinds = [Counter(frame["type"] for frame in frames) for frames in received]
    assert all(one == kinds[0] for one in kinds)
    return kinds[0]


@pytest.mark.parametrize("delivery", ["hints"], indirect=True)
@pytest.mark.parametrize("viewers", [1, 10, 100])
async def test_frames_are_read_and_encoded_once_for_all_viewers(
    connect, thread, delivery, layer_counts, viewers, settings
):
    settings.DURABLE_AGENTS = settings.DURABLE_AGENTS | {"MAX_SOCKETS_PER_USER": viewers}
    sockets = [await connect() for _ in range(viewers)]
    for socket in sockets:
        await socket.ask(type="subscribe", thread=str(thread.pk))
    layer_counts.clear()
    frames = await deliver(sockets, thread)
    assert layer_counts["encode"] == frames.total()
    assert layer_counts["news"] == 1
    assert layer_counts["messages"] == 1


class Screen:
    """A viewer in memory."""

    def __init__(self) -> None:
        self.is_full = False
        self.caller = "ann"
        self.texts: list[str] = []
        self.ended: list[Subscription] = []
        self.feed: ThreadFeed | None = None

    def show(self, text: str) -> None:
        """Keep the text."""
        self.texts.append(text)

    def end(self, subscription: Subscription) -> None:
        """Leave the feed."""
        self.ended.append(subscription)
        assert self.feed is not None
        self.feed.subscriptions.discard(subscription)


def viewed(feed: ThreadFeed, *, cursor: Cursor, name: str = "") -> tuple[Screen, Subscription]:
    """Add a viewer that has seen a part of the thread."""
    screen = Screen()
    screen.feed = feed
    reader = ThreadReader(feed.thread_id, cursor)
    subscription = Subscription(viewer=screen, reader=reader, name=name or str(feed.thread_id))
    feed.subscriptions.add(subscription)
    return screen, subscription


def delta(feed: ThreadFeed, seq: int) -> dict[str, Any]:
    """Return a delta as workers publish it."""
    chunks = [{"type": "text-delta", "id": "0", "delta": "x"}]
    return {"type": "delta", "thread": str(feed.thread_id), "stream": "s", "message": "m", "seq": seq, "chunks": chunks}


async def test_a_delta_is_encoded_once_whatever_the_names_of_its_thread(thread, counts):
    feed = ThreadFeed(thread.pk)
    views = [viewed(feed, cursor=Cursor(rev=1, stream="s", seq=0), name=name) for name in ("mine", 'a "name"', "mine")]
    for _, subscription in views:
        subscription.end_read()
    feed.on_delta(thread.pk, delta(feed, 1))
    assert counts["encode"] == 1
    mine, other, _ = [screen.texts for screen, _ in views]
    assert len(mine) == 1
    assert mine[0].endswith('"thread":"mine"}')
    assert other[0].endswith('"thread":"a \\"name\\""}')


async def test_deltas_that_arrive_during_a_snapshot_are_kept_and_not_read(thread, counts):
    feed = ThreadFeed(thread.pk)
    screen, subscription = viewed(feed, cursor=Cursor())
    for seq in range(4):
        feed.on_delta(thread.pk, delta(feed, seq))
    assert not screen.texts
    subscription.reader.cursor = Cursor(rev=1, stream="s", seq=1)
    subscription.end_read()
    feed.start()
    assert len(screen.texts) == 2, "those after the snapshot"
    assert (subscription.reader.cursor.seq, counts["news"]) == (3, 0)


async def test_deltas_that_a_client_has_already_are_ignored(thread, counts):
    feed = ThreadFeed(thread.pk)
    screen, subscription = viewed(feed, cursor=Cursor(rev=1, stream="s", seq=5))
    subscription.end_read()
    feed.on_delta(thread.pk, delta(feed, 5))
    assert not screen.texts
    assert not subscription.is_stale


async def test_more_deltas_than_are_kept_make_the_rows_be_read(thread, monkeypatch):
    monkeypatch.setattr(thread_feed, "MAX_HELD", 3)
    feed = ThreadFeed(thread.pk)
    _, subscription = viewed(feed, cursor=Cursor())
    for seq in range(5):
        feed.on_delta(thread.pk, delta(feed, seq))
    subscription.end_read()
    assert subscription.is_due


@pytest.fixture
def counted() -> Iterator[DeliveryCounts]:
    """Return the counts of this process, at zero."""
    delivery_counts().reset()
    yield delivery_counts()
    delivery_counts().reset()


def stale_threads(counted: DeliveryCounts) -> int:
    """Return how often rows had to be read again because of the messages that came."""
    period = counted.take()
    return period.counts.get(Event.STALE_THREAD, 0) if period else 0


async def test_a_missing_delta_is_counted_once(thread, counted):
    feed = ThreadFeed(thread.pk)
    _, subscription = viewed(feed, cursor=Cursor(rev=1, stream="s", seq=0))
    subscription.end_read()
    subscription.viewer.is_full = False
    for seq in (1, 3, 4):
        feed.on_delta(thread.pk, delta(feed, seq))
    assert stale_threads(counted) == 1


async def test_more_deltas_than_are_kept_are_counted_once(thread, monkeypatch, counted):
    monkeypatch.setattr(thread_feed, "MAX_HELD", 3)
    feed = ThreadFeed(thread.pk)
    viewed(feed, cursor=Cursor())
    for seq in range(6):
        feed.on_delta(thread.pk, delta(feed, seq))
    assert stale_threads(counted) == 1


@pytest.mark.parametrize("is_full", [True, False])
async def test_what_a_slow_client_misses_and_what_belongs_to_another_stream_is_no_fault(thread, counted, is_full):
    feed = ThreadFeed(thread.pk)
    screen, subscription = viewed(feed, cursor=Cursor(rev=1, stream="s" if is_full else "t", seq=0))
    subscription.end_read()
    screen.is_full = is_full
    feed.on_delta(thread.pk, delta(feed, 3))
    assert subscription.is_stale
    assert stale_threads(counted) == 0


async def lost(counted: DeliveryCounts) -> int:
    """Return how many lost notifications were counted, after the time in which they might still come."""
    await asyncio.sleep(0.1)
    period = counted.take()
    return period.counts.get(Event.HINT_NOT_RECEIVED, 0) if period else 0


@pytest.mark.parametrize("arrives", [False, True])
async def test_a_change_of_which_no_notification_comes_is_counted(thread, monkeypatch, counted, arrives):
    monkeypatch.setattr(thread_feed, "LATE_SECONDS", 0.05)
    feed = ThreadFeed(thread.pk)
    for _ in range(2):
        viewed(feed, cursor=Cursor(rev=thread.rev))[1].end_read()
    feed.on_sign(Sign(rev=thread.rev + 1, seq=-1), read_at=time.monotonic())
    if arrives:
        feed.on_change(thread.pk)
    assert await lost(counted) == (not arrives)


@pytest.mark.parametrize("is_reading", [False, True])
async def test_a_change_that_is_known_already_is_not_counted_as_lost(thread, monkeypatch, counted, is_reading):
    """Rows that are being read, or a notification that came while the fingerprint was read."""
    monkeypatch.setattr(thread_feed, "LATE_SECONDS", 0.05)
    feed = ThreadFeed(thread.pk)
    _, subscription = viewed(feed, cursor=Cursor(rev=thread.rev))
    read_at = time.monotonic()
    if not is_reading:
        subscription.end_read()
        feed.on_delta(thread.pk, delta(feed, 0))
        subscription.is_stale = False
    feed.on_sign(Sign(rev=thread.rev + 1, seq=-1), read_at=read_at)
    assert await lost(counted) == 0


@pytest.mark.parametrize("arrives", [False, True])
async def test_rows_are_not_read_for_a_delta_whose_notification_is_on_its_way(
    thread, worker, monkeypatch, counts, arrives
):
    """The delta was stored when the fingerprints were read. Its notification comes a moment later, or never."""
    monkeypatch.setattr(thread_feed, "RECENT_SECONDS", 0.05)
    await act(send_message, thread, "Hi")
    claim = await act(worker.claim_step)
    for text in "ab":
        await act(worker.say, claim, text)
    sign = (await act(signs_of, [thread.pk]))[thread.pk]
    feed = ThreadFeed(thread.pk)
    _, subscription = viewed(feed, cursor=Cursor(rev=sign.rev, stream=sign.stream))
    subscription.end_read()
    first, second = (delta(feed, seq) | {"stream": sign.stream} for seq in (0, 1))
    feed.on_delta(thread.pk, first)
    feed.on_sign(sign, read_at=time.monotonic())
    if arrives:
        feed.on_delta(thread.pk, second)
    await asyncio.sleep(0.1)
    if feed._task is not None:
        await feed._task
    assert (subscription.reader.cursor.seq, counts["news"]) == (1, 0 if arrives else 1)


@pytest.mark.parametrize(
    ("cursor", "is_news"),
    [
        (Cursor(rev=6, stream="a", seq=2), True),
        (Cursor(rev=7, stream="a", seq=2), True),
        (Cursor(rev=7, stream="", seq=-1), True),
        (Cursor(rev=7, stream="a", seq=3), False),
        (Cursor(rev=7, stream="a", seq=4), False),
        (Cursor(rev=8, stream="b", seq=0), False),
    ],
)
def test_a_fingerprint_is_news_only_for_who_has_seen_less(cursor, is_news):
    """Not for who has seen more, as deltas arrive while the fingerprint is read."""
    assert Sign(rev=7, stream="a", seq=3).is_news_for(cursor) == is_news


async def test_viewers_with_different_cursors_are_read_for_apart(thread, counts):
    await act(send_message, thread, "Hi")
    feed = ThreadFeed(thread.pk)
    revs = (1, 1, 2)
    views = [viewed(feed, cursor=Cursor(rev=rev)) for rev in revs]
    for _, subscription in views:
        subscription.end_read()
        subscription.is_stale = True
    await feed.refresh(views[0][1])
    assert counts["news"] == len(set(revs))
    assert {subscription.reader.cursor.rev for _, subscription in views} == {
        (await act(Thread.objects.get, pk=thread.pk)).rev
    }


async def test_changes_that_are_not_read_at_once_are_read_one_after_the_other(thread, counts, monkeypatch):
    for name, value in {"REPLY_BYTES": 1, "MAX_UNMEASURED": 0}.items():
        monkeypatch.setattr(f"durable_agents.live.reader.{name}", value)
    for _ in range(3):
        await act(send_message, thread, "Hi")
    feed = ThreadFeed(thread.pk)
    screen, subscription = viewed(feed, cursor=Cursor(rev=1))
    subscription.end_read()
    await feed.refresh(subscription)
    assert counts["news"] >= 3
    assert subscription.reader.cursor.rev == (await act(Thread.objects.get, pk=thread.pk)).rev
    frames = [json.loads(text) for text in screen.texts]
    assert [frame["type"] for frame in frames].count("message") == 3
    assert [frame["rev"] for frame in frames] == sorted(frame["rev"] for frame in frames)


async def test_nothing_is_read_for_a_client_that_does_not_keep_up_until_it_has_read(thread, counts):
    feed = ThreadFeed(thread.pk)
    screen, subscription = viewed(feed, cursor=Cursor(rev=1, stream="s", seq=0))
    subscription.end_read()
    screen.is_full = True
    for seq in (1, 2):
        feed.on_delta(thread.pk, delta(feed, seq))
    feed.on_change(thread.pk)
    assert not screen.texts
    screen.is_full = False
    await feed.refresh(subscription)
    assert counts["news"] == 1


async def test_all_viewers_of_a_thread_that_is_gone_are_told(thread, monkeypatch):
    def gone(_: ThreadReader) -> Any:
        raise ThreadNotFoundError(thread.pk)

    monkeypatch.setattr(ThreadReader, "news", gone)
    feed = ThreadFeed(thread.pk)
    views = [viewed(feed, cursor=Cursor(rev=1)) for _ in range(3)]
    for _, subscription in views:
        subscription.end_read()
    for _, subscription in views:
        subscription.is_stale = True
    await feed.refresh(views[0][1])
    assert [screen.ended for screen, _ in views] == [[subscription] for _, subscription in views]


async def test_a_read_that_fails_is_tried_again_at_the_next_notification(thread, monkeypatch, counts):
    news, problems = ThreadReader.news, [RuntimeError("no")]

    def failing(reader: ThreadReader) -> Any:
        if problems:
            raise problems.pop()
        return news(reader)

    monkeypatch.setattr(ThreadReader, "news", failing)
    feed = ThreadFeed(thread.pk)
    _, subscription = viewed(feed, cursor=Cursor(rev=1))
    subscription.end_read()
    await feed.refresh(subscription)
    assert subscription.is_stale
    await feed.refresh(subscription)
    assert not subscription.is_stale
    assert not subscription.is_reading


def test_the_text_of_a_frame_escapes_what_cannot_be_utf_8():
    text = EncodedFrame({"type": "tool", "id": "\ud800"}).text('"t"')
    assert text == '{"type":"tool","id":"\\ud800","thread":"t"}'

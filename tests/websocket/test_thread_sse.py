"""Event streams of one process share what they read, with each other and with websockets."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest

from durable_agents import delete_thread, send_message
from durable_agents.live import thread_sse
from durable_agents.live.caller_limits import STREAMS
from durable_agents.live.reader import Cursor, ThreadReader
from durable_agents.live.socket_checks import recheck
from durable_agents.live.thread_feed import feeds
from durable_agents.live.thread_sse import ThreadEvents, cursor_of
from durable_agents.models import Thread
from durable_agents.policies import SignIn
from tests.websocket.sockets import act, forget_layer

Frame = dict[str, Any]
pytestmark = pytest.mark.parametrize("delivery", ["hints"], indirect=True)


def events_of(thread: Thread, user: User, *, cursor: Cursor | None = None) -> ThreadEvents:
    """Return the events of a thread for a user."""
    request: Any = HttpRequest()
    request.user, request.session = user, None
    slot = STREAMS.take(f"test.{user.pk}", limit=1000)
    assert slot is not None
    reader = ThreadReader(thread.pk, cursor)
    return ThreadEvents(reader, asker=request, sign_in=SignIn(request), slot=slot, name=str(thread.pk), tail=50)


def delta(thread: Thread, seq: int) -> Frame:
    """Return a delta as workers publish it."""
    chunks = [{"type": "text-delta", "id": "0", "delta": "x"}]
    stream = "0" * 8 + "-0000-4000-8000-" + "0" * 12
    return {"type": "delta", "thread": str(thread.pk), "stream": stream, "message": "m", "seq": seq, "chunks": chunks}


async def until(events: ThreadEvents, text: str) -> str:
    """Return what comes up to a text."""
    received = ""
    async with asyncio.timeout(10):
        while text not in received:
            new = await events.next()
            assert new is not None, received
            received += "".join(new)
    return received


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells when it is true
            await asyncio.sleep(0.01)


@pytest.fixture
async def hints(delivery: str) -> AsyncIterator[None]:
    """Deliver changes by notifications only."""
    yield
    await forget_layer()


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the reads of threads."""
    counted: Counter[str] = Counter()
    for name in ("news", "begin"):
        original = getattr(ThreadReader, name)

        def counting(*args: Any, _name: str = name, _original: Any = original, **options: Any) -> Any:
            counted[_name] += 1
            return _original(*args, **options)

        monkeypatch.setattr(ThreadReader, name, counting)
    return counted


@pytest.mark.parametrize("streams", [1, 20])
async def test_a_change_is_read_once_for_all_event_streams_of_a_thread(hints, thread, user, counts, streams):
    async with AsyncExitStack() as stack:
        opened = [events_of(thread, user) for _ in range(streams)]
        for events in opened:
            await stack.enter_async_context(events)
            await until(events, '"type":"snapshot"')
        await act(send_message, thread, "Hi")
        received = [await until(events, '"status":"streaming"') for events in opened]
        assert len(set(received)) == 1
        assert counts == {"begin": streams, "news": 1}


async def test_an_event_stream_shares_its_reads_with_a_websocket(connect, hints, thread, user, counts):
    events = events_of(thread, user)
    socket = await connect()
    async with events:
        await until(events, '"type":"snapshot"')
        await socket.ask(type="subscribe", thread=str(thread.pk))
        await act(send_message, thread, "Hi")
        await until(events, '"status":"streaming"')
        await socket.hear_status("streaming")
    assert counts["news"] == 1


async def test_a_delta_that_arrives_as_a_notification_is_passed_on_without_a_read(hints, thread, user, counts):
    events = events_of(thread, user)
    async with events:
        await until(events, '"type":"snapshot"')
        subscription = next(iter(feeds()[thread.pk].subscriptions))
        first = delta(thread, 0)
        subscription.reader.cursor = Cursor(rev=subscription.reader.cursor.rev, stream=first["stream"], seq=-1)
        for seq in range(3):
            feeds()[thread.pk].on_delta(thread.pk, delta(thread, seq))
        received = await until(events, '"seq":2')
        ids = [line[4:] for line in received.splitlines() if line.startswith("id: ")]
        assert [cursor_of(text).seq for text in ids] == [0, 1, 2]
        assert counts["news"] == 0


async def test_nothing_is_read_for_a_client_that_does_not_keep_up_until_it_has_read(
    hints, thread, user, counts, monkeypatch
):
    monkeypatch.setattr(thread_sse, "MAX_WAITING", 100)
    events = events_of(thread, user)
    async with events:
        await until(events, '"type":"snapshot"')
        for number in range(5):
            await act(send_message, thread, f"Message {number}")
            feeds()[thread.pk].on_change(thread.pk)
            await wait_until(lambda: events.is_full)
        assert counts["news"] == 1
        received = await until(events, "Message 4")
        assert counts["news"] == 2
        assert [received.count(f"Message {number}") for number in range(5)] == [1] * 5


async def test_the_streams_of_users_who_may_not_view_the_thread_any_more_end_together(hints, thread, user):
    other = await act(User.objects.create_user, "bob")
    async with AsyncExitStack() as stack:
        opened = [events_of(thread, user), events_of(thread, user)]
        for events in opened:
            await stack.enter_async_context(events)
            await until(events, '"type":"snapshot"')
        await recheck(opened)
        assert not any(events.is_full or events._is_over for events in opened)
        await act(Thread.objects.filter(pk=thread.pk).update, owner=other)
        await recheck(opened)
        assert [await events.next() for events in opened] == [None, None]


async def test_a_thread_that_is_deleted_ends_the_events_with_an_error(hints, thread, user):
    events = events_of(thread, user)
    async with events:
        await until(events, '"type":"snapshot"')
        await act(delete_thread, thread)
        await until(events, '"code":"thread_not_found"')
        assert await events.next() is None


async def test_a_stream_that_has_ended_is_not_followed(hints, thread, user):
    events = events_of(thread, user)
    async with events:
        assert list(feeds()) == [thread.pk]
    assert list(feeds()) == []


async def test_a_response_that_nobody_reads_gives_its_slot_back_at_once(hints, thread, user):
    """Not only when the garbage collector looks for cycles."""
    gc.disable()
    try:
        events = events_of(thread, user)
        assert STREAMS.take(f"test.{user.pk}", limit=1) is None
        del events
        slot = STREAMS.take(f"test.{user.pk}", limit=1)
    finally:
        gc.enable()
    assert slot is not None
    slot.release()

"""A response that goes on: signs of life, who may stay, what happens when something breaks in the middle of it."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser
from django.db import connections
from django.http import HttpRequest

from durable_agents import create_thread
from durable_agents.live import sse
from durable_agents.live.caller_limits import STREAMS
from durable_agents.live.hub import hub
from durable_agents.live.sse import AnswerSource, Reads, event_stream
from durable_agents.models import Thread
from durable_agents.reading import AnswerStream, latest_answer_of

pytestmark = pytest.mark.django_db(transaction=True)


class Broken:
    """A source that breaks at its second look."""

    is_over = False
    looks = 0

    def read(self) -> list[str]:
        """See Source."""
        self.looks += 1
        if self.looks > 1:
            raise RuntimeError("the database has gone")
        return ["data: {}\n\n"]


@pytest.fixture
def thread() -> Thread:
    """Return a thread with its first step due, and nobody to work on it."""
    return create_thread("chatty", prompt="Hi")


def source_of(thread: Thread) -> AnswerSource:
    """Return what tells the latest answer."""
    return AnswerSource(AnswerStream(thread.pk, answer=latest_answer_of(thread)))


def asker() -> HttpRequest:
    """Return a caller without a session."""
    request = HttpRequest()
    request.user = AnonymousUser()
    return request


def body_of(
    thread: Thread, source: Any, *, seconds: float, may_stay: Callable[[], bool] = lambda: True
) -> tuple[str, bool]:
    """Return what comes within so many seconds, and whether the response has ended."""

    async def read() -> tuple[str, bool]:
        slot = STREAMS.take("test", limit=1000)
        reads = Reads(thread.pk, source, asker=asker(), slot=slot, may_stay=may_stay)
        text, pieces = b"", aiter(event_stream(reads).streaming_content)
        try:
            async with asyncio.timeout(seconds):
                async for piece in pieces:
                    text += piece
        except TimeoutError:
            return text.decode(), False
        finally:
            await pieces.aclose()
        return text.decode(), True

    try:
        return async_to_sync(read)()
    finally:
        connections.close_all()


def test_a_quiet_response_gives_signs_of_life(thread, monkeypatch):
    """Comments, which clients ignore and proxies see."""
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.2)
    text, has_ended = body_of(thread, source_of(thread), seconds=1)
    assert not has_ended
    assert text.startswith(': stream-open\n\ndata: {"type":"start"')
    assert 2 <= text.count(": keep-alive\n\n") <= 5


def test_signs_of_life_come_often_enough():
    """Fifteen seconds were promised."""
    assert sse.HEARTBEAT_SECONDS < 15


def test_whoever_may_not_see_the_thread_any_more_is_not_told_more(thread, monkeypatch):
    """It is asked again now and then."""
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 0)
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.1)
    _, has_ended = body_of(thread, source_of(thread), seconds=5, may_stay=lambda: False)
    assert has_ended


def test_an_error_in_the_middle_ends_the_response_and_is_logged(thread, monkeypatch, caplog):
    """It never leaves it: servers break on what is raised in the middle of a body."""
    monkeypatch.setattr(sse, "HEAL_SECONDS", 0.1)
    text, has_ended = body_of(thread, Broken(), seconds=5)
    assert (text, has_ended) == (": stream-open\n\ndata: {}\n\n", True)
    assert "a stream of events broke off" in caplog.text


async def all_of(body: Any) -> list[bytes]:
    """Read to the end, as a server does."""
    return [piece async for piece in body]


async def watched(threads: list[UUID]) -> None:
    """Wait until these threads are watched, and no other."""
    for _ in range(500):
        if list(hub().followed) == threads:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"watched: {list(hub().followed)}")


def test_a_response_that_was_closed_is_not_watched_for(thread):
    """The poller has nobody left to tell."""

    source = source_of(thread)

    async def read() -> None:
        slot = STREAMS.take("test", limit=1000)
        body = aiter(event_stream(Reads(thread.pk, source, asker=asker(), slot=slot, may_stay=lambda: True)))
        reading = asyncio.ensure_future(all_of(body))
        await watched([thread.pk])
        reading.cancel()
        await asyncio.wait([reading])
        await watched([])

    try:
        async_to_sync(read)()
    finally:
        connections.close_all()


class DeafLayer:
    """A channel layer that does not answer."""

    async def new_channel(self) -> str:
        """Fail."""
        raise ConnectionError("no Redis")


def test_a_channel_layer_that_does_not_answer_costs_hints_only(thread, monkeypatch, caplog):
    """What is new is seen all the same, a little later."""
    monkeypatch.setattr("durable_agents.notifications.layer_crosses_processes", lambda: True)
    monkeypatch.setattr("channels.layers.get_channel_layer", DeafLayer)
    monkeypatch.setattr(sse, "HEAL_SECONDS", 0.1)
    source = source_of(thread)
    looks: list[int] = []
    reading = source.read
    source.read = lambda: (looks.append(1), reading())[1]  # type: ignore[method-assign]
    text, has_ended = body_of(thread, source, seconds=1)
    assert '{"type":"start"' in text
    assert not has_ended
    assert len(looks) > 3
    assert "the channel layer does not answer" in caplog.text

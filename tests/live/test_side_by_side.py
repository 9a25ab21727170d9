"""Websockets, event streams and chats in one web process: each gets its news at once, whoever else is there."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from tests.chat.server import Server
from tests.crash.talk import words
from tests.live.followers import Follower, connections_to, members
from tests.servers.model import ModelUnderTest, Reply
from tests.servers.redis import RedisUnderTest
from tests.workers import ROOT, until

People = Callable[[str], Follower]
STORY = Reply(text=words(60), delay_seconds=0.04)
"""It takes two and a half seconds: without hints it would come in one or two pieces, five seconds apart."""
LIVE = 12
STREAMS = 200
OPENED_AT_ONCE = 20
"""A stream needs a database connection while it is opened, and PostgreSQL has a hundred for everybody."""


@pytest.mark.slow
def test_a_stream_of_a_quiet_thread_keeps_no_websocket_from_its_text(
    follower: People, workers: None, model_server: ModelUnderTest
):
    """Neither those of the same person nor those of another."""
    model_server.answer_with(lambda _: STORY)
    ann, bob = follower("ann"), follower("bob")
    hers, his = ann.thread(), bob.thread()
    quiet = ann.events(ann.thread())
    with ann.wire().subscribe(hers.pk) as socket, bob.wire().subscribe(his.pk) as other:
        ann.send(hers)
        bob.send(his)
        for wire in (socket, other):
            wire.until("thread", status="completed", seconds=40)
    quiet.hang_up()
    told = [socket.count("delta"), other.count("delta")]
    assert min(told) >= LIVE, told


@pytest.mark.slow
@pytest.mark.parametrize("server_kind", ["daphne", "uvicorn"], indirect=True)
def test_all_edges_of_one_process_are_told_live_when_they_are_open_at_once(
    follower: People, workers: None, model_server: ModelUnderTest
):
    """Two people; the first has a websocket and an event stream on one thread and a chat, the second a websocket."""
    model_server.answer_with(lambda _: STORY)
    ann, bob = follower("ann"), follower("bob")
    hers, his = ann.thread(), bob.thread()
    events = ann.events(hers)
    with ann.wire().subscribe(hers.pk) as socket, bob.wire().subscribe(his.pk) as other:
        chat = ann.say("A story.", path="chat/talker").answered()
        ann.send(hers)
        bob.send(his)
        chat.ended(seconds=40)
        for wire in (socket, other):
            wire.until("thread", status="completed", seconds=40)
        events.until("step", seconds=40)
    events.hang_up()
    told = {
        "socket": socket.count("delta"),
        "other": other.count("delta"),
        "events": events.kinds.count("delta"),
        "chat": chat.kinds.count("text-delta"),
    }
    assert min(told.values()) >= LIVE, told


def test_a_consumer_of_the_project_in_the_same_process_gets_its_messages(follower: People):
    """It shares neither a lock nor a buffer with the threads that are followed."""
    ann = follower("ann")
    thread = ann.thread()
    events = ann.events(thread)
    with ann.wire().subscribe(thread.pk), ann.wire("ws/board/") as board:
        for number in range(20):
            board.tell(type="note", number=number)
        board.until("note", number=19, seconds=5)
        assert board.count("note") == 20
    events.hang_up()


@pytest.mark.parametrize("layer_env", ["core.RedisChannelLayer"], indirect=True)
def test_a_doctor_beside_a_live_web_process_takes_no_messages_away(
    follower: People, layer_env: dict[str, str], site: Server
):
    """Its probe uses a channel of its own; the board hears everything while it runs."""
    ann = follower("ann")
    thread = ann.thread()
    with ann.wire().subscribe(thread.pk), ann.wire("ws/board/") as board:
        command = [sys.executable, "manage.py", "agents_doctor"]
        doctor = subprocess.Popen(command, cwd=ROOT, env=layer_env, stdout=subprocess.PIPE, text=True)
        number = 0
        while doctor.poll() is None:
            board.tell(type="note", number=number)
            board.until("note", number=number, seconds=5)
            number += 1
        assert doctor.stdout is not None
        with doctor.stdout:
            assert "The channel layer delivers messages." in doctor.stdout.read()
    assert number > 10


async def open_streams(one: Follower, thread: Any, number: int, at_all: Callable[[], Any]) -> list[str]:
    """Open so many event streams of a thread, call the function, and return what the next line of each says after
    it."""

    async def first_line_of(lines: Any) -> str:
        async for line in lines:
            if line.startswith("data: "):
                return str(json.loads(line[6:])["type"])
        return "nothing"

    opening = asyncio.Semaphore(OPENED_AT_ONCE)
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Token {one.token}"}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx.AsyncClient(headers=headers, limits=limits, timeout=60, trust_env=False)
        )
        path = f"{one.url}/agents/threads/{thread}/events/"

        async def opened() -> Any:
            async with opening:
                body = (await stack.enter_async_context(client.stream("GET", path))).aiter_lines()
                assert await first_line_of(body) == "snapshot"
                return body

        bodies = await asyncio.gather(*(opened() for _ in range(number)))
        await asyncio.to_thread(at_all)
        return list(await asyncio.gather(*(first_line_of(body) for body in bodies)))


@pytest.mark.slow
def test_two_hundred_event_streams_at_once_need_a_few_connections_to_redis(
    follower: People, site: Server, own_redis: RedisUnderTest
):
    """All are told of the message at once, and the layer never runs out of connections."""
    ann = follower("ann")
    thread = ann.thread()
    used: list[int] = []

    def say() -> None:
        used.append(connections_to(own_redis.port, site.process.pid))
        ann.send(thread)

    told = asyncio.run(open_streams(ann, thread.pk, STREAMS, say))
    assert told == ["message"] * STREAMS
    assert used[0] <= 8
    assert "Too many connections" not in site.log
    assert "the channel layer does not answer" not in site.log


@pytest.mark.slow
def test_a_redis_that_was_emptied_is_joined_anew(follower: People, site: Server, own_redis: RedisUnderTest):
    """Whoever is connected is told live again within seconds, and not only by looking."""
    ann = follower("ann")
    thread = ann.thread()
    with ann.wire().subscribe(thread.pk):
        assert members(own_redis, thread) == 1
        own_redis.restart()
        until(lambda: members(own_redis, thread) == 1, seconds=30, what=lambda: site.log)

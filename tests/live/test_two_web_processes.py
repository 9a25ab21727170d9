"""Two web processes on one Redis: whoever follows a thread gets all of it live, whichever process they are connected
to, and the number of followers is not the number of connections to Redis."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from durable_agents.models import Thread
from tests.api.calls import person
from tests.chat.client import Body
from tests.chat.server import Server
from tests.crash.talk import asked, words
from tests.live.followers import Follower, connections_to
from tests.live.wire import Wire
from tests.servers.model import ModelUnderTest, Reply
from tests.servers.redis import RedisUnderTest
from tests.workers import at_rest, until

WORDS = 80
"""At four a second an answer takes twenty seconds: without hints it would come in four or five pieces."""
LIVE = 12
SOCKETS, STREAMS = 4, 3
"""Followers of each of two threads at each of two processes."""
FEW_CONNECTIONS = 8


@pytest.fixture
def sites(layer_env: dict[str, str]) -> Iterator[list[Server]]:
    """Return two running web servers."""
    with ExitStack() as stack:
        servers = [Server(layer_env, application="tests.live.asgi:application") for _ in range(2)]
        yield [stack.enter_context(server) for server in servers]


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """The followers of one thread at one process."""

    sockets: list[Wire]
    streams: list[Body]

    @property
    def received(self) -> list[list[dict[str, Any]]]:
        """What each has received so far."""
        return [*(list(wire.frames) for wire in self.sockets), *(list(body.chunks) for body in self.streams)]


def crowd(stack: ExitStack, one: Follower, thread: Thread) -> Crowd:
    """Let many follow a thread; wait until each has its snapshot."""
    stack.callback(one.client.close)
    sockets = [stack.enter_context(one.wire()) for _ in range(SOCKETS)]
    for wire in sockets:
        wire.subscribe(thread.pk)
    streams = [one.events(thread) for _ in range(STREAMS)]
    for body in streams:
        stack.callback(body.hang_up)
    return Crowd(sockets=sockets, streams=streams)


def received(groups: list[Crowd]) -> list[list[dict[str, Any]]]:
    """What each follower of all these groups has received so far."""
    return [frames for group in groups for frames in group.received]


def seen_by(groups: list[Crowd]) -> str:
    """Say how often each follower has received which type of frame."""
    return str([dict(Counter(frame["type"] for frame in frames)) for frames in received(groups)])


def is_over(frames: list[dict[str, Any]]) -> bool:
    """Whether the answer is complete."""
    return any(frame["type"] == "thread" and frame["status"] == "completed" for frame in frames)


def said(frames: list[dict[str, Any]]) -> str:
    """Return the text of the answer as it was committed."""
    [step] = [frame for frame in frames if frame["type"] == "step"]
    return "".join(part["text"] for part in step["parts"] if part["type"] == "text")


@pytest.mark.slow
def test_followers_at_two_web_processes_get_every_delta_over_a_few_connections(
    sites: list[Server], workers: None, model_server: ModelUnderTest, own_redis: RedisUnderTest
):
    """Two people, each followed at both processes; each message is sent through the one and the other."""
    model_server.answer_with(lambda request: Reply(text=words(WORDS, asked(request)), delay_seconds=0.25))
    with ExitStack() as stack:
        people = [Follower(site=sites[0], user=person("ann")), Follower(site=sites[1], user=person("bob"))]
        for one in people:
            stack.callback(one.client.close)
        threads = [one.thread() for one in people]
        crowds = [
            (thread, crowd(stack, one.at(site), thread))
            for one, thread in zip(people, threads, strict=True)
            for site in sites
        ]
        used = [connections_to(own_redis.port, site.process.pid) for site in sites]
        for one, thread in zip(people, threads, strict=True):
            one.send(thread, f"story-of-{one.user.pk}")
        at_rest(*threads, seconds=90)
        everybody = [group for _, group in crowds]
        until(lambda: all(map(is_over, received(everybody))), seconds=30, what=lambda: seen_by(everybody))
        used += [connections_to(own_redis.port, site.process.pid) for site in sites]
        for (thread, group), one in zip(crowds, [people[0]] * 2 + [people[1]] * 2, strict=True):
            for frames in group.received:
                deltas = [frame for frame in frames if frame["type"] == "delta"]
                assert {frame["thread"] for frame in deltas} == {str(thread.pk)}
                assert [frame["seq"] for frame in deltas] == list(range(len(deltas)))
                assert len(deltas) >= LIVE
                assert said(frames) == words(WORDS, f"story-of-{one.user.pk}")
    assert max(used) <= FEW_CONNECTIONS, used
    for site in sites:
        assert "Too many connections" not in site.log

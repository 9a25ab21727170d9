"""What one user may have open at once, and be sent, in one web process. Others are not affected."""

import asyncio
import gc
import json
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import httpx
import pytest
from django.contrib.auth.models import AnonymousUser, User

from durable_agents import create_thread
from durable_agents.live import caller_limits
from durable_agents.live.caller_limits import Places, allowance_of, caller_of, turn_to_read
from durable_agents.live.frame_sender import FlowControl
from durable_agents.live.reader import ThreadReader
from tests.chat.agents import chatty
from tests.chat.server import Server
from tests.processes import database_url
from tests.websocket.real import connected
from tests.websocket.sockets import act, cookie_of
from tests.workers import until

LIMITS = {"MAX_SOCKETS_PER_USER": 2, "MAX_SUBSCRIPTIONS": 2, "MAX_STREAMS_PER_USER": 1}


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def server(request: pytest.FixtureRequest, django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Yield a server with low limits."""
    env = child_env | {"TEST_DATABASE_URL": database_url(), "TEST_DURABLE_AGENTS": json.dumps(LIMITS)}
    with Server(env, kind=request.param, application="tests.websocket.asgi:application") as server:
        yield server


def test_a_user_has_only_so_many_sockets_and_another_user_has_some(server: Server, cookie: str):
    bob = cookie_of(User.objects.create_user("bob", password="secret"))
    with ExitStack() as stack:
        sockets = [stack.enter_context(connected(server, cookie=cookie)) for _ in range(2)]
        for socket in sockets:
            socket.tell(type="hello", version=1)
            assert socket.hear()["type"] == "welcome"
        with connected(server, cookie=cookie) as third:
            last, code = third.end()
        assert (code, last and last["retryAfter"] > 0) == (4429, True)
        assert "2 websockets" in str(last)
        with connected(server, cookie=bob) as other:
            other.tell(type="hello", version=1)
            assert other.hear()["type"] == "welcome"
        sockets[0].wire.close()
        until(lambda: is_welcome(server, cookie), what="the place of a closed socket is free again")


def is_welcome(server: Server, cookie: str) -> bool:
    """Return whether a new socket is accepted; it is closed again."""
    with connected(server, cookie=cookie) as socket:
        socket.tell(type="hello", version=1)
        return socket.hear()["type"] == "welcome"


def test_a_socket_follows_only_so_many_threads(server: Server, cookie: str, user: User):
    threads = [create_thread(chatty, owner=user) for _ in range(3)]
    with connected(server, cookie=cookie) as socket:
        socket.tell(type="hello", version=1)
        assert socket.hear()["limits"]["subscriptions"] == 2
        answers = [socket.ask(type="subscribe", thread=str(thread.pk)) for thread in threads]
    assert [answer["type"] for answer in answers] == ["snapshot", "snapshot", "error"]
    assert answers[2]["code"] == "too_many_subscriptions"


def test_a_user_has_only_so_many_event_streams(server: Server, cookie: str, user: User):
    """The answer says how many and when to try again; a stream that has ended makes room."""
    thread = create_thread(chatty, owner=user)
    with httpx.Client(base_url=server.url, headers={"Cookie": cookie}, trust_env=False, timeout=20) as client:
        path = f"/agents/threads/{thread.pk}/events/"
        with client.stream("GET", path) as first:
            assert first.status_code == 200
            refused = client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
            assert "1 event stream" in refused.json()["detail"]
            assert int(refused.headers["Retry-After"]) > 0

        def is_served() -> bool:
            with client.stream("GET", path) as again:
                return again.status_code == 200

        until(is_served)


def asker(user: object, session_key: str | None = None) -> object:
    """Return somebody who asks from an address."""
    session = SimpleNamespace(session_key=session_key) if session_key else None
    return SimpleNamespace(user=user, session=session, headers={}, META={"REMOTE_ADDR": "10.0.0.1"})


def test_users_are_counted_by_id_and_visitors_by_scope(user: User, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caller_limits, "owner_and_scope", lambda one: (None, f"visitor:{one.session.session_key}"))
    assert caller_of(asker(user, "s1")) == caller_of(asker(user)) == f"user.{user.pk}"
    assert caller_of(asker(AnonymousUser(), "s1")) == "scope.visitor:s1"
    assert caller_of(asker(AnonymousUser())).startswith("address.")


def test_a_place_is_given_back_once_and_visitors_behind_one_address_are_not_limited():
    places = Places()
    first, second = (places.take("user.1", limit=2) for _ in range(2))
    assert first is not None
    assert places.take("user.1", limit=2) is None
    first.release()
    first.release()
    third = places.take("user.1", limit=2)
    assert (third is not None, places.take("user.1", limit=2)) == (True, None)
    del second
    gc.collect()
    assert places.take("user.1", limit=2) is not None
    assert None not in [places.take("address.x", limit=1) for _ in range(3)]


async def test_who_was_sent_much_waits_and_others_do_not(connect, thread, user, agent, monkeypatch):
    monkeypatch.setattr(caller_limits, "BYTES_AT_ONCE", 10)
    monkeypatch.setattr(caller_limits, "BYTES_PER_SECOND", 1)
    monkeypatch.setattr(caller_limits, "MAX_WAIT_SECONDS", 3)
    monkeypatch.setattr(caller_limits, "_allowances", {})
    bob = await act(User.objects.create_user, "bob")
    his = await act(create_thread, agent, owner=bob)
    noisy, other = await connect(), await connect(cookie=await act(cookie_of, bob))
    assert (await noisy.ask(type="subscribe", thread=str(thread.pk)))["type"] == "snapshot"
    again = await connect()
    for socket in (noisy, again):
        await socket.tell(type="subscribe", id="again", thread=str(thread.pk))
    assert await noisy.hears_nothing()
    assert await again.hears_nothing(), "the sockets of a user have one allowance"
    assert (await other.ask(type="subscribe", thread=str(his.pk)))["type"] == "snapshot"


async def test_sockets_of_a_user_that_subscribe_at_once_are_sent_one_snapshot_after_the_other(
    connect, thread, monkeypatch
):
    """The burst ends with the allowance: each snapshot is counted before the next one is read."""
    monkeypatch.setattr(caller_limits, "BYTES_AT_ONCE", 1_000)
    monkeypatch.setattr(caller_limits, "BYTES_PER_SECOND", 1)
    monkeypatch.setattr(caller_limits, "_allowances", {})
    reads: list[int] = []
    begin = ThreadReader.begin

    def counted(reader: ThreadReader, *, tail: int = 50) -> list[object]:
        reads.append(1)
        frames = begin(reader, tail=tail)
        return [frames[0] | {"title": "x" * 600}, *frames[1:]]

    monkeypatch.setattr(ThreadReader, "begin", counted)
    sockets = [await connect() for _ in range(8)]
    for socket in sockets:
        await socket.tell(type="subscribe", id="s", thread=str(thread.pk))
    while len(reads) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    assert len(reads) == 2
    monkeypatch.setattr(caller_limits, "MAX_WAIT_SECONDS", 0)  # so that the others can close


async def test_a_client_that_has_not_taken_the_last_frames_leaves_the_turn_to_others(monkeypatch):
    """A socket whose buffer becomes full while it waits does not read, and does not keep the turn."""
    monkeypatch.setattr(caller_limits, "_allowances", {})
    turns: list[str] = []

    async def send(_: object) -> None:
        await asyncio.Event().wait()

    async def take(name: str, flow: FlowControl) -> None:
        async with turn_to_read("user.1", flow):
            turns.append(name)
            await asyncio.sleep(0.05)

    deaf, other, first = (FlowControl(send, on_resume=lambda: None) for _ in range(3))
    tasks = [asyncio.create_task(take(name, flow)) for name, flow in (("first", first), ("deaf", deaf))]
    await asyncio.sleep(0)
    deaf.put("x" * 100_000)
    tasks.append(asyncio.create_task(take("other", other)))
    await asyncio.wait(tasks, timeout=0.5)
    assert (turns, allowance_of("user.1").is_full) == (["first", "other"], True)
    deaf.end()
    await asyncio.wait(tasks, timeout=5)
    assert turns == ["first", "other", "deaf"]

"""Checks of all websockets together: their cost does not grow with the number of websockets."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db.backends.utils import CursorWrapper

from durable_agents import Agent, create_thread
from durable_agents.live.reader import ThreadReader
from durable_agents.live.socket_checks import heal, recheck, socket_checks
from durable_agents.models import Thread
from durable_agents.policies import OwnerPolicy
from tests.websocket.sockets import Socket, act, cookie_of

FEW, MANY = 2, 20


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the statements, and the reads of threads."""
    counted: Counter[str] = Counter()
    execute, news = CursorWrapper.execute, ThreadReader.news

    def counting_execute(cursor: Any, *args: Any, **options: Any) -> Any:
        counted["statements"] += 1
        return execute(cursor, *args, **options)

    def counting_news(reader: ThreadReader) -> Any:
        counted["news"] += 1
        return news(reader)

    monkeypatch.setattr(CursorWrapper, "execute", counting_execute)
    monkeypatch.setattr(ThreadReader, "news", counting_news)
    return counted


def person(number: int) -> tuple[User, str]:
    """Return a new user and the cookie of a session."""
    user = User.objects.create_user(f"user-{number}", password="secret")
    return user, cookie_of(user)


async def subscribed(connect: Any, agent: Agent, numbers: range) -> list[tuple[Socket, Thread]]:
    """Open a socket for each of so many users, each on a thread of their own."""
    opened = []
    for number in numbers:
        user, cookie = await act(person, number)
        thread = await act(create_thread, agent, owner=user)
        socket = await connect(cookie=cookie)
        await socket.ask(type="subscribe", thread=str(thread.pk))
        opened.append((socket, thread))
    return opened


def checked() -> list[Any]:
    """Return the websockets that are checked."""
    return list(socket_checks()._next_recheck)


@pytest.mark.parametrize("delivery", ["hints"], indirect=True)
async def test_idle_sockets_cost_neither_statements_nor_tasks_of_their_own(connect, agent, delivery, counts):
    figures = []
    for numbers in (range(FEW), range(FEW, MANY)):
        await subscribed(connect, agent, numbers)
        counts.clear()
        await heal()
        await recheck(checked())
        figures.append((counts["statements"], len(socket_checks()._tasks), sum(len(one.tasks) for one in checked())))
        assert counts["news"] == 0
    assert len(checked()) == MANY
    assert figures[0] == figures[1]
    assert figures[0][0] <= 8
    assert figures[0][1:] == (2, 0)


@pytest.mark.parametrize("delivery", ["hints"], indirect=True)
async def test_a_change_without_a_notification_is_found_for_all_sockets_of_its_thread_only(
    connect, agent, delivery, counts
):
    [(socket, thread), _] = await subscribed(connect, agent, range(2))
    await act(Thread.objects.filter(pk=thread.pk).update, title="Lost", rev=thread.rev + 5)
    await heal()
    assert (await socket.hear())["title"] == "Lost"
    assert counts["news"] == 1


@pytest.mark.parametrize("delivery", ["hints"], indirect=True)
async def test_a_thread_that_was_deleted_without_a_notification_ends(connect, agent, delivery):
    [(socket, thread)] = await subscribed(connect, agent, range(1))
    await act(Thread.objects.filter(pk=thread.pk).delete)
    await heal()
    assert (await socket.hear())["code"] == "thread_not_found"


async def test_users_lose_their_sockets_with_their_own_sessions_only(connect, agent):
    [(ended, _), (kept, _)] = await subscribed(connect, agent, range(2))
    session = checked()[0].scope["session"].session_key
    await act(Session.objects.filter(pk=session).delete)
    await recheck(checked())
    assert await ended.close_code() == 4401
    assert await kept.hears_nothing()


class RaisingPolicy(OwnerPolicy):
    """Fails for one user, and shows no thread whose title says no."""

    def filter(self, queryset: Any, request: Any) -> Any:
        """Return the others."""
        if request.user.last_name == "broken":
            raise RuntimeError("the policy is broken")
        return super().filter(queryset, request).exclude(title="closed")


async def test_a_policy_that_fails_for_one_user_is_still_asked_for_the_others(connect, agent, settings):
    [(_, theirs), (other, hers)] = await subscribed(connect, agent, range(2))
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.RaisingPolicy"}
    await act(User.objects.filter(username="user-0").update, last_name="broken")
    await act(Thread.objects.filter(pk__in=[theirs.pk, hers.pk]).update, title="closed")
    await recheck(checked())
    gone = await other.hear_until(lambda frame: frame["type"] == "error")
    assert gone[-1]["code"] == "thread_not_found"
    assert all(one.thread_ids == {theirs.pk} for one in checked() if one.thread_ids)


async def test_a_socket_that_cannot_be_closed_does_not_end_the_checks_of_the_others(connect, agent, monkeypatch):
    [_, (other, _)] = await subscribed(connect, agent, range(2))
    broken = checked()[0]

    def fail(*_: Any) -> None:
        raise RuntimeError("no longer there")

    monkeypatch.setattr(broken, "apply", fail)
    await act(Session.objects.all().delete)
    await recheck(checked())
    assert await other.close_code() == 4401


async def test_a_socket_that_cannot_be_looked_at_does_not_end_the_search_for_changes(connect, agent, monkeypatch):
    monkeypatch.setattr("durable_agents.live.socket_checks.HEAL_SECONDS", 0.05)
    await subscribed(connect, agent, range(1))
    looks = []

    def fail() -> None:
        looks.append(1)
        raise RuntimeError("no longer there")

    monkeypatch.setattr(checked()[0], "close_if_unresponsive", fail)
    deadline = time.monotonic() + 20
    while len(looks) < 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_the_checks_end_with_the_last_socket(connect, agent):
    [(first, _), (last, _)] = await subscribed(connect, agent, range(2))
    checks = socket_checks()
    await first.leave()
    assert len(checks._tasks) == 2
    await last.leave()
    assert not checks._tasks

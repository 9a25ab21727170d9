"""A response that goes on ends with the sign-in that it was asked for with, as a websocket does."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connections
from django.test import AsyncClient
from rest_framework.authtoken.models import Token

from durable_agents import create_thread
from durable_agents.live import socket_checks, sse
from durable_agents.models import Thread

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def user() -> User:
    """Return somebody with a token."""
    user = User.objects.create_user("ann", password="secret")
    Token.objects.create(user=user)
    return user


@pytest.fixture(autouse=True)
def thread(user: User, monkeypatch: pytest.MonkeyPatch) -> Thread:
    """Return a thread of theirs; whether they may see it is asked again and again."""
    monkeypatch.setattr("durable_agents.notifications.workers.notify_cluster", lambda _: None)
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 0)
    monkeypatch.setattr(sse, "HEAL_SECONDS", 0.05)
    monkeypatch.setattr(socket_checks, "RECHECK_SECONDS", 0.3)
    return create_thread("chatty", owner=user, prompt="Hello?", client_id="c1")


def ends_after(user: User, path: str, change: Callable[[User], Any], *, by: str) -> bool:
    """Whether a response that goes on ends soon after the change, and not before."""
    client = AsyncClient()
    headers = {"authorization": f"Token {user.auth_token.key}"} if by == "token" else {}
    if by == "session":
        client.force_login(user)

    async def read() -> bool:
        response = await client.get(f"/agents/{path}", headers=headers)
        assert response.status_code == 200, response.content
        reading = asyncio.ensure_future(all_of(response.streaming_content))
        done, _ = await asyncio.wait([reading], timeout=0.5)
        assert not done
        await sync_to_async(change)(user)
        done, _ = await asyncio.wait([reading], timeout=3)
        reading.cancel()
        await asyncio.wait([reading])
        return bool(done)

    try:
        return async_to_sync(read)()
    finally:
        connections.close_all()


async def all_of(body: Any) -> None:
    """Read to the end."""
    async for _ in body:
        pass


def lock_out(user: User) -> None:
    """Let the user be signed in no more."""
    User.objects.filter(pk=user.pk).update(is_active=False)


def change_password(user: User) -> None:
    """Let the user have another one."""
    user.set_password("another")
    user.save()


ENDS: list[tuple[str, Callable[[User], Any]]] = [
    ("session", lock_out),
    ("session", lambda user: Session.objects.all().delete()),
    ("session", change_password),
    ("token", lock_out),
    ("token", lambda user: user.auth_token.delete()),
]


@pytest.mark.parametrize("path", ["threads/c1/events/", "chat/c1/stream"])
@pytest.mark.parametrize(("by", "change"), ENDS)
def test_a_response_does_not_outlive_the_sign_in(user: User, by: str, change: Callable[[User], Any], path: str):
    """Logged out, locked out, another password, a token that was deleted."""
    assert ends_after(user, path, change, by=by)


def test_a_token_outlives_the_password(user: User):
    """It is no word of the password's."""
    assert not ends_after(user, "threads/c1/events/", change_password, by="token")

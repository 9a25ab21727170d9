"""A ticket from the REST API opens one socket, once and soon, for whom it was made."""

import asyncio
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from rest_framework.authtoken.models import Token

from durable_agents import create_thread, lifecycle
from durable_agents.models import Ticket
from tests.websocket.sockets import act


def fetched(user):
    """Return a ticket as a client gets it that signs in by a token."""
    token, _ = Token.objects.get_or_create(user=user)
    response = Client(headers={"Authorization": f"Token {token.key}"}).post("/agents/ws-ticket/")
    assert response.status_code == 200, response.content
    return response.json()["ticket"]


@pytest.fixture
def ticket(user):
    """Return a ticket of the user."""
    return fetched(user)


async def say_hello(connect, **frame):
    """Return a socket of nobody's that has said hello."""
    socket = await connect(cookie=None)
    await socket.tell(type="hello", version=1, **frame)
    return socket


async def test_a_ticket_lets_its_user_in(connect, thread, ticket):
    """Whose threads the socket then sees."""
    socket = await say_hello(connect, ticket=ticket)
    assert (await socket.hear())["user"] == "ann"
    assert (await socket.ask(type="subscribe", thread=str(thread.pk)))["type"] == "snapshot"


async def test_a_ticket_is_good_once(connect, ticket):
    """Also where the first socket is still open."""
    first = await say_hello(connect, ticket=ticket)
    assert (await first.hear())["type"] == "welcome"
    assert await (await say_hello(connect, ticket=ticket)).close_code() == 4401
    assert (await first.ask(type="ping", id=None))["type"] == "pong"


async def test_one_of_many_that_use_a_ticket_at_once_gets_in(user, ticket):
    """The database decides."""

    def used():
        try:
            return lifecycle.redeem_ticket(ticket)
        finally:
            connection.close()

    found = await asyncio.gather(*(asyncio.to_thread(used) for _ in range(8)))
    assert [who.user_id for who in found if who is not None] == [str(user.pk)]


async def test_a_ticket_runs_out(connect, ticket):
    """By the database's clock, a minute after it was made."""
    await act(Ticket.objects.update, expires_at=Now() - timedelta(seconds=1))
    assert await (await say_hello(connect, ticket=ticket)).close_code() == 4401


async def test_a_ticket_is_good_for_a_minute(ticket):
    """And no longer."""
    near = Ticket.objects.filter(expires_at__gt=Now() + timedelta(seconds=55))
    assert await act(near.filter(expires_at__lte=Now() + timedelta(seconds=60)).count) == 1


@pytest.mark.parametrize("wrong", ["", "x", 7, {}, [], True, "\ud800", "x" * 100_000])
async def test_what_is_no_ticket_is_refused(connect, wrong):
    """Whatever it is."""
    assert await (await say_hello(connect, ticket=wrong)).close_code() == 4401


async def test_a_user_who_was_locked_out_meanwhile_is_refused(connect, user, ticket):
    """And the ticket is used up."""
    await act(User.objects.filter(pk=user.pk).update, is_active=False)
    assert await (await say_hello(connect, ticket=ticket)).close_code() == 4401
    assert not await act(Ticket.objects.exists)


async def test_nothing_is_heard_before_the_ticket(connect, thread, ticket):
    """A socket has to say hello first, and is then closed for good."""
    socket = await connect(cookie=None)
    await socket.tell(type="subscribe", id="r1", thread=str(thread.pk))
    await socket.tell(type="hello", ticket=ticket)
    assert await socket.close_code() == 4401
    assert await socket.hears_nothing()
    assert await act(Ticket.objects.exists)


@pytest.mark.parametrize(("sent", "code"), [("{", 4400), ("[]", 4400), ('{"type": "hello", "version": 9}', 4406)])
async def test_what_is_no_hello_closes_the_socket(connect, sent, code):
    """As it does for those who are known."""
    socket = await connect(cookie=None)
    await socket.tell(sent)
    assert await socket.close_code() == code


async def test_a_socket_that_says_nothing_is_closed(connect, monkeypatch):
    """In ten seconds, which this test does not wait for."""
    monkeypatch.setattr("durable_agents.live.consumer.HELLO_SECONDS", 0.1)
    assert await (await connect(cookie=None)).close_code() == 4408


async def test_a_socket_that_said_hello_stays(connect, ticket, monkeypatch):
    """Beyond the time in which it had to."""
    monkeypatch.setattr("durable_agents.live.consumer.HELLO_SECONDS", 0.5)
    socket = await say_hello(connect, ticket=ticket)
    assert (await socket.hear())["type"] == "welcome"
    assert await socket.hears_nothing(1)
    assert (await socket.ask(type="ping", id=None))["type"] == "pong"


async def test_the_origin_is_checked_all_the_same(connect, ticket):
    """A ticket is no way round it."""
    assert await (await connect(cookie=None, origin="http://evil.example")).close_code() == 4403


async def test_a_ticket_counts_more_than_the_session(connect, agent, ticket):
    """The page that uses it says who it is."""
    other = await act(User.objects.create_user, "bob")
    theirs = await act(create_thread, agent, owner=other)
    socket = await connect()
    await socket.tell(type="hello", ticket=await act(fetched, other))
    assert (await socket.hear())["user"] == "bob"
    assert (await socket.ask(type="subscribe", thread=str(theirs.pk)))["type"] == "snapshot"


def token_of(user):
    """Return the header of a client that signs in by a token, as programs do."""
    return {"Authorization": f"Token {Token.objects.get_or_create(user=user)[0].key}"}


async def test_a_ticket_of_another_user_than_the_header_names_is_refused(connect, user, agent):
    """The socket does not change its user: the client contradicts itself, and is told so."""
    other = await act(User.objects.create_user, "bob")
    socket = await connect(cookie=None, headers=await act(token_of, user))
    await socket.tell(type="hello", version=1, ticket=await act(fetched, other))
    closing = await socket.hear()
    assert (closing["type"], closing["code"]) == ("closing", 4403)
    assert closing["message"] == "The ticket belongs to another user than the signed-in user."
    assert await socket.close_code() == 4403


async def test_a_ticket_of_another_user_than_an_earlier_ticket_is_refused(connect, agent, ticket):
    """Though nothing was subscribed to in between."""
    other = await act(User.objects.create_user, "bob")
    socket = await say_hello(connect, ticket=ticket)
    assert (await socket.hear())["user"] == "ann"
    await socket.tell(type="hello", version=1, ticket=await act(fetched, other))
    assert (await socket.hear())["code"] == 4403


@pytest.mark.parametrize("way", ["header", "ticket"])
async def test_a_ticket_of_the_same_user_is_taken(connect, user, agent, way):
    """As by a client that always fetches one."""
    if way == "header":
        socket = await connect(cookie=None, headers=await act(token_of, user))
    else:
        socket = await say_hello(connect, ticket=await act(fetched, user))
        assert (await socket.hear())["user"] == "ann"
    await socket.tell(type="hello", version=1, ticket=await act(fetched, user))
    assert (await socket.hear())["user"] == "ann"


async def test_nobody_changes_sides_in_the_middle(connect, agent, thread):
    """What one user has subscribed to is not shown to the next."""
    other = await act(User.objects.create_user, "bob")
    socket = await connect()
    await socket.ask(type="subscribe", thread=str(thread.pk))
    await socket.tell(type="hello", ticket=await act(fetched, other))
    assert await socket.close_code() == 4401


async def test_a_ticket_of_somebody_who_may_see_nothing_is_refused(connect, agent, ticket, settings):
    """The policy decides who may come."""
    settings.DURABLE_AGENTS = {"POLICY": f"{__name__}.Nothing"}
    assert await (await say_hello(connect, ticket=ticket)).close_code() == 4403


class Nothing:
    """Shows nothing to anybody."""

    def filter(self, queryset, request):
        """Return no thread."""
        return queryset.none()

    def allows(self, request, action, **_):
        """Allow nothing."""
        return False


async def test_a_socket_with_a_session_need_not_say_hello(connect, thread):
    """It is known already."""
    assert (await (await connect()).ask(type="subscribe", thread=str(thread.pk)))["type"] == "snapshot"

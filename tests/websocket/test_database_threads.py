"""The database connection of websockets: kept while any is open, and closed with the last, though CONN_MAX_AGE is 0."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from django.contrib.auth.models import User
from django.db import connection

from durable_agents import create_thread
from tests.chat.agents import chatty
from tests.chat.server import Server
from tests.servers.postgres import PostgresUnderTest
from tests.websocket.real import RealSocket, connected
from tests.websocket.sockets import cookie_of
from tests.workers import until


def sessions() -> int:
    """Return how many sessions this database has had."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT sessions FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def others() -> int:
    """Return how many other sessions there are now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


def greet(socket: RealSocket) -> None:
    """Say hello, and wait until the server does."""
    socket.tell(type="hello", version=1)
    assert socket.hear()["type"] == "welcome"


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_a_websocket_keeps_its_connection_until_the_last_one_ends(own_postgres: PostgresUnderTest, kind: str):
    user = User.objects.create_user("ann", password="secret")
    thread, cookie = create_thread(chatty, owner=user), cookie_of(user)
    with Server(own_postgres.env, kind=kind, application="tests.websocket.asgi:application") as server:
        with connected(server, cookie=cookie) as socket:
            socket.ask(type="subscribe", thread=str(thread.pk))
            until(lambda: others() == 1)
            before = sessions()
            for _ in range(20):
                assert socket.ask(type="older", thread=str(thread.pk), before=100)["type"] == "page"
            own_postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL"
                f" AND pid NOT IN (pg_backend_pid(), {connection.connection.info.backend_pid})"
            )
            answer = socket.ask(type="older", thread=str(thread.pk), before=100)
            assert answer["type"] == "page", "a connection that the server has cut is noticed"
        until(lambda: others() == 0, what="the connection stays open though no websocket is")
        assert sessions() - before <= 3


def test_clients_that_connect_at_once_share_the_connection_that_loads_their_users(own_postgres: PostgresUnderTest):
    cookie = cookie_of(User.objects.create_user("ann", password="secret"))
    with Server(own_postgres.env, application="tests.websocket.asgi:application") as server, ExitStack() as stack:
        greet(stack.enter_context(connected(server, cookie=cookie)))
        before = sessions()
        with ThreadPoolExecutor(10) as clients:
            opened = list(clients.map(lambda _: stack.enter_context(connected(server, cookie=cookie)), range(15)))
        for socket in opened:
            greet(socket)
        assert sessions() - before <= 5  # one of Channels, and one for each OS thread of the websockets

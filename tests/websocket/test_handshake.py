"""Who may have a socket: from an allowed origin, signed in, in a version that the server speaks."""

import base64

import pytest
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token

from tests.websocket.sockets import SUBPROTOCOL, act


async def test_the_subprotocol_is_echoed(connect):
    """The version that both speak."""
    assert (await connect()).subprotocol == SUBPROTOCOL
    assert (await connect(subprotocols=["other", SUBPROTOCOL])).subprotocol == SUBPROTOCOL


async def test_a_socket_without_a_subprotocol_is_welcome(connect):
    """Simple clients offer none."""
    socket = await connect(subprotocols=[])
    assert socket.subprotocol is None
    assert (await socket.ask(type="ping", id=None, t=1))["type"] == "pong"


async def test_an_unknown_version_is_told_so(connect):
    """The page has to be loaded anew."""
    assert await (await connect(subprotocols=["durable-agents.v9"])).close_code() == 4406


EVIL = ["http://evil.example", "http://localhost.evil.example", "null", "", "file://", "http://[broken"]


async def test_an_origin_that_is_not_ours_is_refused(connect):
    """Websockets know no CSRF token: the browser's word for where it comes from is all there is."""
    codes = {origin: await (await connect(origin=origin)).close_code() for origin in EVIL}
    assert codes == dict.fromkeys(EVIL, 4403)


async def test_a_socket_without_an_origin_may_not_use_cookies(connect):
    """No browser leaves it out."""
    assert await (await connect(origin=None)).close_code() == 4403


@pytest.mark.parametrize("cookie", [None, "sessionid=made-up"])
@pytest.mark.parametrize("frame", [{"type": "hello"}, {"type": "ping", "t": 1}, {"type": "subscribe", "thread": "t"}])
async def test_nobody_is_refused(connect, cookie, frame):
    """With a code that says: sign in."""
    socket = await connect(cookie=cookie)
    await socket.tell(**frame)
    assert await socket.close_code() == 4401


async def test_a_refused_socket_is_not_listened_to(connect, thread):
    """Whatever it sends before it notices."""
    socket = await connect(cookie=None)
    await socket.tell(type="hello", version=1)
    await socket.tell(type="subscribe", id="r1", thread=str(thread.pk))
    assert await socket.close_code() == 4401
    assert await socket.hears_nothing()


async def test_a_token_is_as_good_as_a_session(connect, thread, user):
    """Clients that are no browsers have no cookies and no origin."""
    token = await act(Token.objects.create, user=user)
    socket = await connect(origin=None, cookie=None, headers={"authorization": f"Token {token.key}"})
    assert (await socket.ask(type="subscribe", thread=str(thread.pk)))["type"] == "snapshot"


async def test_a_password_is_as_good_as_a_session(connect, user):
    """As in the REST API."""
    basic = base64.b64encode(b"ann:secret").decode()
    socket = await connect(origin=None, cookie=None, headers={"authorization": f"Basic {basic}"})
    await socket.tell(type="hello")
    assert (await socket.hear())["user"] == "ann"


async def test_wrong_credentials_are_nobody(connect):
    """Of whatever kind."""
    wrong = ["Token made-up", "Basic !!!", "Basic YW5uOndyb25n", "Nonsense", ""]
    for header in wrong:
        socket = await connect(origin=None, cookie=None, headers={"authorization": header})
        assert await socket.close_code() == 4401


async def test_a_user_who_is_locked_out_is_nobody(connect, user):
    """Though the session is still there."""
    await act(User.objects.filter(pk=user.pk).update, is_active=False)
    socket = await connect()
    await socket.tell(type="hello")
    assert await socket.close_code() == 4401

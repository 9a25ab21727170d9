"""From which pages a websocket may be opened with the cookies of their visitor: as from which forms may be sent."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from durable_agents import websocket_origins
from tests.chat.server import Server
from tests.processes import database_url
from tests.websocket.real import connected

TRUSTED = ["https://app.example.com", "https://*.example.net", "capacitor://localhost"]


def running(kind: str, child_env: dict[str, str], **more: str) -> Server:
    """Return a server of this kind that is not started yet."""
    env = child_env | {"TEST_DATABASE_URL": database_url(), **more}
    return Server(env, kind=kind, application="tests.websocket.asgi:application")


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def site(request: pytest.FixtureRequest, django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return a running server that browsers reach as it is, and that trusts a few others."""
    settings = json.dumps({"TRUSTED_ORIGINS": TRUSTED})
    with running(request.param, child_env, TEST_DURABLE_AGENTS=settings) as server:
        yield server


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def behind(request: pytest.FixtureRequest, django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return a running server behind a proxy, which the tests play."""
    with running(request.param, child_env, DJANGO_SETTINGS_MODULE="tests.websocket.proxied") as server:
        yield server


def is_let_in(server: Server, cookie: str, origin: str | None, **headers: str) -> bool:
    """Whether a page of this origin gets a socket that works."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    with connected(server, cookie=cookie, origin=origin, **given) as socket:
        with suppress(ConnectionClosed):  # it may be closed by now
            socket.tell(type="ping", t=1)
        answer = socket.hear()
        assert answer["type"] == "pong" or answer["code"] == 4403
        return bool(answer["type"] == "pong")


def test_a_page_of_the_site_is_let_in(site, cookie, agent):
    """Its scheme, host and port are those of the request."""
    assert is_let_in(site, cookie, site.url)


def test_a_page_on_another_port_of_the_same_host_is_refused(site, cookie, agent):
    """It is another site: whoever may open a port there may not act for the visitors of this one."""
    host, _, port = site.url.rpartition(":")
    for origin in (f"{host}:{int(port) + 1}", host, f"{host}:80"):
        assert not is_let_in(site, cookie, origin)


def test_a_page_with_another_scheme_is_refused(site, cookie, agent):
    """What comes without TLS may come from anybody on the way."""
    assert not is_let_in(site, cookie, site.url.replace("http://", "https://"))


@pytest.mark.parametrize("host", ["http://localhost", "http://evil.example", "http://127.0.0.1.evil.example"])
def test_a_page_of_another_host_is_refused(site, cookie, agent, host):
    """Also one that is allowed as a host of this site."""
    assert not is_let_in(site, cookie, f"{host}:{site.url.rpartition(':')[2]}")


def test_what_only_a_proxy_may_say_is_not_believed(site, cookie, agent):
    """Unless the settings say that there is one. (Uvicorn believes a proxy on its own host in what the scheme is.)"""
    said = {"X_Forwarded_Host": "evil.example", "X_Forwarded_Port": "443"}
    assert not is_let_in(site, cookie, "https://evil.example", **said, X_Forwarded_Proto="https")
    assert is_let_in(site, cookie, site.url, **said)


@pytest.mark.parametrize(
    ("origin", "is_trusted"),
    [
        ("https://app.example.com", True),
        ("https://deep.er.example.net", True),
        ("capacitor://localhost", True),
        ("http://app.example.com", False),
        ("https://app.example.com:8443", False),
        ("https://other.example.com", False),
        ("https://example.net.evil.example", False),
        ("https://badexample.net", False),
        ("http://a.example.net", False),
        ("null", False),
    ],
)
def test_a_page_of_another_site_is_let_in_where_its_origin_is_trusted(site, cookie, agent, origin, is_trusted):
    """Spelled as in `CSRF_TRUSTED_ORIGINS`."""
    assert is_let_in(site, cookie, origin) == is_trusted


PROXY = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "example.org"}


@pytest.mark.parametrize(
    ("origin", "said", "is_own"),
    [
        ("https://example.org", PROXY, True),
        ("https://example.org", {**PROXY, "X_Forwarded_Port": "443"}, True),
        ("https://example.org:8443", {**PROXY, "X_Forwarded_Port": "8443"}, True),
        ("https://example.org:8443", {**PROXY, "X_Forwarded_Host": "example.org:8443"}, True),
        ("http://example.org", {**PROXY, "X_Forwarded_Proto": "http"}, True),
        ("http://example.org", PROXY, False),
        ("https://example.org:8443", PROXY, False),
        ("https://example.org", {"X_Forwarded_Host": "example.org"}, False),
        ("https://evil.example", {**PROXY, "X_Forwarded_Host": "evil.example"}, False),
        ("https://evil.example", PROXY, False),
    ],
)
def test_behind_a_proxy_the_site_is_what_the_proxy_says(behind, cookie, agent, origin, said, is_own):
    """Scheme, host and port, by the settings by which Django believes it."""
    assert is_let_in(behind, cookie, origin, **said) == is_own


def scope(host: str = "example.org", **facts: Any) -> dict[str, Any]:
    """Return the scope of a handshake from `origin`."""
    headers = {"host": host, "origin": facts.pop("origin", "https://example.org"), **facts.pop("headers", {})}
    given = [(name.encode(), value.encode()) for name, value in headers.items() if value is not None]
    return {"path": "/ws/agents/", "headers": given, **facts}


@pytest.mark.parametrize(
    ("handshake", "is_own"),
    [
        (scope(scheme="wss"), True),
        (scope(scheme="ws"), False),
        (scope(server=("127.0.0.1", 443)), True),  # daphne with TLS of its own, which names no scheme
        (scope(server=("127.0.0.1", 8000)), False),
        (scope("EXAMPLE.org", scheme="wss"), True),
        (scope("example.org:443", scheme="wss"), True),
        (scope("evil.example", scheme="wss", origin="https://evil.example"), False),
        (scope("evil@example.org", scheme="wss", origin="https://evil@example.org"), False),
        (scope(scheme="wss", origin="https://[broken"), False),
        (scope(scheme="wss", origin=""), False),
        (scope(scheme="wss", origin=None), True),  # no browser, and no cookies
        (scope(scheme="wss", origin=None, headers={"cookie": "sessionid=x"}), False),
        (scope(scheme="ws", headers={"x_forwarded_proto": "https"}), False),
    ],
)
def test_the_sites_own_origin_is_told_from_the_handshake(settings, handshake, is_own):
    """As the server describes it."""
    settings.ALLOWED_HOSTS = ["example.org"]
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert websocket_origins.is_allowed(handshake) == is_own


def test_with_a_star_every_page_is_trusted(settings):
    """And whoever says no origin; a deployment is warned."""
    settings.DURABLE_AGENTS = {"TRUSTED_ORIGINS": ["*"]}
    assert websocket_origins.is_allowed(scope(origin="https://evil.example"))
    assert websocket_origins.is_allowed(scope(origin=None, headers={"cookie": "sessionid=x"}))

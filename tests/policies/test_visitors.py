"""Visitors without an account, against a running server: cross-site requests, and limits by address."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import websockets
from django.db import connections

import tests.chat.agents
from durable_agents.models import Thread
from tests.chat.server import Server
from tests.processes import database_url

pytestmark = pytest.mark.django_db(transaction=True)

EVIL = {"Origin": "https://evil.example"}
PNG = {"file": ("dot.png", b"\x89PNG\r\n\x1a\n", "image/png")}
POLICY = "tests.policies.documented.SessionPolicy"


@pytest.fixture(scope="module")
def server(django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return a running server that knows visitors by their session and starts five runs an hour for an address."""
    assert tests.chat.agents.chatty
    own = {"POLICY": POLICY, "THROTTLES": {"sends": "5/hour"}}
    with Server(child_env | {"TEST_DATABASE_URL": database_url(), "TEST_DURABLE_AGENTS": json.dumps(own)}) as running:
        yield running


@pytest.fixture(scope="module")
def unlimited(django_db_setup: None, child_env: dict[str, str]) -> Iterator[Server]:
    """Return a running server that knows visitors by their session."""
    own = {"POLICY": POLICY}
    with Server(child_env | {"TEST_DATABASE_URL": database_url(), "TEST_DURABLE_AGENTS": json.dumps(own)}) as running:
        yield running


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    connections.close_all()


@pytest.fixture
def visitor(unlimited: Server) -> Iterator[httpx.Client]:
    """Return a visitor's browser with a session and a thread "t"."""
    with httpx.Client(base_url=f"{unlimited.url}/agents", trust_env=False) as client:
        assert client.post("/threads/", json={"agent": "chatty", "client_id": "t"}).status_code == 201
        yield client


def token_of(client: httpx.Client) -> dict[str, str]:
    return {"X-CSRFToken": client.cookies["csrftoken"]}


UNSAFE = [
    ("POST", "/threads/", {"json": {"agent": "chatty"}}),
    ("POST", "/threads/t/messages/", {"json": {"prompt": "Hello"}}),
    ("POST", "/threads/t/stop/", {}),
    ("POST", "/threads/t/resume/", {}),
    ("POST", "/threads/t/tool-calls/x/result/", {"json": {"result": 1}}),
    ("POST", "/attachments/", {"files": PNG}),
    ("POST", "/chat", {"json": {"id": "t", "messages": []}}),
    ("POST", "/chat/t/stop", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), UNSAFE, ids=[f"{m} {p}" for m, p, _ in UNSAFE])
def test_a_visitors_session_without_a_csrf_token_changes_nothing(visitor, method, path, body):
    response = visitor.request(method, path, **body)

    assert response.status_code == 403, response.text
    assert response.json()["code"] == "permission_denied"
    assert "CSRF" in response.json()["detail"]


@pytest.mark.parametrize(("method", "path", "body"), UNSAFE, ids=[f"{m} {p}" for m, p, _ in UNSAFE])
def test_a_visitors_session_with_its_csrf_token_is_let_in(visitor, method, path, body):
    response = visitor.request(method, path, headers=token_of(visitor), **body)

    assert response.status_code in {200, 201, 202, 400, 404}, response.text


def test_a_form_of_another_site_does_not_stop_a_visitors_run(visitor):
    sent = visitor.post("/threads/t/messages/", json={"prompt": "Hello"}, headers=token_of(visitor))
    assert sent.status_code == 202

    response = visitor.post("/threads/t/stop/", data={"a": "b"}, headers=EVIL)

    assert response.status_code == 403
    assert Thread.objects.get(client_id="t").status == "streaming"


FORMS = {
    "form": {"data": {"a": "b"}},
    "multipart": {"files": PNG},
    "text": {"content": b"{}"},
    "no JSON": {"content": b"{"},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", ["/threads/t/stop/", "/threads/t/resume/", "/chat", "/chat/t/stop", "/attachments/"])
def test_a_form_without_a_token_is_refused_for_that_whatever_its_body_is(visitor, path, form):
    headers = {"Content-Type": "application/json"} if form == "no JSON" else {}

    response = visitor.post(path, headers=headers, **FORMS[form])

    assert response.status_code == 403, response.text
    assert "CSRF" in response.json()["detail"]


def test_a_form_with_a_token_in_the_header_is_told_that_its_type_is_not_taken(visitor):
    response = visitor.post("/threads/t/stop/", data={"a": "b"}, headers=token_of(visitor))

    assert response.status_code == 415, response.text


def test_an_upload_may_carry_its_token_in_the_form(visitor):
    form = {"csrfmiddlewaretoken": visitor.cookies["csrftoken"]}

    response = visitor.post("/attachments/", data=form, files=PNG)

    assert response.status_code == 201, response.text


def test_a_form_of_another_site_does_not_replace_a_visitors_session(unlimited):
    """A browser does not send the session's cookie then, and would take the new one of the answer."""
    response = httpx.post(f"{unlimited.url}/agents/threads/", json={"agent": "chatty"}, headers=EVIL, trust_env=False)

    assert response.status_code == 403
    assert "sessionid" not in response.cookies


def test_a_visitor_without_a_session_needs_no_token(unlimited):
    body = {"agent": "chatty"}
    response = httpx.post(
        f"{unlimited.url}/agents/threads/", json=body, headers={"Origin": unlimited.url}, trust_env=False
    )

    assert response.status_code == 201, response.text
    assert {"sessionid", "csrftoken"} <= set(response.cookies)


def statuses(server: Server, header: str) -> list[int]:
    """Begin eight threads with a run each, under a made-up address each; return the statuses."""
    url, body = f"{server.url}/agents/threads/", {"agent": "chatty", "prompt": "Hello"}
    addresses = [{header: f"203.0.113.{number}"} for number in range(8)]
    return [httpx.post(url, json=body, headers=address, trust_env=False).status_code for address in addresses]


def test_made_up_addresses_do_not_pass_a_limit(server):
    """The limit is used up by this test's own requests or by the test below."""
    seen = statuses(server, "X-Forwarded-For")
    assert seen.count(201) <= 5
    assert seen[-3:] == [429] * 3


def test_made_up_addresses_do_not_pass_a_limit_over_the_websocket(server):
    """The limit is used up by the test above or by this one's own frames."""

    async def talk(number: int) -> Any:
        headers = {"X-Forwarded-For": f"198.51.100.{number}", "Origin": server.url, "Cookie": f"sessionid={key}"}
        address = f"{server.url.replace('http', 'ws')}/ws/agents/"
        async with websockets.connect(
            address, additional_headers=headers, subprotocols=["durable-agents.v1"], proxy=None
        ) as socket:
            await socket.send(json.dumps({"type": "send", "id": f"s{number}", "thread": "w", "prompt": "Hello"}))
            frame = json.loads(await asyncio.wait_for(socket.recv(), 10))
            return frame.get("code", "ok")

    with httpx.Client(base_url=f"{server.url}/agents", trust_env=False) as client:
        assert client.post("/threads/", json={"agent": "chatty", "client_id": "w"}).status_code == 201
        key = client.cookies["sessionid"]
    codes = [asyncio.run(talk(number)) for number in range(8)]

    assert codes[-3:] == ["sends_throttled"] * 3

"""The endpoint in projects of all kinds: sessions with CSRF, WSGI, one agent, settings, a policy of their own."""

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections
from django.test import AsyncClient, Client, override_settings

from durable_agents import create_thread, stop_thread
from durable_agents.agents import Agent, registry
from durable_agents.models import Thread
from durable_agents.policies import OwnerPolicy
from tests.api.calls import person
from tests.chat.agents import chatty, queueing
from tests.chat.client import sending

pytestmark = pytest.mark.django_db(transaction=True)
MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
]


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what makes these the only public agents."""

    def only(*agents: Agent) -> None:
        monkeypatch.setattr(registry, "public", lambda: list(agents))

    return only


def first_bytes(path: str, body: Any = None, user: Any = None, **headers: str) -> tuple[Any, bytes]:
    """POST as a browser does, in this process; return the response and the first of its body."""

    async def ask() -> tuple[Any, bytes]:
        client = AsyncClient(enforce_csrf_checks=bool(headers))
        if user is not None:
            await sync_to_async(client.force_login)(user)
        method = client.get if body is None else client.post
        extra = {} if body is None else {"data": body, "content_type": "application/json"}
        response = await method(f"/agents/{path}", headers=headers, **extra)
        first = b""
        if response.streaming:
            pieces = aiter(response.streaming_content)
            first = await anext(pieces) + await anext(pieces)
            await pieces.aclose()
        return response, first

    try:
        return async_to_sync(ask)()
    finally:
        connections.close_all()


def test_the_only_public_agent_needs_no_name(public):
    """Where there are several, somebody has to say which."""
    public(chatty)
    response, first = first_bytes("chat", sending("Hi"), person("me"))
    assert (response.status_code, Thread.objects.get().agent) == (200, "chatty")
    assert first.startswith(b': stream-open\n\ndata: {"type":"start"')
    public(chatty, queueing)
    response, _ = first_bytes("chat", sending("Hi", chat="c2"), person("other"))
    assert (response.status_code, response.json()["code"]) == (400, "agent_required")


def test_the_setting_names_the_agent_that_nobody_names(public):
    """The body's comes first."""
    public(chatty, queueing)
    with override_settings(DURABLE_AGENTS={"DEFAULT_AGENT": "queueing"}):
        first_bytes("chat", sending("Hi"), person("me"))
        first_bytes("chat", sending("Hi", chat="c2", agent="chatty"), person("other"))
    assert dict(Thread.objects.values_list("client_id", "agent")) == {"c1": "queueing", "c2": "chatty"}


def test_under_wsgi_streams_are_not_served_and_stops_are():
    """Before anything is stored; the error says what to do."""
    me, client = person("me"), Client()
    client.force_login(me)
    thread = create_thread("chatty", owner=me, prompt="Hi")
    answers = [
        client.post("/agents/chat/chatty", sending("Hi"), content_type="application/json"),
        client.get(f"/agents/chat/{thread.pk}/stream"),
        client.get(f"/agents/threads/{thread.pk}/events/"),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(501, "asgi_required")] * 3
    assert Thread.objects.count() == 1
    assert client.post(f"/agents/chat/{thread.pk}/stop", {}, content_type="application/json").json() == {
        "status": "stopped"
    }


@override_settings(MIDDLEWARE=MIDDLEWARE)
def test_middleware_of_all_kinds_leaves_the_stream_alone():
    """Neither compressed nor redirected to a sign-in."""
    response, first = first_bytes("chat/chatty", sending("Hi"), person("me"), **{"Accept-Encoding": "gzip"})
    assert response.status_code == 403, "a session needs its CSRF token"
    for path, body in [("chat/chatty", sending("Hi")), ("chat/c1/stream", None)]:
        response, _ = first_bytes(path, body)
        assert response.status_code in {401, 403}
        assert response.json()["code"] == "not_authenticated"
    response, first = first_bytes("chat/chatty", sending("Hi"), person("other"))
    assert (response.status_code, response.headers["Content-Encoding"]) == (200, "identity")
    assert first.startswith(b": stream-open\n\ndata: ")


class NoEdits(OwnerPolicy):
    """Lets people do all but change what was said."""

    def allows(self, request: Any, action: str, **facts: Any) -> bool:
        """See OwnerPolicy."""
        return action != "edit" and super().allows(request, action, **facts)


@override_settings(DURABLE_AGENTS={"POLICY": "tests.chat.test_in_projects.NoEdits"})
def test_the_policy_is_asked_about_what_the_gesture_means():
    """Sending is allowed, changing is not."""
    me = person("me")
    response, _ = first_bytes("chat/chatty", sending("Hi"), me)
    assert response.status_code == 200
    stop_thread(Thread.objects.get())
    for body in (sending("Changed", messageId="m1"), sending("Hi", trigger="regenerate-message")):
        response, _ = first_bytes("chat/chatty", body, me)
        assert (response.status_code, response.json()["code"]) == (403, "permission_denied")


def test_sends_are_throttled_before_anything_is_stored(settings):
    """With how long to wait."""
    settings.DURABLE_AGENTS = {"THROTTLES": {"sends": "2/min"}}
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "chat"}}
    me = person("me")
    for number in range(2):
        assert first_bytes("chat/chatty", sending("Hi", chat=f"c{number}"), me)[0].status_code == 200
    response, _ = first_bytes("chat/chatty", sending("Hi", chat="c3"), me)
    assert (response.status_code, response.json()["code"]) == (429, "sends_throttled")
    assert int(response.headers["Retry-After"]) > 0
    assert Thread.objects.count() == 2

"""How callers are known: a session needs the form's token, a header needs no cookie and is not helped by one."""

import pytest
from asgiref.sync import async_to_sync
from django.test import Client
from rest_framework.authentication import TokenAuthentication
from rest_framework.authtoken.models import Token

from durable_agents.models import Thread
from durable_agents.urls import urlpatterns
from tests.api.calls import ROOT, Api, person
from tests.policies.attempts import stored
from tests.policies.calling import call
from tests.policies.cases import CASES, OPEN, belongings, path_of
from tests.websocket.sockets import SUBPROTOCOL, Socket, cookie_of, forget_layer

WRITING = sorted(name for name in CASES if not name.startswith("GET"))


@pytest.fixture(autouse=True)
def _agents(bells, declare):
    """Declare the agent, and keep the queue out of it."""
    declare(public=True)


@pytest.fixture
def me(db):
    """Return a user."""
    return person("me", is_staff=True)


def header(user):
    """Return the headers of a client with a token."""
    return {"Authorization": f"Token {Token.objects.get_or_create(user=user)[0].key}"}


@pytest.mark.parametrize("operation", WRITING)
def test_whoever_is_known_by_a_cookie_needs_the_token_of_the_form(me, operation):
    """Else another site could make the browser write."""
    names = belongings(CASES[operation].needs, owner=me, scope="")
    browser = Api(me, enforce_csrf_checks=True)
    before = stored()
    response = call(browser, operation, names)
    reason = b"This form has expired." if " forms/" in operation else b"CSRF"
    assert (response.status_code, reason in response.content) == (403, True), response.content
    assert stored() == before


@pytest.mark.parametrize(
    ("operation", "reason"),
    [("POST threads", "CSRF Failed"), ("POST forms/threads", "Dieses Formular ist abgelaufen.")],
)
def test_a_missing_token_of_the_form_is_named_in_german_too(me, settings, operation, reason):
    """The translation for the code of the error would only say that this is forbidden."""
    settings.LANGUAGE_CODE = "de"
    names = belongings(CASES[operation].needs, owner=me, scope="")
    response = call(Api(me, enforce_csrf_checks=True), operation, names)
    assert (response.status_code, reason in response.content.decode()) == (403, True), response.content


def test_a_token_needs_no_form_and_no_cookie(me):
    """It is sent on purpose."""
    client = Client(enforce_csrf_checks=True, headers=header(me))
    made = client.post(f"{ROOT}threads/", {"agent": "tested"}, content_type="application/json")
    assert made.status_code == 201
    assert not made.cookies


def test_where_only_tokens_are_let_in_a_cookie_is_nothing(me, monkeypatch):
    """Neither alone, nor beside a token that is wrong; beside a good one it changes nothing."""
    for view in {pattern.callback.cls for pattern in urlpatterns}:
        if view.authentication_classes:
            monkeypatch.setattr(view, "authentication_classes", [TokenAuthentication])
    names, somebody = belongings("resting", owner=me, scope=""), person("somebody")
    for name in sorted(name for name, case in CASES.items() if name.startswith("GET") and name not in OPEN):
        path = ROOT + path_of(name, names)
        browser = Api(me).client
        assert browser.get(path).status_code == 401
        assert browser.get(path, headers={"Authorization": "Token wrong"}).status_code == 401
    mine = f"{ROOT}threads/{names.thread_id}/"
    assert browser.get(mine, headers=header(somebody)).status_code == 404
    assert Api(somebody).client.get(mine, headers=header(me)).status_code == 200


@pytest.mark.parametrize("place", ["?token={}", "?access_token={}", "?ticket={}", "?api_key={}"])
def test_no_way_in_is_in_the_address(me, place):
    """Addresses are in logs and histories."""
    token = header(me)["Authorization"].partition(" ")[2]
    for operation in sorted(name for name in CASES if name.startswith("GET") and name not in OPEN):
        names = belongings("resting", owner=me, scope="")
        path = path_of(operation, names).rstrip("/") + place.format(token)
        assert Client().get(ROOT + path).status_code in {401, 403}, operation


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_safe_method_changes_nothing(me, method):
    """Whatever the path."""
    api = Api(me)
    for operation in sorted({*CASES} - {name for name, case in CASES.items() if case.live or case.upload or case.form}):
        names = belongings(CASES[operation].needs, owner=me, scope="")
        before = stored()
        response = api.send(method, path_of(operation, names))
        if getattr(response, "streaming", False):
            b"".join(response.streaming_content)
        assert response.status_code < 500
        assert stored() == before, operation
    assert Thread.objects.exists()


EVIL = ["http://evil.example", "null", "http://localhost.evil.example", "https://localhost@evil.example"]


@pytest.mark.parametrize("origin", EVIL)
@pytest.mark.django_db(transaction=True)
def test_a_websocket_of_another_site_is_closed_though_its_cookie_is_good(me, origin):
    """Nothing is answered before."""

    async def talk(cookie):
        socket = await Socket(headers={"origin": origin, "cookie": cookie}, subprotocols=[SUBPROTOCOL]).open()
        try:
            return await socket.close_code()
        finally:
            await socket.leave()
            await forget_layer()

    assert async_to_sync(talk)(cookie_of(me)) == 4403

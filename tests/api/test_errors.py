"""Every error is a code and a text, whoever raises it; hostile bodies are refused before anything is done."""

from io import BytesIO

import pytest
from django.core.cache import cache
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.test import force_authenticate
from rest_framework.throttling import UserRateThrottle

from durable_agents import create_thread
from durable_agents.api.errors import answer
from durable_agents.api.views import ThreadListView
from durable_agents.exceptions import LeaseLostError, ToolError
from durable_agents.models import Thread
from tests.api.calls import problem

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{", "parse_error"),
        ("", "invalid"),
        ("{}", "invalid"),
        ("[1]", "invalid"),
        ('{"agent": "tested", "title": "%s"}' % ("x" * 201), "invalid"),
        ('{"agent": "tested", "archived": {}, "metadata": 3}', "invalid"),
        ('{"agent": 5}', "invalid"),
        ('{"agent": "tested", "title": 5}', "invalid"),
        ('{"agent": "tested", "prompt": 0}', "invalid"),
        ('{"agent": "tested", "client_id": 1.5}', "invalid"),
        ('{"agent": "tested", "metadata": {"a": NaN}}', "parse_error"),
        ('{"agent": "tested", "metadata": {"a": -Infinity}}', "parse_error"),
        ('{"agent": "tested", "metadata": {"a": 1e999}}', "parse_error"),
        ('{"agent": "tested", "metadata": {"a": %s}}' % ("9" * 5000), "parse_error"),
        (b'{"agent": "\xff"}', "parse_error"),
        ('{"agent": "tested", "metadata": {"a": %s}}' % ("[" * 31 + "]" * 31), "too_deep"),
        ("[" * 100_000, "too_deep"),
        ("[" * 100_000 + "]" * 100_000, "too_deep"),
        ('{"agent": "a\\u0000"}', "invalid"),
        ('{"agent": "tested", "client_id": ""}', "invalid"),
        ('{"agent": "tested", "client_id": "\\ud800"}', "invalid"),
    ],
)
def test_a_bad_body_is_a_bad_request(api, agent, body, code):
    """With a code that says which kind."""
    assert problem(api.post("threads/", body)) == (400, code)
    assert not Thread.objects.exists()


def test_a_body_as_deep_as_allowed_is_read(api, agent):
    """The limit counts arrays and objects."""
    body = '{"agent": "tested", "metadata": {"a": %s}}' % ("[" * 30 + "]" * 30)
    assert api.post("threads/", body).status_code == 201


def test_a_body_over_the_limit_is_too_large(api, agent, settings):
    """To the byte."""
    settings.DURABLE_AGENTS = {"MAX_BODY_BYTES": 40}
    body = '{"agent": "tested", "title": "%s"}'
    assert api.post("threads/", body % ("x" * (40 - len(body) + 2))).status_code == 201
    assert problem(api.post("threads/", body % ("x" * (41 - len(body) + 2)))) == (413, "too_large")


def test_the_default_limit_lets_no_megabyte_in(api, agent):
    """256 kB."""
    assert problem(api.post("threads/", {"agent": "tested", "metadata": {"a": "x" * 300_000}})) == (413, "too_large")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_only_json_is_read(api, agent, content_type):
    """Forms are what other sites can send without asking."""
    response = api.client.generic("POST", "/agents/threads/", "agent=tested", content_type=content_type)
    assert problem(response) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "threads/"),
        ("DELETE", "agents/"),
        ("OPTIONS", "threads/"),
        ("PUT", "threads/x/"),
        ("GET", "threads/x/stop/"),
    ],
)
def test_a_method_that_is_none_is_not_allowed(api, agent, method, path):
    """The answer says which are."""
    response = api.send(method, path)
    assert problem(response) == (405, "method_not_allowed")
    assert response["Allow"]


@pytest.mark.parametrize("cursor", ["x", "%00", "", "é", "a:b:c", "W10:1:x"])
@pytest.mark.parametrize("path", ["threads/", "threads/{}/messages/", "threads/{}/tool-calls/"])
def test_a_cursor_that_was_never_given_out_is_refused(api, agent, me, path, cursor):
    """It is signed, so nobody makes one up."""
    response = api.get(path.format(create_thread(agent, owner=me).pk), cursor=cursor)
    assert problem(response) == (400, "invalid_cursor")


def test_a_cursor_of_another_list_is_refused(api, agent, me):
    """Though it is signed."""
    thread = create_thread(agent, owner=me, prompt="Hi")
    create_thread(agent, owner=me)
    link = api.get("threads/", limit=1).json()["next"]
    response = api.follow(link.replace("threads/", f"threads/{thread.pk}/messages/"))
    assert problem(response) == (400, "invalid_cursor")


@pytest.mark.parametrize("number", [10**30, -(10**30)])
def test_a_position_beyond_all_numbers_finds_nothing_or_all(api, agent, me, number):
    """And breaks nothing."""
    path = f"threads/{create_thread(agent, owner=me, prompt='Hi').pk}/messages/"
    assert api.get(path, after=number, streams=1, from_number=number).status_code == 200


@pytest.mark.parametrize(
    "query", [{"status": "sleeping"}, {"archived": "perhaps"}, {"search": "\ud800"}, {"agent": "a\x00"}]
)
def test_a_filter_that_means_nothing_is_refused(api, agent, query):
    """Rather than ignored, but for what is only unstorable in a search."""
    encoded = {name: value.encode("utf-8", "surrogatepass") for name, value in query.items()}
    response = api.get("threads/", **encoded)
    assert response.status_code == 200 if "search" in query else problem(response) == (400, "invalid")


def test_the_throttles_of_the_project_hold(api, agent, monkeypatch):
    """With the time to wait."""

    class Once(UserRateThrottle):
        """One request an hour."""

        rate = "1/hour"

    cache.clear()
    monkeypatch.setattr(ThreadListView, "throttle_classes", [Once])
    assert api.get("threads/").status_code == 200
    refused = api.get("threads/")
    assert problem(refused) == (429, "throttled")
    assert int(refused["Retry-After"]) > 3000


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "*/*", "text/html;q=0.9,*/*;q=0.1", ""])
def test_the_answer_is_json_whatever_is_accepted(api, agent, accept):
    """There is nothing else to choose from."""
    response = api.client.get("/agents/threads/?format=xml", headers={"Accept": accept})
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")


def test_an_error_of_ours_is_not_dressed_up_as_the_callers(api, agent, monkeypatch):
    """It reaches the project's error reporting."""
    api.client.raise_request_exception = False
    monkeypatch.setattr("durable_agents.lifecycle.get_or_create_thread", lambda *_, **__: 1 / 0)
    assert api.post("threads/", {"agent": "tested"}).status_code == 500


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Http404("secret"), (404, "not_found")),
        (PermissionDenied("secret"), (403, "permission_denied")),
        (RequestDataTooBig("secret"), (413, "too_large")),
    ],
)
def test_errors_of_django_are_told_alike(error, expected):
    """Without the text that was meant for the log."""
    response = answer(error, {})
    assert (response.status_code, response.data["code"]) == expected
    assert "secret" not in response.data["detail"]


def test_an_error_with_several_details_is_one_text():
    """Some ways to sign in answer with fields of their own."""
    error = AuthenticationFailed({"detail": "The token is wrong.", "messages": [{"token": "expired"}]})
    assert answer(error, {}).data == {
        "code": "authentication_failed",
        "detail": "The token is wrong.; messages: token: expired",
    }


@pytest.mark.parametrize("error", [ToolError("x"), LeaseLostError("x"), ValueError("x")])
def test_what_is_no_error_of_the_callers_is_left_to_django(error):
    """Also where it is one of this package's."""
    assert answer(error, {}) is None


def in_chunks(body, user):
    """Send a body as an ASGI server hands it over when its length was not announced."""
    headers = [(b"transfer-encoding", b"chunked"), (b"content-type", b"application/json"), (b"host", b"testserver")]
    scope = {"type": "http", "method": "POST", "path": "/agents/threads/", "query_string": b"", "headers": headers}
    request = ASGIRequest(scope, BytesIO(body))
    force_authenticate(request, user=user)
    return ThreadListView.as_view()(request)


def test_a_body_that_comes_in_chunks_is_read_and_bounded(agent, me):
    """It has no length in its header."""
    made = in_chunks(b'{"agent": "tested", "title": "T"}', me)
    assert (made.status_code, made.data["title"]) == (201, "T")
    assert in_chunks(b"x" * 300_000, me).status_code == 413
    assert in_chunks(b"", me).data["code"] == "invalid"

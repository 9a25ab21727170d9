"""Files go out to whoever may see them, in a form that can do nothing in a browser."""

import asyncio
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.core.files.storage import InMemoryStorage
from django.test import AsyncClient, Client
from rest_framework.authtoken.models import Token

from durable_agents import create_thread, delete_thread, fork_thread, send_message, stop_thread
from durable_agents.models import Attachment, Thread
from tests.api.calls import Api, person, problem
from tests.api.policies import AskedPolicy
from tests.attachments.samples import HTML, PDF, PNG, SVG, named

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("agent")]


def content(response):
    """Return the bytes of a download."""
    assert response.status_code == 200, response.content
    return b"".join(response.streaming_content)


@pytest.fixture
def sent(api, me, agent):
    """Return a thread and the URL of the file that its message carries."""
    made = api.upload(PNG, "dot.png", "image/png").json()
    thread = create_thread(agent, owner=me, parts=[named(made)])
    return thread, made["url"]


def test_a_file_comes_back_as_it_was(api):
    """With headers that keep it what it is, and to itself."""
    made = api.upload(PNG, "Gr\u00fc\u00dfe.png", "image/png").json()
    response = api.follow(made["url"])
    assert content(response) == PNG
    assert response.headers["Content-Type"] == "image/png"
    assert response.headers["Content-Disposition"] == "inline; filename*=utf-8''Gr%C3%BC%C3%9Fe.png"
    assert response.headers["Content-Length"] == str(len(PNG))
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert "private" in response.headers["Cache-Control"]
    assert content(api.follow(made["url"].rstrip("/"))) == PNG


@pytest.mark.parametrize(
    ("data", "claimed", "filename", "content_type", "disposition"),
    [
        (PDF, "application/pdf", "a.pdf", "application/pdf", "inline"),
        (b"Notes.", "text/plain", "a.txt", "text/plain; charset=utf-8", "inline"),
        (b"ID3\x04", "audio/mpeg", "a.mp3", "audio/mpeg", "inline"),
        (HTML, "text/html", "a.html", "application/octet-stream", "attachment"),
        (HTML, "text/plain", "a.html", "text/plain; charset=utf-8", "inline"),
        (SVG, "image/svg+xml", "a.svg", "application/octet-stream", "attachment"),
        (b"alert(1)", "text/javascript", "a.js", "application/octet-stream", "attachment"),
        (b"<?xml version='1.0'?>", "application/xml", "a.xml", "application/octet-stream", "attachment"),
        (b"a,b", "text/csv", "a.csv", "application/octet-stream", "attachment"),
        (b"GIF89a/*<script>*/", "text/html", "a.html", "image/gif", "inline"),
    ],
)
def test_a_browser_shows_only_what_can_do_nothing(api, data, claimed, filename, content_type, disposition):
    """Anything else it gets as bytes, to be saved."""
    response = api.follow(api.upload(data, filename, claimed).json()["url"])
    assert content(response) == data
    assert response.headers["Content-Type"] == content_type
    assert response.headers["Content-Disposition"].split(";")[0] == disposition


def test_a_name_cannot_add_a_header(api):
    """Nor end its own early."""
    made = api.upload(PNG, 'a"\r\nX-Evil: 1;\\.png', "image/png").json()
    response = api.follow(made["url"])
    content(response)
    assert "X-Evil" not in response.headers
    assert "\n" not in response.headers["Content-Disposition"]


def test_what_a_browser_has_already_is_not_sent_again(api):
    """But it is asked each time whether it may."""
    url = api.upload(PNG).json()["url"]
    first = api.follow(url)
    content(first)
    again = api.client.get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = api.client.get(url, headers={"If-None-Match": '"other"'})
    assert content(other) == PNG


def test_a_head_has_the_headers_and_no_body(api):
    """Browsers and players ask first."""
    url = api.upload(PNG).json()["url"]
    head, got = api.client.head(url), api.client.get(url)
    content(got)
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers} == {**got.headers}


def test_a_file_is_its_uploaders_until_a_message_carries_it(api, stranger):
    """And nobody else's, nor anonymous callers'."""
    url = api.upload(PNG).json()["url"]
    assert content(api.follow(url)) == PNG
    foreign, unknown = stranger.follow(url), stranger.follow(f"/agents/attachments/{uuid4()}/")
    assert problem(foreign) == problem(unknown) == (404, "attachment_not_found")
    assert Api().follow(url).status_code in {401, 403}
    root = Api(person("root", is_staff=True, is_superuser=True))
    assert problem(root.follow(url)) == (404, "attachment_not_found")


def test_then_it_is_for_those_who_may_view_the_thread(api, stranger, sent, settings):
    """By the policy, each time."""
    thread, url = sent
    assert content(api.follow(url)) == PNG
    assert problem(stranger.follow(url)) == (404, "attachment_not_found")
    Thread.objects.filter(pk=thread.pk).update(owner=person("heir"))
    assert problem(api.follow(url)) == (404, "attachment_not_found")


def test_what_the_policy_withholds_is_not_found(api, sent, settings):
    """Also before a message carries it."""
    url = api.upload(PNG).json()["url"]
    settings.DURABLE_AGENTS = {"POLICY": "tests.api.policies.AskedPolicy"}
    AskedPolicy.asked, AskedPolicy.refused = [], {"view"}
    assert [problem(api.follow(one))[0] for one in (url, sent[1])] == [404, 404]


def test_a_thread_of_ones_own_by_the_same_id_opens_no_foreign_file(stranger, sent):
    """Clients choose ids for their threads."""
    thread, url = sent
    assert stranger.post("threads/", {"agent": "tested", "client_id": str(thread.pk)}).status_code == 201
    assert stranger.get(f"threads/{thread.pk}/").status_code == 200
    assert problem(stranger.follow(url)) == (404, "attachment_not_found")


@pytest.mark.parametrize("key", ["x", "%00", "0" * 32, "..", "%F0%9F%90%B3", "1" * 500])
def test_an_id_that_is_none_is_not_found(api, key):
    """Whatever it is made of."""
    assert problem(api.get(f"attachments/{key}/"))[0] == 404


def test_a_file_that_the_storage_has_lost_is_not_found(api, root, caplog):
    """And whoever runs the site reads of it."""
    made = api.upload(PNG).json()
    (root / Attachment.objects.get().place).unlink()
    assert problem(api.follow(made["url"])) == (404, "attachment_not_found")
    assert any(getattr(record, "action", "") == "download" for record in caplog.records)


def test_nothing_else_can_be_done_to_it(api, sent):
    """It never changes."""
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert problem(api.client.generic(method, sent[1]))[0] == 405


def test_a_fork_has_its_own_and_keeps_it(api, stranger, me, agent, sent, django_capture_on_commit_callbacks):
    """Whoever the fork is for reaches it there, and it outlives the thread that it came from."""
    thread, url = sent
    stop_thread(thread)
    heir = person("heir")
    fork = fork_thread(thread, owner=heir)
    [part] = fork.messages.get(role="user").parts
    assert part["url"] != url
    assert content(Api(heir).follow(part["url"])) == PNG
    assert problem(Api(heir).follow(url))[0] == problem(api.follow(part["url"]))[0] == 404
    with django_capture_on_commit_callbacks(execute=True):
        delete_thread(thread)
    assert content(Api(heir).follow(part["url"])) == PNG
    assert problem(api.follow(url)) == (404, "attachment_not_found")


def test_any_storage_will_do(api, me, agent, monkeypatch):
    """Nothing needs a file system."""
    monkeypatch.setattr(Attachment._meta.get_field("file"), "storage", InMemoryStorage())
    made = api.upload(PNG, "dot.png").json()
    thread = create_thread(agent, owner=me, parts=[named(made)])
    assert content(api.follow(made["url"])) == PNG
    assert api.client.head(made["url"]).headers["Content-Length"] == str(len(PNG))
    delete_thread(thread)


@pytest.mark.django_db(transaction=True)
def test_a_download_does_not_hold_up_an_asgi_server(me, settings, monkeypatch):
    """It comes in pieces that threads have read, while others are served."""
    monkeypatch.setattr("durable_agents.api.views.attachments._Download.block_size", 1000)
    data = bytes(range(48, 123)) * 1000
    made = Api(me).upload(data, "a.txt", "text/plain").json()
    client = AsyncClient()

    async def downloaded():
        await client.aforce_login(me)
        first = await client.get(made["url"])
        pieces = []
        async for piece in first:
            pieces.append(piece)
            await asyncio.sleep(0)
        return first, pieces

    response, pieces = async_to_sync(downloaded)()
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) == 1000
    assert response.headers["Content-Length"] == str(len(data))


def test_a_message_of_a_steered_run_keeps_its_file(api, me, agent, sent):
    """It may be sent again within the same thread."""
    thread, url = sent
    again = send_message(thread, parts=[{"type": "file", "url": url}])
    assert again.parts == thread.messages.filter(role="user").first().parts
    assert Attachment.objects.count() == 1


def test_a_client_without_a_session_downloads_by_its_token(me):
    """As everything else."""
    client = Client(headers={"Authorization": f"Token {Token.objects.create(user=me).key}"})
    made = Api(me).upload(PNG).json()
    assert content(client.get(made["url"])) == PNG

"""Files come in by a form: one at a time, of a known kind, no larger than allowed, and for whoever may send."""

import subprocess
import sys

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, connection
from django.test import Client
from rest_framework.authtoken.models import Token

from durable_agents import lifecycle
from durable_agents.api.views import attachments
from durable_agents.models import Attachment
from tests.api.calls import Api, problem
from tests.api.policies import AskedPolicy, GuestPolicy
from tests.attachments.samples import HTML, PDF, PNG, places, stored
from tests.processes import ROOT

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("agent")]


def test_a_file_is_uploaded(api, me, root):
    """And told as the contract has it."""
    made = api.upload(PNG, "dot.png", "image/png")
    row = Attachment.objects.get()
    assert made.status_code == 201
    assert made.json() == {
        "id": str(row.pk),
        "url": f"/agents/attachments/{row.pk}/",
        "mediaType": "image/png",
        "filename": "dot.png",
        "size": len(PNG),
    }
    assert (row.owner, row.scope, row.thread, row.size) == (me, "", None, len(PNG))
    assert stored(root) == places()
    assert (root / row.place).read_bytes() == PNG


def test_the_path_answers_without_its_slash(api):
    """As every path."""
    assert api.upload(PNG, path="attachments").status_code == 201


def test_neither_name_nor_id_says_where_the_file_is(api):
    """Where a project serves its media to everybody, nobody can guess it."""
    made = api.upload(PNG, "secret-plan.png").json()
    place = places().pop()
    assert made["id"].replace("-", "") not in place
    assert "secret" not in place


@pytest.mark.parametrize(
    ("data", "filename", "claimed", "media_type", "name"),
    [
        (PNG, "../../x.png", "text/html", "image/png", "x.png"),
        (b"a,b", "a.csv", "application/vnd.ms-excel", "text/csv", "a.csv"),
        (HTML, "page.html", "text/html", "text/html", "page.html"),
        (PDF, 'a"b.pdf', "", "application/pdf", "a"),
    ],
)
def test_the_type_is_that_of_the_content_and_the_name_is_clean(api, data, filename, claimed, media_type, name):
    """Whatever the client says."""
    made = api.upload(data, filename, claimed).json()
    assert (made["mediaType"], made["filename"][: len(name)]) == (media_type, name)


@pytest.mark.parametrize(
    ("data", "filename", "claimed"),
    [(HTML, "a.png", "image/png"), (b"MZ\x00", "a.exe", "application/x-msdownload"), (b"PK\x03\x04", "a.zip", "")],
)
def test_what_is_not_taken_is_refused_and_not_stored(api, root, data, filename, claimed):
    """With the kinds that are."""
    assert problem(api.upload(data, filename, claimed)) == (415, "unsupported_media_type")
    assert stored(root) == set()


def test_an_upload_needs_one_file_that_is_not_empty(api, root):
    """In the field that is called so."""
    client = api.client
    path = "/agents/attachments/"
    refused = [
        api.upload(b"", "a.txt"),
        client.post(path, {}),
        client.post(path, {"file": "text"}),
        client.post(path, {"other": uploads_of("a.txt")}),
        client.post(path, {"file": uploads_of("b.txt"), "more": uploads_of("c.txt")}),
        client.post(path, {"file": [uploads_of("a.txt"), uploads_of("b.txt")]}),
    ]
    assert [problem(response) for response in refused] == [(400, "invalid")] * 6
    assert stored(root) == set()


def uploads_of(name):
    """Return a file for a form."""
    return SimpleUploadedFile(name, b"Notes.", "text/plain")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"file": "x"}', "application/json"),
        (b"file=x", "application/x-www-form-urlencoded"),
        (PNG, "image/png"),
        (b"x", "multipart/mixed; boundary=x"),
    ],
)
def test_another_kind_of_body_is_refused(api, body, content_type):
    """It is a form."""
    response = api.client.generic("POST", "/agents/attachments/", body, content_type=content_type)
    assert problem(response) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"--x\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--"]
)
@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=x", "multipart/form-data", "multipart/form-data; boundary="]
)
@pytest.mark.parametrize("checks", [True, False])
def test_a_broken_form_is_the_callers_error(me, body, content_type, checks):
    """Also where its token is looked for in it first."""
    api = Api(me, enforce_csrf_checks=checks)
    api.client.cookies["csrftoken"] = "a" * 32
    headers = {"X-CSRFToken": "a" * 32}
    response = api.client.generic("POST", "/agents/attachments/", body, content_type=content_type, headers=headers)
    assert problem(response)[0] == 400


def test_too_many_fields_or_files_are_the_callers_error(api, settings):
    """Django stops them with errors of its own."""
    settings.DATA_UPLOAD_MAX_NUMBER_FILES = 1
    several = api.client.post("/agents/attachments/", {"file": [uploads_of("a"), uploads_of("b")]})
    assert problem(several)[0] == 400
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    assert problem(api.client.post("/agents/attachments/", {"x": "y" * 100})) == (413, "too_large")


@pytest.mark.parametrize("checks", [True, False])
@pytest.mark.parametrize("in_memory", [2_500_000, 0])
def test_a_file_that_is_too_large_is_refused(me, root, settings, checks, in_memory):
    """One byte is enough, in memory or on disk; what says so itself is not even read."""
    settings.DURABLE_AGENTS = {"MAX_ATTACHMENT_BYTES": 100_000}
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = in_memory
    api = Api(me, enforce_csrf_checks=checks, headers={"X-CSRFToken": "a" * 32})
    api.client.cookies["csrftoken"] = "a" * 32
    assert api.upload(b"x" * 100_000).status_code == 201
    for size in (100_001, 150_000, 1_000_000):
        assert problem(api.upload(b"x" * size)) == (413, "too_large")
    assert len(stored(root)) == 1


def test_no_more_is_read_than_a_little_over_the_limit(api, settings):
    """However much would come."""
    settings.DURABLE_AGENTS = {"MAX_ATTACHMENT_BYTES": 100_000}
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\n'
    body = Endless(head)
    response = send(api, body, 100_000 + attachments.ENVELOPE_BYTES)
    assert problem(response) == (413, "too_large")
    assert body.read_bytes < 100_000 + 2 * 64 * 1024
    body = Endless(head)
    response = send(api, body, 10**10)
    assert (problem(response), body.read_bytes) == ((413, "too_large"), 0)


def send(api, body, length):
    """POST a form that is said to be so long."""
    environ = {"CONTENT_TYPE": "multipart/form-data; boundary=x", "CONTENT_LENGTH": str(length), "wsgi.input": body}
    return api.client.generic("POST", "/agents/attachments/", **environ)


class Endless:
    """A body that never ends."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Give as much as is wanted."""
        assert size >= 0, "read without a bound"
        begun, self.head = self.head[:size], self.head[size:]
        self.read_bytes += size
        return begun + b"x" * (size - len(begun))

    readline = read


def test_whoever_may_send_to_no_agent_may_not_upload(api, me, settings, root, declare):
    """Strangers neither."""
    assert Api().upload(PNG).status_code in {401, 403}
    settings.DURABLE_AGENTS = {"POLICY": "tests.api.policies.AskedPolicy"}
    AskedPolicy.asked, AskedPolicy.refused = [], {"send"}
    assert problem(api.upload(PNG)) == (403, "permission_denied")
    assert stored(root) == set()


def test_a_form_of_another_site_is_refused(me, root):
    """A browser sends the session with it."""
    assert problem(Api(me, enforce_csrf_checks=True).upload(PNG)) == (403, "permission_denied")
    assert stored(root) == set()


def test_a_guest_of_a_project_that_lets_them_in_uploads_for_their_scope(settings):
    """The policy says whose it is."""
    assert GuestPolicy
    settings.DURABLE_AGENTS = {"POLICY": "tests.api.policies.GuestPolicy"}
    made = Api().upload(PNG).json()
    row = Attachment.objects.get(pk=made["id"])
    assert (row.owner, row.scope) == (None, "guests")
    response = Api().follow(made["url"])
    assert b"".join(response.streaming_content) == PNG


def test_what_nobody_sends_has_an_end(api, stranger, monkeypatch):
    """Else one caller fills the disk within a day."""
    monkeypatch.setattr("durable_agents.lifecycle.attachments.MAX_UNSENT", 2)
    assert [api.upload(PNG).status_code for _ in range(3)] == [201, 201, 429]
    assert api.upload(PNG).headers["Retry-After"]
    assert stranger.upload(PNG).status_code == 201


def test_a_row_that_cannot_be_written_leaves_no_file(api, root, monkeypatch):
    """The error is ours, the file is nobody's."""

    def broken(*args, **kwargs):
        raise RuntimeError("no")

    monkeypatch.setattr(Attachment, "save", broken)
    with pytest.raises(RuntimeError):
        api.upload(PNG)
    assert stored(root) == set()


MOUNTED = """
import django
django.setup()
from django.urls import reverse, set_script_prefix
from uuid import UUID
from durable_agents.attachment_storage import url_of
set_script_prefix("/site/")
print(url_of(UUID(int=1)))
django.urls.set_urlconf("tests.attachments.samples")
import tests.attachments.samples
tests.attachments.samples.urlpatterns = []
print(url_of(UUID(int=1)))
"""


def test_urls_are_those_of_the_place_where_the_app_is_mounted(child_env):
    """Where it is not, they still name the file to Python."""
    result = subprocess.run(
        [sys.executable, "-c", MOUNTED], cwd=ROOT, env=child_env, capture_output=True, text=True, check=False
    )
    first = "00000000-0000-0000-0000-000000000001"
    assert result.stdout.split() == [f"/site/agents/attachments/{first}/", f"attachments/{first}/"], result.stderr


def test_a_token_of_the_project_is_enough(me):
    """As for every other path."""
    client = Client(enforce_csrf_checks=True, headers={"Authorization": f"Token {Token.objects.create(user=me).key}"})
    assert client.post("/agents/attachments/", {"file": uploads_of("a.txt")}).status_code == 201


@pytest.mark.django_db(transaction=True)
def test_a_commit_whose_answer_is_lost_keeps_the_file(root, monkeypatch):
    """The row is there; nobody knew."""
    commit = connection._commit

    def lost():
        commit()
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patched:
        patched.setattr(connection, "_commit", lost)
        with pytest.raises(OperationalError):
            lifecycle.upload(PNG, claimed="image/png", filename="a.png")
    assert len(stored(root)) == 1
    assert stored(root) == places()


@pytest.mark.django_db(transaction=True)
def test_an_error_after_the_commit_keeps_the_file(root, monkeypatch):
    """As it may come from whatever the project has done then."""

    def insert(row):
        row.save()
        raise RuntimeError("no")

    monkeypatch.setattr("durable_agents.lifecycle.attachments._insert", insert)
    with pytest.raises(RuntimeError):
        lifecycle.upload(PNG, claimed="image/png", filename="a.png")
    assert stored(root) == places()
    assert len(places()) == 1


def test_a_length_that_is_no_number_is_none(api, root):
    """The body is then read as one without a length."""
    answer = api.client.post("/agents/attachments/", {"file": SimpleUploadedFile("a.txt", b"Hi")}, CONTENT_LENGTH="x")
    assert answer.status_code == 400
    assert stored(root) == set()

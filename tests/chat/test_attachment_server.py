"""Over daphne, as files really travel: large ones, in pieces, without a length, and with a head first."""

from collections.abc import Iterator

import httpx
import pytest

from durable_agents.models import Attachment

MEGABYTE = 1_000_000


@pytest.fixture
def client(server, me):
    """Return the HTTP client of somebody signed in by a token."""
    headers = {"Authorization": me.client.headers["Authorization"]}
    with httpx.Client(base_url=server.url, headers=headers, timeout=20, trust_env=False) as made:
        yield made


def upload(client, data, **options):
    """POST a file."""
    return client.post("/agents/attachments/", files={"file": ("a.txt", data, "text/plain")}, **options)


def test_a_large_file_goes_in_and_comes_out_as_it_was(client):
    """Through temporary files on the way in, in blocks on the way out; twice at once."""
    data = bytes(range(32, 127)) * (5 * MEGABYTE // 95)
    made = upload(client, data)
    assert (made.status_code, made.json()["size"]) == (201, len(data))
    url = made.json()["url"]
    got = client.get(url)
    assert got.content == data
    head = client.head(url)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(data)), b"")
    again = client.get(url, headers={"If-None-Match": got.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(url, headers={"Authorization": ""}).status_code in {401, 403}


def test_a_file_over_the_limit_is_refused(client):
    """The server stays."""
    refused = upload(client, b"x" * (11 * MEGABYTE))
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert upload(client, b"x").status_code == 201
    assert Attachment.objects.count() == 1


def test_a_form_without_a_length_is_read_up_to_the_limit(client):
    """It comes in chunks."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'

    def form(megabytes: int) -> Iterator[bytes]:
        yield head
        for _ in range(megabytes):
            yield b"x" * MEGABYTE
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    taken = client.post("/agents/attachments/", content=form(1), headers=headers)
    assert (taken.status_code, taken.json()["size"]) == (201, MEGABYTE)
    refused = client.post("/agents/attachments/", content=form(11), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")

"""One rule at every door of a running server: what browsers send of files is taken, and served so that nothing runs."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.sync.client import connect

from durable_agents import create_thread
from durable_agents.models import Attachment, Message
from tests.attachments.samples import PNG, data_url

pytestmark = pytest.mark.django_db(transaction=True)

WEBM = b"\x1a\x45\xdf\xa3\x01\x00\x00\x00"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'

TAKEN = {
    "notes without a type": (b"# Notes", "", "a.md", "text/markdown"),
    "notes without a known type": (b"# Notes", "application/octet-stream", "a.md", "text/markdown"),
    "a notebook": (b'{"cells": []}', "", "a.ipynb", "text/plain"),
    "a recording": (WEBM, "audio/webm;codecs=opus", "a.webm", "audio/webm"),
    "a film": (WEBM, "video/webm;codecs=vp8,opus", "a.webm", "video/webm"),
    "a film of Apple's": (b"\x00\x00\x00\x1cftypM4V \x00\x00", "video/x-m4v", "a.m4v", "video/mp4"),
    "text with its encoding": (b"Hi", "text/plain;charset=utf-8", "a.txt", "text/plain"),
    "text with spaces and capitals": (b"Hi", "Text/Plain; Charset=UTF-8", "a.txt", "text/plain"),
    "TypeScript": (b"let a: number = 1", "video/mp2t", "a.ts", "text/plain"),
    "TypeScript on Windows": (b"let a: number = 1", "video/vnd.dlna.mpeg-tts", "a.ts", "text/plain"),
    "PHP": (b"<?php echo 1;", "application/x-php", "a.php", "text/plain"),
    "TeX": (b"\\begin{document}", "application/x-tex", "a.tex", "text/plain"),
    "mail": (b"From: a@example.org\r\n\r\nHi", "message/rfc822", "a.eml", "text/plain"),
    "a table": (b"a,b\n1,2", "application/vnd.ms-excel", "a.csv", "text/csv"),
    "YAML": (b"a: 1", "application/x-yaml", "a.yaml", "application/x-yaml"),
    "Rust": (b"fn main() {}", "", "a.rs", "text/plain"),
    "Go": (b"package main", "text/x-go", "a.go", "text/x-go"),
    "a Dockerfile": (b"FROM python", "", "Dockerfile", "text/plain"),
    "a vector image": (SVG, "image/svg+xml", "a.svg", "image/svg+xml"),
    "a page": (b"<script>alert(1)</script>", "text/html", "a.html", "text/html"),
    "an image with parameters": (PNG, "image/png; x=1", "a.png", "image/png"),
}
REFUSED = {
    "a page that is called an image": (b"<script>alert(1)</script>", "image/png", "a.png"),
    "a program": (b"MZ\x90\x00\x03", "", "a.exe"),
    "a program that is called text": (b"\x7fELF\x02\x00", "text/plain", "a.txt"),
    "an archive": (b"PK\x03\x04\x14\x00", "application/zip", "a.zip"),
    "a type that is none": (b"Hi", "te xt/plain", "a.txt"),
}

Door = Callable[[bytes, str, str], tuple[int, str]]


def part(data: bytes, media_type: str, filename: str) -> dict[str, Any]:
    """Return the file part that a browser makes: its type is in both places, or in neither."""
    return {"type": "file", "mediaType": media_type, "url": data_url(data, media_type), "filename": filename}


@pytest.fixture
def http(server: Any, me: Any) -> Any:
    """Return the HTTP client of somebody signed in by a token."""
    headers = {"Authorization": me.client.headers["Authorization"]}
    with httpx.Client(base_url=f"{server.url}/agents/", headers=headers, timeout=20, trust_env=False) as made:
        yield made


@pytest.fixture
def upload(http: httpx.Client) -> Door:
    """Return the door for forms."""

    def upload(data: bytes, media_type: str, filename: str) -> tuple[int, str]:
        boundary = uuid4().hex
        named = f"Content-Type: {media_type}\r\n" if media_type else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n{named}\r\n'
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        answer = http.post("attachments/", content=body, headers=headers)
        return answer.status_code, answer.json().get("code", "")

    return upload


@pytest.fixture
def rest(http: httpx.Client) -> Door:
    """Return the door for parts."""

    def rest(*file: Any) -> tuple[int, str]:
        answer = http.post("threads/", json={"agent": "chatty", "parts": [part(*file)]})
        return answer.status_code, answer.json().get("code", "")

    return rest


@pytest.fixture
def websocket(server: Any, http: httpx.Client) -> Any:
    """Return the door of sockets."""
    thread = http.post("threads/", json={"agent": "chatty"}).json()["id"]
    url = server.url.replace("http", "ws") + "/ws/agents/"
    with connect(url, additional_headers={"Authorization": http.headers["Authorization"]}, proxy=None) as socket:

        def websocket(*file: Any) -> tuple[int, str]:
            socket.send(json.dumps({"type": "send", "id": "s", "thread": thread, "parts": [part(*file)]}))
            frames = (json.loads(frame) for frame in socket)
            answer = next(frame for frame in frames if frame.get("id") == "s")
            return (201 if answer["type"] == "ok" else 400), answer.get("code", "")

        yield websocket


@pytest.fixture
def chat(http: httpx.Client) -> Door:
    """Return the door of the AI SDK."""

    def chat(*file: Any) -> tuple[int, str]:
        message = {"id": uuid4().hex, "role": "user", "parts": [part(*file)]}
        body = {"id": uuid4().hex, "messages": [message], "trigger": "submit-message"}
        with http.stream("POST", "chat/chatty", json=body) as answer:
            code = "" if answer.status_code == 200 else json.loads(answer.read())["code"]
            return 201 if answer.status_code == 200 else answer.status_code, code

    return chat


@pytest.fixture
def python(me: Any) -> Door:
    """Return the door of the project's own code."""

    def python(*file: Any) -> tuple[int, str]:
        try:
            create_thread("chatty", parts=[part(*file)])
        except ValueError as error:
            raise AssertionError from error
        except Exception as error:
            return 400, getattr(error, "code", repr(error))
        return 201, ""

    return python


DOORS = ["upload", "rest", "websocket", "chat", "python"]


@pytest.mark.parametrize("name", DOORS)
def test_what_browsers_send_is_taken_as_what_it_is(request, name):
    """Whatever they call it, with and without parameters."""
    door, found = request.getfixturevalue(name), {}
    for what, (data, media_type, filename, _) in TAKEN.items():
        assert door(data, media_type, filename) == (201, ""), what
        row = Attachment.objects.order_by("created_at").last()
        found[what] = (row.media_type, row.filename, row.size)
    assert found == {what: (stored, filename, len(data)) for what, (data, _, filename, stored) in TAKEN.items()}


@pytest.mark.parametrize("name", DOORS)
def test_what_is_not_what_it_says_is_refused(request, name):
    """With a code, and nothing is kept."""
    door = request.getfixturevalue(name)
    found = {what: door(*file) for what, file in REFUSED.items()}
    expected = (415, "unsupported_media_type") if name == "upload" else (400, "invalid_parts")
    assert found == dict.fromkeys(REFUSED, expected)
    assert not Attachment.objects.exists()


@pytest.mark.parametrize("name", ["rest", "websocket", "chat"])
def test_a_part_without_any_type_is_told_by_its_content(request, name, monkeypatch):
    """Neither in the part nor in the URL."""
    door = request.getfixturevalue(name)
    bare = {"type": "file", "url": data_url(b"# Notes", ""), "filename": "a.md"}
    monkeypatch.setitem(globals(), "part", lambda *_: bare)
    assert door(b"", "", "") == (201, "")
    [shown] = Message.objects.get(role="user").parts
    assert (shown["mediaType"], shown["filename"]) == ("text/markdown", "a.md")


def test_what_was_taken_runs_in_no_browser(http, upload):
    """Text is shown as plain text, what could run is downloaded; no browser looks for another type."""
    for what, (data, media_type, filename, stored) in TAKEN.items():
        upload(data, media_type, filename)
        got = http.get(f"attachments/{Attachment.objects.order_by('created_at').last().pk}/")
        shown = got.headers["Content-Type"].partition(";")[0]
        assert shown == (
            stored if stored in {"text/plain", "audio/webm", "image/png"} else "application/octet-stream"
        ), what
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in got.headers["Content-Security-Policy"]
        is_shown = got.headers["Content-Disposition"].startswith("inline")
        assert is_shown == (shown != "application/octet-stream"), what
        assert got.content == data

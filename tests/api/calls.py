"""What tests of the API stand on: people, and a caller that speaks JSON as one of them."""

import json
from dataclasses import replace
from typing import Any

from django.contrib.auth import get_user_model
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client

from durable_agents import create_thread
from durable_agents.models import ToolCall
from tests.lifecycle.stage import Worker, calling

ROOT = "/agents/"


def person(name: str, **facts: Any) -> Any:
    """Return a new user of whatever kind the project has."""
    model = get_user_model()
    return model.objects.create_user(**{model.USERNAME_FIELD: f"{name}@example.org"}, **facts)


class Api:
    """The API as one caller sees it: paths below its root, JSON in and out."""

    def __init__(self, user: Any = None, **client: Any) -> None:
        self.client = Client(**client)
        if user is not None:
            self.client.force_login(user)

    def get(self, path: str, **query: Any) -> HttpResponse:
        """GET with these query parameters."""
        return self.client.get(ROOT + path, query)

    def post(self, path: str, body: Any = None, **options: Any) -> HttpResponse:
        """POST this value as JSON; nothing at all where there is none."""
        return self.send("POST", path, body, **options)

    def patch(self, path: str, body: Any) -> HttpResponse:
        """PATCH this value as JSON."""
        return self.send("PATCH", path, body)

    def delete(self, path: str) -> HttpResponse:
        """DELETE."""
        return self.client.delete(ROOT + path)

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> HttpResponse:
        """Any method, with this value as JSON; text and bytes are sent as they are."""
        raw = body if isinstance(body, str | bytes) else "" if body is None else json.dumps(body)
        return self.client.generic(method, ROOT + path, raw, content_type="application/json", **options)

    def upload(
        self, data: bytes, filename: str = "notes.txt", content_type: str = "text/plain", *, path: str = "attachments/"
    ) -> HttpResponse:
        """POST a file as a browser's form does, whatever is said of it."""
        file = SimpleUploadedFile("file", data, content_type)
        file._name = filename  # as it is, where Django would clean it
        return self.client.post(ROOT + path, {"file": file})

    def follow(self, link: str) -> HttpResponse:
        """GET a link that the API gave."""
        return self.client.get(link)


def all_pages(api: Api, path: str, **query: Any) -> list[Any]:
    """Return the rows of all pages, from the first to the last."""
    page = api.get(path, **query).json()
    rows = list(page["results"])
    while page["next"]:
        page = api.follow(page["next"]).json()
        rows += page["results"]
    return rows


def problem(response: HttpResponse) -> tuple[int, str]:
    """Return status and code of an error, which must have the two fields of every error and no other."""
    body = response.json()
    assert set(body) == {"code", "detail"}, body
    assert isinstance(body["detail"], str), body
    assert body["detail"], body
    return response.status_code, body["code"]


KINDS: dict[str, dict[str, Any]] = {
    "result": {"kind": "client", "answered_by": "owner"},
    "error": {"kind": "client", "answered_by": "owner"},
    "approve": {"needs_approval": True},
    "reject": {"needs_approval": True},
    "timeout": {"kind": "client", "answered_by": "owner"},
}
"""A call to which each action fits."""

BODIES: dict[str, Any] = {
    "result": {"result": {"found": [1, None]}},
    "error": {"error": "The warehouse is closed."},
    "approve": {"reason": "Fine."},
    "reject": {"reason": "Too dear."},
    "timeout": {"seconds": 60},
}
"""What each action is told."""


def waiting_call(owner: Any, *, scope: str = "", **facts: Any) -> ToolCall:
    """Return a tool call of a thread of this owner's, as the model has just made it."""
    thread = create_thread("tested", owner=owner, scope=scope, prompt="Hi")
    worker = Worker()
    [claim] = [claim for claim in worker.claim(tools=0) if claim.thread_id == thread.pk]
    worker.answer("Let me see.", replace(calling(), **facts), claim=claim)
    return ToolCall.objects.select_related("thread").get(thread=thread)


def act(api: Api, call: ToolCall, action: str, body: Any = None) -> HttpResponse:
    """Do something to a tool call, in words that fit unless others are given."""
    path = f"threads/{call.thread_id}/tool-calls/{call.tool_call_id}/{action}/"
    return api.post(path, BODIES[action] if body is None else body)

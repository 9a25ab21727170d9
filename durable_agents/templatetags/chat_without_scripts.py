"""The content of `<durable-chat>` for browsers that run no scripts: the last messages, and forms to go on.

The caller sees the same as through the API. The same policy decides whether the caller may view the thread, which
people are named, and which tool calls the caller may approve or reject.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from uuid import UUID, uuid4

from django.http import HttpRequest
from django.urls import reverse

from durable_agents.chat_texts import TEXTS, WITHOUT_SCRIPTS, error_text
from durable_agents.exceptions import PermissionDeniedError, ThreadNotFoundError
from durable_agents.live.personal_frames import PersonalFrames
from durable_agents.live.reader import ThreadReader
from durable_agents.models import Thread, ThreadStatus
from durable_agents.parts import Part
from durable_agents.policies import public_agents, public_thread
from durable_agents.strictjson import is_uuid
from durable_agents.transcript import UIMessage

SHOWN_MESSAGES = 20
MAX_SHOWN_MESSAGES = 200
MAX_VALUE_CHARS = 2_000
"""Longer arguments and outputs of tool calls are cut, because every page contains them."""

_LINK = re.compile(r"(https?:/)?/", re.IGNORECASE)
_STATES = {
    "input-streaming": "preparing",
    "approval-requested": "waits",
    "output-available": "done",
    "output-error": "failed",
    "output-denied": "denied",
}
"""States of a tool call and their keys in ``TEXTS``. A tool call in any other state is shown as running."""


def shown_thread(request: HttpRequest, thread: Thread | UUID | str | None) -> Thread | None:
    """Return the thread that the page shows: ``thread`` or, if it is None, the thread that ``?thread=`` in the URL
    names. Return None if there is no such thread, or if the caller is not allowed to view it.
    """
    named = request.GET.get("thread", "") if thread is None else thread.pk if isinstance(thread, Thread) else thread
    if not is_uuid(str(named)):
        return None
    try:
        return public_thread(request, UUID(str(named)), "view")
    except (ThreadNotFoundError, PermissionDeniedError):
        return None


def without_scripts(
    request: HttpRequest, thread: Thread | None, *, agent: object, denied: Collection[str], is_readonly: bool
) -> dict[str, object]:
    """Return the context of the template ``chat_without_scripts.html``, as a dict with the key ``fallback``.

    Without a thread, the template shows only a form that creates one. Forms of the actions in ``denied`` are left out.
    """
    content: dict[str, object] = {
        "texts": TEXTS | WITHOUT_SCRIPTS,
        "page": request.get_full_path(),
        "client_id": uuid4().hex,
        "is_readonly": is_readonly,
        "denied": denied,
    }
    if thread is None:
        agents = [name for one in public_agents(request, "create") for name in one.names]
        is_denied = agent not in agents if agent else not agents
        content |= {"denied": ["send"]} if is_denied else {"agent": agent or agents[0]}
        content |= {"send": reverse("durable_agents:form-threads")}
        return {"fallback": content}
    names = {"send": "messages"} | {name: name for name in ("stop", "resume", "approve", "reject")}
    content |= {key: reverse(f"durable_agents:form-{name}", args=[thread.pk]) for key, name in names.items()}
    return {"fallback": content | _conversation(request, thread)}


def _conversation(request: HttpRequest, thread: Thread) -> dict[str, object]:
    """Return the last messages and the status of the thread."""
    query, shows_more = request.GET.copy(), "earlier" in request.GET
    query["earlier"] = "1"
    reader = ThreadReader(thread.pk)
    try:
        snapshot = reader.snapshot(tail=MAX_SHOWN_MESSAGES if shows_more else SHOWN_MESSAGES)
    except ThreadNotFoundError:
        return {"messages": []}
    frame = PersonalFrames(request, reader.facts).of(snapshot)
    status, error = ThreadStatus(frame["status"]), frame["error"]
    read_only = frame["read_only"]
    return {
        "thread": thread,
        "messages": [_message(request, message) for message in frame["messages"]],
        "earlier": f"?{query.urlencode()}" if frame["hasOlder"] and not shows_more else "",
        "is_running": status.is_running,
        "is_answering": status == ThreadStatus.STREAMING,
        "is_waiting": status == ThreadStatus.AWAITING_TOOL_RESULTS,
        "is_stopped": status == ThreadStatus.STOPPED,
        "read_only": error_text(read_only["code"], read_only["message"]) if read_only else "",
        "is_at_rest": status == ThreadStatus.STOPPED or error is not None,
        "error": error_text(error["code"], error["message"]) if error else "",
    }


def _message(request: HttpRequest, message: UIMessage) -> dict[str, object]:
    sender = message["sender"]
    is_other = sender is not None and sender["id"] != str(request.user.pk)
    author = sender["name"] if is_other else TEXTS["you"] if message["role"] == "user" else TEXTS["assistant"]
    return {"role": message["role"], "author": author, "parts": list(_shown_parts(message["parts"]))}


def _shown_parts(parts: list[Part]) -> Iterator[dict[str, object]]:
    """Yield what the template shows: texts, reasoning, files, sources and tool calls. Leave out all other parts, as the
    element `<durable-chat>` does.
    """
    for part in parts:
        kind = part["type"]
        if kind in {"text", "reasoning"}:
            if part["text"].strip():
                yield {"kind": kind, "text": part["text"]}
        elif kind in {"file", "source-url", "source-document"}:
            url = part.get("url", "")
            name = part.get("title") or part.get("filename") or url
            yield {"kind": "file", "name": name, "url": url if _LINK.match(url) else ""}
        elif "toolCallId" in part:
            yield _tool(part)


def _tool(part: Part) -> dict[str, object]:
    is_asked = part["state"] == "approval-requested"
    may_decide = is_asked and part["approval"].get("canDecide") is True
    state = _STATES.get("" if part.get("preliminary") else part["state"], "running")
    return {
        "kind": "tool",
        "name": part.get("toolName") or part["type"].removeprefix("tool-"),
        "state": TEXTS["waitsForOthers" if is_asked and not may_decide else state],
        "input": _readable(part.get("input", part.get("rawInput"))),
        "output": _readable(part.get("output")),
        "error": part.get("errorText", ""),
        "tool_call_id": part["toolCallId"] if may_decide else "",
    }


def _readable(value: object) -> str:
    """Return a string unchanged, and any other value as JSON. None becomes an empty string. Long texts are cut."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"

"""One case for each method of each route and for each frame: how it is called with ids that are somebody else's.

``test_matrix`` runs them all under every policy, and fails where the API has something that has no case here.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import uuid4

from django.urls import URLPattern

from durable_agents import create_thread, send_message, stop_thread
from durable_agents.lifecycle import upload
from durable_agents.models import Message, Stream, Thread
from tests.api.calls import BODIES, KINDS, waiting_call
from tests.lifecycle.stage import Worker

CANARY = "kingfisher-4711"
"""Is in everything that is somebody else's, and in no answer."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """What can be named in a path, a body or a frame: ids of one owner's things, or of nothing."""

    thread_id: str = field(default_factory=lambda: str(uuid4()))
    tool_call_id: str = field(default_factory=lambda: f"call_{uuid4().hex}")
    message_id: str = field(default_factory=lambda: str(uuid4()))
    stream_id: str = field(default_factory=lambda: str(uuid4()))
    attachment_id: str = field(default_factory=lambda: str(uuid4()))

    def within(self, thread: "Names") -> "Names":
        """The same things, looked for in another thread."""
        return Names(**asdict(self) | {"thread_id": thread.thread_id})

    def taken_from(self, text: str) -> str:
        """The text without these ids."""
        for name, value in asdict(self).items():
            text = text.replace(value, f"<{name}>")
        return text


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a method of a route is called. Its path and its body are filled in with names."""

    needs: str = "resting"
    """What the owner has, so that the request would do something to it if it were allowed."""
    body: Any = None
    is_private: bool = True
    """Whether it names a thing; otherwise it lists or makes things of the caller's own."""
    nested: Iterable[str] = ()
    """What it names within the thread, in path or body."""
    missing: int = 404
    """What is said of a thread that does not exist,"""
    missing_within: int = 404
    """and of something that is not in the thread."""
    live: bool = False
    """Whether the answer is a stream, so that it must be asked for as under an ASGI server."""
    upload: bool = False
    """Whether the body is a form with a file."""
    form: bool = False
    """Whether the body is a form of a page; the answer leads to that page, or is a page that says what is wrong."""

    def filled(self, names: Names) -> Any:
        """The body with these names."""
        return _filled(self.body, asdict(names))


CALL = "threads/<str:thread_id>/tool-calls/<str:tool_call_id>"
PLAIN = {"<str:agent>": "tested"}
"""What a path names that is nobody's."""
SAID = {"id": "{message_id}", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
SHOWN = {"id": "{message_id}", "role": "assistant", "parts": [{"type": "text", "text": "Hi"}]}
FILE = {"type": "file", "mediaType": "text/plain", "url": "/agents/attachments/{attachment_id}/"}
OPEN = {"GET schema"}
"""What is for everybody."""

CASES: dict[str, Case] = {
    "GET agents": Case(is_private=False),
    "GET schema": Case(is_private=False),
    "GET threads": Case(is_private=False),
    "POST threads": Case(is_private=False, body={"agent": "tested", "client_id": "{thread_id}", "prompt": "Hi"}),
    "GET threads/<str:thread_id>": Case(),
    "PATCH threads/<str:thread_id>": Case(body={"title": "mine now", "archived": True}),
    "DELETE threads/<str:thread_id>": Case(needs="running"),
    "GET threads/<str:thread_id>/messages": Case(),
    "POST threads/<str:thread_id>/messages": Case(body={"prompt": "Let me in.", "client_id": "{message_id}"}),
    "PUT threads/<str:thread_id>/messages/<str:message_id>": Case(body={"prompt": "Mine."}, nested=["message_id"]),
    "POST threads/<str:thread_id>/regenerate": Case(body={"message_id": "{message_id}"}, nested=["message_id"]),
    "POST threads/<str:thread_id>/fork": Case(body={"at": "{message_id}"}, nested=["message_id"]),
    "POST threads/<str:thread_id>/stop": Case(needs="running"),
    "POST threads/<str:thread_id>/resume": Case(body={"prompt": "Go on."}),
    "GET threads/<str:thread_id>/tool-calls": Case(needs="result"),
    "GET threads/<str:thread_id>/events": Case(live=True, needs="running"),
    "POST threads/<str:thread_id>/messages | with a file": Case(
        needs="attachment", body={"parts": [FILE]}, nested=["attachment_id"], missing_within=400
    ),
    "PUT threads/<str:thread_id>/messages/<str:message_id> | with a file": Case(
        needs="attachment", body={"parts": [FILE]}, nested=["message_id", "attachment_id"]
    ),
    "POST attachments": Case(is_private=False, upload=True),
    "GET attachments/<str:attachment_id>": Case(needs="attachment"),
    "POST chat": Case(is_private=False, live=True, body={"id": "{thread_id}", "messages": [SAID], "agent": "tested"}),
    "POST chat | an edit": Case(live=True, body={"id": "{thread_id}", "messageId": "{message_id}", "messages": [SAID]}),
    "POST chat | answers": Case(live=True, body={"id": "{thread_id}", "messages": [SHOWN]}),
    "POST chat | another try": Case(
        live=True, body={"id": "{thread_id}", "messages": [SHOWN], "trigger": "regenerate-message"}
    ),
    "POST chat/<str:agent>": Case(is_private=False, live=True, body={"id": "{thread_id}", "message": SAID}),
    "POST chat/<str:agent> | answers": Case(live=True, body={"id": "{thread_id}", "message": SHOWN}),
    **{
        f"{method} chat/{agent}<str:thread_id>/{name}": Case(needs="running", live=name == "stream", missing=missing)
        for agent in ("", "<str:agent>/")
        for method, name, missing in (("GET", "stream", 204), ("POST", "stop", 404))
    },
    "GET threads/<str:thread_id>/usage": Case(),
    "GET threads/<str:thread_id>/export": Case(),
    "POST ws-ticket": Case(is_private=False),
    **{f"POST {CALL}/{action}": Case(needs=action, body=BODIES[action], nested=["tool_call_id"]) for action in KINDS},
    "POST forms/threads": Case(
        form=True, is_private=False, body={"agent": "tested", "client_id": "{thread_id}", "prompt": "Hi"}
    ),
    "POST forms/threads/<str:thread_id>/messages": Case(
        form=True, body={"prompt": "Let me in.", "client_id": "{message_id}"}
    ),
    "POST forms/threads/<str:thread_id>/stop": Case(form=True, needs="running", body={}),
    "POST forms/threads/<str:thread_id>/resume": Case(form=True, body={"prompt": "Go on."}),
    **{
        f"POST forms/threads/<str:thread_id>/tool-calls/{action}": Case(
            form=True, needs=action, body=BODIES[action] | {"tool_call_id": "{tool_call_id}"}, nested=["tool_call_id"]
        )
        for action in ("approve", "reject")
    },
}

FRAMES: dict[str, Case] = {
    "hello": Case(is_private=False, body={"version": 1}),
    "ping": Case(is_private=False, body={"t": 1}),
    "subscribe": Case(body={}),
    "unsubscribe": Case(body={}),
    "fill": Case(needs="running", body={"stream": "{stream_id}", "from": 0}, nested=["stream_id"]),
    "older": Case(body={"before": 100}),
    "send": Case(body={"prompt": "Let me in.", "client_id": "{message_id}"}),
    "stop": Case(needs="running", body={}),
    "resume": Case(body={"prompt": "Go on."}),
    "edit": Case(body={"message": "{message_id}", "prompt": "Mine."}, nested=["message_id"]),
    "regenerate": Case(body={"message": "{message_id}"}, nested=["message_id"]),
    "tool_result": Case(needs="result", body={"tool_call_id": "{tool_call_id}", "result": 1}, nested=["tool_call_id"]),
    "tool_error": Case(needs="error", body={"tool_call_id": "{tool_call_id}", "error": "No"}, nested=["tool_call_id"]),
    "approve": Case(needs="approve", body={"tool_call_id": "{tool_call_id}"}, nested=["tool_call_id"]),
    "reject": Case(needs="reject", body={"tool_call_id": "{tool_call_id}"}, nested=["tool_call_id"]),
}


def belongings(needs: str, *, owner: Any, scope: str) -> Names:
    """Make what a case needs for this owner, and return how it is called. It is full of the canary."""
    if needs in KINDS:
        call = waiting_call(owner, scope=scope, **KINDS[needs])
        Thread.objects.filter(pk=call.thread_id).update(title=CANARY, metadata={"note": CANARY})
        return Names(thread_id=str(call.thread_id), tool_call_id=call.tool_call_id)
    thread = create_thread(
        *("tested",), owner=owner, scope=scope, prompt=CANARY, title=CANARY, metadata={"note": CANARY}
    )
    if needs == "attachment":
        return _with_a_file(thread)
    worker = Worker()
    [claim] = [claim for claim in worker.claim(tools=0) if claim.thread_id == thread.pk]
    worker.say(claim, CANARY)
    if needs == "resting":
        worker.answer(CANARY, claim=claim)
    asked = Message.objects.get(thread=thread, role="user")
    stream = Stream.objects.get(thread=thread)
    return Names(thread_id=str(thread.pk), message_id=str(asked.pk), stream_id=str(stream.pk))


def _with_a_file(thread: Thread) -> Names:
    stop_thread(thread)
    facts = {"filename": f"{CANARY}.txt", "owner": thread.owner, "scope": thread.scope}
    file = upload(CANARY.encode(), claimed="text/plain", **facts)
    part = {"type": "file", "mediaType": "text/plain", "url": f"/agents/attachments/{file.pk}/"}
    message = send_message(thread, parts=[part])
    stop_thread(thread)
    return Names(thread_id=str(thread.pk), message_id=str(message.pk), attachment_id=str(file.pk))


# What the API has.


def operations(patterns: Iterable[URLPattern]) -> Iterator[tuple[str, str]]:
    """Yield method and route, without its trailing slash, of everything that can be called."""
    found = {(method, _route(pattern)) for pattern in patterns for method in _methods(pattern.callback)}
    yield from sorted(found, key=lambda operation: (operation[1], operation[0]))


def _route(pattern: URLPattern) -> str:
    return str(pattern.pattern).rstrip("/")


def _methods(view: Any) -> list[str]:
    """The methods of a view made from a class; any other view must say which it has."""
    made_from = getattr(view, "cls", None) or getattr(view, "view_class", None)
    names = made_from.http_method_names if made_from else view.methods
    known = {name for name in names if name not in {"options", "head", "trace"}}
    return sorted(name.upper() for name in known if not made_from or hasattr(made_from, name))


def gaps(patterns: Iterable[URLPattern], cases: Mapping[str, Case]) -> list[str]:
    """What is missing between the routes and their cases, and what to do about it."""
    known = {f"{method} {route}" for method, route in operations(patterns)}
    covered = {name.partition(" | ")[0] for name in cases}
    fields = {f"<str:{name}>" for name in Names.__dataclass_fields__} | PLAIN.keys()
    sentences = [
        f"{operation} has no foreign-owner case: add one to CASES in tests/policies/cases.py that says how it is "
        f"called with somebody else's ids, and what the owner must have for it to do harm."
        for operation in sorted(known - covered)
    ]
    sentences += [f"The case {case} has no route: take it out of CASES." for case in sorted(covered - known)]
    sentences += [
        f"{operation} takes {part}, which tests/policies/cases.py cannot fill in: add it to Names and to belongings()."
        for operation in sorted(known)
        for part in operation.split("/")
        if part.startswith("<") and part not in fields
    ]
    sentences += [
        f"The case {name} does not say that it names a {part} within the thread: add it to nested."
        for name, case in sorted(cases.items())
        for part in Names.__dataclass_fields__
        if "<str:thread_id>" in name and part != "thread_id" and f"<str:{part}>" in name and part not in case.nested
    ]
    return sentences


def frame_gaps(commands: Iterable[str], cases: Mapping[str, Case]) -> list[str]:
    """The same for the types of frames that a socket listens to."""
    known = set(commands)
    missing = [
        f"The frame {kind!r} has no foreign-owner case: add one to FRAMES in tests/policies/cases.py."
        for kind in sorted(known - cases.keys())
    ]
    return missing + [
        f"The case {kind!r} has no frame: take it out of FRAMES." for kind in sorted(cases.keys() - known)
    ]


def path_of(operation: str, names: Names) -> str:
    """The path of an operation, below the root of the API, with these names."""
    route = operation.partition(" ")[2].partition(" | ")[0]
    for part, value in (PLAIN | {f"<str:{name}>": value for name, value in asdict(names).items()}).items():
        route = route.replace(part, value)
    return f"{route}/"


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return value.format_map(names)
    if isinstance(value, Mapping):
        return {key: _filled(item, names) for key, item in value.items()}
    return [_filled(item, names) for item in value] if isinstance(value, list) else value

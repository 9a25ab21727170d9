"""A thread as server-sent events: the frames of the websocket, each with the cursor after it."""

import json
import threading
from copy import deepcopy
from typing import Any

import httpx
import pytest
from django.contrib.auth import get_user_model

from durable_agents import create_thread, delete_thread
from durable_agents.lifecycle import update_thread
from durable_agents.models import Thread
from durable_agents.testing import ScriptedModel, calls, does, run_until_idle
from durable_agents.transcript import ui_messages
from tests.chat.client import Chatter, wait_for
from tests.streaming.client import Client as Shown
from tests.websocket.protocol import check


class Events:
    """An EventSource: ids and frames of one thread, read in a thread of their own while they come."""

    def __init__(self, me: Chatter, thread: object, *, query: str = "", **headers: str) -> None:
        self.frames: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.status = 0
        self.problem: tuple[int, str] | None = None
        self._stop = threading.Event()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self._thread = threading.Thread(target=self._read, args=(me.client, f"threads/{thread}/events/{query}", given))
        self._thread.start()

    def _read(self, client: httpx.Client, path: str, headers: dict[str, str]) -> None:
        with client.stream("GET", path, headers=headers) as response:
            self.status = response.status_code
            if response.status_code != 200:
                self.problem = (response.status_code, json.loads(response.read())["code"])
                return
            for line in response.iter_lines():
                if line.startswith("id: "):
                    self.ids.append(line[4:])
                elif line.startswith("data: "):
                    self.frames.append(json.loads(line[6:]))
                if self._stop.is_set():
                    return

    def until(self, kind: str, **facts: Any) -> "Events":
        """Wait for a frame of this type with these facts."""
        wait_for(lambda: any(frame | {"type": kind} | facts == frame for frame in list(self.frames)))
        return self

    def at_rest(self, status: str = "completed") -> "Events":
        """Wait until the thread is said to be at rest."""
        return self.until("thread", status=status)

    def ended(self) -> "Events":
        """Wait for the end of the response."""
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self

    def close(self, thread: Thread) -> None:
        """Hang up, at the next line."""
        self._stop.set()
        update_thread(thread, title="bye")
        self.ended()


@pytest.fixture
def thread(me: Chatter) -> Thread:
    """Return a thread of the one whom these tests are about, with its first step due."""
    return create_thread("chatty", owner=get_user_model().objects.get(), prompt="Hello?", client_id="c1")


def truth(thread: Thread) -> list[Any]:
    """Return the parts of the messages that are stored."""
    return [message["parts"] for message in ui_messages(thread.messages.order_by("position"))]


def run(*answers: Any) -> None:
    """Let the model give these answers."""
    with ScriptedModel(*answers):
        run_until_idle()


def test_the_frames_are_those_of_the_websocket(me: Chatter, thread: Thread):
    """A snapshot first, then everything that happens, by the published schema."""
    events = Events(me, thread.pk).until("snapshot")
    run(["Let me ", does(lambda: events.until("delta")), "see."], "x")
    events.at_rest()
    for frame in events.frames:
        check("server", frame)
    assert {frame["thread"] for frame in events.frames} == {str(thread.pk)}
    events.close(thread)


def test_the_thread_is_named_as_the_client_names_it(me: Chatter, thread: Thread):
    """By the caller's own id where that was asked for."""
    events = Events(me, "c1").until("snapshot")
    assert events.frames[0]["thread"] == "c1"
    events.close(thread)


@pytest.mark.parametrize("by", ["header", "query"])
def test_every_id_is_a_cursor_that_goes_on_after_its_frame(me: Chatter, thread: Thread, by: str):
    """Nothing twice, nothing missing, wherever somebody was cut off."""
    events = Events(me, thread.pk).until("snapshot")
    run(["Let me ", does(lambda: events.until("delta")), "see.", calls("add", a=1, b=2)], "Three.")
    events.at_rest()
    cursors, frames, told = list(events.ids), list(events.frames), truth(thread)
    assert len(cursors) == len(frames)
    for place, cursor in enumerate(cursors):
        given = {"Last_Event_ID": cursor} if by == "header" else {"query": f"?cursor={cursor}"}
        again = Events(me, thread.pk, **given).at_rest()
        client = Shown().take(deepcopy(frames[: place + 1])).take(again.frames)
        assert [message["parts"] for message in client.shown()] == told, cursor
        again.close(thread)
    events.close(thread)


def test_the_header_counts_before_the_query(me: Chatter, thread: Thread):
    """A browser that comes back asks for the address that it was given first."""
    first = Events(me, thread.pk).until("snapshot")
    cursor = first.ids[0]
    first.close(thread)
    again = Events(me, thread.pk, query="?cursor=1..-1", Last_Event_ID=cursor).until("resumed")
    assert again.frames[0]["rev"] == int(cursor.partition(".")[0])
    again.close(thread)


def test_a_cursor_that_is_none_is_refused(me: Chatter, thread: Thread):
    """In the query; a header that is none counts as not given, since a browser would give up for good."""
    assert Events(me, thread.pk, query="?cursor=nonsense").ended().problem == (400, "invalid_cursor")
    events = Events(me, thread.pk, Last_Event_ID="nonsense").until("snapshot")
    events.close(thread)


def test_a_lost_client_gets_the_text_that_it_has_missed(me: Chatter, thread: Thread):
    """From the middle of an open answer."""
    events = Events(me, thread.pk).until("snapshot")
    again: list[Events] = []

    def come_again() -> None:
        events.until("delta")
        last = next(i for i, f in zip(events.ids, events.frames, strict=False) if f["type"] == "delta")
        again.append(Events(me, thread.pk, Last_Event_ID=last).until("resumed"))

    run(["One ", does(come_again), "two."])
    events.at_rest()
    again[0].at_rest()
    assert "One" not in str([f for f in again[0].frames if f["type"] == "delta"])
    assert "two." in str(again[0].frames)
    for one in (*again, events):
        one.close(thread)


def test_a_thread_that_is_deleted_ends_the_events(me: Chatter, thread: Thread):
    """With the error that says so."""
    events = Events(me, thread.pk).until("snapshot")
    delete_thread(thread)
    assert events.ended().frames[-1]["code"] == "thread_not_found"


def test_a_foreign_thread_has_no_events(me: Chatter, chatter, thread: Thread):
    """As one that is not there."""
    other = chatter("other")
    assert Events(other, thread.pk).ended().problem == (404, "thread_not_found")
    assert Events(other, "c1").ended().problem == (404, "thread_not_found")


def test_a_client_that_follows_shows_what_is_stored(me: Chatter, thread: Thread):
    """All of it, with the outcome of calls."""
    events = Events(me, thread.pk).until("snapshot")
    run(["Let me see.", calls("add", a=1, b=2)], "Three.")
    events.at_rest()
    assert [message["parts"] for message in Shown().take(deepcopy(events.frames)).shown()] == truth(thread)
    events.close(thread)


@pytest.mark.parametrize("path", ["threads/{}/events/", "chat/{}/stream", "chat/chatty/{}/stream"])
def test_a_head_of_a_stream_has_its_headers_and_no_events(me, path):
    """Events would be read as the response to the next request on the connection."""
    thread = create_thread("chatty", owner=get_user_model().objects.get(), prompt="Hi")

    response = me.client.head(path.format(thread.pk))

    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream")
    assert me.client.get(f"threads/{thread.pk}/").json()["id"] == str(thread.pk)

"""What the threads of these tests say and hear: an answer depends on its question, so that none is mixed up."""

import threading
from collections.abc import Collection

from durable_agents.models import Delta, Message, Stream, Thread
from durable_agents.transcript import ui_messages
from tests.servers.model import Exchange, Hold, Reply


def words(count: int, name: str = "word") -> str:
    """Return so many words, no two alike."""
    return " ".join(f"{name}-{number}" for number in range(count))


def held_until(gate: threading.Event, text: str) -> Hold:
    """Return an answer that stops in the middle until the gate is open: so many can be under way at the same time."""
    return Hold(reply=Reply(text=text, delay_seconds=0.1), after=len(text.split()) // 2, gate=gate)


def asked(request: dict) -> str:
    """Return what the user said last."""
    return [message["content"] for message in request["messages"] if message["role"] == "user"][-1]


def was_told(request: dict) -> list[str]:
    """Return the results of tools in the history, in order."""
    return [message["content"] for message in request["messages"] if message["role"] == "tool"]


def first_requests(journal: Collection[Exchange]) -> dict[str, float]:
    """Return when each question was first put to the model, in seconds since 1970."""
    return {asked(exchange.body): exchange.received_at for exchange in reversed(list(journal))}


def said(thread: Thread) -> list[tuple[str, list[str]]]:
    """Return the transcript: role and texts of each message."""
    messages = ui_messages(Message.objects.shown().filter(thread=thread))
    return [(m["role"], [part["text"] for part in m["parts"] if part["type"] == "text"]) for m in messages]


def have_begun(count: int) -> bool:
    """Whether so many answers are being streamed, each with a few deltas stored."""
    if Stream.objects.held().count() != count or Delta.objects.count() < 3 * count:
        return False
    return Delta.objects.filter(seq__gte=2).values("stream").distinct().count() == count


def are_under_way(count: int) -> bool:
    """Whether so many answers are held at the same time, each with something stored."""
    return Stream.objects.held().count() == count == Delta.objects.values("stream").distinct().count()

"""Prints the id of a new thread of a user, with this many messages: python -m tests.browser.long_thread USER COUNT"""

import os
import sys
from typing import Any

ANSWER = "Number **{}** is *{}*:\n\n- one line of `code`\n- and another line\n\n{}"
WORDS = "The quick brown fox jumps over the lazy dog. " * 4


def make(username: str, count: int) -> str:
    """Make the thread in bulk, without runs, and return its id. Half of the messages are answers in Markdown."""
    from django.contrib.auth import get_user_model

    from durable_agents.models import Message, Role, Stream, StreamState, Thread

    owner = get_user_model().objects.get(username=username)
    thread = Thread.objects.create(
        agent="assistant",
        agent_is_public=True,
        owner=owner,
        title="A long thread",
        rev=count,
        last_position=count,
        last_number=count,
    )
    messages, steps = [], []
    for position in range(1, count, 2):
        said, answer = f"Question {position}", ANSWER.format(position, position % 7, WORDS)
        facts: dict[str, Any] = {"thread": thread, "rev": position}
        asked = Message(role=Role.USER, position=position, parts=[text(said)], text=said, **facts)
        answered = Message(role=Role.ASSISTANT, position=position + 1, **facts)
        messages += [asked, answered]
        step = {"message": answered, "number": position, "agent": "assistant"}
        step |= {"model": "scripted", "pool": "agents", "started_at": thread.created_at}
        parts = [{"type": "step-start"}, text(answer)]
        steps.append(Stream(state=StreamState.FINISHED, parts=parts, text=answer, **step, **facts))
    Message.objects.bulk_create(messages, batch_size=500)
    Stream.objects.bulk_create(steps, batch_size=500)
    return str(thread.pk)


def text(words: str) -> dict[str, str]:
    """Return the part of a text."""
    return {"type": "text", "text": words}


if __name__ == "__main__":
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_project.settings")
    django.setup()
    print(make(sys.argv[1], int(sys.argv[2])))

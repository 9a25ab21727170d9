"""What a reader of a thread must have in the end, read from the rows."""

from durable_agents.models import Delta, Message, Stream
from durable_agents.parts import fold
from durable_agents.transcript import ui_messages


def truth(thread):
    """Return what clients have to show, made from rows: the transcript, and what is stored of the open attempt."""
    messages = ui_messages(Message.objects.shown().filter(thread=thread))
    open_row = Stream.objects.open().filter(thread=thread).select_related("message").first()
    if open_row is not None:
        chunks = [chunk for delta in Delta.objects.after(open_row.pk, -1) for chunk in delta.chunks]
        [answer] = [message for message in messages if message["id"] == open_row.message.shown_id]
        answer["parts"] = answer["parts"] + fold(chunks)
    return messages

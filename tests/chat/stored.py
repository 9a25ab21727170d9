"""What is stored of an answer, as clients have to show it."""

from durable_agents.models import Message, Stream
from durable_agents.parts import fold
from durable_agents.transcript import ui_messages


def stored(answer: Message) -> list:
    """Return the parts of an answer, an open step with what is stored of it."""
    [message] = ui_messages(Message.objects.filter(pk=answer.pk))
    open_row = Stream.objects.open().filter(message=answer).first()
    if open_row is None:
        return message["parts"]
    deltas = open_row.deltas.order_by("seq").values_list("chunks", flat=True)
    return message["parts"] + fold(chunk for chunks in deltas for chunk in chunks)


def plain(parts: list) -> list:
    """Return parts without what only a decision leaves, and without steps in which nothing stands."""
    kept = [{name: value for name, value in part.items() if name != "approval"} for part in parts]
    types = [*(part["type"] for part in kept), "step-start"]
    return [part for place, part in enumerate(kept) if types[place : place + 2] != ["step-start", "step-start"]]

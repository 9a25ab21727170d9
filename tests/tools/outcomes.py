"""What tools have done, and what clients and models are shown of it."""

from dataclasses import dataclass, field
from typing import Any

from durable_agents.models import Message, Thread, ToolCall
from durable_agents.policies import OwnerPolicy
from durable_agents.testing import ScriptedModel
from durable_agents.transcript import ui_messages


@dataclass
class Done:
    """What the tools have done."""

    ran: list[Any] = field(default_factory=list)


def shown(thread: Thread) -> list[tuple[str, str]]:
    """Role and text of each message."""
    messages = ui_messages(Message.objects.shown().filter(thread=thread))
    return [(m["role"], " ".join(part["text"] for part in m["parts"] if part["type"] == "text")) for m in messages]


def part_of(call: ToolCall) -> dict[str, Any]:
    """The part that clients see of a call."""
    call.refresh_from_db()
    return call.outcome().part()


def told(model: ScriptedModel) -> list[str]:
    """The results of calls that the model was told last."""
    return [message["content"] for message in model.requests[-1].messages if message["role"] == "tool"]


class SharedPolicy(OwnerPolicy):
    """Everybody sees everything of one organisation, whose threads nobody owns."""

    def filter(self, queryset: Any, request: Any) -> Any:
        """Return all of them."""
        return queryset

    def allows(self, request: Any, action: str, **about: Any) -> bool:
        """Allow everything."""
        return True

    def owner_and_scope(self, request: Any) -> tuple[Any, str]:
        """Return the organisation."""
        return None, "acme"

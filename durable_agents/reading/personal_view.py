"""Add to messages what depends on the caller: what the caller may see of people, and which tool calls the caller may
decide.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from durable_agents.actors import Person, User, person_of
from durable_agents.models import Thread, ToolCall, ToolCallStatus
from durable_agents.parts import Part
from durable_agents.policies import Asker, can_decide, policy
from durable_agents.transcript import UIMessage


class PersonalView:
    """One caller's view of a thread. Nothing is cached: each method asks the policy."""

    def __init__(self, request: Asker, thread: Thread) -> None:
        self._request = request
        self._thread = thread

    def person(self, user: User) -> Person | None:
        """Return what the caller is allowed to see of a user, or None if the caller may see nothing."""
        # A project's policy may lack the method ``person``, because it does not have to inherit from our policy class.
        decide = getattr(policy(), "person", None)
        return person_of(user) if decide is None else decide(self._request, user, thread=self._thread)

    def can_decide(self, call: ToolCall) -> bool:
        """Return whether the caller is allowed to decide about a tool call that ``waiting_calls`` returned."""
        return can_decide(self._request, call)

    def mark(self, messages: Sequence[UIMessage]) -> Sequence[UIMessage]:
        """Set ``approval.canDecide`` in the tool parts that wait for an approval, and return the messages. This makes a
        query only if there are such parts.
        """
        waiting = {part["toolCallId"]: part for message in messages for part in waiting_parts(message["parts"])}
        for call in waiting_calls(self._thread, waiting):
            waiting[call.tool_call_id]["approval"]["canDecide"] = self.can_decide(call)
        return messages


def waiting_calls(thread: Thread, tool_call_ids: Collection[str]) -> list[ToolCall]:
    """Return the tool calls with these ids that wait for an approval, with all that ``can_decide`` needs."""
    if not tool_call_ids:
        return []
    waiting = ToolCall.objects.filter(thread=thread, status=ToolCallStatus.APPROVAL_REQUESTED)
    calls = list(waiting.filter(tool_call_id__in=tool_call_ids).with_asker().select_related("message"))
    for call in calls:
        call.thread = thread
    return calls


def waiting_parts(parts: Iterable[Part]) -> list[Part]:
    """Return the tool parts that wait for an approval."""
    return [part for part in parts if part.get("state") == "approval-requested"]

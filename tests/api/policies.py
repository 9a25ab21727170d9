"""Policies that let guests in or note what they are asked."""

from durable_agents.policies import OwnerPolicy


class AskedPolicy(OwnerPolicy):
    """Notes what it is asked, and refuses what the test says."""

    asked: list[str]
    refused: set[str]

    def allows(self, request, action, *, agent, thread=None, tool_call=None):
        """Whether nobody refused it."""
        type(self).asked.append(action)
        return super().allows(request, action, agent=agent) and action not in type(self).refused


class GuestPolicy(OwnerPolicy):
    """Lets everybody in; threads belong to nobody and to one scope."""

    def filter(self, queryset, request):
        """Return the guests' threads."""
        return queryset.filter(scope="guests")

    def allows(self, request, action, *, agent, thread=None, tool_call=None):
        """Everything."""
        return True

    def owner_and_scope(self, request):
        """Nobody's."""
        return None, "guests"

    def context(self, request):
        """What Python may rely on."""
        return {"path": "web"}


class ResultsOnly(OwnerPolicy):
    """Lets owners add results, and approve nothing."""

    def allows(self, request, action, *, agent, thread=None, tool_call=None):
        """Everything but approvals."""
        return action != "approve" and super().allows(request, action, agent=agent)

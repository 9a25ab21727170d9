"""Policies of the servers of these tests."""

from durable_agents.policies import OwnerPolicy


class TeamPolicy(OwnerPolicy):
    """Signed-in users share all threads; visitors have those of their session's scope."""

    def filter(self, queryset, request):
        """Return what the caller shares."""
        if request.user.is_authenticated:
            return queryset
        return queryset.filter(owner=None, scope=_visitor(request))

    def allows(self, request, action, *, agent=None, thread=None, tool_call=None):
        """Everything."""
        return True

    def owner_and_scope(self, request):
        """A user's own, or the visitor's."""
        if request.user.is_authenticated:
            return request.user, "team"
        return None, _visitor(request)


class TeamsPolicy(TeamPolicy):
    """The same, with a scope for each team; a header says for which one a user speaks."""

    def owner_and_scope(self, request):
        """A user's own in a team, or the visitor's."""
        owner, scope = super().owner_and_scope(request)
        return owner, scope if owner is None else request.headers.get("x-team")


def _visitor(request):
    return f"visitor:{request.headers.get('x-visitor') or 'nobody'}"

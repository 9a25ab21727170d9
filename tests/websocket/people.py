"""A policy of an organisation: whoever is in the group that a thread's scope names may use the thread."""

from typing import Any

from django.db.models import Q

from durable_agents.policies import OwnerPolicy


class GroupPolicy(OwnerPolicy):
    """Shows users their own threads and those of their groups."""

    def filter(self, queryset: Any, request: Any) -> Any:
        """Return what the caller owns, or shares by a group."""
        if not request.user.is_authenticated:
            return queryset.none()
        groups = list(request.user.groups.values_list("name", flat=True))
        return queryset.filter(Q(owner=request.user) | Q(scope__in=groups))

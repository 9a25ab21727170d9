"""Members of an organisation share their threads."""

from durable_agents.policies import OwnerPolicy


class OrganisationPolicy(OwnerPolicy):
    def filter(self, queryset, request):
        organisation = getattr(request.user, "organisation_id", None)
        return queryset.filter(scope=str(organisation)) if organisation else queryset.none()

    def allows(self, request, action, *, agent=None, thread=None, tool_call=None):
        if action == "delete" and thread is not None:
            return thread.owner_id is None or thread.owner_id == request.user.pk
        return getattr(request.user, "organisation_id", None) is not None

    def owner_and_scope(self, request):
        return request.user, str(request.user.organisation_id)

    def context(self, request):
        return {"organisation": request.user.organisation_id}

    def person(self, request, user, *, thread):
        if user.is_staff and not request.user.is_staff:
            return {"id": "support", "name": "Support"}
        return super().person(request, user, thread=thread)

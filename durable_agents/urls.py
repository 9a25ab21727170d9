"""URLs of the REST API: ``path("agents/", include("durable_agents.urls"))``."""

from durable_agents.api.urls import urlpatterns

app_name = "durable_agents"

__all__ = ["app_name", "urlpatterns"]

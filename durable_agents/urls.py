"""URLs of the API: ``path("agents/", include("durable_agents.urls"))``."""

from durable_agents.api.urls import streams
from durable_agents.api.urls import urlpatterns as rest

app_name = "durable_agents"
urlpatterns = [*rest, *streams]

__all__ = ["app_name", "urlpatterns"]

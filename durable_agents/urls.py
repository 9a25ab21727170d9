"""URLs of the API: use ``path("agents/", include("durable_agents.urls"))``."""

from durable_agents.api.urls import streams, without_scripts
from durable_agents.api.urls import urlpatterns as rest

app_name = "durable_agents"
urlpatterns = [*rest, *streams, *without_scripts]

__all__ = ["app_name", "urlpatterns"]

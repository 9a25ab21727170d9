"""Websocket routes: ``URLRouter(durable_agents.routing.websocket_urlpatterns)``."""

from django.urls import re_path

from durable_agents.live.consumer import ThreadConsumer

websocket_urlpatterns = [re_path(r"^ws/agents/?$", ThreadConsumer.as_asgi())]

"""Websocket routes: use ``URLRouter(durable_agents.routing.websocket_urlpatterns)``."""

from django.urls import re_path

from durable_agents.api.ai_sdk_websocket import ChatConsumer
from durable_agents.live.consumer import ThreadConsumer

websocket_urlpatterns = [
    re_path(r"^ws/agents/?$", ThreadConsumer.as_asgi()),
    re_path(r"^ws/agents/chat(?:/(?P<agent>[^/]+))?/?$", ChatConsumer.as_asgi()),
]

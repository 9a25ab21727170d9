"""The ASGI application of these tests: the chat tests' one, and a consumer of the project's own."""

from tests.chat.asgi import application as chat  # loads the apps, which the imports below need

# isort: split
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path

from durable_agents.routing import websocket_urlpatterns


class Board(AsyncJsonWebsocketConsumer):
    """A consumer as projects write them: it joins a group and passes on what comes."""

    async def connect(self):
        """Join."""
        await self.channel_layer.group_add("board", self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        """Leave."""
        await self.channel_layer.group_discard("board", self.channel_name)

    async def receive_json(self, content):
        """Tell everybody."""
        await self.channel_layer.group_send("board", {"type": "board.note", "note": content})

    async def board_note(self, event):
        """Pass it on."""
        await self.send_json(event["note"])


sockets = URLRouter([path("ws/board/", Board.as_asgi()), *websocket_urlpatterns])
application = ProtocolTypeRouter({"http": chat.application_mapping["http"], "websocket": AuthMiddlewareStack(sockets)})

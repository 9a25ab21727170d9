"""People who follow threads in every way there is, and the channels that they occupy."""

from dataclasses import dataclass

import psutil
import redis
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token

from durable_agents import create_thread
from durable_agents.models import Thread
from durable_agents.notifications import group_of
from tests.chat.client import Body, Chatter
from tests.chat.server import Server
from tests.live.wire import Wire
from tests.servers.redis import RedisUnderTest

LAYERS = ["core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"]


@dataclass(kw_only=True)
class Follower(Chatter):
    """Somebody who follows threads by websocket and by events."""

    site: Server
    user: User

    def __post_init__(self) -> None:
        self.token = Token.objects.get_or_create(user=self.user)[0].key
        self.url = self.site.url
        super().__init__(self.url, {"Authorization": f"Token {self.token}"})

    def at(self, site: Server) -> "Follower":
        """Return the same person at another server."""
        return Follower(site=site, user=self.user)

    def thread(self) -> Thread:
        """Return a new thread of this person."""
        return create_thread("talker", owner=self.user)

    def send(self, thread: Thread, prompt: str = "A story.") -> None:
        """Send a message over REST."""
        self.client.post(f"threads/{thread.pk}/messages/", json={"prompt": prompt}).raise_for_status()

    def wire(self, path: str = "ws/agents/") -> Wire:
        """Open a websocket."""
        return Wire(f"{self.url.replace('http', 'ws', 1)}/{path}", self.token)

    def events(self, thread: Thread) -> Body:
        """Open the thread's event stream, and wait for the snapshot."""
        return Body(self.client, "GET", f"threads/{thread.pk}/events/").until("snapshot")


def members(server: RedisUnderTest, thread: Thread) -> int:
    """How many channels follow the thread, by either layer."""
    with redis.Redis.from_url(server.url) as client:
        group = group_of(thread.pk)
        subscribed = dict(client.pubsub_numsub(*client.pubsub_channels(f"*__group__{group}")))
        joined = client.keys(f"*:group:{group}")
        return sum(subscribed.values()) + sum(int(client.zcard(key)) for key in joined)


def connections_to(port: int, pid: int) -> int:
    """How many connections a process has to a port of this host."""
    found = psutil.Process(pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and bool(one.raddr) and one.raddr.port == port for one in found)

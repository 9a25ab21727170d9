"""People who come to a running server with a token, or without an account."""

import asyncio
import contextlib
import copy
import json
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
from rest_framework.authtoken.models import Token

SECONDS = 20


class Person:
    """Somebody with a token, or a visitor with a name in a header."""

    def __init__(self, url: str, *, user: Any = None, visitor: str = "", team: str = "team") -> None:
        self.user = user
        self.url = url
        self.headers = {"X-Visitor": visitor}
        if user is not None:
            token, _ = Token.objects.get_or_create(user=user)
            self.headers = {"Authorization": f"Token {token.key}", "X-Team": team}

    def at(self, url: str) -> "Person":
        """Return the same person at another server."""
        other = copy.copy(self)
        other.url = url
        return other

    def post(self, path: str, body: Any = None, method: str = "POST") -> httpx.Response:
        """Send a request."""
        facts: dict[str, Any] = {"json": body, "headers": self.headers, "timeout": SECONDS, "trust_env": False}
        return httpx.request(method, f"{self.url}/agents/{path}", **facts)

    def chat(self, body: Any) -> dict[str, Any]:
        """Send a message as the AI SDK does, and hang up; return the error, if there is one."""
        facts: dict[str, Any] = {"json": body, "headers": self.headers, "timeout": SECONDS}
        with (
            httpx.Client(trust_env=False) as client,
            client.stream("POST", f"{self.url}/agents/chat/chatty", **facts) as answer,
        ):
            return {"code": "ok"} if answer.status_code == 200 else dict(json.loads(answer.read()))

    @contextlib.asynccontextmanager
    async def socket(self) -> AsyncIterator["Socket"]:
        """Open a websocket."""
        protocols = ["durable-agents.v1"]
        address = f"{self.url.replace('http', 'ws')}/ws/agents/"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(address, headers=self.headers, protocols=protocols) as wire,
        ):
            yield Socket(wire)

    def ask(self, **frame: Any) -> dict[str, Any]:
        """Open a websocket, send one frame and return the answer to it."""

        async def asked() -> dict[str, Any]:
            async with self.socket() as socket:
                return await socket.ask(**frame)

        return asyncio.run(asked())


class Socket:
    """A websocket of somebody's."""

    def __init__(self, wire: aiohttp.ClientWebSocketResponse) -> None:
        self._wire = wire

    async def ask(self, **frame: Any) -> dict[str, Any]:
        """Send a frame and return the answer to it."""
        await self._wire.send_str(json.dumps({"id": "r1", **frame}))
        while True:
            heard: dict[str, Any] = json.loads(await self._wire.receive_str(timeout=SECONDS))
            if heard.get("id") == "r1":
                return heard


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Call functions in threads that are released together; return their results."""
    barrier = threading.Barrier(len(functions))

    def released(function: Callable[[], Any]) -> Any:
        barrier.wait(30)
        return function()

    with ThreadPoolExecutor(len(functions)) as threads:
        return [job.result(60) for job in [threads.submit(released, function) for function in functions]]

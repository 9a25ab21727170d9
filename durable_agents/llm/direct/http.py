"""Make HTTP requests with one aiohttp session per event loop.

Environment variables can set proxies and certificates.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import os
import ssl
import urllib.request
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from durable_agents.llm.direct.request import Call
from durable_agents.version import VERSION

if TYPE_CHECKING:
    import aiohttp

MAX_ERROR_BYTES = 100_000
"""The maximum number of bytes that are used from the body of an error response."""
MAX_HEADER_BYTES = 65_536
"""The maximum size of a response header. Providers behind several gateways send long headers."""
DRAIN_SECONDS = 0.05
"""After the end of the answer, wait at most this many seconds for the end of the response. The connection can be reused
only if the whole response was read.
"""


class ProviderError(Exception):
    """The provider has refused a request, or has sent an error within an answer."""

    def __init__(self, text: str, *, status_code: int, headers: object = None) -> None:
        super().__init__(text)
        self.status_code = status_code
        self.headers = headers


_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def answer_to(call: Call) -> AsyncGenerator[aiohttp.ClientResponse]:
    """Make the request and yield the response. Raises ProviderError if the status is not a success.

    If the whole response is read within the ``async with`` block, the connection can be reused. Otherwise, the
    connection is closed at the end of the block.
    """
    import aiohttp  # noqa: PLC0415 - only processes that call models load aiohttp

    response = await _session().post(
        call.url,
        data=call.data,
        headers=call.headers,
        proxy=proxy_for(call.url),
        timeout=aiohttp.ClientTimeout(total=None, connect=call.connect_seconds),
        allow_redirects=False,  # the API key must only be sent to the configured host
    )
    try:
        if not 200 <= response.status < 300:
            raise await _refusal(response)
        yield response
    finally:
        response.close()  # has no effect if the connection is already back in aiohttp's pool


async def drain(response: aiohttp.ClientResponse) -> None:
    """Read the rest of a response after the end of its answer, for at most ``DRAIN_SECONDS``."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in response.content.iter_any():
                pass


async def close() -> None:
    """Close the session of the running event loop."""
    session = _sessions.pop(asyncio.get_running_loop(), None)
    if session is not None:
        await session.close()


def proxy_for(url: str) -> str | None:
    """Return the proxy for this URL from environment variables such as ``HTTPS_PROXY`` and ``NO_PROXY``, or None.

    If aiohttp read these variables itself, it would also replace the API key with a password from ``~/.netrc``.
    """
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _session() -> aiohttp.ClientSession:
    import aiohttp  # noqa: PLC0415 - only processes that call models load aiohttp

    loop = asyncio.get_running_loop()
    session = _sessions.get(loop)
    if session is None or session.closed:
        file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        if not file and not folder and importlib.util.find_spec("certifi") is not None:
            file = str(importlib.import_module("certifi").where())  # litellm trusts the same certificates
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=_trust(file, folder)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"django-durable-agents/{VERSION}"},
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        _sessions[loop] = session
    return session


@functools.cache
def _trust(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Return an SSL context that trusts these certificates.

    The result is cached, because parsing the usual 140 certificates takes tens of milliseconds.
    """
    return ssl.create_default_context(cafile=file or None, capath=folder or None)


async def _refusal(response: aiohttp.ClientResponse) -> ProviderError:
    body = b""
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ERROR_BYTES:
            break
    text = f"HTTP {response.status}: {body[:MAX_ERROR_BYTES].decode('utf-8', 'replace')}"
    return ProviderError(text, status_code=response.status, headers=response.headers)

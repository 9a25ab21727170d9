"""How the cases are called: as under WSGI, or as under ASGI where the answer is a stream, whose beginning is read."""

import asyncio
import json
from contextlib import aclosing, suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

from asgiref.sync import async_to_sync
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncClient

from tests.api.calls import ROOT, Api
from tests.policies.cases import CASES, Names, path_of

READ_SECONDS = 0.3


def call(api: Api, operation: str, names: Names) -> Any:
    """Call an operation with these names. Of a stream only what comes at once is read."""
    case, method, path = CASES[operation], operation.partition(" ")[0], path_of(operation, names)
    if case.upload:
        return api.client.post(ROOT + path, {"file": SimpleUploadedFile("mine.txt", b"mine")})
    body = case.filled(names)
    if case.form:
        return api.client.post(ROOT + path, urlencode(body), content_type="application/x-www-form-urlencoded")
    if case.live:
        return async_to_sync(live)(api, method, path, body)
    response = api.send(method, path, body)
    return _read(response, b"".join(response.streaming_content)) if response.streaming else response


async def live(api: Api, method: str, path: str, body: Any = None, *, seconds: float = READ_SECONDS) -> Any:
    """Call as an ASGI server does; return the answer with what it said in this time."""
    given = api.client
    client = AsyncClient(given.handler.enforce_csrf_checks, raise_request_exception=given.raise_request_exception)
    client.cookies = api.client.cookies
    raw = body if isinstance(body, str | bytes) else "" if body is None else json.dumps(body)
    response = await client.generic(method, ROOT + path, raw, content_type="application/json")
    if not getattr(response, "streaming", False):
        return response
    said: list[bytes] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), aclosing(response.streaming_content) as pieces:
            async for piece in pieces:
                said.append(piece)  # noqa: PERF401 - what was read until the time is over is kept
    return _read(response, b"".join(said))


def _read(response: Any, content: bytes) -> Any:
    headers = dict(response.items())
    return SimpleNamespace(
        status_code=response.status_code, items=headers.items, has_header=headers.__contains__, content=content
    )

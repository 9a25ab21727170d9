"""Attempts to reach a thread that is not one's own, and what is stored afterwards."""

import json
from typing import Any

from asgiref.sync import async_to_sync
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.db import connection

from tests.api.calls import Api
from tests.policies.cases import FRAMES, Names
from tests.websocket.sockets import ORIGIN, SUBPROTOCOL, Socket, forget_layer


def stored() -> dict[str, list[Any]]:
    """Return every row of every table but those that Django fills by itself."""
    models = [model for model in apps.get_models() if model not in {Permission, ContentType, Session}]
    with connection.cursor() as cursor:
        return {model._meta.label: _rows(cursor, model._meta.db_table) for model in models}


def _rows(cursor: Any, table: str) -> list[Any]:
    cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
    return sorted(map(str, cursor.fetchall()))


async def _talk(headers: dict[str, str], frames: list[dict[str, Any]]) -> list[Any]:
    socket = await Socket(headers={"origin": ORIGIN, **headers}, subprotocols=[SUBPROTOCOL]).open()
    try:
        answers = []
        for frame in frames:
            await socket.tell(json.dumps(frame))
            answers.append(await socket.hear())
        return answers
    finally:
        await socket.leave()
        await forget_layer()


def over_the_websocket(api: Api, kind: str, *named: Names) -> list[Any]:
    """Send this frame with each of these names, as this caller; return the answers."""
    given = api.client.cookies.get(settings.SESSION_COOKIE_NAME)
    headers = {"cookie": f"{settings.SESSION_COOKIE_NAME}={given.value}"} if given else {}
    frames = [{"type": kind, "id": "r1", "thread": names.thread_id, **FRAMES[kind].filled(names)} for names in named]
    return async_to_sync(_talk)(headers, frames)

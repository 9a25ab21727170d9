"""While Channels loads the sessions and users of many new websockets, those that are open go on."""

import asyncio
import threading

from asgiref.sync import sync_to_async


async def test_a_frame_does_not_wait_for_the_sessions_of_other_websockets(connect, thread):
    socket = await connect()
    gate = threading.Event()
    busy = asyncio.create_task(sync_to_async(gate.wait)())
    try:
        answer = await asyncio.wait_for(socket.ask(type="subscribe", thread=str(thread.pk)), 5)
    finally:
        gate.set()
        await busy
    assert answer["type"] == "snapshot"

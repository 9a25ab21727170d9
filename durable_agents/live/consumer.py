"""The websocket consumer: a client sends ``hello``, subscribes to threads, and sends commands on the same connection.

Frames are JSON objects of the subprotocol ``durable-agents.v1``, described in
``static/durable_agents/websocket.schema.json``. ``frames`` parses them, ``commands`` executes those that change
something, and ``subscriptions`` follows threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Coroutine
from uuid import UUID, uuid4

from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import Error

from durable_agents import lifecycle, strictjson, websocket_origins
from durable_agents.caller_credentials import Credential
from durable_agents.conf import config
from durable_agents.database_connections import discard_after, is_outage
from durable_agents.delta_writer import Frame
from durable_agents.exceptions import (
    DatabaseUnavailableError,
    DurableAgentsError,
    ThrottledError,
    TooManySubscriptionsError,
)
from durable_agents.live import commands, frames
from durable_agents.live.asgi_scope import SocketAsker, headers_of
from durable_agents.live.close_codes import CloseCode
from durable_agents.live.flow_control import FlowControl
from durable_agents.live.frames import (
    ClientCommand,
    Fill,
    Hello,
    Older,
    Ping,
    Subscribe,
    ThreadFrame,
    Unsubscribe,
)
from durable_agents.live.hub import HEAL_SECONDS
from durable_agents.live.kept_connection import in_database, keep_for, let_go
from durable_agents.live.rate_limit import TokenBucket
from durable_agents.live.reader import ThreadReader
from durable_agents.live.subscriptions import Subscriptions
from durable_agents.logs import log, log_error
from durable_agents.models import Thread
from durable_agents.policies import SignIn, may_connect, public_thread

SUBPROTOCOL = "durable-agents.v1"
VERSION = 1
HEARTBEAT_SECONDS = 25
HELLO_SECONDS = 10
"""If a client is not signed in, it must send a ``hello`` frame with a ticket within this time."""
RECHECK_SECONDS = 60
"""Interval at which the server checks that the user is still signed in and may still view the threads."""
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS
"""A socket is closed if its client sends nothing for this long. A working client sends a ping at each heartbeat."""
SLOW_READER_SECONDS = 20
"""A socket is closed if its client has not read what it was sent for this long."""
FRAMES_PER_SECOND = 50
FRAMES_AT_ONCE = 500
"""Maximum number of frames in one burst. After a burst, the limit is ``FRAMES_PER_SECOND``."""
MAX_FRAME_VALUES = 15_000
"""Maximum number of JSON values in one frame. Parsing more values would block the event loop, and thus every other
socket of the process. The number of values per byte is the same as for the body of a chat request.
"""
MAX_SUBSCRIPTIONS = 50
MAX_INFLIGHT = 16
MAX_PAGE = 200
"""Maximum number of messages in the reply to an ``older`` frame."""


class ThreadConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """The consumer of one websocket. A websocket may follow many threads. Frames that change something are handled in
    ``commands``. Every other frame is handled by an ``on_`` method.
    """

    # With an empty alias, Channels uses no channel layer. Notifications come from the hub instead, so the socket stays
    # open when the layer's server (Redis) fails.
    channel_layer_alias = ""

    async def connect(self) -> None:
        """Accept the connection, and then close it with a code if the client may not connect. Browsers do not see the
        close code of a connection that was never accepted.
        """
        self.flow = FlowControl(self.base_send, on_resume=lambda: self._start(self.subscriptions.catch_up()))
        self.subscriptions = Subscriptions(self.send_frame, self.flow)
        self.rate_limit = TokenBucket(burst=FRAMES_AT_ONCE, per_second=FRAMES_PER_SECOND)
        self.received_at = time.monotonic()
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_admitted = False
        self.is_closing = False
        self.hello_timeout: asyncio.Task[None] | None = None
        self.sign_in: SignIn | None = None
        self.credential: Credential | None = None
        offered = self.scope.get("subprotocols") or []
        # Accept one of the offered subprotocols, even if the server supports none of them. Otherwise, browsers drop the
        # connection and do not see the close code.
        await self.accept(SUBPROTOCOL if SUBPROTOCOL in offered else next(iter(offered), None))
        if offered and SUBPROTOCOL not in offered:
            await self.close_with(CloseCode.WRONG_VERSION)
            return
        if not websocket_origins.is_allowed(self.scope):
            origin, host = (headers_of(self.scope).get(name, "") for name in ("origin", "host"))
            log(logging.WARNING, "a websocket comes from a foreign origin", action="origin", origin=origin, host=host)
            await self.close_with(CloseCode.FORBIDDEN, "Websockets may not be opened from this origin.")
            return
        keep_for(self)
        self.asker = await in_database(SocketAsker)(self.scope)
        if await self._admit():
            return
        if self.asker.user.is_authenticated:
            await self.close_with(CloseCode.FORBIDDEN)
        elif "authorization" in self.asker.headers:
            await self.close_with(CloseCode.UNAUTHORIZED)
        else:
            self.hello_timeout = self._start(self._close_without_hello())

    async def disconnect(self, code: int) -> None:
        """End the tasks and subscriptions of the socket. Runs continue."""
        self.is_closing = True
        self.flow.end()
        for task in self.tasks:
            task.cancel()
        self.subscriptions.clear()
        await let_go(self)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Parse and handle one frame from the client. For any error, send an ``error`` frame with a code."""
        if not (self.is_admitted or self.hello_timeout):
            return
        self.received_at = time.monotonic()
        payload = self._payload(text_data or "")
        if isinstance(payload, CloseCode):
            await self.close_with(payload)
            return
        try:
            frame = frames.parse(payload)
            if isinstance(frame, ClientCommand):
                run = in_database(commands.run_command)
                thread_id, result = await run(frame, self.asker, self._thread_name(frame))
                await self.send_frame({"type": "ok", "id": frame.id, "thread": frame.thread, **result})
                # Send the changes now, because the notification about them may be late.
                await self.subscriptions.catch_up(thread_id)
            else:
                await getattr(self, f"on_{frame.type}")(frame)
        except DurableAgentsError as error:
            await self._send_error(payload, error.code, str(error), retryable=isinstance(error, ThrottledError))
        except Exception as error:
            # A client's mistake is a DurableAgentsError, so any other error is a fault of the server.
            if isinstance(error, Error) and is_outage(error):
                log_error("the database does not answer", action="frame", type=payload.get("type"))
                await in_database(discard_after)(error)
                unavailable = DatabaseUnavailableError()
                await self._send_error(payload, unavailable.code, str(unavailable), retryable=True)
                return
            log_error("a frame could not be handled", action="frame", type=payload.get("type"))
            message = "Something went wrong on the server. Try again."
            await self._send_error(payload, "internal", message, retryable=True)

    async def send_frame(self, frame: Frame) -> None:
        """Send a frame, unless the socket is closing."""
        # uvicorn raises an error for a frame that is sent after a close.
        if self.is_closing:
            return
        try:
            await self.send(text_data=_encode(frame))
        except OSError:
            # The client has disconnected. Channels will call ``disconnect``.
            self.is_closing = True

    async def close_with(self, code: CloseCode, message: str = "") -> None:
        """Send the reason in a ``closing`` frame, because daphne sends no reason with the code. Then close the socket
        and ignore further frames.
        """
        if self.is_closing:
            return
        self.is_closing = True
        self._cancel_hello_timeout()
        self.is_admitted = False
        closing: Frame = {"type": "closing", "code": int(code), "message": message or code.message}
        if code is CloseCode.TOO_MANY:
            # After this time, the client may send a full burst of frames again.
            closing["retryAfter"] = FRAMES_AT_ONCE // FRAMES_PER_SECOND
        self.flow.end()
        # The client may have disconnected already.
        with contextlib.suppress(OSError):
            await self.send(text_data=_encode(closing))
            await self.close(int(code), closing["message"])

    # ------------------------------------------------------------------------------------------------------- frames

    async def on_hello(self, frame: Hello) -> None:
        """If the frame has a ticket, sign in the user of the ticket. Then reply with a ``welcome`` frame.

        If the version or the ticket is wrong, or if nobody is signed in, close the socket instead.
        """
        if frame.version != VERSION:
            await self.close_with(CloseCode.WRONG_VERSION)
            return
        if (frame.ticket is not None or self.hello_timeout) and not await self._redeem(frame.ticket):
            return
        welcome: Frame = {
            "type": "welcome",
            "version": VERSION,
            "session": uuid4().hex,
            "heartbeat": HEARTBEAT_SECONDS,
            "limits": {
                "frame": config().max_frame_bytes,
                "values": MAX_FRAME_VALUES,
                "subscriptions": MAX_SUBSCRIPTIONS,
                "inflight": MAX_INFLIGHT,
            },
            "user": self.asker.user.get_username() or None,
        }
        await self.send_frame(welcome)

    async def on_ping(self, frame: Ping) -> None:
        await self.send_frame({"type": "pong", "t": frame.t})

    async def on_subscribe(self, frame: Subscribe) -> None:
        await self.flow.wait()
        thread = await self._thread(frame)
        if len(self.subscriptions) >= MAX_SUBSCRIPTIONS and frame.thread not in self.subscriptions:
            raise TooManySubscriptionsError(MAX_SUBSCRIPTIONS)
        reader = ThreadReader(thread.pk, frame.cursor)
        await self.subscriptions.add(frame.thread, reader, tail=frame.tail, request_id=frame.id)

    async def on_unsubscribe(self, frame: Unsubscribe) -> None:
        """End the subscription with this name. A thread has two names: its primary key, and the ``client_id`` that the
        client chose. A subscription with the other name continues.
        """
        await self._thread(frame)
        self.subscriptions.remove(frame.thread)
        await self.send_frame({"type": "ok", "id": frame.id})

    async def on_fill(self, frame: Fill) -> None:
        """Send the deltas that the client lacks. If they have been deleted already, send ``reset``: the client must
        then subscribe again without a cursor.
        """
        await self.flow.wait()
        thread = await self._thread(frame)
        read = in_database(ThreadReader(thread.pk).deltas)
        deltas = await read(frame.stream, first=frame.first, last=frame.last)
        answer: Frame = {"id": frame.id, "thread": frame.thread}
        if deltas:
            await self.send_frame({"type": "deltas", "stream": frame.stream, "deltas": deltas} | answer)
        else:
            await self.send_frame({"type": "reset"} | answer)

    async def on_older(self, frame: Older) -> None:
        await self.flow.wait()
        thread = await self._thread(frame)
        read = in_database(ThreadReader(thread.pk).older)
        messages, has_older = await read(frame.before, limit=max(1, min(frame.limit, MAX_PAGE)), steps=frame.steps)
        page: Frame = {"type": "page", "id": frame.id, "thread": frame.thread}
        await self.send_frame(page | {"messages": messages, "hasOlder": has_older})

    # ------------------------------------------------------------------------------------------------- permissions

    async def _admit(self) -> bool:
        """Return whether the policy lets the caller connect. If so, start to handle frames."""
        if not await in_database(may_connect)(self.asker):
            return False
        self.sign_in = await in_database(SignIn)(self.asker, self.credential)
        if not self.is_admitted:
            self.is_admitted = True
            self._start(self.subscriptions.listen())
            self._start(self._heal())
            self._start(self._recheck())
        return True

    async def _redeem(self, ticket: object) -> bool:
        """Redeem the ticket, and make its user the caller of this socket. Return True on success. Otherwise close the
        socket and return False.
        """
        self._cancel_hello_timeout()
        # Reject a ticket if the socket already follows threads: the ticket's user might not be allowed to view them.
        usable = isinstance(ticket, str) and not self.subscriptions
        self.credential = await in_database(lifecycle.redeem_ticket)(str(ticket)) if usable else None
        user = await in_database(self.credential.user_now)() if self.credential else None
        if user is None:
            await self.close_with(CloseCode.UNAUTHORIZED)
            return False
        # A client that has authenticated with a header or an earlier ticket cannot switch to another user. A session's
        # user can be replaced, because browsers send the session cookie automatically.
        known, sign_in = self.asker.user, self.sign_in
        is_named = sign_in is not None and known.is_authenticated and not sign_in.is_by_session
        if is_named and known.pk != user.pk:
            await self.close_with(CloseCode.FORBIDDEN, "The ticket belongs to another user than the signed-in user.")
            return False
        self.asker.user, self.sign_in = user, None
        if not await self._admit():
            await self.close_with(CloseCode.FORBIDDEN)
            return False
        return True

    async def _close_without_hello(self) -> None:
        await asyncio.sleep(HELLO_SECONDS)
        self.hello_timeout = None
        await self.close_with(CloseCode.TOO_SLOW)

    def _cancel_hello_timeout(self) -> None:
        if self.hello_timeout is not None:
            self.hello_timeout.cancel()
            self.hello_timeout = None

    async def _recheck(self) -> None:
        """Check at intervals whether the user may still see the followed threads. Without this check, a socket could
        stay open for days after its session has ended.
        """
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                sign_in = self.sign_in
                user = await in_database(sign_in.user_now)() if sign_in else None
                # The client may have redeemed a ticket during the query. In that case, this user is out of date.
                is_current = sign_in is not None and sign_in is self.sign_in
                if is_current and user is None:
                    await self.close_with(CloseCode.UNAUTHORIZED)
                    return
                self.asker.user = user if is_current and user is not None else self.asker.user
                await self.subscriptions.recheck(self.asker)
            except Exception:
                log_error("a websocket could not check what may be seen", action="recheck")

    async def _heal(self) -> None:
        """Read the followed threads at intervals, because the client cannot notice that a notification was lost. Also
        close the socket if the client has sent nothing for ``SILENT_SECONDS``.
        """
        while True:
            await asyncio.sleep(HEAL_SECONDS)
            if self.flow.full_seconds > SLOW_READER_SECONDS:
                await self.close_with(CloseCode.TOO_SLOW, "The client does not read what it is sent.")
                return
            if time.monotonic() - self.received_at > SILENT_SECONDS:
                await self.close_with(CloseCode.SILENT)
                return
            try:
                notify_overdue = in_database(lifecycle.notify_overdue)
                await notify_overdue(list(self.subscriptions.thread_ids), seconds=HEAL_SECONDS)
                await self.subscriptions.catch_up()
            except Exception:
                log_error("a websocket could not look for news", action="heal")

    # ------------------------------------------------------------------------------------------------------ helpers

    def _payload(self, text: str) -> Frame | CloseCode:
        """Return the JSON object that the client sent. If the text cannot be accepted, return the close code
        for the websocket.
        """
        if not self.rate_limit.take():
            return CloseCode.TOO_MANY
        if len(text.encode("utf-8", "replace")) > config().max_frame_bytes:
            return CloseCode.TOO_BIG
        try:
            payload = strictjson.read(text, max_depth=config().max_json_depth, max_values=MAX_FRAME_VALUES)
        except strictjson.TooManyValuesError:
            return CloseCode.TOO_BIG
        except ValueError:
            # The text is not JSON, is nested too deeply, or contains NaN or Infinity.
            return CloseCode.MALFORMED
        if not isinstance(payload, dict):
            return CloseCode.MALFORMED
        return CloseCode.UNAUTHORIZED if self.hello_timeout and payload.get("type") != Hello.type else payload

    def _thread_name(self, frame: ThreadFrame) -> str | UUID:
        """Return the primary key of the thread that the client follows under this name. If the client follows no thread
        under this name, return the name.

        The name alone could lead to another thread. A caller who lost access to the followed thread may have created a
        new thread with the same name.
        """
        return self.subscriptions.thread_id(frame.thread) or frame.thread

    async def _thread(self, frame: ThreadFrame) -> Thread:
        """Return the thread that the frame names. Raises an error if the caller may not view it."""
        name = frame.thread if isinstance(frame, Subscribe) else self._thread_name(frame)
        thread: Thread = await in_database(public_thread)(self.asker, name, "view")
        return thread

    async def _send_error(self, payload: Frame, code: str, message: str, *, retryable: bool) -> None:
        error: Frame = {"type": "error", "code": code, "message": message, "retryable": retryable}
        await self.send_frame(error | frames.address(payload))

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Start a task that runs until the socket closes. Store it in ``tasks``, because the event loop itself keeps no
        strong reference to a task.
        """
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


def _encode(frame: Frame) -> str:
    """Return the frame as JSON text. A lone surrogate in an id that the client sent is escaped, because it cannot be
    encoded as UTF-8.
    """
    text = json.dumps(frame, ensure_ascii=False, separators=(",", ":"))
    return text if strictjson.is_storable(text) else json.dumps(frame, separators=(",", ":"))

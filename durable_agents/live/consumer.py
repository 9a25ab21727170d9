"""The websocket consumer: a client sends ``hello``, subscribes to threads, and sends commands on the same connection.

Frames are JSON objects. ``static/durable_agents/websocket.schema.json`` describes them. The module ``frames`` parses
them, ``commands`` runs the frames that change something, and ``subscriptions`` sends the changes of threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import ParamSpec, TypeVar
from uuid import UUID, uuid4

from channels.consumer import get_handler_name
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
from durable_agents.live.admission import Admission, admission_of, arrival_of
from durable_agents.live.asgi_scope import headers_of
from durable_agents.live.caller_limits import SOCKETS, Slot, address_of, allowance_of, turn_to_read
from durable_agents.live.close_codes import CloseCode
from durable_agents.live.database_threads import in_database, keep_for, let_go
from durable_agents.live.encoded_frame import encode
from durable_agents.live.frame_sender import FlowControl
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
from durable_agents.live.personal_frames import PersonalFrames
from durable_agents.live.rate_limit import TokenBucket
from durable_agents.live.reader import THREAD_CONTENT, ThreadReader
from durable_agents.live.sign_outs import SignOutWatch
from durable_agents.live.socket_checks import Finding, socket_checks
from durable_agents.live.subscriptions import Subscriptions
from durable_agents.live_delivery_counts import CLOSED, Event, delivery_counts
from durable_agents.logs import log, log_error
from durable_agents.models import Thread
from durable_agents.policies import SignIn, public_thread

P = ParamSpec("P")
R = TypeVar("R")

SUBPROTOCOL = "durable-agents.v1"
VERSION = 1
HEARTBEAT_SECONDS = 25
HELLO_SECONDS = 10
"""If a client is not signed in, it must send a ``hello`` frame with a ticket within this time."""
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS
"""A socket is closed if its client sends nothing for this long. A working client sends a ping at each heartbeat."""
SLOW_READER_SECONDS = 20
"""A socket is closed if, for this long, its client does not read what it was sent."""
FRAMES_PER_SECOND = 50
FRAMES_AT_ONCE = 500
"""Maximum number of frames in one burst. After a burst, the limit is ``FRAMES_PER_SECOND``."""
MAX_FRAME_VALUES = 15_000
"""Maximum number of JSON values in one frame. Parsing more values would block the event loop, and thus every other
socket of the process.
"""
MAX_INFLIGHT = 16
STANDARD_CLOSE_CODES = range(1000, 1016)
MAX_PAGE = 200
"""Maximum number of messages in the reply to an ``older`` frame."""


class ThreadConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """The consumer of one websocket. A websocket may follow many threads.

    The module ``commands`` handles the frames that change something. Every other frame is handled by the method
    ``on_<type>``.
    """

    # With an empty alias, Channels uses no channel layer. Notifications come from ``live.hub`` instead, so the socket
    # stays open when the layer's server (Redis) fails.
    channel_layer_alias = ""
    subprotocol: str | None = SUBPROTOCOL
    """The required subprotocol: if a client offers subprotocols, this one must be among them. None accepts any."""
    sends_reason = True
    """Whether the server sends a ``closing`` frame with the reason before it closes the socket."""
    must_ping = True
    """Whether the socket is closed if its client sends nothing for ``SILENT_SECONDS``."""

    async def dispatch(self, message: Mapping[str, str]) -> None:
        """Call the handler for a message of the ASGI server.

        Channels' own ``dispatch`` would first close old database connections, in the OS thread in which Channels loads
        the sessions and users of all new websockets. Every frame would have to wait for this OS thread. The handlers of
        this class use other OS threads for database work, so they do not need this step.
        """
        await getattr(self, get_handler_name(message))(message)

    async def connect(self) -> None:
        """Accept the connection. If the client is not allowed to connect, close the connection afterwards with a code.

        Browsers do not see the close code of a connection that was never accepted.
        """
        self.flow = FlowControl(self.base_send, on_resume=lambda: self._start(self.subscriptions.catch_up()))
        self.subscriptions = Subscriptions(self.show, self.flow, lambda: self.asker)
        self.rate_limit = TokenBucket(burst=FRAMES_AT_ONCE, per_second=FRAMES_PER_SECOND)
        self.received_at = time.monotonic()
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_admitted = False
        self.is_closing = False
        self.caller = address_of(self.scope)
        self.slot: Slot | None = None
        self.sign_outs: SignOutWatch | None = None
        self.hello_timeout: asyncio.Task[None] | None = None
        self.sign_in: SignIn | None = None
        self.credential: Credential | None = None
        offered = self.scope.get("subprotocols") or []
        # Accept one of the offered subprotocols, even if the server supports none of them. Otherwise, browsers drop the
        # connection and do not see the close code.
        wanted = self.subprotocol
        await self.accept(wanted if wanted in offered else next(iter(offered), None))
        if wanted and offered and wanted not in offered:
            await self.close_with(CloseCode.WRONG_VERSION)
            return
        if not websocket_origins.is_allowed(self.scope):
            origin, host = (headers_of(self.scope).get(name, "") for name in ("origin", "host"))
            log(logging.WARNING, "a websocket comes from a foreign origin", action="origin", origin=origin, host=host)
            await self.close_with(CloseCode.FORBIDDEN, "Websockets may not be opened from this origin.")
            return
        keep_for(self)
        self.asker, admission = await self.in_database(arrival_of)(self.scope)
        if await self._admit(admission):
            return
        if self.asker.user.is_authenticated:
            await self.close_with(CloseCode.FORBIDDEN)
        elif "authorization" in self.asker.headers:
            await self.close_with(CloseCode.UNAUTHORIZED)
        else:
            await self.await_ticket()

    async def await_ticket(self) -> None:
        """Start to wait for a ``hello`` frame with a ticket, for a limited time. Called if nobody is signed in yet."""
        self.hello_timeout = self._start(self._close_without_hello())

    async def disconnect(self, code: int) -> None:
        """End the tasks and subscriptions of the socket. Runs continue."""
        if not self.is_closing:
            # The client chooses the code. Count each standard code separately, and all other codes together.
            delivery_counts().add(f"{CLOSED}{code if code in STANDARD_CLOSE_CODES else 'other'}")
        self.is_closing = True
        socket_checks().remove(self)
        self.flow.end()
        for task in self.tasks:
            task.cancel()
        self.subscriptions.clear()
        if self.slot is not None:
            self.slot.release()
        if self.sign_outs is not None:
            self.sign_outs.stop()
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
                run = self.in_database(commands.run_command)
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
                await self.in_database(discard_after)(error)
                unavailable = DatabaseUnavailableError()
                await self._send_error(payload, unavailable.code, str(unavailable), retryable=True)
                return
            log_error("a frame could not be handled", action="frame", type=payload.get("type"))
            message = "Something went wrong on the server. Try again."
            await self._send_error(payload, "internal", message, retryable=True)

    def in_database(self, function: Callable[P, R]) -> Callable[P, Coroutine[object, object, R]]:
        """Return a coroutine function that calls ``function`` in an OS thread for database work.

        The coroutine waits until it is this caller's turn.
        """
        return in_database(function, by=self.caller)

    def show(self, text: str) -> None:
        """Send the text of a frame soon, unless the socket is closing."""
        # uvicorn raises an error for a frame that is sent after a close.
        if not self.is_closing:
            allowance_of(self.caller).charge(len(text))
            self.flow.put(text)

    async def send_frame(self, frame: Frame) -> None:
        """Send a frame, unless the socket is closing. Wait until the server has taken the frame."""
        self.show(encode(frame))
        await self.flow.sent()

    async def close_with(self, code: CloseCode, message: str = "") -> None:
        """Send the reason in a ``closing`` frame, then close the socket and ignore further frames.

        The extra frame is needed because daphne sends no reason with the close code.
        """
        if self.is_closing:
            return
        self.is_closing = True
        delivery_counts().add(f"{CLOSED}{int(code)}")
        self._cancel_hello_timeout()
        self.is_admitted = False
        closing: Frame = {"type": "closing", "code": int(code), "message": message or code.message}
        if code is CloseCode.TOO_MANY:
            # After this time, the client may send a full burst of frames again.
            closing["retryAfter"] = FRAMES_AT_ONCE // FRAMES_PER_SECOND
        self.flow.end()
        # The client may have disconnected already.
        with contextlib.suppress(OSError):
            if self.sends_reason:
                await self.send(text_data=encode(closing))
            await self.close(int(code), closing["message"])

    async def on_hello(self, frame: Hello) -> None:
        """If the frame has a ticket, sign in the ticket's user. Then reply with a ``welcome`` frame.

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
                "subscriptions": config().max_subscriptions,
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
        limit = config().max_subscriptions
        if len(self.subscriptions) >= limit and frame.thread not in self.subscriptions:
            raise TooManySubscriptionsError(limit)
        reader = ThreadReader(thread.pk, frame.cursor)
        await self.subscriptions.add(frame.thread, reader, tail=frame.tail, request_id=frame.id)
        await self.flow.sent()

    async def on_unsubscribe(self, frame: Unsubscribe) -> None:
        """End the subscription with this name.

        A thread has two names: its primary key, and the ``client_id`` that the client chose. A subscription with the
        other name continues.
        """
        await self._thread(frame)
        self.subscriptions.remove(frame.thread)
        await self.send_frame({"type": "ok", "id": frame.id})

    async def on_fill(self, frame: Fill) -> None:
        """Send the requested deltas, which are pieces of a streamed answer.

        If the deltas are already deleted, send ``reset``. The client must then subscribe again without a cursor.
        """
        await self.flow.wait()
        thread = await self._thread(frame)
        read = self.in_database(ThreadReader(thread.pk).deltas)
        answer: Frame = {"id": frame.id, "thread": frame.thread}
        async with turn_to_read(self.caller, self.flow):
            deltas = await read(frame.stream, first=frame.first, last=frame.last)
            found: Frame = {"type": "deltas", "stream": frame.stream, "deltas": deltas} if deltas else {"type": "reset"}
            self.show(encode(found | answer))
        await self.flow.sent()

    async def on_older(self, frame: Older) -> None:
        await self.flow.wait()
        thread = await self._thread(frame)
        reader = ThreadReader(thread.pk)
        read = self.in_database(reader.older)
        page: Frame = {"type": "page", "id": frame.id, "thread": frame.thread}
        async with turn_to_read(self.caller, self.flow):
            messages, has_older = await read(frame.before, limit=max(1, min(frame.limit, MAX_PAGE)), steps=frame.steps)
            own = self.in_database(PersonalFrames(self.asker, reader.facts).of)
            self.show(encode(await own(page | {"messages": messages, "hasOlder": has_older})))
        await self.flow.sent()

    async def _admit(self, admission: Admission | None) -> bool:
        """Start to handle frames, and return True. If the caller may not connect, or has too many sockets open, return
        False instead.
        """
        if admission is None:
            return False
        self.caller = self.subscriptions.caller = admission.caller
        limit = config().max_sockets_per_user
        self.slot = None
        self.slot = SOCKETS.take(self.caller, limit=limit)
        if self.slot is None:
            await self.close_with(CloseCode.TOO_MANY, f"At most {limit} websockets may be open. Close others first.")
            return False
        if self.sign_outs is not None:
            self.sign_outs.stop()
        self.sign_outs = SignOutWatch(
            self.asker,
            end=lambda: self._start(self.close_with(CloseCode.UNAUTHORIZED)),
            check=lambda: self._start(self._check_sign_in()),
        )
        self.sign_in = admission.sign_in
        if not self.is_admitted:
            self.is_admitted = True
            socket_checks().add(self)
        return True

    async def _redeem(self, ticket: object) -> bool:
        """Redeem the ticket, and make its user the caller of this socket. Return True.

        If the ticket is not accepted, close the socket and return False.
        """
        self._cancel_hello_timeout()
        # Reject a ticket if the socket already follows threads: the ticket's user might not be allowed to view them.
        usable = isinstance(ticket, str) and not self.subscriptions
        self.credential = await self.in_database(lifecycle.redeem_ticket)(str(ticket)) if usable else None
        user = await self.in_database(self.credential.user_now)() if self.credential else None
        if user is None:
            await self.close_with(CloseCode.UNAUTHORIZED)
            return False
        # A client that authenticated with a header or an earlier ticket cannot switch to another user. A client with a
        # session can, because browsers send the session cookie automatically, even with another user's ticket.
        known, sign_in = self.asker.user, self.sign_in
        is_named = sign_in is not None and known.is_authenticated and not sign_in.is_by_session
        if is_named and known.pk != user.pk:
            await self.close_with(CloseCode.FORBIDDEN, "The ticket belongs to another user than the signed-in user.")
            return False
        self.asker.user, self.sign_in = user, None
        if not await self._admit(await self.in_database(admission_of)(self.asker, self.credential)):
            await self.close_with(CloseCode.FORBIDDEN)
            return False
        return True

    async def _check_sign_in(self) -> None:
        """Close the socket if the user's sign-in is no longer valid."""
        sign_in = self.sign_in
        user = await self.in_database(sign_in.user_now)() if sign_in else None
        # The client may have redeemed a ticket during the query. In that case, the result of the query is out of date.
        if sign_in is self.sign_in and user is None:
            await self.close_with(CloseCode.UNAUTHORIZED)

    async def _close_without_hello(self) -> None:
        await asyncio.sleep(HELLO_SECONDS)
        self.hello_timeout = None
        await self.close_with(CloseCode.TOO_SLOW)

    def _cancel_hello_timeout(self) -> None:
        if self.hello_timeout is not None:
            self.hello_timeout.cancel()
            self.hello_timeout = None

    @property
    def thread_ids(self) -> set[UUID]:
        """The primary keys of the followed threads."""
        return self.subscriptions.thread_ids

    def close_if_unresponsive(self) -> None:
        """Start to close the socket if the client has sent nothing for ``SILENT_SECONDS``, or does not read what it is
        sent.
        """
        if self.flow.full_seconds > SLOW_READER_SECONDS:
            delivery_counts().add(Event.SLOW_CLOSE)
            self._start(self.close_with(CloseCode.TOO_SLOW, "The client does not read what it is sent."))
        elif self.must_ping and time.monotonic() - self.received_at > SILENT_SECONDS:
            self._start(self.close_with(CloseCode.SILENT))

    def apply(self, finding: Finding) -> None:
        """Start to close the socket if the user's sign-in is no longer valid. Otherwise, end the subscriptions of
        threads that the user is no longer allowed to view.
        """
        if finding.user is None:
            self._start(self.close_with(CloseCode.UNAUTHORIZED))
            return
        self.asker.user = finding.user
        self.subscriptions.end_all(finding.hidden)

    def _payload(self, text: str) -> Frame | CloseCode:
        """Parse the text and return its JSON object. If the text is not accepted, return the code to close the socket
        with.
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
        """Return the primary key of the thread that the client follows under this name. If the client follows no such
        thread, return the name.

        Do not look up a followed thread by its name. A caller who has lost access to the thread may have created a new
        thread with the same name, and the look-up would return the new thread.
        """
        return self.subscriptions.thread_id(frame.thread) or frame.thread

    async def _thread(self, frame: ThreadFrame) -> Thread:
        """Return the thread that the frame names. Raises an error if the caller is not allowed to view it."""
        name = frame.thread if isinstance(frame, Subscribe) else self._thread_name(frame)
        return await self.in_database(public_thread)(self.asker, name, "view", defer=THREAD_CONTENT)

    async def _send_error(self, payload: Frame, code: str, message: str, *, retryable: bool) -> None:
        error: Frame = {"type": "error", "code": code, "message": message, "retryable": retryable}
        await self.send_frame(error | frames.address(payload))

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Start a task that is cancelled when the socket closes.

        Store the task in ``tasks``, because the event loop itself keeps no strong reference to a task.
        """
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

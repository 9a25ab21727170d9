"""The websocket: a snapshot or nothing, then exactly what is new; commands on the same socket.

Frames are JSON objects of the subprotocol ``durable-agents.v1``, described in
``static/durable_agents/websocket.schema.json``. What a browser is told comes from rows: a hint from the channel layer,
or from the poller where the layer does not cross processes, only says when to look. A published delta that is the next
in order is passed on as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID, uuid4

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth.models import AnonymousUser

from durable_agents import lifecycle, limits, outbound, strictjson
from durable_agents.conf import config, origin_is_allowed, user_of_headers
from durable_agents.exceptions import (
    ApprovalExpiredError,
    DurableAgentsError,
    InvalidPartsError,
    ThreadNotFoundError,
    ThrottledError,
)
from durable_agents.logs import log_error
from durable_agents.models import Thread, ToolCall
from durable_agents.policies import Asker, SignIn, decider, may_come, public_thread, public_tool_call, sender
from durable_agents.streaming import Cursor, Frame, ThreadReader
from durable_agents.transcript import ui_message
from durable_agents.watching import HEAL_SECONDS, poller

SUBPROTOCOL = "durable-agents.v1"
VERSION = 1
HEARTBEAT_SECONDS = 25
HELLO_SECONDS = 10
"""How long a socket that nobody is known by yet has to say hello with a ticket."""
RECHECK_SECONDS = 60
"""How long a socket may go on after its user was locked out or signed out, or may not see a thread any more."""
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS
"""How long a client may send nothing: one that is there pings at each heartbeat."""
FRAMES_PER_SECOND = 50
FRAMES_AT_ONCE = 500
"""How many frames a client may send before the rate counts."""
MAX_SUBSCRIPTIONS = 50
MAX_INFLIGHT = 16
SENDS = frozenset({"send", "resume", "edit", "regenerate"})
"""Frames that start or steer a run."""

BAD_FRAME, UNAUTHORIZED, FORBIDDEN, WRONG_VERSION, TOO_SLOW, TOO_MANY = 4400, 4401, 4403, 4406, 4408, 4429
GOING_AWAY, TOO_BIG = 1001, 1009


@dataclass(kw_only=True)
class Subscription:
    """One thread that this socket follows."""

    reader: ThreadReader
    name: str
    """The thread's id as the client wrote it, which may be the client's own: every frame carries this one."""
    running: bool = False
    dirty: bool = False
    """Set while a reading runs: look once more before it ends."""


class Allowance:
    """How many frames a client may send: so many at once, and then as many as come back with time."""

    def __init__(self) -> None:
        self._left: float = FRAMES_AT_ONCE
        self._filled_at = time.monotonic()

    def take(self) -> bool:
        """Whether one more is allowed."""
        before, self._filled_at = self._filled_at, time.monotonic()
        self._left = min(FRAMES_AT_ONCE, self._left + (self._filled_at - before) * FRAMES_PER_SECOND)
        is_allowed = self._left >= 1
        self._left -= is_allowed
        return is_allowed


class ThreadConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One browser's socket; it may follow many threads."""

    COMMANDS: ClassVar[dict[str, str]] = {
        "hello": "on_hello",
        "subscribe": "on_subscribe",
        "unsubscribe": "on_unsubscribe",
        "ping": "on_ping",
        "fill": "on_fill",
        "older": "on_older",
        "send": "on_send",
        "stop": "on_stop",
        "resume": "on_resume",
        "edit": "on_edit",
        "regenerate": "on_regenerate",
        "tool_output": "on_tool_output",
        "approve": "on_approve",
        "reject": "on_reject",
    }

    async def connect(self) -> None:
        """Accept, then close with a code where the socket may not stay: browsers see no code before."""
        self.subscriptions: dict[str, Subscription] = {}
        self.allowance = Allowance()
        self.heard_at = time.monotonic()
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_welcome = False
        self.waiting: asyncio.Task[None] | None = None
        self.sign_in: SignIn | None = None
        offered = self.scope.get("subprotocols") or []
        await self.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        if offered and SUBPROTOCOL not in offered:
            await self.close(WRONG_VERSION)
            return
        if not origin_is_allowed(_headers(self.scope)):
            await self.close(FORBIDDEN)
            return
        self.hints = outbound.layer_crosses_processes()
        self.asker = await database_sync_to_async(_asker)(self.scope)
        if await self._let_in():
            return
        if self.asker.user.is_authenticated:
            await self.close(FORBIDDEN)
        elif "authorization" in self.asker.headers:
            await self.close(UNAUTHORIZED)
        else:
            self.waiting = self._begin(self._wait_for_hello())

    async def _let_in(self) -> bool:
        """Listen to the socket from now on, if there is anything to be seen for its asker."""
        if not await database_sync_to_async(may_come)(self.asker):
            return False
        self.sign_in = await database_sync_to_async(SignIn)(self.asker)
        if not self.is_welcome:
            self.is_welcome = True
            self._begin(self._heal())
            self._begin(self._recheck())
        return True

    async def _wait_for_hello(self) -> None:
        await asyncio.sleep(HELLO_SECONDS)
        self.waiting = None
        await self.close(TOO_SLOW)

    async def disconnect(self, code: int) -> None:
        """Forget the subscriptions. A run goes on whoever watches."""
        for task in self.tasks:
            task.cancel()
        for subscription in list(self.subscriptions.values()):
            with contextlib.suppress(Exception):  # a channel layer that does not answer forgets us by itself
                await self._leave(subscription)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """One frame from the client: find its handler, and answer every error with its code."""
        if not (self.is_welcome or self.waiting):
            return
        self.heard_at = time.monotonic()
        frame = self._frame(text_data or "")
        if isinstance(frame, int):
            await self._turn_away(frame)
            return
        handler = self.COMMANDS.get(str(frame.get("type")))
        if handler is None:
            await self._refuse(frame, "unknown_type", f"There is no frame type {frame.get('type')!r}.")
            return
        try:
            if frame["type"] in SENDS and config().throttles:
                await database_sync_to_async(limits.count)("sends", self.asker)
            await getattr(self, handler)(frame)
        except DurableAgentsError as error:
            await self._refuse(frame, error.code, str(error), retryable=isinstance(error, ThrottledError))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            await self._refuse(frame, "invalid_frame", f"The frame lacks a field or has a wrong one: {error}.")

    def _frame(self, text: str) -> Frame | int:
        """The frame that was sent, or the code with which to close over it."""
        if not self.allowance.take():
            return TOO_MANY
        if len(text.encode("utf-8", "replace")) > config().max_frame_bytes:
            return TOO_BIG
        frame = _parsed(text)
        if frame is None:
            return BAD_FRAME
        return UNAUTHORIZED if self.waiting and frame.get("type") != "hello" else frame

    # ------------------------------------------------------------------------------------------------- handlers

    async def on_hello(self, frame: Frame) -> None:
        """Welcome whoever the ticket names, or who is known already."""
        if frame.get("version", VERSION) != VERSION:
            await self._turn_away(WRONG_VERSION)
            return
        if (frame.get("ticket") is not None or self.waiting) and not await self._redeem(frame.get("ticket")):
            return
        limits = {
            "frame": config().max_frame_bytes,
            "subscriptions": MAX_SUBSCRIPTIONS,
            "inflight": MAX_INFLIGHT,
        }
        await self._tell(
            type="welcome",
            version=VERSION,
            session=uuid4().hex,
            heartbeat=HEARTBEAT_SECONDS,
            limits=limits,
            user=self.asker.user.get_username() or None,
        )

    async def _redeem(self, ticket: Any) -> bool:
        """Whether the socket may stay; its asker is then the ticket's user, who has not asked for anything yet."""
        self._stop_waiting()
        redeem = database_sync_to_async(lifecycle.redeem_ticket)
        user = await redeem(ticket) if isinstance(ticket, str) and not self.subscriptions else None
        if user is None:
            await self._turn_away(UNAUTHORIZED)
            return False
        self.asker.user, self.sign_in = user, None
        if not await self._let_in():
            await self._turn_away(FORBIDDEN)
            return False
        return True

    def _stop_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None

    async def _turn_away(self, code: int) -> None:
        """Close, and listen no more."""
        self._stop_waiting()
        self.is_welcome = False
        # Whoever sent too much is told for how many seconds to stay away.
        await self.close(code, str(FRAMES_AT_ONCE // FRAMES_PER_SECOND) if code == TOO_MANY else None)

    async def on_ping(self, frame: Frame) -> None:
        await self._tell(type="pong", t=frame.get("t"))

    async def on_subscribe(self, frame: Frame) -> None:
        """Watch first, then read: what happens in between is seen as news."""
        thread, tail, name = await self._visible(frame, "view"), int(frame.get("tail", 50)), str(frame["thread"])
        if len(self.subscriptions) >= MAX_SUBSCRIPTIONS and name not in self.subscriptions:
            await self._refuse(frame, "too_many_subscriptions", f"At most {MAX_SUBSCRIPTIONS} threads on one socket.")
            return
        subscription = Subscription(reader=ThreadReader(thread.pk, _cursor(frame)), name=name, running=True)
        try:
            await self._watch(subscription)
            first = await database_sync_to_async(subscription.reader.begin)(tail=tail)
            first[0]["id"] = frame.get("id")
            await self._show(subscription, first)
        except BaseException:
            await self._leave(subscription)
            raise
        subscription.running = False
        await self._catch_up(subscription)

    async def on_unsubscribe(self, frame: Frame) -> None:
        """Follow the thread no more by this name of it; its other name is another subscription."""
        await self._visible(frame, "view")
        subscription = self.subscriptions.get(str(frame["thread"]))
        if subscription is not None:
            await self._leave(subscription)
        await self._tell(type="ok", id=frame.get("id"))

    async def on_fill(self, frame: Frame) -> None:
        """The deltas of a gap; ``reset`` once they are pruned: subscribe anew without a cursor."""
        thread = await self._visible(frame, "view")
        reader = ThreadReader(thread.pk)
        last = frame.get("to")
        deltas = await database_sync_to_async(reader.deltas)(
            str(frame["stream"]), first=int(frame["from"]), last=None if last is None else int(last)
        )
        facts = {"id": frame.get("id"), "thread": frame["thread"]}
        if deltas:
            await self._tell(type="deltas", stream=frame["stream"], deltas=deltas, **facts)
        else:
            await self._tell(type="reset", **facts)

    async def on_older(self, frame: Frame) -> None:
        thread = await self._visible(frame, "view")
        limit = max(1, min(int(frame.get("limit", 50)), 200))
        older = database_sync_to_async(ThreadReader(thread.pk).older)
        messages, has_older = await older(int(frame["before"]), limit=limit, steps=int(frame.get("steps", 0)))
        await self._tell(type="page", id=frame.get("id"), thread=frame["thread"], messages=messages, hasOlder=has_older)

    async def on_send(self, frame: Frame) -> None:
        thread = await self._visible(frame, "send")
        await self._command(frame, thread, lambda: _send(thread, frame, self.asker))

    async def on_stop(self, frame: Frame) -> None:
        thread = await self._visible(frame, "stop")
        await self._command(frame, thread, lambda: {"status": lifecycle.stop_thread(thread.pk).status})

    async def on_resume(self, frame: Frame) -> None:
        thread = await self._visible(frame, "resume")
        prompt = frame.get("prompt")
        await self._command(frame, thread, lambda: {"status": lifecycle.resume_thread(thread.pk, prompt).status})

    async def on_edit(self, frame: Frame) -> None:
        """A user's message said anew; what came after it is superseded."""
        thread = await self._visible(frame, "edit")
        await self._command(frame, thread, lambda: _edit(thread, frame, self.asker))

    async def on_regenerate(self, frame: Frame) -> None:
        """The last answer, or the one of ``message``, made anew."""
        thread = await self._visible(frame, "edit")
        await self._command(frame, thread, lambda: _regenerate(thread, frame))

    async def on_tool_output(self, frame: Frame) -> None:
        """The result of a deferred or client call, or the ``error`` that it ended with."""
        call = await self._call(frame, "answer")
        await self._command(frame, call.thread, lambda: _answer_call(call, frame))

    async def on_approve(self, frame: Frame) -> None:
        await self._decide(frame, is_approved=_flag(frame.get("approved", True)))

    async def on_reject(self, frame: Frame) -> None:
        await self._decide(frame, is_approved=False)

    async def _decide(self, frame: Frame, *, is_approved: bool) -> None:
        call = await self._call(frame, "approve")
        decide = _approve if is_approved else _reject
        try:
            await self._command(frame, call.thread, lambda: decide(call, frame, self.asker))
        except ApprovalExpiredError:
            # The command's transaction has undone that the call was settled as expired.
            await database_sync_to_async(decide)(call, frame, self.asker)

    async def _command(self, frame: Frame, thread: Thread, run: Callable[[], Mapping[str, Any]]) -> None:
        """Run a command once per key, answer, and show what it did without waiting for a hint."""
        run_once = database_sync_to_async(_run_once)
        result = await run_once(thread, _given_text(frame, "key"), frame, run)
        await self._tell(type="ok", id=frame.get("id"), thread=frame["thread"], **result)
        await self._catch_up_all(self._subscriptions_of(thread.pk))

    async def _visible(self, frame: Frame, action: str) -> Thread:
        """The frame's thread, if the caller may do this to it."""
        find = database_sync_to_async(public_thread)
        found: Thread = await find(self.asker, str(frame["thread"]), action)
        return found

    async def _call(self, frame: Frame, action: str) -> ToolCall:
        """The frame's tool call, if it is left to the caller to do this."""
        find = database_sync_to_async(public_tool_call)
        found: ToolCall = await find(self.asker, str(frame["thread"]), str(frame["tool_call_id"]), action)
        return found

    # ------------------------------------------------------------------------------------------------ watching

    def _subscriptions_of(self, thread_id: UUID) -> list[Subscription]:
        """A thread has two names, its own and the client's: it may be followed by either, and by both."""
        return [found for found in self.subscriptions.values() if found.reader.thread_id == thread_id]

    def _followed(self) -> set[UUID]:
        return {subscription.reader.thread_id for subscription in self.subscriptions.values()}

    async def _watch(self, subscription: Subscription) -> None:
        """Follow a thread; what was followed by this name before is followed no more."""
        before, followed = self.subscriptions.get(subscription.name), self._followed()
        thread_id = subscription.reader.thread_id
        self.subscriptions[subscription.name] = subscription
        if before is not None:
            await self._unwatch(before.reader.thread_id)
        if self.hints and thread_id not in followed:
            await self.channel_layer.group_add(outbound.group_of(thread_id), self.channel_name)
        elif not self.hints:
            poller().watch(thread_id, self)

    async def _leave(self, subscription: Subscription) -> None:
        """Follow a thread no more, unless the client has subscribed anew meanwhile."""
        if self.subscriptions.get(subscription.name) is subscription:
            del self.subscriptions[subscription.name]
            await self._unwatch(subscription.reader.thread_id)

    async def _unwatch(self, thread_id: UUID) -> None:
        """Hear no more of a thread, unless it is still followed."""
        if thread_id in self._followed():
            return
        if self.hints:
            await self.channel_layer.group_discard(outbound.group_of(thread_id), self.channel_name)
        else:
            poller().unwatch(thread_id, self)

    async def thread_changed(self, event: Mapping[str, Any]) -> None:
        """A hint from the channel layer."""
        await self._catch_up_all(self._subscriptions_of(UUID(event["thread"])))

    async def thread_delta(self, event: Mapping[str, Any]) -> None:
        """A delta from the channel layer: the next in order goes straight out, any other makes us read."""
        frame = event["frame"]
        for subscription in self._subscriptions_of(UUID(frame["thread"])):
            if not subscription.running and subscription.reader.accept(frame):
                await self._show(subscription, [frame])
            else:
                await self._catch_up(subscription)

    def look(self, thread_id: UUID) -> None:
        """The poller saw that a thread has news."""
        self._begin(self._catch_up_all(self._subscriptions_of(thread_id)))

    async def _heal(self) -> None:
        """Look now and then without a hint: a lost last one shows no gap. And see whether the client is there still."""
        while True:
            await asyncio.sleep(HEAL_SECONDS)
            if time.monotonic() - self.heard_at > SILENT_SECONDS:
                await self._turn_away(GOING_AWAY)
                return
            try:
                ring_overdue = database_sync_to_async(lifecycle.ring_overdue)
                await ring_overdue(list(self._followed()), seconds=HEAL_SECONDS)
                await self._catch_up_all(list(self.subscriptions.values()))
            except Exception:
                log_error("a socket could not look for news", action="heal")

    async def _recheck(self) -> None:
        """Ask now and then whether all this may still be seen: the socket may outlive a session by days."""
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                if not await self._is_still_signed_in():
                    await self._turn_away(UNAUTHORIZED)
                    return
                for subscription in list(self.subscriptions.values()):
                    await self._recheck_one(subscription)
            except Exception:
                log_error("a socket could not ask what may be seen", action="recheck")

    async def _is_still_signed_in(self) -> bool:
        """If so, the policy is shown the user as they are now."""
        sign_in = self.sign_in
        user = await database_sync_to_async(sign_in.user_now)() if sign_in else None
        if sign_in is None or sign_in is not self.sign_in:  # a ticket comes at this moment
            return True
        self.asker.user = user or self.asker.user
        return user is not None

    async def _recheck_one(self, subscription: Subscription) -> None:
        try:
            await database_sync_to_async(public_thread)(self.asker, str(subscription.reader.thread_id), "view")
        except DurableAgentsError:
            await self._gone(subscription)

    async def _catch_up_all(self, subscriptions: Iterable[Subscription]) -> None:
        for subscription in subscriptions:
            await self._catch_up(subscription)

    async def _catch_up(self, subscription: Subscription) -> None:
        """Send what is new, one reading at a time."""
        subscription.dirty = True
        if subscription.running:
            return
        subscription.running = True
        try:
            while subscription.dirty:
                subscription.dirty = False
                await self._show(subscription, await database_sync_to_async(subscription.reader.news)())
        except ThreadNotFoundError:
            await self._gone(subscription)
        finally:
            subscription.running = False

    async def _gone(self, subscription: Subscription) -> None:
        if self.subscriptions.get(subscription.name) is not subscription:
            return
        await self._leave(subscription)
        await self._tell(
            type="error",
            thread=subscription.name,
            code="thread_not_found",
            message="The thread is gone.",
            retryable=False,
        )

    def _begin(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    # ------------------------------------------------------------------------------------------------- sending

    async def _refuse(self, frame: Frame, code: str, message: str, *, retryable: bool = False) -> None:
        facts = {"id": frame.get("id"), "thread": frame.get("thread"), "retryable": retryable}
        await self._tell(type="error", code=code, message=message, **facts)

    async def _show(self, subscription: Subscription, frames: list[Frame]) -> None:
        """Unless the client has subscribed anew meanwhile: then the new subscription tells it all."""
        for frame in frames:
            if self.subscriptions.get(subscription.name) is subscription:
                await self._tell(**frame | {"thread": subscription.name})

    async def _tell(self, **frame: Any) -> None:
        await self.send(text_data=_written(frame))


def _written(frame: Frame) -> str:
    """The frame as it travels. What a client made of half a character, an id of its own, goes back as it came."""
    text = json.dumps(frame, ensure_ascii=False, separators=(",", ":"))
    return text if strictjson.is_storable(text) else json.dumps(frame, separators=(",", ":"))


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _asker(scope: Mapping[str, Any]) -> SimpleNamespace:
    """What the policy is shown of a socket: the session's user, or the one that the headers authenticate."""
    headers = _headers(scope)
    user = scope.get("user") or AnonymousUser()
    if not user.is_authenticated:
        user = user_of_headers(headers) or AnonymousUser()
    getattr(user, "pk", None)  # resolves a lazy user here, where the ORM may be called
    address = {"REMOTE_ADDR": (scope.get("client") or [""])[0], "HTTP_X_FORWARDED_FOR": headers.get("x-forwarded-for")}
    return SimpleNamespace(user=user, session=scope.get("session"), headers=headers, META=address)


def _parsed(text: str) -> Frame | None:
    """The frame, or None where it is no JSON object of ours: malformed, too deep, or with a number that is none."""
    try:
        frame = strictjson.read(text, max_depth=config().max_json_depth)
    except ValueError:
        return None
    return frame if isinstance(frame, dict) else None


def _cursor(frame: Frame) -> Cursor | None:
    given = frame.get("cursor")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise TypeError("'cursor' is an object")
    seq = given.get("seq")
    return Cursor(rev=int(given["rev"]), stream=str(given.get("stream") or ""), seq=-1 if seq is None else int(seq))


def _run_once(thread: Thread, key: str | None, frame: Frame, run: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Run a command; files within its message are stored before its transaction begins."""
    with lifecycle.taken_in(frame.get("parts")) as [parts]:
        frame["parts"] = parts
        return lifecycle.run_command(thread.pk, key, run)


def _send(thread: Thread, frame: Frame, asker: Asker) -> dict[str, Any]:
    client_id, whose = _given_text(frame, "client_id"), sender(asker, frame.get("parts"))
    message = lifecycle.send_message(thread.pk, client_id=client_id, sender=whose, **_said(frame))
    return {"message": ui_message(message, message.parts)}


def _edit(thread: Thread, frame: Frame, asker: Asker) -> dict[str, Any]:
    whose = sender(asker, frame.get("parts"))
    message = lifecycle.edit_message(thread.pk, _text(frame["message"]), sender=whose, **_said(frame))
    return {"message": ui_message(message, message.parts)}


def _regenerate(thread: Thread, frame: Frame) -> dict[str, Any]:
    message = lifecycle.regenerate(thread.pk, _given_text(frame, "message"))
    return {"message": ui_message(message, message.parts)}


def _said(frame: Frame) -> dict[str, Any]:
    """What a user's message says: ``prompt`` or ``parts``, and ``metadata``."""
    parts, metadata = frame.get("parts"), frame.get("metadata")
    if not isinstance(parts, list | None) or not isinstance(metadata, dict | None):
        raise InvalidPartsError("'parts' is a list of parts and 'metadata' an object.")
    return {"prompt": _given_text(frame, "prompt"), "parts": parts, "metadata": metadata}


def _answer_call(call: ToolCall, frame: Frame) -> dict[str, Any]:
    error = frame.get("error")
    if error is None:
        return _call_state(lifecycle.add_tool_result(call.thread, call.tool_call_id, frame["output"]))
    if not _text(error).strip():
        raise ValueError("'error' is empty")
    return _call_state(lifecycle.add_tool_error(call.thread, call.tool_call_id, error))


def _approve(call: ToolCall, frame: Frame, asker: Asker) -> dict[str, Any]:
    arguments, reason = frame.get("arguments"), _text(frame.get("reason") or "")
    if not isinstance(arguments, dict | None):
        raise TypeError("'arguments' is an object")
    approve, by = lifecycle.approve_tool_call, decider(asker, call.thread)
    return _call_state(approve(call.thread, call.tool_call_id, by=by, arguments=arguments, reason=reason))


def _reject(call: ToolCall, frame: Frame, asker: Asker) -> dict[str, Any]:
    by, reason = decider(asker, call.thread), _text(frame.get("reason") or "")
    return _call_state(lifecycle.reject_tool_call(call.thread, call.tool_call_id, by=by, reason=reason))


def _call_state(call: ToolCall) -> dict[str, Any]:
    return {"tool_call_id": call.tool_call_id, "status": str(call.status)}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("ids, 'prompt', 'error' and 'reason' are texts")
    return value


def _given_text(frame: Frame, name: str) -> str | None:
    """A field that is a text, or is left out."""
    value = frame.get(name)
    return None if value is None else _text(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("'approved' is true or false")
    return value

"""The subscriptions of one websocket. A subscription sends a snapshot of its thread if the client needs one, and after
that only what is new.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

from durable_agents.delta_writer import Frame
from durable_agents.exceptions import DurableAgentsError, ThreadNotFoundError
from durable_agents.live.flow_control import FlowControl
from durable_agents.live.hub import Inbox, hub
from durable_agents.live.kept_connection import in_database
from durable_agents.live.reader import ThreadReader
from durable_agents.logs import log_error
from durable_agents.policies import Asker, public_thread


@dataclass(kw_only=True)
class Subscription:
    """The subscription of a websocket to one thread."""

    reader: ThreadReader
    name: str
    """The id by which the client's request named the thread: either the primary key, or the ``client_id`` that the
    client chose. Every frame repeats this id.
    """
    is_reading: bool = False
    must_read_again: bool = False
    """Whether a notification has arrived during the current read. If so, another read is needed."""


class Subscriptions:
    """The threads that one websocket follows, by the names that its client uses for them.

    A thread has two names: its primary key, and the ``client_id`` that the client chose. It may be followed under both.
    """

    def __init__(self, send: Callable[[Frame], Awaitable[None]], flow: FlowControl) -> None:
        self._send = send
        self._flow = flow
        self._by_name: dict[str, Subscription] = {}
        self._inbox = Inbox()

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def thread_ids(self) -> set[UUID]:
        """The primary keys of the followed threads."""
        return {subscription.reader.thread_id for subscription in self._by_name.values()}

    def thread_id(self, name: str) -> UUID | None:
        """Return the primary key of the thread that is followed under this name, or None."""
        subscription = self._by_name.get(name)
        return subscription.reader.thread_id if subscription else None

    async def add(self, name: str, reader: ThreadReader, *, tail: int, request_id: str | float | None) -> None:
        """Follow a thread under this name, and send its first frames. The first frame is the reply to ``request_id``.

        If another thread was followed under the same name before, that subscription ends.
        """
        subscription = Subscription(reader=reader, name=name, is_reading=True)
        try:
            replaced = self._by_name.get(name)
            self._by_name[name] = subscription
            if replaced is not None:
                self._unwatch(replaced.reader.thread_id)
            # Watch the thread before reading it, so that a change in between is not lost.
            await hub().watch(reader.thread_id, self._inbox)
            answer, *others = await in_database(reader.begin)(tail=tail)
            await self._show(subscription, [answer | {"id": request_id}, *others])
        except BaseException:
            self._remove(subscription)
            raise
        subscription.is_reading = False
        await self._catch_up(subscription)

    def remove(self, name: str) -> None:
        """Stop following a thread under this name."""
        if name in self._by_name:
            self._remove(self._by_name[name])

    def clear(self) -> None:
        """Stop following all threads."""
        for subscription in list(self._by_name.values()):
            self._remove(subscription)

    async def listen(self) -> None:
        """Handle the hub's notifications one after the other, in an endless loop."""
        while True:
            thread_id, delta = await self._inbox.next()
            try:
                for subscription in self._of(thread_id):
                    await self._pass_on(subscription, delta)
            except Exception:
                log_error("a websocket could not pass on news", action="listen", thread=thread_id)

    async def catch_up(self, thread_id: UUID | None = None) -> None:
        """Send the client what is new in this thread or, without ``thread_id``, in all followed threads."""
        subscriptions = list(self._by_name.values()) if thread_id is None else self._of(thread_id)
        for subscription in subscriptions:
            await self._catch_up(subscription)

    async def recheck(self, asker: Asker) -> None:
        """End the subscriptions of threads that the client may no longer view."""
        for subscription in list(self._by_name.values()):
            try:
                await in_database(public_thread)(asker, subscription.reader.thread_id, "view")
            except DurableAgentsError:
                await self._end(subscription)

    async def _pass_on(self, subscription: Subscription, delta: Frame | None) -> None:
        # Send a delta unchanged if it directly follows the cursor. In all other cases, read the rows.
        can_send = not (subscription.is_reading or self._flow.is_full)
        if delta is not None and can_send and subscription.reader.accept(delta):
            await self._show(subscription, [delta])
        else:
            await self._catch_up(subscription)

    def _of(self, thread_id: UUID) -> list[Subscription]:
        return [subscription for subscription in self._by_name.values() if subscription.reader.thread_id == thread_id]

    def _remove(self, subscription: Subscription) -> None:
        """Remove a subscription, unless a newer subscription has replaced it."""
        if self._by_name.get(subscription.name) is subscription:
            del self._by_name[subscription.name]
            self._unwatch(subscription.reader.thread_id)

    def _unwatch(self, thread_id: UUID) -> None:
        """Stop watching the thread in the hub, unless the thread is still followed under its other name."""
        if thread_id not in self.thread_ids:
            hub().unwatch(thread_id, self._inbox)

    async def _catch_up(self, subscription: Subscription) -> None:
        """Send what is new. Only one read runs at a time, because two reads would move the same cursor twice."""
        subscription.must_read_again = True
        # To a client that does not keep up, nothing is sent. ``catch_up`` is called again as soon as it has read all.
        if subscription.is_reading or self._flow.is_full:
            return
        subscription.is_reading = True
        try:
            while subscription.must_read_again and not self._flow.is_full:
                subscription.must_read_again = False
                await self._show(subscription, await in_database(subscription.reader.news)())
        except ThreadNotFoundError:
            await self._end(subscription)
        finally:
            subscription.is_reading = False

    async def _show(self, subscription: Subscription, frames: Iterable[Frame]) -> None:
        for frame in frames:
            # If the client has subscribed again under this name, only the new subscription sends frames.
            if self._by_name.get(subscription.name) is subscription:
                await self._send(frame | {"thread": subscription.name})

    async def _end(self, subscription: Subscription) -> None:
        if self._by_name.get(subscription.name) is not subscription:
            return
        self._remove(subscription)
        gone: Frame = {"type": "error", "thread": subscription.name, "code": "thread_not_found"}
        await self._send(gone | {"message": "The thread is gone.", "retryable": False})

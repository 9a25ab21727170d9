"""The subscriptions of one websocket. Each sends a snapshot of its thread if the client needs one, then only what is
new.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from uuid import UUID

from durable_agents.delta_writer import Frame
from durable_agents.live.caller_limits import turn_to_read
from durable_agents.live.database_threads import in_database
from durable_agents.live.encoded_frame import encode
from durable_agents.live.frame_sender import FlowControl
from durable_agents.live.personal_frames import PersonalFrames
from durable_agents.live.reader import ThreadReader, thread_gone
from durable_agents.live.thread_feed import Subscription, feeds, follow, unfollow
from durable_agents.policies import Asker


class Subscriptions:
    """The threads that one websocket follows, by the name that the client uses for each.

    A thread has two names: its primary key, and the ``client_id`` that the client chose. It can be followed under both.
    """

    def __init__(self, show: Callable[[str], None], flow: FlowControl, asker: Callable[[], Asker]) -> None:
        self.show = show
        self._asker = asker
        self._flow = flow
        self._by_name: dict[str, Subscription] = {}
        self.caller = ""
        """The name of the socket's caller. Callers take turns to read the database."""

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def is_full(self) -> bool:
        """Whether the client reads too slowly."""
        return self._flow.is_full

    @property
    def asker(self) -> Asker:
        """The websocket's user, as policies see the user. The user changes when the client redeems a ticket."""
        return self._asker()

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

        If the client already follows a thread under this name, the new subscription replaces the old one. The method
        does not wait until the client has taken the frames.
        """
        self.remove(name)
        subscription = Subscription(viewer=self, reader=reader, name=name)
        self._by_name[name] = subscription
        try:
            # Follow the thread before reading it, so that a change in between is not lost.
            await follow(subscription)
            async with turn_to_read(self.caller, self._flow):
                answer, *others = await in_database(self._first_frames, by=self.caller)(reader, tail)
                # If the client has subscribed again under this name, only the new subscription sends frames.
                is_current = self._by_name.get(name) is subscription
                for frame in (answer | {"id": request_id}, *others) if is_current else ():
                    self.show(encode(frame | {"thread": name}))
        except BaseException:
            self._remove(subscription)
            raise
        if is_current:
            subscription.end_read()
            feeds()[reader.thread_id].start()

    def _first_frames(self, reader: ThreadReader, tail: int) -> list[Frame]:
        frames = reader.begin(tail=tail)
        return list(map(PersonalFrames(self.asker, reader.facts).of, frames))

    def remove(self, name: str) -> None:
        """Stop following a thread under this name."""
        if name in self._by_name:
            self._remove(self._by_name[name])

    def clear(self) -> None:
        """Stop following all threads."""
        for subscription in list(self._by_name.values()):
            self._remove(subscription)

    async def catch_up(self, thread_id: UUID | None = None) -> None:
        """Send the client what is new in this thread or, without ``thread_id``, in all followed threads."""
        for subscription in list(self._by_name.values()):
            feed = feeds().get(subscription.reader.thread_id)
            if feed is not None and thread_id in {None, feed.thread_id}:
                await feed.refresh(subscription)

    def end_all(self, thread_ids: Collection[UUID]) -> None:
        """End the subscriptions of threads that the client is no longer allowed to view."""
        for subscription in list(self._by_name.values()):
            if subscription.reader.thread_id in thread_ids:
                self.end(subscription)

    def end(self, subscription: Subscription) -> None:
        """End a subscription, because its thread is gone or the client is no longer allowed to view the thread."""
        is_current = self._by_name.get(subscription.name) is subscription
        self._remove(subscription)
        if is_current:
            self.show(encode(thread_gone(subscription.name)))

    def _remove(self, subscription: Subscription) -> None:
        """Remove a subscription, unless a newer subscription has replaced it."""
        if self._by_name.get(subscription.name) is subscription:
            del self._by_name[subscription.name]
        unfollow(subscription)

"""Check all websockets and event streams of one event loop at intervals, together.

The checks find:

- clients that are gone or do not read
- users who are no longer allowed to see a thread
- changes whose notification was lost

Because all connections are checked together, no connection needs a task of its own for its checks, and the number of
database queries does not grow with the number of connections.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID
from weakref import WeakKeyDictionary

from durable_agents.actors import User
from durable_agents.lifecycle import notify_overdue, store_delivery_counts
from durable_agents.live.database_threads import in_database
from durable_agents.live.hub import HEAL_SECONDS
from durable_agents.live.reader import THREAD_CONTENT, Sign, signs_of
from durable_agents.live.thread_feed import feeds
from durable_agents.live_delivery_counts import delivery_counts
from durable_agents.logs import log_error
from durable_agents.policies import Asker, SignIn, users_now, visible_threads

RECHECK_SECONDS = 60
"""Interval at which the server checks that the user is still signed in and may still view the threads."""
RECHECKS = 12
"""Number of rounds within ``RECHECK_SECONDS``. Each websocket is checked in one of these rounds."""
MAX_TOGETHER = 100
"""Maximum number of websockets whose permissions are checked in one call. A call occupies an OS thread for database
work.
"""


class CheckedAsker(Asker, Protocol):
    """A caller in the form that policies receive. After each check, ``user`` is replaced by a newly loaded user."""

    user: User


class CheckedSocket(Protocol):
    """A websocket or an event stream as these checks see it."""

    @property
    def asker(self) -> CheckedAsker:
        """The caller."""

    @property
    def sign_in(self) -> SignIn | None:
        """How the caller was authenticated, or None while the caller redeems a ticket."""

    @property
    def thread_ids(self) -> Collection[UUID]:
        """The primary keys of the followed threads."""

    def close_if_unresponsive(self) -> None:
        """Start to close the websocket if its client is silent, or does not read what it is sent."""

    def apply(self, finding: Finding) -> None:
        """If the caller's sign-in is no longer valid, close the websocket. Otherwise, end the subscriptions of threads
        that the caller is no longer allowed to view.
        """


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is needed to check one websocket."""

    sign_in: SignIn
    asker: CheckedAsker
    thread_ids: frozenset[UUID]
    """The threads that the websocket follows."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of checking one websocket."""

    user: User | None
    """The user, reloaded from the database, or None if the user's sign-in is no longer valid."""
    hidden: frozenset[UUID]
    """The followed threads that the user is no longer allowed to view."""


class SocketChecks:
    """The checks of one event loop. The checks run while any websocket is open."""

    def __init__(self) -> None:
        self._next_recheck: dict[CheckedSocket, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, socket: CheckedSocket) -> None:
        """Start to check a websocket."""
        self._next_recheck[socket] = time.monotonic() + RECHECK_SECONDS
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._heal()), loop.create_task(self._recheck())]

    def remove(self, socket: CheckedSocket) -> None:
        """Stop checking a websocket. A second call changes nothing."""
        self._next_recheck.pop(socket, None)
        if not self._next_recheck:
            for task in self._tasks:
                task.cancel()
            self._tasks = []

    async def _heal(self) -> None:
        """Read the threads that have changed without a notification, and close unresponsive websockets."""
        while True:
            await asyncio.sleep(HEAL_SECONDS)
            try:
                for socket in list(self._next_recheck):
                    socket.close_if_unresponsive()
                await heal()
                if delivery_counts().are_due:
                    await in_database(store_delivery_counts)()
            except Exception:
                log_error("websockets could not look for news", action="heal")

    async def _recheck(self) -> None:
        """Check at intervals whether users are still signed in and may still view the followed threads.

        Without this check, a socket could stay open for days after its session has ended.
        """
        while True:
            await asyncio.sleep(RECHECK_SECONDS / RECHECKS)
            now = time.monotonic()
            due = [socket for socket, due_at in self._next_recheck.items() if due_at <= now]
            for start in range(0, len(due), MAX_TOGETHER):
                await recheck(due[start : start + MAX_TOGETHER])
            for socket in self._next_recheck.keys() & set(due):
                self._next_recheck[socket] = now + RECHECK_SECONDS


async def heal() -> None:
    """Find the followed threads that have changed without a notification, and request that their rows are read."""
    followed = dict(feeds())
    read_at = time.monotonic()
    signs = await in_database(_look_at)(list(followed)) if followed else {}
    for thread_id, feed in followed.items():
        feed.on_sign(signs.get(thread_id), read_at=read_at)


def _look_at(thread_ids: Sequence[UUID]) -> dict[UUID, Sign]:
    notify_overdue(thread_ids, seconds=HEAL_SECONDS)
    return signs_of(thread_ids)


async def recheck(sockets: Sequence[CheckedSocket]) -> None:
    """Check what the callers of these websockets are still allowed to see.

    If the check raises an error, check each websocket alone. An error of the project's policy then affects only one
    caller.
    """
    asked = [socket for socket in sockets if socket.sign_in]
    questions = [
        Question(sign_in=sign_in, asker=socket.asker, thread_ids=frozenset(socket.thread_ids))
        for socket in asked
        if (sign_in := socket.sign_in)
    ]
    try:
        findings = await in_database(answers)(questions)
    except Exception:
        if len(sockets) == 1:
            log_error("a websocket could not check what may be seen", action="recheck")
        for socket in sockets if len(sockets) > 1 else ():
            await recheck([socket])
        return
    for socket, question, finding in zip(asked, questions, findings, strict=True):
        # The client may have redeemed a ticket during the query. In that case, the finding is out of date.
        if socket.sign_in is question.sign_in:
            try:
                socket.apply(finding)
            except Exception:
                # An error of one websocket must not end the checks of the others.
                log_error("a websocket could not end what may no longer be seen", action="recheck")


def answers(questions: Sequence[Question]) -> list[Finding]:
    """Find out what callers are still allowed to see.

    If all callers have signed in with sessions that are stored in the database, the number of queries does not depend
    on the number of callers.
    """
    users = users_now([question.sign_in for question in questions])
    askers = [copy.copy(question.asker) for question in questions]
    for asker, user in zip(askers, users, strict=True):
        asker.user = user or asker.user
    wanted = [question.thread_ids for question in questions]
    seen = visible_threads(list(zip(askers, wanted, strict=True)), defer=THREAD_CONTENT)
    found = zip(users, wanted, seen, strict=True)
    return [Finding(user=user, hidden=ids - visible) for user, ids, visible in found]


_checks: WeakKeyDictionary[asyncio.AbstractEventLoop, SocketChecks] = WeakKeyDictionary()


def socket_checks() -> SocketChecks:
    """Return the checks of the running event loop."""
    return _checks.setdefault(asyncio.get_running_loop(), SocketChecks())

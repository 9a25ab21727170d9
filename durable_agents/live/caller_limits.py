"""Limit each caller's open connections, and what is sent to each caller, so that no caller can stall a web process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Protocol
from weakref import WeakValueDictionary

from durable_agents import throttles
from durable_agents.live.asgi_scope import Scope
from durable_agents.live.frame_sender import FlowControl
from durable_agents.live.rate_limit import TokenBucket
from durable_agents.policies import Asker, owner_and_scope

BYTES_AT_ONCE = 5_000_000
BYTES_PER_SECOND = 2_000_000
"""The limit for what is sent to all websockets of one caller together. One character counts as one byte. A caller can
get ``BYTES_AT_ONCE`` bytes without a wait. After that, large reads wait, which limits the caller to this many bytes per
second. Twenty tabs with usual threads need less than a megabyte.
"""
MAX_WAIT_SECONDS = 5.0
MAX_REMEMBERED = 1_000
"""Maximum number of token buckets to keep. If there are more, the buckets of callers who have been sent nothing lately
are deleted.
"""


class AddressedAsker(Asker, throttles.Caller, Protocol):
    """A caller whose address is known."""


def address_of(scope: Scope) -> str:
    """Return a name for a caller whose user or session is not known yet. The name contains the connection's address."""
    return f"connection.{(scope.get('client') or [''])[0]}"


def caller_of(asker: AddressedAsker) -> str:
    """Return the name of a caller. The name contains the user's id, a visitor's scope or, if both are missing, the
    address.

    Call this in an OS thread for database work, because the project's policy might query the database.
    """
    # Do not ask the policy for the scope of a visitor without a session. The policy might begin a new session for each
    # connection. The same visitor would then get a different name each time.
    session = getattr(asker, "session", None)
    if not asker.user.is_authenticated and getattr(session, "session_key", None):
        scope = owner_and_scope(asker)[1]
        if scope:
            return f"scope.{scope}"
    return throttles.key_of(asker)


class Slot:
    """One of the connections that a caller is allowed to have open in this process. The slot is given back only once:
    by ``release`` or, at the latest, when the object is deleted.
    """

    def __init__(self, places: Places, caller: str) -> None:
        self.caller = caller
        self._places = places
        self._is_taken = True

    def release(self) -> None:
        """Give the slot back."""
        if self._is_taken:
            self._is_taken = False
            self._places.give_back(self.caller)

    def __del__(self) -> None:
        self.release()


class Places:
    """How many connections of one kind each caller has open in this process."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        # A lock is needed because event streams are opened in the OS threads of their views. The lock is reentrant,
        # because Python may delete a slot, and so release it, in an OS thread that already holds the lock.
        self._lock = threading.RLock()

    def take(self, caller: str, *, limit: int) -> Slot | None:
        """Return a slot, or None if the caller has as many connections as allowed.

        A caller who is known by address only is not limited, because many visitors may share an address.
        """
        with self._lock:
            if self._taken[caller] >= limit and not caller.startswith("address."):
                return None
            self._taken[caller] += 1
            return Slot(self, caller)

    def give_back(self, caller: str) -> None:
        """Record that a connection of this caller was closed."""
        with self._lock:
            self._taken[caller] -= 1
            if not self._taken[caller]:
                del self._taken[caller]


SOCKETS, STREAMS = Places(), Places()

_allowances: dict[str, TokenBucket] = {}


def allowance_of(caller: str) -> TokenBucket:
    """Return the token bucket that limits how much is sent to the caller's websockets."""
    if len(_allowances) > MAX_REMEMBERED:
        for name in [name for name, allowance in _allowances.items() if allowance.is_full]:
            del _allowances[name]
    return _allowances.setdefault(caller, TokenBucket(burst=BYTES_AT_ONCE, per_second=BYTES_PER_SECOND))


_reading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


@contextlib.asynccontextmanager
async def turn_to_read(caller: str, flow: FlowControl) -> AsyncIterator[None]:
    """Wait until this websocket is allowed to do a large read. Its turn lasts for the ``async with`` block.

    The websockets of one caller have their turns one after another. A turn begins when the websocket's send buffer has
    room and the caller's token bucket is not overdrawn. The wait for the token bucket takes at most
    ``MAX_WAIT_SECONDS``. A waiting websocket does not notice that its client has gone.

    - Send the frames before the turn ends, because the start of the next turn depends on their size.
    - Do not wait for the client during the turn, because the caller's other websockets are waiting.
    """
    lock = _reading.setdefault(caller, asyncio.Lock())
    while True:
        await flow.wait()
        async with lock:
            await asyncio.sleep(min(allowance_of(caller).seconds_in_debt, MAX_WAIT_SECONDS))
            if not flow.is_full:
                yield
                return

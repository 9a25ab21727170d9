"""Channel layers that lose, double and reorder some of the messages that they receive.

`tests.shaken_delivery.settings` uses them. Each layer object keeps a file with its counts.
"""

import os
import random
import struct
from pathlib import Path
from typing import Any

from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

FAULTS = ("dropped", "doubled", "reordered")
KINDS = (*FAULTS, "received")
FORMAT = struct.Struct(f"{len(KINDS)}q")


class Shaken:
    """Makes a layer drop or double a share of all messages, or hold them back until the next message has come."""

    def __init__(self, *args: Any, share: float, seed: int, folder: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._share = share
        self._chance = random.Random(seed)
        self._counts = Path(folder) / f"{os.getpid()}-{id(self)}"
        self._noted = dict.fromkeys(KINDS, 0)
        self._next: list[Any] = []
        self._held: list[Any] = []

    async def receive(self, channel: str) -> Any:
        """Return the next message that is not dropped."""
        while not self._next:
            self._take(await self._receive(channel))
        return self._next.pop(0)

    async def _receive(self, channel: str) -> Any:
        """Return the next message of the layer."""
        raise NotImplementedError

    def _take(self, message: Any) -> None:
        fault = self._chance.choice(FAULTS) if self._chance.random() < self._share else ""
        for kind in ("received", fault):
            if kind:
                self._noted[kind] += 1
        self._counts.write_bytes(FORMAT.pack(*self._noted.values()))
        if fault == "reordered":
            self._held.append(message)
        elif fault != "dropped":
            self._next += [message, *([message] if fault == "doubled" else []), *self._held]
            self._held = []


class ShakenRedisChannelLayer(Shaken, RedisChannelLayer):  # type: ignore[misc]
    """The core layer of channels_redis."""

    async def _receive(self, channel: str) -> Any:
        return await RedisChannelLayer.receive(self, channel)


class ShakenRedisPubSubChannelLayer(Shaken, RedisPubSubChannelLayer):  # type: ignore[misc]
    """The pub/sub layer of channels_redis."""

    async def _receive(self, channel: str) -> Any:
        # The layer has this method only through ``__getattr__``.
        return await self.__getattr__("receive")(channel)


def totals(folder: Path) -> dict[str, int]:
    """Return what all processes have counted."""
    counts = [data for path in folder.iterdir() if len(data := path.read_bytes()) == FORMAT.size]
    sums = [sum(column) for column in zip(*map(FORMAT.unpack, counts), strict=True)] or [0] * len(KINDS)
    return dict(zip(KINDS, sums, strict=True))

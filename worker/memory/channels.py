"""Channels: how each was left, what people said of it, and what Usher wrote into it.

kept:{instance}     Kept: how the room's channel was left, and what somebody did to it
holds:{instance}    list of Hold: what a person said of the room, and until when
posted:{instance}   hash: key of a message at a phase -> Posted; gone 90 days after the last
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar, cast

import msgspec

from worker.memory.places import PLACE, Place, Places
from worker.policy.overrides import Edit, Hold
from worker.policy.settings import Settings

T = TypeVar("T")

LONGEST_HOLD: Final = timedelta(days=90)
HOLDS: Final = 50
"""Holds that are kept of a room."""

POSTED_LIFE: Final = timedelta(days=90)


class Kept(msgspec.Struct):
    """What Usher remembers of a channel's settings; `id` is the channel's.

    `left` is how Usher left it, `aimed` what was wanted then and `planned` what of that was the
    plan's; `coming` is when the plan was to change next, if ever. `own` are the seller's values of
    settings that only a hold touches. `look` is when it is to be looked at again, `pinned` the
    message that Usher pinned; `hidden` says that the key may not see its banned words.
    """

    id: str
    left: Settings | None = None
    aimed: Settings | None = None
    planned: Settings | None = None
    seen: datetime | None = None
    coming: datetime | msgspec.UnsetType | None = msgspec.UNSET
    own: Settings = Settings()
    edit: Edit | None = None
    look: datetime | None = None
    pinned: str | None = None
    hidden: bool = False
    armed: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """All that is remembered of a room, as one look at it needs it."""

    place: Place | None
    kept: Kept | None
    holds: tuple[Hold, ...]


class Posted(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message at a phase: when we set out to write it, and Whop's id once it stands there.

    `done` says that there is nothing left to do: it stands, pinned if wanted, or was refused.
    """

    began: datetime
    id: str | None = None
    done: bool = False


_KEPT: Final = msgspec.json.Decoder(Kept)
_HOLD: Final = msgspec.json.Decoder(Hold)


def _read(decoder: msgspec.json.Decoder[T], value: bytes | None) -> T | None:
    return None if value is None else decoder.decode(value)


class Channels(Places):
    """The channels of the rooms; which rooms there are, `Places` knows."""

    async def kept(self, instance: str) -> Kept | None:
        """Return what is known of the settings of a room's channel."""
        return await self._read(f"kept:{instance}", Kept)

    async def standing(self, *instances: str) -> list[Standing]:
        """Return what is remembered of some rooms, in as few round trips as pages need."""
        p = self._prefix
        rows = await self._ask(
            [
                command
                for key in instances
                for command in (
                    ("MGET", f"{p}room:{key}", f"{p}kept:{key}"),
                    ("LRANGE", f"{p}holds:{key}", 0, -1),
                )
            ]
        )
        return [
            Standing(_read(PLACE, place), _read(_KEPT, kept), tuple(map(_HOLD.decode, holds)))
            for (place, kept), holds in zip(rows[::2], rows[1::2], strict=True)
        ]

    async def save_kept(self, instance: str, kept: Kept) -> None:
        """Remember the settings of a room's channel."""
        await self._write(("SET", f"{self._prefix}kept:{instance}", msgspec.json.encode(kept)))

    async def all_kept(self) -> dict[str, Kept]:
        """Return what is known of all channels, by their rooms' keys."""
        keys = await self.instances()
        rows = await self._ask([("GET", f"{self._prefix}kept:{key}") for key in keys])
        return {key: _KEPT.decode(row) for key, row in zip(keys, rows, strict=True) if row}

    async def holds(self, instance: str) -> tuple[Hold, ...]:
        """Return what people said of a room, what is over by now too."""
        key = f"{self._prefix}holds:{instance}"
        rows = await cast("Awaitable[list[bytes]]", self._redis.lrange(key, 0, -1))
        return tuple(map(_HOLD.decode, rows))

    async def hold(self, instance: str, hold: Hold) -> None:
        """Remember what a person says of a room."""
        key = f"{self._prefix}holds:{instance}"
        async with self._redis.pipeline() as pipe:
            pipe.rpush(key, msgspec.json.encode(hold))
            pipe.ltrim(key, -HOLDS, -1)
            pipe.expire(key, LONGEST_HOLD + timedelta(days=1))
            await pipe.execute()

    async def release(self, instance: str) -> None:
        """Forget what people said of a room."""
        await self._redis.delete(f"{self._prefix}holds:{instance}")

    async def posted(self, instance: str, keys: Sequence[str]) -> dict[str, Posted]:
        """Return what is known of a room's messages, by their keys."""
        name = f"{self._prefix}posted:{instance}"
        rows = await cast("Awaitable[list[bytes | None]]", self._redis.hmget(name, list(keys)))
        known = zip(keys, rows, strict=True)
        return {k: msgspec.json.decode(row, type=Posted) for k, row in known if row is not None}

    async def save_posted(self, instance: str, key: str, posted: Posted) -> None:
        """Remember how far a message of a room is."""
        name = f"{self._prefix}posted:{instance}"
        await self._write(
            ("HSET", name, key, msgspec.json.encode(posted)),
            ("EXPIRE", name, int(POSTED_LIFE.total_seconds())),
        )

    async def forget_posted(self, instance: str, key: str) -> None:
        """Forget a message that nobody will ask for again."""
        await self._write(("HDEL", f"{self._prefix}posted:{instance}", key))

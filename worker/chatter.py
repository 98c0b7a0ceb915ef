"""What the receiver counted of a chat, and the alarm that it raises (keys: `webhooks.chat`).

Besides those, `pace:{channel}` is the State of the chat's controller as JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from webhooks.events import BUCKET
from worker.fence import Writer
from worker.memory.shelf import PAGE
from worker.policy import pace as law
from worker.policy.pace import SILENCE, Minute, Pace, Reading, State
from worker.subjects import milliseconds

_IN_MINUTE: Final = 60 // BUCKET
_IN_HOUR: Final = 3600 // BUCKET


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of a chat at one look: what was counted, its controller, its alarm."""

    reading: Reading = field(default_factory=Reading)
    state: State = field(default_factory=State)
    alarm: Mapping[bytes, bytes] = field(default_factory=dict)


class Chatter:
    """The counts and alarms of chats, by the id of their channel."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._write = Writer(redis).write

    async def heard(self, channel: str, now: datetime) -> Heard:
        """Return the last ten minutes of a chat, its controller and its alarm, in one round trip.

        The newest minute ends now and is up to ten seconds short: it never says too much.
        """
        last = int(now.timestamp()) // BUCKET
        windows = [range(last - i - _IN_MINUTE + 1, last - i + 1) for i in _starts(SILENCE)]
        hours = sorted({bucket // _IN_HOUR for window in windows for bucket in window})
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.get(f"{self._prefix}pace:{channel}")
            pipe.hgetall(f"{self._prefix}alarm:{channel}")
            for hour in hours:
                pipe.hgetall(self._counts(channel, hour))
            for window in windows:
                pipe.pfcount(*(self._senders(channel, bucket) for bucket in window))
            state, alarm, *answers = await pipe.execute()
        counts = dict(zip(hours, answers, strict=False))
        voices = [_sum(counts, window) for window in windows]
        minutes = tuple(map(Minute, voices, answers[len(hours) :]))
        return Heard(Reading(minutes), _state(state), alarm)

    async def reading(self, channel: str, now: datetime) -> Reading:
        """Return the last ten minutes, as the law wants them."""
        return (await self.heard(channel, now)).reading

    async def arm(
        self,
        channel: str,
        subject: str,
        pace: Pace,
        state: State,
        now: datetime,
        *,
        standing: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Have the receiver wake a subject, for the reason `busy`, once the chat is busy enough.

        An alarm that went off rests for a minute, or until it is set anew. One that is `standing`,
        wants just this and does not rest needs no setting.
        """
        wanted = law.alarm(pace, state, now)
        if wanted is None:
            await self.disarm(channel)
            return
        alarm = {"subject": subject, "voices": wanted.voices, "share": wanted.share}
        if standing and _stands(standing, alarm, milliseconds(now)):
            return
        alarm["since"] = milliseconds(wanted.since)
        words = [word for pair in alarm.items() for word in pair]
        await self._write(("HSET", f"{self._prefix}alarm:{channel}", *words))

    async def disarm(self, channel: str) -> None:
        """Have the receiver wake nobody for a chat."""
        await self._write(("DEL", f"{self._prefix}alarm:{channel}"))

    async def states(self, channels: Sequence[str]) -> dict[str, State]:
        """Return where the controllers of some chats stand; at its base where nobody said."""
        found: dict[str, State] = {}
        for n in range(0, len(channels), PAGE):
            some = channels[n : n + PAGE]
            rows: list[Any] = await self._redis.mget([f"{self._prefix}pace:{one}" for one in some])
            found |= zip(some, map(_state, rows), strict=True)
        return found

    async def save_state(self, channel: str, state: State) -> None:
        """Remember where the controller of a chat stands; nothing is kept of one at rest."""
        key = f"{self._prefix}pace:{channel}"
        if state == State():
            await self._write(("DEL", key))
        else:
            await self._write(("SET", key, msgspec.json.encode(state)))

    async def history(self, channel: str, since: datetime, now: datetime) -> dict[datetime, Minute]:
        """Return the minutes with a message, by their start, as far as they are recorded."""
        hours = range(int(since.timestamp()) // 3600, int(now.timestamp()) // 3600 + 1)
        async with self._redis.pipeline(transaction=False) as pipe:
            for hour in hours:
                pipe.hgetall(self._counts(channel, hour))
            answers: list[dict[bytes, bytes]] = await pipe.execute()
        found: dict[datetime, Minute] = {}
        for hour, counts in zip(hours, answers, strict=True):
            if counts:
                found |= _minutes(hour, counts)
        return {at: minute for at, minute in found.items() if since <= at <= now}

    def _counts(self, channel: str, hour: int) -> str:
        return f"{self._prefix}chat:{channel}:{hour}"

    def _senders(self, channel: str, bucket: int) -> str:
        return f"{self._prefix}senders:{channel}:{bucket}"


def _state(row: Any) -> State:
    return State() if row is None else msgspec.json.decode(row, type=State)


def _stands(alarm: Mapping[bytes, bytes], wanted: Mapping[str, object], now: int) -> bool:
    """Say whether an alarm as it is in Redis wants just this, and does not rest."""
    same = all(alarm.get(name.encode()) == str(value).encode() for name, value in wanted.items())
    return same and int(alarm.get(b"since", b"0")) <= now


def _starts(windows: int) -> range:
    return range(0, windows * _IN_MINUTE, _IN_MINUTE)


def _sum(counts: dict[int, dict[bytes, bytes]], window: Sequence[int]) -> int:
    fields = ((counts[bucket // _IN_HOUR], b"%d" % (bucket % _IN_HOUR)) for bucket in window)
    return sum(int(hour.get(field, 0)) for hour, field in fields)


def _minutes(hour: int, counts: dict[bytes, bytes]) -> dict[datetime, Minute]:
    """Return the minutes of an hour that have a message."""
    start = datetime.fromtimestamp(hour * 3600, UTC)
    found: dict[datetime, Minute] = {}
    for minute in range(60):
        messages = int(counts.get(b"m%d" % minute, 0))
        if messages:
            buckets = range(minute * _IN_MINUTE, (minute + 1) * _IN_MINUTE)
            voices = sum(int(counts.get(b"%d" % bucket, 0)) for bucket in buckets)
            senders = int(counts.get(b"s%d" % minute, 0))
            found[start + timedelta(minutes=minute)] = Minute(voices, senders, messages)
    return found

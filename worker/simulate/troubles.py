"""Troubles: Whop is away, the worker dies, a chat is raided, somebody changes a room by hand."""

import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from worker.policy.retry import LONGEST
from worker.sandbox.bodies import ChannelPatch
from worker.sandbox.faults import Failure
from worker.sandbox.records import Channel
from worker.sandbox.refusals import Refusal
from worker.sandbox.state import LocalWhop
from worker.simulate.agenda import Act, Agenda
from worker.simulate.crew import Crew
from worker.simulate.wire import Courier, Line

DAY: Final = timedelta(days=1)
HOUR: Final = timedelta(hours=1)
WATCHED: Final = timedelta(minutes=1)
"""After that at the latest the worker looks for edits: here only where there is one."""

FOR_EVER: Final = 10**9
RAID, RAIDERS, CROWD = 300, 25, 5
"""Messages of a raid, within one minute; the most members who write them, and the fewest."""

AFTERMATH: Final = LONGEST + timedelta(minutes=5)
"""How long after an outage a job may still wait for its next try."""

LONG_ENOUGH: Final = 5
"""Days that a simulation must have for a whole one of them to go without Whop."""

RECEIVER_AWAY: Final = 25.0
"""Seconds: less than it takes Whop to try again."""


@dataclass(slots=True)
class Excuses:
    """When Usher could not have known or acted, and who was there besides it.

    `edits` and `chats` tell, by channel, when a person last changed it and when somebody last
    wrote.
    """

    spans: list[tuple[datetime, datetime]] = field(default_factory=list)
    edits: dict[str, datetime] = field(default_factory=dict)
    chats: dict[str, datetime] = field(default_factory=dict)

    def stretch(self, at: datetime, pause: timedelta) -> datetime:
        """Return when a pause that began at an instant is over, not counting excused time."""
        over = at + pause
        for begin, end in sorted(self.spans):
            if begin <= over and end >= at:
                over = max(over, end + pause)
        return over


class Troubles:
    """Whatever goes wrong, at instants of its own."""

    def __init__(
        self,
        whop: LocalWhop,
        agenda: Agenda,
        rng: random.Random,
        *,
        crew: Crew,
        courier: Courier,
        line: Line,
    ) -> None:
        self._whop = whop
        self._agenda = agenda
        self._rng = rng
        self._crew = crew
        self._courier = courier
        self._line = line
        self._away = 0
        self.excuses = Excuses()
        self.outages: list[tuple[datetime, timedelta]] = []
        self.counts: Counter[str] = Counter()

    def brew(self, start: datetime, days: int) -> None:
        """Enter the troubles of so many days."""
        faults = self._whop.faults
        faults.duplicate, faults.reorder, faults.reorder_seconds = 0.02, 0.03, 20.0
        if self._rng.random() < 0.5:  # noqa: PLR2004 - half of the simulated Whops
            faults.ignore_idempotency = ["experiences.create", "messages.create"]
        if days >= LONG_ENOUGH:
            self._outage(start + DAY * days * self._rng.uniform(0.2, 0.7), DAY)
        for when in self._times(start, days, every=60):
            self._outage(when, HOUR * self._rng.uniform(0.1, 4))
        for when in self._times(start, days, every=60):
            self._agenda.at(when, self._raid)
        for when in self._times(start, days, every=30):
            self._agenda.at(when, self._edit)
        for when in self._times(start, days, every=60):
            self._agenda.at(when, self._absence)
        for when in self._times(start, days, every=10):
            self._agenda.at(when, self._restart)
        for when in self._times(start, days, every=10):
            self._agenda.at(when, self._hiccup)
        for when in self._times(start, days, every=30):
            self._agenda.at(when, self._receiver_restarts)

    def _times(self, start: datetime, days: int, *, every: int) -> list[datetime]:
        """Return instants over the days: one in each so many, and at least one."""
        return [start + DAY * days * self._rng.random() for _ in range(max(1, days // every))]

    # --- Whop

    def _outage(self, when: datetime, lasts: timedelta) -> None:
        failure = Failure(operation="*", status=503, times=FOR_EVER)
        silent = self._rng.random() < 0.5  # noqa: PLR2004 - half of the outages hold deliveries back

        def begin() -> None:
            self.excuses.spans.append((when, when + lasts + AFTERMATH))
            self.outages.append((when, lasts))
            self._whop.faults.failures.append(failure)
            self._pause(silent)

        def end() -> None:
            self._whop.faults.failures.remove(failure)
            self._pause(-silent)

        self._agenda.at(when, begin)
        self._agenda.at(when + lasts, end)

    def _pause(self, by: int) -> None:
        """Hold deliveries back while any silent outage lasts."""
        self._away += by
        self._whop.faults.deliveries_paused = self._away > 0

    def _hiccup(self) -> None:
        """Have a few calls fail, some of them after they took effect."""
        self.counts["failed calls"] += 1
        after, times = self._rng.random() < 0.5, self._rng.randint(1, 5)  # noqa: PLR2004 - half
        failure = Failure(operation="*", status=500, times=times, after=after)
        self._whop.faults.failures.append(failure)

    # --- Usher's processes

    def _restart(self) -> None:
        """Have the worker die at one of its next calls."""
        self._line.trip(self._rng.randint(1, 6), after=self._rng.random() < 0.5)  # noqa: PLR2004 - half

    def _absence(self) -> None:
        """Stop the worker for some hours."""
        now = self._whop.now()
        back = now + HOUR * self._rng.uniform(0.2, 9)
        self.counts["hours without a worker"] += round((back - now) / HOUR)
        self.excuses.spans.append((now, back))
        self._crew.leave(back)

    def _receiver_restarts(self) -> None:
        self.counts["restarts of the receiver"] += 1
        away = timedelta(seconds=self._rng.uniform(1, RECEIVER_AWAY))
        self._courier.away_until = self._whop.now() + away

    # --- people

    def _raid(self) -> None:
        """Have some members write all at once."""
        crowds = [(channel, self._crowd(channel)) for channel in self._channels()]
        crowds = [(channel, users) for channel, users in crowds if len(users) >= CROWD]
        if not crowds:
            return
        self.counts["raids"] += 1
        channel, users = self._rng.choice(crowds)
        raiders = self._rng.sample(users, min(RAIDERS, len(users)))
        for _ in range(RAID):
            when = self._whop.now() + timedelta(seconds=self._rng.uniform(0, 60))
            self._agenda.at(when, self._shout(self._rng.choice(raiders), channel))

    def _crowd(self, channel: Channel) -> list[str]:
        """Return the members who may write into a channel, the oldest first."""
        if channel.who_can_post != "everyone":
            return []
        room = self._whop.rooms.experience(channel.experience_id)
        users = [member.user_id for member in self._whop.tables.members.values()]
        may = self._whop.rooms.may_enter
        return [user for user in users if may(user, room) == "customer"]

    def _shout(self, user: str, channel: Channel) -> Act:
        def shout() -> None:
            with contextlib.suppress(Refusal):
                self._whop.rooms.say(user, channel.id, "spam")
                self.excuses.chats[channel.id] = self._whop.now()
                self.counts["messages of raids"] += 1

        return shout

    def _edit(self) -> None:
        """Change a channel by hand, as the seller may on Whop."""
        channels = self._channels()
        if not channels:
            return
        channel = self._rng.choice(channels)
        patches: list[dict[str, Any]] = [
            {"user_posts_cooldown_seconds": self._rng.randint(1, 300)},
            {"ban_media": not channel.ban_media},
            {"who_can_post": "everyone" if channel.who_can_post == "admins" else "admins"},
        ]
        self._whop.rooms.update_channel(channel.id, ChannelPatch(**self._rng.choice(patches)))
        now = self._whop.now()
        self.excuses.edits[channel.id] = now
        self._agenda.at(now + WATCHED, self._crew.look_round)
        self.counts["edits by hand"] += 1

    def _channels(self) -> list[Channel]:
        return list(self._whop.tables.channels.values())

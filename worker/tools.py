"""What a job works with, built once at the edge and handed in."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from webhooks.inbox import Inbox
from worker.brake import Brake
from worker.breaker import Breaker
from worker.calendars.refresh import Calendars
from worker.catchup import CatchUp
from worker.chatter import Chatter
from worker.leases import Leases
from worker.memory.places import Place
from worker.meters import Meters
from worker.roster import Roster
from worker.rules import Rules
from worker.sight import Sight
from worker.store import Store
from worker.strays import Strays
from worker.subjects import Subjects
from worker.whop.client import Whop
from worker.whop.quota import Rank


@dataclass(frozen=True)
class Tools:
    """The worker's dependencies. `places` spares a look into Redis for rooms that are ready.

    What it has is of one version, which is read with each member; others change rooms, too.
    `not_made` are rooms that the rules want and that are left out, with why.
    """

    rules: Rules
    whop: Whop
    store: Store
    subjects: Subjects
    inbox: Inbox
    leases: Leases
    roster: Roster
    calendars: Calendars
    chatter: Chatter
    breaker: Breaker
    brake: Brake
    sight: Sight
    catch_up: CatchUp
    strays: Strays
    meters: Meters
    clock: Callable[[], datetime]
    rng: random.Random
    places: dict[str, Place] = field(default_factory=dict)
    not_made: Mapping[str, str] = field(default_factory=dict)
    versions: list[int] = field(default_factory=lambda: [0])

    def keep_up(self) -> None:
        """Forget the places where Redis has newer ones by now, or none any more."""
        if self.versions != [self.store.places_version]:
            self.places.clear()
            self.versions[:] = [self.store.places_version]

    def in_background(self) -> "Tools":
        """Return the same tools, whose calls to Whop leave a fifth of the quota to others."""
        return replace(self, whop=self.whop.at(Rank.BACKGROUND))

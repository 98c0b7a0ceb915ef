"""What lies on the plan of a room for a while: a busy chat, an edit by hand, a person's word."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from worker.policy.phases import Phase
from worker.policy.settings import Settings, over


@dataclass(frozen=True, slots=True)
class Hold:
    """A person's word on a room; it beats everything else from `since` until `until`.

    `phase` has the room open or locked; `settings` are said outright; words are added to, or taken
    from, whatever would be banned.
    """

    since: datetime
    until: datetime
    who: str
    why: str = ""
    phase: Phase | None = None
    settings: Settings = field(default_factory=Settings)
    add_words: tuple[str, ...] = ()
    remove_words: tuple[str, ...] = ()

    def laid_on(self, settings: Settings) -> Settings:
        """Return settings with everything that the hold says in their place."""
        settings = over(settings, self.settings)
        if not (self.add_words or self.remove_words):
            return settings
        words = dict.fromkeys((*(settings.banned_words or ()), *self.add_words))
        return replace(
            settings, banned_words=tuple(word for word in words if word not in self.remove_words)
        )


@dataclass(frozen=True, slots=True)
class Edit:
    """A change by hand on Whop that is respected: until the room's next planned change, if any."""

    since: datetime
    until: datetime | None
    settings: Settings

    def holds_at(self, t: datetime) -> bool:
        """Say whether it is respected at an instant."""
        return self.until is None or t < self.until


@dataclass(frozen=True, slots=True)
class Overrides:
    """All that lies on the plan, in the order in which it is laid: `pace` tightens, the rest beats.

    Among holds the later beats the earlier, setting by setting.
    """

    pace: Settings = field(default_factory=Settings)
    edit: Edit | None = None
    holds: tuple[Hold, ...] = ()

    def holds_at(self, t: datetime) -> list[Hold]:
        """Return the holds of an instant, the earliest first."""
        return sorted((h for h in self.holds if h.since <= t < h.until), key=lambda h: h.since)

    def edges(self) -> list[datetime]:
        """Return every instant at which something of it begins or ends."""
        ends = [self.edit.since, self.edit.until] if self.edit else []
        ends += [t for hold in self.holds for t in (hold.since, hold.until)]
        return [t for t in ends if t is not None]


NOTHING = Overrides()

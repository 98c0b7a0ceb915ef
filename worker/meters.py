"""What Prometheus may ask a worker; every set of labels is closed."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from worker.policy.breaker import Phase

KINDS: Final = frozenset({"member", "membership", "payment", "room", "channel"})
OTHER: Final = "other"


class Meters:
    """Counts of one worker's work, and what it knows of the state of things."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        own = self.registry
        self._jobs = Counter(
            "usher_jobs",
            "Jobs by what they look at and by how they ended: done, later (it is tried again), "
            "held (Whop was down) or dead.",
            ["kind", "outcome"],
            registry=own,
        )
        self._calls = Counter(
            "usher_whop_calls", "Calls to Whop, answered or failed.", ["result"], registry=own
        )
        self._waits = Counter("usher_quota_waits", "Calls that waited for the quota.", registry=own)
        self._waited = Counter(
            "usher_quota_wait_seconds", "Seconds that calls waited for the quota.", registry=own
        )
        self._caught = Counter(
            "usher_caught_up_deliveries", "Deliveries that only Whop's log had.", registry=own
        )
        self._mended = Counter(
            "usher_mended_jobs", "Subjects whose job was lost and made anew.", registry=own
        )
        self._due = Gauge("usher_due", "Subjects that want a look now.", registry=own)
        self._late = Gauge(
            "usher_due_seconds", "Seconds for which the first of them has waited.", registry=own
        )
        self._dead = Gauge("usher_dead", "Subjects that were given up.", registry=own)
        self._breaker = Gauge(
            "usher_breaker", "The phase of the breaker: 1 for the one it is in.", ["phase"],
            registry=own,
        )  # fmt: skip
        self._failures = Gauge(
            "usher_webhook_failures", "Deliveries in a row that failed, by Whop's count.",
            registry=own,
        )  # fmt: skip
        self._enabled = Gauge(
            "usher_webhook_enabled", "1 while Whop delivers to our webhook, 0 if it does not.",
            registry=own,
        )  # fmt: skip
        self._lacking = Gauge(
            "usher_permission_lacking", "1 for each permission that the key lacks.",
            ["permission"], registry=own,
        )  # fmt: skip
        self._brakes = Gauge(
            "usher_brakes", "Rooms in which nobody is put out until a person decides.",
            registry=own,
        )  # fmt: skip
        self._blind = Gauge(
            "usher_blind", "Subjects that wait until the key may see members.", registry=own
        )

    def permissions(self, lacking: Iterable[str]) -> None:
        """Note which of the permissions that Usher asks for the key lacks."""
        self._lacking.clear()
        for one in lacking:
            self._lacking.labels(one).set(1)

    def brakes(self, rooms: int, blind: int) -> None:
        """Note how many rooms' brakes are on, and how many subjects wait to be seen again."""
        self._brakes.set(rooms)
        self._blind.set(blind)

    def ended(self, subject: str, outcome: str) -> None:
        """Count a job for a subject: it is done, later, held or dead."""
        kind = subject.partition(":")[0]
        self._jobs.labels(kind if kind in KINDS else OTHER, outcome).inc()

    def waited(self, seconds: float) -> None:
        """Count a call's wait for the quota; under a hundredth of a second it is none."""
        if seconds > 0.01:  # noqa: PLR2004 - a look into Redis takes that long
            self._waits.inc()
            self._waited.inc(seconds)

    def called(self, *, answered: bool) -> None:
        """Count a call to Whop."""
        self._calls.labels("answered" if answered else "failed").inc()

    def caught_up(self, deliveries: int) -> None:
        """Count what came in by Whop's log alone."""
        self._caught.inc(deliveries)

    def mended(self, subjects: int) -> None:
        """Count lost jobs that were made anew."""
        self._mended.inc(subjects)

    def backlog(self, due: int, first: datetime | None, dead: int, now: datetime) -> None:
        """Note how much waits, since when, and how much was given up."""
        self._due.set(due)
        self._late.set(max((now - first).total_seconds(), 0) if first else 0)
        self._dead.set(dead)

    def breaker(self, phase: Phase) -> None:
        """Note the phase of the breaker."""
        for one in Phase:
            self._breaker.labels(one.value).set(one is phase)

    def webhook(self, failures: int, *, enabled: bool) -> None:
        """Note how our webhook fares."""
        self._failures.set(failures)
        self._enabled.set(enabled)

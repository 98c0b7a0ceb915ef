"""What Prometheus may ask the receiver."""

from collections.abc import Iterator
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from webhooks.connections import Crowd, Reason
from webhooks.events import COUNTED, INTERESTING

UNREAD: Final = "unread"
"""The type of a delivery that was answered before anybody could trust what it says."""

_OTHER: Final = "other"
_NAMED: Final = INTERESTING | COUNTED | {UNREAD}
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Meters:
    """Counts and times of the receiver's answers; the label sets are closed, whatever is sent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._deliveries = Counter(
            "usher_deliveries",
            "Deliveries by their type and by the answer they were given.",
            ["type", "answer"],
            registry=registry,
        )
        self._forged = Counter(
            "usher_forged_deliveries",
            "Deliveries that nobody vouched for, by what was wrong with the signature.",
            ["reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "usher_acknowledge_seconds",
            "Seconds from a delivery's headers to the 2xx that acknowledges it.",
            buckets=_BUCKETS,
            registry=registry,
        )

    def answered(self, kind: str, answer: str) -> None:
        """Count an answer; a type that we do nothing with is counted as `other`."""
        label = kind if kind in _NAMED else _OTHER
        self._deliveries.labels(label, answer).inc()

    def forged(self, reason: str) -> None:
        """Count a delivery without a valid signature."""
        self._forged.labels(reason).inc()

    def acknowledged(self, seconds: float) -> None:
        """Time a 2xx. Refusals are left out: a flood of forgeries would flatter the figures."""
        self._seconds.observe(seconds)


class Connections(Collector):
    """The connections as they are when somebody asks, and those that were cut."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    def collect(self) -> Iterator[Metric]:
        """Return what Prometheus shows."""
        crowd = self._crowd
        now = GaugeMetricFamily(
            "usher_connections", "Connections by what they do.", labels=["state"]
        )
        for state in ("reading", "answering", "idle"):
            now.add_metric([state], len(getattr(crowd, state)))
        yield now
        cut = CounterMetricFamily(
            "usher_connections_cut", "Connections that were cut, by the reason.", labels=["reason"]
        )
        for reason in get_args(Reason):
            cut.add_metric([reason], crowd.cut[reason])
        yield cut

"""What can go wrong on request: the switches that make the local Whop a difficult one.

All of them can be set while it runs, in code (`whop.faults.drop = 0.1`) or by
`PATCH /sandbox/faults` with the same names.
"""

from typing import Annotated, Literal, TypeVar

import msgspec


class Failure(msgspec.Struct, kw_only=True):
    """The next `times` calls of an operation answer `status` instead.

    With `after` the call takes effect first, and only its answer is lost.
    """

    operation: str
    status: int = 503
    times: int = 1
    after: bool = False


class Emptied(msgspec.Struct, kw_only=True):
    """The next `times` answers of a list have no rows, as if there were nothing."""

    operation: str
    times: int = 1


class Shape(msgspec.Struct, kw_only=True):
    """The next `times` answers of an operation are 200 and not what a client needs.

    `kind` is html, empty, list, null_error, missing (a `field` is left out) or wrong_type (a
    `field` has a number or a text in its stead). A field of a list is one of its first row.
    """

    operation: str
    kind: Literal["html", "empty", "list", "null_error", "missing", "wrong_type"]
    field: str = "id"
    times: int = 1


class RateLimit(msgspec.Struct, kw_only=True):
    """So many calls per operation and key, in any window of so many seconds."""

    count: int = 600
    seconds: float = 60.0


S = TypeVar("S", Emptied, Shape)


class Faults(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The switches; as they stand by default, nothing is wrong.

    `drop`, `duplicate` and `reorder` are probabilities for each message. A dropped one is never
    sent; a reordered one is held back for up to `reorder_seconds`, so that later ones overtake it.
    `ignore_idempotency` names operations that take no notice of an Idempotency-Key, because Whop
    does not say that its older endpoints (experiences, messages) honour one.

    `unavailable` are operations that the account may not use ("This endpoint is not available for
    your account."), `gone` those that are not there any more (404). `emptied` lists have no rows,
    `endless_lists` repeat their cursor for ever, and `stale_lists_seconds` is how far the lists of
    memberships and payments are behind. With `create_takes_metadata` off, POST /memberships drops
    it. `payment_readable_after_seconds` is how long a new payment is 404. `stock_means` says what a
    plan's stock is: what is `left`, lessened by each purchase, or the `total` that is ever sold.

    `retry_clock` is how many times faster than Whop's own the clock runs by which a failed delivery
    is tried again, and by which a webhook that fails is disabled: at 600, the 71 hours of the
    twelve tries are seven minutes.
    """

    latency_seconds: float = 0.0
    failures: list[Failure] = []
    rate_limit: RateLimit = msgspec.field(default_factory=RateLimit)
    ignore_idempotency: list[str] = []
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_seconds: float = 1.0
    deliveries_paused: bool = False
    unavailable: list[str] = []
    gone: list[str] = []
    emptied: list[Emptied] = []
    endless_lists: list[str] = []
    stale_lists_seconds: float = 0.0
    shapes: list[Shape] = []
    create_takes_metadata: bool = True
    payment_readable_after_seconds: float = 0.0
    stock_means: Literal["left", "total"] = "left"
    retry_clock: Annotated[float, msgspec.Meta(gt=0)] = 1.0

    def misshape(self, operation: str) -> Shape | None:
        """Return the shape that this answer must have, and count it."""
        return self._next(self.shapes, operation)

    def empty(self, operation: str) -> bool:
        """Say whether this list must be empty, and count it."""
        return self._next(self.emptied, operation) is not None

    @staticmethod
    def _next(wanted: list[S], operation: str) -> S | None:
        for one in wanted:
            if one.operation in (operation, "*"):
                one.times -= 1
                if one.times <= 0:
                    wanted.remove(one)
                return one
        return None

    def fail(self, operation: str, *, after: bool) -> int | None:
        """Return the status that this call must fail with, and count it; None lets it pass."""
        for failure in self.failures:
            if failure.operation in (operation, "*") and failure.after is after:
                self._count(failure)
                return failure.status
        return None

    def _count(self, failure: Failure) -> None:
        failure.times -= 1
        if failure.times <= 0:
            self.failures.remove(failure)

    def change(self, patch: bytes) -> None:
        """Take over the switches that a JSON object names.

        Raises:
            msgspec.ValidationError: a switch is unknown or has a value of the wrong type.
        """
        wanted = msgspec.json.decode(patch, type=dict[str, msgspec.Raw])
        whole = {name: msgspec.Raw(msgspec.json.encode(getattr(self, name))) for name in FIELDS}
        changed = msgspec.json.decode(msgspec.json.encode(whole | wanted), type=Faults)
        for name in wanted:
            setattr(self, name, getattr(changed, name))


FIELDS = Faults.__struct_fields__

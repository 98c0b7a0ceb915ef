"""Which membership is cancelled because its money went back."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from test_policy_access import COURSE as ROOM

from worker.policy.refunds import Cancel, Stays, judge
from worker.policy.rooms import Room

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
MONTH = timedelta(days=30)


@dataclass(frozen=True)
class Paid:
    id: str
    substatus: str | None
    created_at: datetime | None = NOW
    membership: str | None = "mem_1"


@dataclass(frozen=True)
class Bought:
    id: str = "mem_1"
    status: str = "completed"
    product: str | None = "prod_course"
    period_start: datetime | None = None


BOTH = replace(ROOM, on_refund="cancel", on_dispute="cancel")


def judged(*payments: Paid, room: Room = BOTH, bought: Bought | None = None) -> object:
    return judge([room], bought or Bought(), payments)


@pytest.mark.parametrize(
    ("substatus", "refund", "dispute"),
    [
        ("succeeded", False, False),
        ("partially_refunded", False, False),
        ("refunded", True, False),
        ("auto_refunded", True, False),
        ("open_dispute", False, False),
        ("dispute_needs_response", False, False),
        ("dispute_warning_needs_response", False, False),
        ("dispute_under_review", False, False),
        ("dispute_warning_under_review", False, False),
        ("dispute_warning_closed", False, False),
        ("dispute_won", False, False),
        ("dispute_lost", False, True),
        ("dispute_prevented", False, True),
        ("something_new", False, False),
        (None, False, False),
    ],
)
def test_only_a_full_refund_or_a_lost_dispute_ends_a_membership(substatus, refund, dispute):
    on_refund = replace(ROOM, on_refund="cancel")
    on_dispute = replace(ROOM, on_dispute="cancel")
    paid = Paid("pay_1", substatus)
    assert isinstance(judged(paid, room=on_refund), Cancel) is refund
    assert isinstance(judged(paid, room=on_dispute), Cancel) is dispute
    assert isinstance(judged(paid), Cancel) is (refund or dispute)


@pytest.mark.parametrize("word", [None, "revoke", "keep"])
def test_without_the_sellers_word_no_paid_membership_is_touched(word):
    room = replace(ROOM, on_refund=word, on_dispute=word)
    assert judged(Paid("pay_1", "refunded"), room=room) is None
    assert judged(Paid("pay_1", "refunded"), bought=Bought(product="prod_other")) is None


@pytest.mark.parametrize("status", ["canceled", "expired", "drafted", "unresolved", "unheard_of"])
def test_what_does_not_run_is_not_cancelled(status):
    assert judged(Paid("pay_1", "refunded"), bought=Bought(status=status)) is None


def test_an_old_month_paid_back_does_not_end_this_one():
    march = Paid("pay_3", "succeeded", NOW)
    february = Paid("pay_2", "refunded", NOW - MONTH)
    running = Bought(status="active", period_start=NOW)
    assert judged(february, march, bought=running) == Stays(
        "mem_1", "its latest payment pay_3 is succeeded"
    )
    # Also where Whop's list is behind, and does not show March yet.
    alone = judged(february, bought=running)
    assert isinstance(alone, Stays)
    assert "for a period that is over" in alone.why
    both = judged(february, replace(march, substatus="refunded"), bought=running)
    assert isinstance(both, Cancel)
    assert both.payment == "pay_3"


def test_a_renewal_that_failed_is_no_later_payment():
    failed = Paid("pay_3", "past_due", NOW)
    february = Paid("pay_2", "refunded", NOW - MONTH)
    assert isinstance(judged(february, failed), Cancel)
    assert isinstance(judged(february, replace(failed, substatus="pending")), Stays)


def test_in_doubt_about_the_latest_payment_nothing_ends():
    back, other = Paid("pay_1", "refunded"), Paid("pay_2", "succeeded")
    assert isinstance(judged(back, other), Stays)
    assert isinstance(judged(other, back), Stays)
    assert isinstance(judged(back, replace(other, created_at=None)), Stays)
    assert isinstance(judged(replace(back, membership=None)), Stays)
    assert isinstance(judged(replace(back, membership="mem_2")), Stays)
    assert isinstance(judged(), Stays)

"""Who should be in which room: the table over all statuses, and what follows from it."""

import itertools
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from worker.policy import retry
from worker.policy.access import (
    PATIENCE,
    Adopt,
    Facts,
    Give,
    Grant,
    Report,
    Take,
    access,
    decide,
    entitlement,
)
from worker.policy.news import Seen, is_news
from worker.policy.rooms import Cohorts, Room, calendar_cohort, title
from worker.policy.schedule import Schedule

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=90)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Held:
    """A membership, as far as policy looks at it."""

    id: str = "mem_1"
    status: str = "active"
    product: str | None = "prod_course"
    plan: str | None = "plan_paid"
    created_at: datetime | None = LONG_AGO
    period_end: datetime | None = None


COURSE = Room(
    key="course",
    name="Course {cohort}",
    products=("prod_course", "prod_bundle"),
    schedule=Schedule(ZoneInfo("America/New_York")),
    cohort=Cohorts("seats", 50),
)
GRANT = Grant("1", "prod_hidden", "plan_free", LONG_AGO, "mem_grant")
GRANTED = Held("mem_grant", "completed", "prod_hidden", "plan_free")
FACTS = Facts(grants={"course": GRANT})

TABLE = {
    "active": True,
    "trialing": True,
    "completed": True,  # a one-time purchase keeps access
    "canceling": True,  # until the period ends
    "past_due": True,  # for the grace
    "canceled": False,
    "expired": False,
    "unresolved": False,
    "drafted": False,
    "something_new": None,  # changes nothing and is reported
}


@pytest.mark.parametrize(("status", "holds"), TABLE.items())
def test_each_status_gives_access_or_does_not(status, holds):
    assert entitlement(Held(status=status), COURSE, Facts(), NOW).holds is holds


@pytest.mark.parametrize(("status", "holds"), TABLE.items())
def test_a_purchase_without_a_grant_is_given_one_and_a_grant_without_a_purchase_is_taken(
    status, holds
):
    bought = Held(status=status)
    without = decide([COURSE], [bought], Facts(), NOW)
    within = decide([COURSE], [bought, GRANTED], FACTS, NOW)
    if holds is None:
        assert without.actions == within.actions == ()
        assert [r.code for r in (*without.reports, *within.reports)] == ["status.unknown"] * 2
    else:
        assert [type(a) for a in without.actions] == ([Give] if holds else [])
        assert [type(a) for a in within.actions] == ([] if holds else [Take])


def test_the_last_purchase_that_opens_a_room_keeps_it_open():
    ended, running = Held("mem_1", "canceled"), Held("mem_2", "active", "prod_bundle")
    assert decide([COURSE], [ended, running, GRANTED], FACTS, NOW).actions == ()
    both = [ended, replace(running, status="expired"), GRANTED]
    (take,) = decide([COURSE], both, FACTS, NOW).actions
    assert (take.room, take.membership) == (COURSE, "mem_grant")
    assert "mem_1 is canceled" in take.why
    assert "mem_2 is expired" in take.why


def test_an_unknown_status_beside_a_known_one_that_opens_the_room_changes_nothing():
    unknown, running = Held("mem_1", "something_new"), Held("mem_2", "active")
    assert access(COURSE, [unknown, running], Facts(), NOW).holds is True


@pytest.mark.parametrize(
    ("first_seen", "period_end", "holds"),
    [
        (None, None, True),
        (NOW - 2 * DAY, None, True),
        (NOW - 3 * DAY, None, False),  # the default grace is three days, and half open
        (NOW, NOW - 4 * DAY, False),  # the period's end is older than our first sight of it
        (NOW - 4 * DAY, NOW - 2 * DAY, False),
        (NOW - 2 * DAY, NOW + 9 * DAY, True),
    ],
)
def test_past_due_keeps_access_for_the_grace(first_seen, period_end, holds):
    facts = Facts(past_due={"mem_1": first_seen} if first_seen else {})
    held = Held(status="past_due", period_end=period_end)
    found = entitlement(held, COURSE, facts, NOW)
    assert found.holds is holds
    assert (found.look_again is not None) is holds


def test_the_end_of_the_grace_is_when_to_look_again():
    facts = Facts(past_due={"mem_1": NOW - DAY})
    decision = decide([COURSE], [Held(status="past_due")], facts, NOW)
    assert decision.look_again == NOW + 2 * DAY


def test_canceling_is_looked_at_again_at_its_periods_end_and_hourly_after():
    coming = decide([COURSE], [Held(status="canceling", period_end=NOW + DAY)], Facts(), NOW)
    late = Held(status="canceling", period_end=NOW - timedelta(hours=2))
    assert coming.look_again == NOW + DAY
    assert decide([COURSE], [late], Facts(), NOW).look_again == NOW + timedelta(hours=1)


@pytest.mark.parametrize("kind", ["refund", "dispute"])
@pytest.mark.parametrize(
    ("rule", "status", "holds"),
    [
        (None, "active", True),
        (None, "canceled", False),
        ("revoke", "active", False),
        ("keep", "canceled", True),
    ],
)
def test_a_refund_or_dispute_does_what_the_rules_say(kind, rule, status, holds):
    room = replace(COURSE, **{f"on_{kind}": rule})
    facts = Facts(**{{"refund": "refunded", "dispute": "disputed"}[kind]: frozenset({"mem_1"})})
    assert entitlement(Held(status=status), room, facts, NOW).holds is holds


def test_a_team_member_is_never_counted_as_a_buyer():
    assert decide([COURSE], [Held()], Facts(team=True), NOW).actions == ()


def test_a_room_that_the_purchase_itself_opens_needs_no_grant():
    lounge = replace(COURSE, key="lounge", cohort=None)
    assert decide([lounge], [Held()], Facts(), NOW).actions == ()


def test_a_membership_that_somebody_paid_for_is_never_taken():
    paid = [Held("mem_1", "canceled"), Held("mem_2", "active", "prod_other")]
    assert decide([COURSE], [*paid, GRANTED], FACTS, NOW).actions == (
        Take(COURSE, "mem_grant", "mem_1 is canceled"),
    )
    assert decide([COURSE], paid, Facts(), NOW).actions == ()


def test_a_stranger_on_our_hidden_product_without_a_grant_of_ours_is_left_alone():
    assert decide([COURSE], [GRANTED], Facts(), NOW).actions == ()


def test_a_grant_that_a_crash_left_half_done_is_found_again():
    intended = replace(GRANT, membership=None)
    facts = Facts(grants={"course": intended})
    assert decide([COURSE], [Held(), GRANTED], facts, NOW).actions == (Adopt(COURSE, "mem_grant"),)
    (give,) = decide([COURSE], [Held()], facts, NOW).actions
    assert isinstance(give, Give)
    assert not give.again


def test_an_invitation_stands_until_it_is_accepted_or_in_vain():
    facts = Facts(grants={"course": replace(GRANT, membership=None, invited=True)})
    assert decide([COURSE], [Held()], facts, NOW).actions == ()
    assert decide([COURSE], [Held(), GRANTED], facts, NOW).actions == (Adopt(COURSE, "mem_grant"),)
    too_late = decide([COURSE], [Held(status="canceled"), GRANTED], facts, NOW)
    assert [type(action) for action in too_late.actions] == [Take]


def test_a_grant_that_was_taken_back_is_given_anew_to_who_buys_again():
    facts = Facts(grants={"course": replace(GRANT, taken=True)})
    ended = replace(GRANTED, status="canceled")
    (give,) = decide([COURSE], [Held(), ended], facts, NOW).actions
    assert (type(give), give.again) == (Give, False)
    assert decide([COURSE], [Held(status="canceled"), ended], facts, NOW).actions == ()


def test_a_grant_that_somebody_ended_is_given_again_but_not_for_ever():
    ended = replace(GRANTED, status="canceled")
    (give,) = decide([COURSE], [Held(), ended], FACTS, NOW).actions
    assert give.again
    weary = Facts(grants={"course": replace(GRANT, lost=PATIENCE)})
    decision = decide([COURSE], [Held(), ended], weary, NOW)
    assert decision.actions == ()
    assert [report.code for report in decision.reports] == ["grant.contested"]


def test_a_grant_just_given_may_be_missing_from_whops_lists_for_a_while():
    fresh = Facts(grants={"course": replace(GRANT, since=NOW - timedelta(minutes=1))})
    assert decide([COURSE], [Held()], fresh, NOW).actions == ()
    assert [type(a) for a in decide([COURSE], [Held()], FACTS, NOW).actions] == [Give]


held = st.builds(
    Held,
    st.sampled_from(["mem_1", "mem_2", "mem_3"]),
    st.sampled_from(list(TABLE)),
    st.sampled_from(["prod_course", "prod_bundle", "prod_other", None]),
    st.just("plan_paid"),
    st.none() | st.just(LONG_AGO) | st.just(NOW - DAY),
    st.none() | st.just(NOW + DAY) | st.just(NOW - DAY),
)


@examples(max_examples=40)
@given(st.lists(held, max_size=3, unique_by=lambda m: m.id), st.booleans())
def test_the_order_of_memberships_decides_nothing(memberships, granted):
    facts = FACTS if granted else Facts()
    each = [
        decide([COURSE], [*order, GRANTED] if granted else list(order), facts, NOW)
        for order in itertools.permutations(memberships)
    ]
    kinds = {tuple((type(a), getattr(a, "bought", None)) for a in d.actions) for d in each}
    assert len(kinds) == 1
    assert len({d.look_again for d in each}) == 1


@pytest.mark.parametrize(
    ("by", "bought", "cohort", "name"),
    [
        ("month", datetime(2026, 12, 1, 4, 59, tzinfo=UTC), "2026-11", "Course November 2026"),
        ("month", datetime(2026, 12, 1, 5, 0, tzinfo=UTC), "2026-12", "Course December 2026"),
        ("week", datetime(2027, 1, 3, 12, tzinfo=UTC), "2026-W53", "Course week 53 of 2026"),
        ("week", datetime(2027, 1, 4, 12, tzinfo=UTC), "2027-W01", "Course week 1 of 2027"),
        ("seats", NOW, None, None),
    ],
)
def test_the_date_of_a_purchase_in_the_rooms_zone_names_its_cohort(by, bought, cohort, name):
    found = calendar_cohort(Cohorts(by), bought, ZoneInfo("America/New_York"))
    assert found == cohort
    assert name is None or title(COURSE, found) == name


@dataclass(frozen=True)
class Hint:
    type: str
    membership: str | None = "mem_1"
    product: str | None = "prod_course"
    status: str | None = "active"
    updated_at: datetime | None = NOW
    plan: str | None = "plan_paid"


SEEN = {"mem_1": Seen("active", "prod_course", NOW, "plan_paid")}


@pytest.mark.parametrize(
    ("hint", "news"),
    [
        (Hint("membership.activated"), False),
        (Hint("membership.updated"), False),
        (Hint("membership.updated", updated_at=NOW - DAY), False),
        (Hint("membership.updated", updated_at=NOW + DAY), True),
        (Hint("membership.updated", updated_at=None), True),
        (Hint("membership.deactivated", status="canceled"), True),
        (Hint("membership.activated", membership="mem_2"), True),
        (Hint("membership.updated", product="prod_other"), True),
        (Hint("membership.updated", plan="plan_other"), True),
        (Hint("membership.updated", product=None, plan=None), False),
        (Hint("payment.succeeded", status="paid"), False),
        (Hint("payment.succeeded", membership="mem_2"), True),
        (Hint("payment.succeeded", membership=None), False),
        (Hint("payment.succeeded", membership=None, product="prod_other"), True),
        (Hint("payment.failed"), True),
        (Hint("refund.created"), True),
        (Hint("dispute.updated"), True),
    ],
)
def test_a_delivery_that_tells_what_was_seen_is_no_news(hint, news):
    assert is_news(hint, SEEN) is news


def test_a_report_names_the_room_and_the_status():
    (report,) = decide([COURSE], [Held(status="odd")], Facts(), NOW).reports
    assert report == Report(
        "status.unknown",
        "room course: mem_1 has the status 'odd', which Usher does not know; nothing was changed",
    )


def test_retries_go_on_for_more_than_a_day_with_growing_pauses():
    first, rng, tries = NOW, random.Random(1), 1
    now, pauses = first, []
    while not retry.gives_up(first, now):
        pauses.append(retry.pause(tries, rng))
        now, tries = now + pauses[-1], tries + 1
    assert now - first >= DAY
    assert tries < retry.MOST
    assert pauses[0] < timedelta(seconds=2) < pauses[4] < timedelta(minutes=1) < pauses[10]
    assert max(pauses) <= retry.LONGEST


def test_a_plan_that_the_seller_sells_on_a_hidden_product_is_never_ours():
    paid = replace(GRANTED, id="mem_paid", plan="plan_by_hand", status="active")
    intended = Facts(grants={"course": replace(GRANT, membership=None)})
    (give,) = decide([COURSE], [Held(), paid], intended, NOW).actions
    assert isinstance(give, Give)
    assert decide([COURSE], [Held(status="canceled"), paid], intended, NOW).actions == ()

"""What is ours where no record is left, and what is wrong with a member; pure."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from worker.policy.access import Facts, Grant, Hidden
from worker.policy.differences import Cure, Kind, found_grant, of_member, young
from worker.policy.marks import mark
from worker.policy.rooms import Cohorts, Room
from worker.policy.schedule import Schedule

NOW = datetime(2026, 12, 3, 12, tzinfo=UTC)
DAY = timedelta(days=1)
COURSE = Room(
    "course",
    "Course",
    ("prod_course",),
    Schedule(ZoneInfo("UTC")),
    cohort=Cohorts("seats", 3),
)
HIDDEN = {
    "prod_1": Hidden("course", "1", "prod_1", "plan_1"),
    "prod_2": Hidden("course", "2", "prod_2", "plan_2"),
    "prod_club": Hidden("club", "1", "prod_club", "plan_club"),
}


@dataclass
class Row:
    id: str = "mem_bought"
    status: str = "completed"
    product: str | None = "prod_course"
    plan: str | None = "plan_sold"
    created_at: datetime | None = NOW - 10 * DAY
    updated_at: datetime | None = NOW - 5 * DAY
    period_end: datetime | None = None
    canceled_at: datetime | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def on(cohort, id_="mem_ours", *, status="completed", ago=9 * DAY, plan=None):
    return Row(id_, status, f"prod_{cohort}", plan or f"plan_{cohort}", NOW - ago)


def marked(row, account="biz_a"):
    return replace(row, metadata=mark(account, "course", "1") | {"theirs": "1"})


ENDED = Row(status="canceled", updated_at=NOW - 5 * DAY)


@pytest.mark.parametrize(
    ("rows", "cohort", "taken"),
    [
        pytest.param([Row(), on(1)], "1", False, id="given after the purchase"),
        pytest.param([ENDED, on(1)], "1", False, id="given while the purchase ran"),
        pytest.param([ENDED, on(1, status="canceled")], "1", True, id="ended, and the seat stays"),
        pytest.param([on(2), on(1, "mem_b", ago=8 * DAY), Row()], "2", False, id="the first"),
        pytest.param(
            [Row(), on(1, status="canceled"), on(2, "mem_b", ago=2 * DAY)],
            "2",
            False,
            id="the one that holds",
        ),
        pytest.param([on(1)], None, None, id="without a purchase it is a guest's"),
        pytest.param([Row(), on(1, ago=11 * DAY)], None, None, id="before the purchase"),
        pytest.param([ENDED, on(1, ago=DAY)], None, None, id="after the purchase's end"),
        pytest.param([Row(), on(1, plan="plan_else")], None, None, id="on a plan of the seller's"),
        pytest.param([Row(), on("club")], None, None, id="another room's"),
        pytest.param([marked(on(1))], "1", False, id="marked, without a purchase"),
        pytest.param([marked(on(2))], None, None, id="with the mark of another cohort"),
        pytest.param([marked(on(1), "biz_b")], None, None, id="with another account's mark"),
        pytest.param([Row()], None, None, id="none"),
    ],
)
def test_a_grant_is_known_again_by_the_purchase_that_called_for_it(rows, cohort, taken):
    grant = found_grant(COURSE, HIDDEN, rows, "biz_a")
    assert (grant and grant.cohort, grant and grant.taken) == (cohort, taken)
    again = found_grant(COURSE, HIDDEN, rows[::-1], "biz_a")
    assert again == grant


GRANT = Grant("1", "prod_1", "plan_1", NOW - 9 * DAY, "mem_ours")
HELD = Facts(grants={"course": GRANT})
WHOLE = frozenset({"course"})


@pytest.mark.parametrize(
    ("rows", "facts", "recalled", "expected"),
    [
        ([Row(), on(1)], HELD, WHOLE, []),
        ([Row()], Facts(), WHOLE, [(Kind.SHUT_OUT, Cure.CONVERGE)]),
        ([Row()], HELD, WHOLE, [(Kind.SHUT_OUT, Cure.CONVERGE)]),
        ([ENDED, on(1)], HELD, WHOLE, [(Kind.LET_IN, Cure.CONVERGE)]),
        ([ENDED], HELD, WHOLE, [(Kind.GONE, Cure.CONVERGE)]),
        ([Row(), on(1)], Facts(), WHOLE, [(Kind.UNRECORDED, Cure.CONVERGE)]),
        ([Row(), on(1)], Facts(), frozenset(), [(Kind.UNRECORDED, Cure.RECALL)]),
        ([ENDED, on(1)], Facts(), frozenset(), [(Kind.UNRECORDED, Cure.RECALL)]),
        ([ENDED, on(1)], Facts(), WHOLE, [(Kind.NOT_OURS, Cure.PERSON)]),
        ([on(1)], Facts(), frozenset(), [(Kind.NOT_OURS, Cure.PERSON)]),
        ([Row(), on(1), on(2, "mem_b")], HELD, WHOLE, [(Kind.NOT_OURS, Cure.PERSON)]),
        ([Row(status="odd")], Facts(), WHOLE, [(Kind.UNDECIDED, Cure.PERSON)]),
        ([on(1)], Facts(team=True), WHOLE, []),
        ([on(1, status="canceled")], Facts(), WHOLE, []),
    ],
)
def test_what_is_wrong_has_a_kind_and_a_cure(rows, facts, recalled, expected):
    wrong = of_member(
        "user_a",
        [COURSE],
        rows,
        facts,
        hidden=HIDDEN,
        recalled=recalled,
        now=NOW,
        account="biz_a",
        refused={},
    )
    assert [(one.kind, one.cure) for one in wrong] == expected
    assert all(one.subject == "member:user_a" and one.why for one in wrong)


def test_news_is_young_for_two_minutes():
    assert young([Row(updated_at=NOW - timedelta(seconds=119))], NOW)
    assert not young([Row(updated_at=NOW - timedelta(seconds=120)), Row(updated_at=None)], NOW)

"""When a seat may be ended that no delivery and no date explains."""

from datetime import UTC, datetime, timedelta

import pytest

from worker.policy.brake import SECOND_LOOK, Word, judge, too_many

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
LATER = NOW + SECOND_LOOK


def judged(**changes):
    usual = {"takes": 1, "members": 100, "first": NOW, "now": LATER, "word": None}
    return judge(**{**usual, "engaged": False, "agreed": False, **changes})


@pytest.mark.parametrize(
    ("takes", "members", "brakes"),
    [
        (5, 5, False),
        (6, 6, True),
        (6, 119, True),
        (6, 120, False),
        (7, 120, True),
        (50, 1000, False),
        (51, 1000, True),
    ],
)
def test_more_than_five_and_more_than_a_twentieth_is_too_many(takes, members, brakes):
    assert too_many(takes, members) is brakes


def test_a_take_that_nothing_explains_waits_for_a_second_look():
    first = judged(now=NOW)
    assert (first.go, first.look_again) == (False, LATER)
    assert judged().go
    assert judged(now=NOW, agreed=True).go


def test_many_at_once_wait_for_a_person_even_where_a_second_look_agrees():
    many = judged(takes=6, members=10)
    assert (many.go, many.brakes, many.look_again) == (False, True, None)
    assert not judged(takes=6, members=10, agreed=True).go
    assert not judged(engaged=True).go


def test_a_persons_word_decides():
    assert judged(word=Word.RELEASED, engaged=True, takes=99).go
    assert not judged(word=Word.REFUSED, takes=1, agreed=True).go
    assert judged(now=NOW + timedelta(seconds=1), word=Word.RELEASED).go

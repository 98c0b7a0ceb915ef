"""What is proposed for a busy chat, from recorded minutes."""

import random
import tomllib
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from worker.policy.pace import Minute, Pace
from worker.policy.survey import Busiest, Rates, propose, render, replay

NEW_YORK = ZoneInfo("America/New_York")
MONDAY = datetime(2026, 11, 2, tzinfo=UTC)
NOW = MONDAY + timedelta(days=14)
MINUTE = timedelta(minutes=1)


def fortnight(seed: int = 1) -> dict[datetime, Minute]:
    """Return two weeks of evenings, with a rush each Thursday from 20:00 in New York."""
    rng = random.Random(seed)
    found: dict[datetime, Minute] = {}
    for day in range(13):
        evening = MONDAY + timedelta(days=day, hours=23)
        for n in range(180):
            if rng.random() < 0.6:
                found[evening + n * MINUTE] = minute(rng.randint(1, 8))
    for week in range(2):
        thursday = MONDAY + timedelta(days=4 + 7 * week, hours=1)  # 20:00 of Thursday there
        for n in range(10):
            found[thursday + n * MINUTE] = minute(rng.randint(80, 120))
    return found


def minute(voices: int) -> Minute:
    return Minute(voices, voices, 2 * voices)


def test_the_figures_are_those_of_the_minutes():
    history = {MONDAY + n * MINUTE: minute(n + 1) for n in range(100)}
    proposal = propose(history, NEW_YORK, MONDAY + timedelta(hours=3))
    assert proposal.rates == Rates(50, 90, 99, 100)
    assert proposal.minutes == 100
    # 00:00 to 01:40 in UTC is 19:00 to 20:40 of Sunday in New York
    assert proposal.busiest == Busiest(6, 20, sum(range(61, 101)) / 60)


def test_an_evening_chat_with_a_weekly_rush_gets_slow_in_the_rush_only():
    proposal = propose(fortnight(), NEW_YORK, NOW)
    assert proposal.busiest is not None
    assert (proposal.busiest.weekday, proposal.busiest.hour) == (3, 20)
    assert proposal.pace is not None
    before = 0
    for at, level in replay(proposal.pace, fortnight()):
        rush = at.astimezone(NEW_YORK).replace(hour=20, minute=0)
        assert at.astimezone(NEW_YORK).weekday() == 3
        assert level < before or rush < at <= rush + 10 * MINUTE
        before = level
    assert all(taken.times for taken in proposal.taken[:3])


def test_the_ceiling_is_where_the_crowd_that_was_seen_is_no_longer_busy():
    history = fortnight()
    history[MONDAY + 5 * MINUTE] = Minute(400, 390, 500)
    pace = propose(history, NEW_YORK, NOW).pace
    assert pace is not None
    assert 390 * 60 / pace.steps[-1] <= pace.busy


def test_an_even_chat_would_hardly_ever_change():
    rng = random.Random(3)
    history = {MONDAY + n * MINUTE: minute(rng.randint(15, 25)) for n in range(5000)}
    assert propose(history, NEW_YORK, NOW).changes == 0


def test_too_little_is_said_to_be_too_little():
    history = {MONDAY + n * MINUTE: minute(3) for n in range(59)}
    proposal = propose(history, NEW_YORK, NOW)
    assert proposal.pace is None
    assert render("lounge", proposal) == [
        "lounge: 59 minutes with messages in 14 days, since 2026-11-02 00:00 UTC",
        "That is too little to propose numbers from: it takes 60. Ask again later.",
    ]
    history[MONDAY + timedelta(hours=2)] = minute(3)
    assert propose(history, NEW_YORK, NOW).pace is not None


def test_where_nothing_was_counted_the_webhook_is_asked_about():
    text = "\n".join(render("lounge", propose({}, NEW_YORK, NOW)))
    assert "no message was counted" in text
    assert "chat.message.created" in text


def test_the_last_lines_are_toml_that_says_the_proposal():
    proposal = propose(fortnight(), NEW_YORK, NOW)
    lines = render("lounge", proposal)
    assert proposal.pace is not None
    table = tomllib.loads("\n".join(lines[lines.index("Into the rules:") + 1 :]))
    slow = table["rooms"]["lounge"]["slow"]
    assert Pace(**{**slow, "steps": tuple(slow["steps"])}) == proposal.pace
    text = "\n".join(lines)
    assert "Thursday 20:00" in text
    assert f"changed {proposal.changes} times" in text


@examples(max_examples=40)
@given(
    st.dictionaries(
        st.integers(0, 20_000), st.tuples(st.integers(1, 3000), st.integers(1, 900)), max_size=200
    )
)
def test_a_proposal_is_one_that_the_law_can_live_with(rows):
    history = {MONDAY + n * MINUTE: Minute(v, min(v, s), v) for n, (v, s) in rows.items()}
    proposal = propose(history, NEW_YORK, NOW)
    assert (proposal.pace is None) == (len(history) < 60)
    assert render("lounge", proposal)
    if proposal.pace and proposal.rates:
        assert proposal.rates.half < proposal.pace.quiet < proposal.pace.busy
        assert all(low < high for low, high in pairwise(proposal.pace.steps))
        assert sum(taken.times for taken in proposal.taken) <= proposal.changes

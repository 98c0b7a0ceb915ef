"""What lies on the plan of a room for a while: holds, edits by hand, a busy chat's pace."""

import itertools
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from worker.policy.edits import edits, untouched
from worker.policy.occurrences import Occurrence, Occurrences
from worker.policy.overrides import NOTHING, Edit, Hold, Overrides
from worker.policy.phases import Phase
from worker.policy.schedule import (
    Schedule,
    Timeline,
    Window,
    next_change,
    phase_at,
    settings_at,
)
from worker.policy.settings import Settings, WhoCanPost, WhoCanReact, said, tighten

UTC_ZONE = ZoneInfo("UTC")
NEW_YORK = ZoneInfo("America/New_York")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)

EVERYONE, ADMINS = WhoCanPost
REACT, SILENCE = WhoCanReact


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NOON = utc("2026-03-03T12:00")
NIGHT = utc("2026-03-03T23:00")


def slow(seconds: int) -> Settings:
    return Settings(user_posts_cooldown_seconds=seconds)


def words(*banned: str) -> Settings:
    return Settings(banned_words=banned)


def hold(at: datetime = NOON - HOUR, length: timedelta = 2 * HOUR, **says) -> Hold:
    return Hold(at, at + length, "ada", **says)


PLAIN = Schedule(
    UTC_ZONE,
    base=Settings(user_posts_cooldown_seconds=5, banned_words=("spam",)),
    windows=(
        Window(
            time(22),
            time(7),
            settings=Settings(WhoCanPost.ADMINS, user_posts_cooldown_seconds=60),
        ),
    ),
)
EVENT = Schedule(
    UTC_ZONE,
    occurrences=(Occurrences(datetime(2026, 3, 3, 11), 2 * HOUR),),
    phases={Phase.OPEN: slow(10), Phase.LOCKED: Settings(who_can_react=SILENCE, ban_urls=True)},
    archives=DAY,
)
"""Open on 3 March from 11:00 to 13:00, archived a day later; nobody reacts while it is locked."""


# --- a person's word


@pytest.mark.parametrize(
    ("schedule", "at", "who"),
    [
        (PLAIN, NOON, (EVERYONE, ADMINS)),
        (PLAIN, NIGHT, (EVERYONE, ADMINS)),  # though a window lets only admins write
        (Schedule(UTC_ZONE, base=Settings(ADMINS)), NOON, (EVERYONE, ADMINS)),
        (Schedule(UTC_ZONE), NOON, (EVERYONE, ADMINS)),
        (EVENT, NOON, (EVERYONE, ADMINS)),
        (EVENT, NOON - DAY, (EVERYONE, ADMINS)),  # before
        (EVENT, NOON + 5 * HOUR, (EVERYONE, ADMINS)),  # locked
        (EVENT, NOON + 9 * DAY, (EVERYONE, ADMINS)),  # archived
    ],
)
def test_a_person_opens_and_locks_any_room_at_any_time(schedule, at, who):
    found = [
        settings_at(schedule, at, Overrides(holds=(hold(at, phase=phase),))).who_can_post
        for phase in (Phase.OPEN, Phase.LOCKED)
    ]
    assert tuple(found) == who


@pytest.mark.parametrize("phase", [Phase.OPEN, Phase.LOCKED])
@pytest.mark.parametrize("at", [NOON, NOON - DAY, NOON + 5 * HOUR, NOON + 9 * DAY])
def test_an_event_room_that_is_held_has_the_settings_of_that_phase(phase, at):
    laid = Overrides(holds=(hold(at, phase=phase),))
    instant = {Phase.OPEN: NOON, Phase.LOCKED: NOON + 5 * HOUR}[phase]
    assert phase_at(EVENT, at, laid) == phase
    assert settings_at(EVENT, at, laid) == settings_at(EVENT, instant)


def test_a_plain_room_that_is_held_has_that_phase_and_keeps_its_other_settings():
    laid = Overrides(holds=(hold(phase=Phase.LOCKED),))
    assert phase_at(PLAIN, NOON, laid) == Phase.LOCKED
    assert settings_at(PLAIN, NOON, laid) == Settings(
        ADMINS, user_posts_cooldown_seconds=5, banned_words=("spam",)
    )


def test_a_room_that_is_called_off_can_be_opened_by_a_person():
    one = Occurrence("a", NOON, NOON + HOUR)
    schedule = EVENT.only(one, cancelled=True)
    assert phase_at(schedule, NOON, Overrides(holds=(hold(phase=Phase.OPEN),))) == Phase.OPEN


def test_opening_beats_who_may_write_in_a_window_and_leaves_the_windows_other_settings():
    found = settings_at(PLAIN, NIGHT, Overrides(holds=(hold(NIGHT, phase=Phase.OPEN),)))
    assert (found.who_can_post, found.user_posts_cooldown_seconds) == (EVERYONE, 60)


def test_a_hold_without_a_phase_leaves_the_phase():
    assert phase_at(EVENT, NOON, Overrides(holds=(hold(settings=slow(3)),))) == Phase.OPEN


def test_a_later_word_on_the_phase_undoes_the_earlier_one_whole():
    locked = hold(NOON, 4 * HOUR, phase=Phase.LOCKED)
    opened = hold(NOON + HOUR, HOUR, phase=Phase.OPEN)
    laid = Overrides(holds=(opened, locked))
    by_hour = [settings_at(EVENT, NOON + n * HOUR, laid) for n in range(5)]
    assert [(s.who_can_post, s.who_can_react) for s in by_hour] == [
        (ADMINS, SILENCE),
        (EVERYONE, REACT),
        (ADMINS, SILENCE),  # when it ends, the earlier one shows again
        (ADMINS, SILENCE),
        (ADMINS, SILENCE),  # the plan's own lock
    ]
    assert [phase_at(EVENT, NOON + n * HOUR, laid) for n in range(3)] == [
        Phase.LOCKED,
        Phase.OPEN,
        Phase.LOCKED,
    ]


def test_a_later_hold_beats_an_earlier_one_setting_by_setting():
    first = hold(NOON - HOUR, settings=Settings(user_posts_cooldown_seconds=30, ban_urls=True))
    second = hold(NOON - SECOND, settings=slow(10))
    for holds in ((first, second), (second, first)):
        found = settings_at(PLAIN, NOON, Overrides(holds=holds))
        assert (found.user_posts_cooldown_seconds, found.ban_urls) == (10, True)
    laid = Overrides(holds=(first, second))
    assert settings_at(PLAIN, NOON + HOUR, laid).user_posts_cooldown_seconds == 10
    assert settings_at(PLAIN, NOON - 2 * SECOND, laid).user_posts_cooldown_seconds == 30


def test_of_two_words_of_one_instant_the_last_one_said_counts():
    laid = Overrides(holds=(hold(settings=slow(1)), hold(settings=slow(2))))
    assert settings_at(PLAIN, NOON, laid).user_posts_cooldown_seconds == 2


def test_who_may_write_can_be_said_after_a_lock_and_locked_after_it_was_said():
    locked, outright = {"phase": Phase.LOCKED}, {"settings": Settings(EVERYONE)}
    for first, second, who in ((locked, outright, EVERYONE), (outright, locked, ADMINS)):
        holds = (hold(NOON - HOUR, **first), hold(NOON - SECOND, **second))
        assert settings_at(EVENT, NOON, Overrides(holds=holds)).who_can_post == who


def test_a_hold_says_its_settings_outright_where_it_has_a_phase_too():
    both = hold(phase=Phase.OPEN, settings=Settings(ADMINS, user_posts_cooldown_seconds=1))
    found = settings_at(EVENT, NOON, Overrides(holds=(both,)))
    assert (found.who_can_post, found.user_posts_cooldown_seconds) == (ADMINS, 1)


def test_a_hold_beats_the_window_the_pace_and_an_edit_by_hand():
    everything = Overrides(slow(120), Edit(NIGHT, None, slow(90)), (hold(NIGHT, settings=slow(0)),))
    assert settings_at(PLAIN, NIGHT, everything).user_posts_cooldown_seconds == 0


def test_a_lock_beats_an_edit_by_hand_that_lets_people_write_and_react():
    by_hand = Edit(NOON, None, Settings(EVERYONE, REACT))
    laid = Overrides(edit=by_hand, holds=(hold(phase=Phase.LOCKED),))
    found = settings_at(EVENT, NOON, laid)
    assert (found.who_can_post, found.who_can_react) == (ADMINS, SILENCE)


def test_a_hold_counts_from_its_beginning_until_just_before_its_end():
    one = hold(NOON, HOUR, settings=slow(30), phase=Phase.LOCKED)
    laid = Overrides(holds=(one,))
    held = [NOON, NOON + HOUR - SECOND]
    free = [NOON - SECOND, NOON + HOUR]
    assert [settings_at(PLAIN, t, laid).user_posts_cooldown_seconds for t in held] == [30, 30]
    assert [phase_at(PLAIN, t, laid) for t in held] == [Phase.LOCKED, Phase.LOCKED]
    assert [settings_at(PLAIN, t, laid).user_posts_cooldown_seconds for t in free] == [5, 5]
    assert [phase_at(PLAIN, t, laid) for t in free] == [Phase.OPEN, Phase.OPEN]


@pytest.mark.parametrize(
    ("base", "says", "expected"),
    [
        (("spam",), {"add_words": ("refund", "spam", "dm")}, ("spam", "refund", "dm")),
        (("spam", "dm"), {"remove_words": ("spam", "other")}, ("dm",)),
        (("spam",), {"add_words": ("dm",), "remove_words": ("spam", "dm")}, ()),
        (None, {"add_words": ("refund",)}, ("refund",)),
        (None, {"remove_words": ("refund",)}, ()),
        (("spam",), {}, ("spam",)),
        (None, {}, None),
        (("spam",), {"settings": words("dm"), "add_words": ("refund",)}, ("dm", "refund")),
        (("spam",), {"settings": words()}, ()),
    ],
)
def test_a_hold_adds_and_takes_words_of_whatever_is_banned(base, says, expected):
    assert hold(**says).laid_on(Settings(banned_words=base)).banned_words == expected


def test_words_of_several_holds_add_up_and_a_later_list_replaces_them():
    first = hold(NOON - 3 * SECOND, add_words=("refund",))
    second = hold(NOON - 2 * SECOND, remove_words=("spam",))
    assert settings_at(PLAIN, NOON, Overrides(holds=(second, first))).banned_words == ("refund",)
    last = hold(NOON - SECOND, settings=words("dm"))
    assert settings_at(PLAIN, NOON, Overrides(holds=(last, second, first))).banned_words == ("dm",)


def test_words_are_taken_from_what_a_window_and_the_pace_ban_too():
    window = Window(time(0), time(23), settings=words("night"))
    schedule = Schedule(UTC_ZONE, base=words("spam"), windows=(window,))
    laid = Overrides(words("raid"), holds=(hold(remove_words=("night", "raid")),))
    assert settings_at(schedule, NOON, laid).banned_words == ("spam",)


# --- an edit by hand


def test_an_edit_stands_in_the_place_of_the_plan_the_window_and_the_pace():
    laid = Overrides(slow(120), Edit(NIGHT, NIGHT + HOUR, slow(1)))
    at = [NIGHT, NIGHT + HOUR - SECOND, NIGHT + HOUR]
    found = [settings_at(PLAIN, t, laid).user_posts_cooldown_seconds for t in at]
    assert found == [1, 1, 120]


def test_an_edit_without_an_end_stands():
    laid = Overrides(edit=Edit(NOON, None, slow(1)))
    assert settings_at(PLAIN, NOON + 999 * DAY, laid).user_posts_cooldown_seconds == 1


SET = Settings(EVERYONE, user_posts_cooldown_seconds=5, banned_words=("spam", "dm"))


def changed(**says) -> Settings:
    return Settings(**(said(SET) | says))


@pytest.mark.parametrize(
    ("have", "left", "aimed", "want", "expected"),
    [
        # nothing was ever set: whatever there is, nobody edited ours
        (changed(user_posts_cooldown_seconds=9), None, SET, SET, Settings()),
        (changed(user_posts_cooldown_seconds=9), SET, None, SET, Settings()),
        (SET, SET, SET, SET, Settings()),
        # somebody changed what we look after
        (changed(user_posts_cooldown_seconds=9), SET, SET, SET, slow(9)),
        (changed(user_posts_cooldown_seconds=0), SET, SET, SET, slow(0)),
        (
            changed(who_can_post=ADMINS, banned_words=()),
            SET,
            SET,
            SET,
            Settings(ADMINS, banned_words=()),
        ),
        # the order of words is none
        (changed(banned_words=("dm", "spam")), SET, SET, SET, Settings()),
        # it is what it should be by now: the edit was ahead of us
        (changed(who_can_post=ADMINS), SET, SET, changed(who_can_post=ADMINS), Settings()),
        # the plan moved on, and the channel did not
        (SET, SET, SET, changed(user_posts_cooldown_seconds=60), Settings()),
        # what we do not look after is the team's own
        (changed(ban_urls=True), changed(ban_urls=False), SET, SET, Settings()),
        # a hold that only just began speaks of it, and nobody undid the hold
        (
            changed(ban_urls=False),
            changed(ban_urls=True),
            SET,
            changed(ban_urls=True),
            Settings(),
        ),
        # a hold that ended spoke of it, and nobody looks after it any more
        (changed(ban_urls=False), changed(ban_urls=True), changed(ban_urls=True), SET, Settings()),
        # Whop cut the cooldown of 9000 down to its largest
        (changed(user_posts_cooldown_seconds=3600), changed(user_posts_cooldown_seconds=3600),
         changed(user_posts_cooldown_seconds=9000), changed(user_posts_cooldown_seconds=9000),
         Settings()),
        # and then somebody changed it
        (changed(user_posts_cooldown_seconds=7), changed(user_posts_cooldown_seconds=3600),
         changed(user_posts_cooldown_seconds=9000), changed(user_posts_cooldown_seconds=9000),
         slow(7)),
    ],
)  # fmt: skip
def test_an_edit_is_what_is_neither_as_we_left_it_nor_as_it_should_be(
    have, left, aimed, want, expected
):
    assert edits(have, left, aimed, want) == expected


@pytest.mark.parametrize(
    ("have", "left", "aimed", "want", "expected"),
    [
        (slow(3600), slow(3600), slow(9000), slow(9000), True),
        (slow(3600), None, slow(9000), slow(9000), False),
        (slow(3600), slow(3600), None, slow(9000), False),
        (slow(7), slow(3600), slow(9000), slow(9000), False),  # somebody changed it
        (slow(3600), slow(3600), slow(9000), slow(8000), False),  # we want something else
        (slow(3600), slow(3600), slow(9000), changed(user_posts_cooldown_seconds=9000), False),
        (slow(3600), slow(3600), changed(user_posts_cooldown_seconds=9000), slow(9000), False),
        (words("b", "a"), words("a", "b"), words("a", "c"), words("c", "a"), True),
    ],
)
def test_to_send_again_what_whop_made_something_else_of_changes_nothing(
    have, left, aimed, want, expected
):
    assert untouched(have, left, aimed, want) is expected


# --- laws

layers = st.builds(
    Settings,
    st.none() | st.sampled_from(WhoCanPost),
    st.none() | st.sampled_from(WhoCanReact),
    st.none() | st.sampled_from([0, 5, 30, 600]),
    st.none() | st.booleans(),
    st.none() | st.booleans(),
    st.none() | st.lists(st.sampled_from(["spam", "dm", "x"]), unique=True).map(tuple),
)
some_words = st.lists(st.sampled_from(["spam", "dm", "x"]), unique=True, max_size=2).map(tuple)
moments = st.integers(0, 96).map(lambda halves: utc("2026-03-02T18:00") + halves * HOUR / 2)
lengths = st.integers(1, 24).map(lambda halves: halves * HOUR / 2)
holds = st.builds(
    lambda at, length, phase, settings, add, remove: Hold(
        at, at + length, "ada", "", phase, settings, add, remove
    ),
    moments,
    lengths,
    st.none() | st.sampled_from([Phase.OPEN, Phase.LOCKED]),
    layers,
    some_words,
    some_words,
)
an_edit = st.builds(
    lambda at, length, settings: Edit(at, length and at + length, settings),
    moments,
    st.none() | lengths,
    layers,
)
schedules = st.builds(
    Schedule,
    st.sampled_from([UTC_ZONE, NEW_YORK]),
    base=layers,
    windows=st.lists(
        st.builds(Window, st.just(time(22)), st.sampled_from([time(7), time(23)]), settings=layers),
        max_size=2,
    ).map(tuple),
    occurrences=st.sampled_from([(), EVENT.occurrences]),
    phases=st.sampled_from([{}, EVENT.phases]),
    archives=st.sampled_from([None, 2 * HOUR]),
    paced=st.booleans(),
)
laid_on_it = st.builds(
    Overrides, layers, st.none() | an_edit, st.lists(holds, max_size=4).map(tuple)
)


@examples(max_examples=60, deadline=None)
@given(schedules, layers, moments)
def test_nothing_that_a_pace_lays_on_a_room_loosens_it(schedule, pace, t):
    bare, now = settings_at(schedule, t), settings_at(schedule, t, Overrides(pace))
    assert tighten(bare, now) == tighten(now, now)
    assert now == tighten(bare, pace)


@examples(max_examples=100, deadline=None)
@given(schedules, laid_on_it, st.integers(0, 3))
def test_what_the_last_hold_names_is_just_what_comes_out(schedule, laid, which):
    at = sorted(hold.since for hold in laid.holds)
    for t in at[which : which + 1]:
        last = laid.holds_at(t)[-1]
        named = said(last.settings)
        if last.add_words or last.remove_words:
            banned = {*named.pop("banned_words", ()), *last.add_words} - {*last.remove_words}
            found = {*(settings_at(schedule, t, laid).banned_words or ())}
            assert banned <= found
            assert not found & {*last.remove_words}
        now = said(settings_at(schedule, t, laid))
        assert {name: now[name] for name in named} == named


@examples(max_examples=60, deadline=None)
@given(schedules, laid_on_it)
def test_after_all_that_was_laid_has_ended_the_plan_is_as_it_was(schedule, laid):
    lasting = Overrides(Settings(), None, laid.holds)
    end = max((hold.until for hold in laid.holds), default=NOON)
    for t in (end, end + SECOND, end + 9 * DAY):
        assert settings_at(schedule, t, lasting) == settings_at(schedule, t)
        assert phase_at(schedule, t, lasting) == phase_at(schedule, t)
    if laid.edit and laid.edit.until:
        ended = Overrides(edit=laid.edit)
        assert settings_at(schedule, laid.edit.until, ended) == settings_at(
            schedule, laid.edit.until
        )


@examples(max_examples=25, deadline=None)
@given(schedules, laid_on_it)
def test_between_two_changes_the_settings_stay_whatever_lies_on_the_plan(schedule, laid):
    since, until = utc("2026-03-02T12:00"), utc("2026-03-06T00:00")
    changes = [since]
    expected = {since: settings_at(schedule, since, laid)}
    while (change := next_change(schedule, changes[-1], laid)) and change.at < until:
        assert change.settings == settings_at(schedule, change.at, laid)
        assert change.settings != expected[changes[-1]]
        assert change.phase == phase_at(schedule, change.at, laid)
        expected[change.at] = change.settings
        changes.append(change.at)
    edges = Timeline(schedule, since, until, laid).edges()
    for t in {at + by for at in [*edges, *changes] for by in (-SECOND, timedelta(0), SECOND)}:
        if since <= t < until:
            last = max(at for at in changes if at <= t)
            assert settings_at(schedule, t, laid) == expected[last]


def test_the_next_change_is_the_end_of_an_edit_and_the_beginning_and_the_end_of_each_hold():
    laid = Overrides(
        edit=Edit(NOON, NOON + HOUR, slow(1)),
        holds=(
            hold(NOON + 2 * HOUR, HOUR, settings=slow(2)),
            hold(NOON + 40 * DAY, HOUR, phase=Phase.LOCKED),
        ),
    )
    schedule = Schedule(UTC_ZONE, base=Settings(EVERYONE, user_posts_cooldown_seconds=5))
    found, t = [], NOON
    while change := next_change(schedule, t, laid):
        t = change.at
        found.append((t - NOON, change.settings.user_posts_cooldown_seconds))
    hours = [(1, 5), (2, 2), (3, 5), (960, 5), (961, 5)]
    assert found == [(n * HOUR, seconds) for n, seconds in hours]


def test_two_words_for_one_thing_that_follow_each_other_are_no_change_between():
    holds = (hold(NOON, HOUR, settings=slow(9)), hold(NOON + HOUR, HOUR, settings=slow(9)))
    found = Timeline(PLAIN, NOON - HOUR, NOON + 3 * HOUR, Overrides(holds=holds)).changes()
    assert [change.at - NOON for change in found] == [timedelta(0), 2 * HOUR]


def test_where_nothing_lies_on_the_plan_it_is_the_plan():
    for schedule, t in itertools.product((PLAIN, EVENT), (NOON, NIGHT, NOON + 9 * DAY)):
        assert settings_at(schedule, t, Overrides()) == settings_at(schedule, t, NOTHING)
    assert Overrides().edges() == []

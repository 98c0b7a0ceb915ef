"""How settings are laid on one another."""

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from worker.policy.settings import (
    DEFAULTS,
    Settings,
    WhoCanPost,
    WhoCanReact,
    changes,
    managed,
    over,
    said,
    tighten,
)

words = st.lists(st.sampled_from(["spam", "refund", "dm me", "x"]), unique=True).map(tuple)
anything = st.builds(
    Settings,
    st.none() | st.sampled_from(WhoCanPost),
    st.none() | st.sampled_from(WhoCanReact),
    st.none() | st.integers(0, 600),
    st.none() | st.booleans(),
    st.none() | st.booleans(),
    st.none() | words,
)


def same(one: Settings, other: Settings) -> bool:
    return not changes(one, other) and not changes(other, one)


@examples(max_examples=30)
@given(anything, anything)
def test_tightening_is_commutative(one, other):
    assert same(tighten(one, other), tighten(other, one))


@examples(max_examples=30)
@given(anything, anything, anything)
def test_tightening_is_associative(a, b, c):
    assert same(tighten(tighten(a, b), c), tighten(a, tighten(b, c)))


@examples(max_examples=30)
@given(anything)
def test_tightening_is_idempotent(settings):
    assert tighten(settings, settings) == settings
    assert tighten(settings, Settings()) == settings


@examples(max_examples=30)
@given(anything)
def test_what_is_as_it_should_be_needs_no_change(settings):
    assert changes(settings, settings) == {}


@examples(max_examples=30)
@given(anything, anything)
def test_the_changes_make_what_is_into_what_should_be(want, have):
    assert changes(want, over(have, Settings(**changes(want, have)))) == {}


@examples(max_examples=30)
@given(anything, anything)
def test_only_what_differs_is_changed(want, have):
    assert changes(want, have).keys() <= said(want).keys()
    assert all(said(have).get(name) != value for name, value in changes(want, have).items())


def test_the_order_of_banned_words_is_no_difference():
    assert not changes(Settings(banned_words=("a", "b")), Settings(banned_words=("b", "a")))


@pytest.mark.parametrize(
    ("one", "other", "tighter"),
    [
        (Settings(user_posts_cooldown_seconds=60), Settings(user_posts_cooldown_seconds=10), 60),
        (
            Settings(who_can_post=WhoCanPost.ADMINS),
            Settings(who_can_post=WhoCanPost.EVERYONE),
            "admins",
        ),
        (
            Settings(who_can_react=WhoCanReact.EVERYONE),
            Settings(who_can_react=WhoCanReact.NO_ONE),
            "no_one",
        ),
        (Settings(ban_urls=False), Settings(ban_urls=True), True),
        (Settings(banned_words=("a",)), Settings(banned_words=("b", "a")), ("a", "b")),
    ],
    ids=["cooldown", "post", "react", "ban", "words"],
)
def test_the_tighter_of_two_wins(one, other, tighter):
    (value,) = said(tighten(one, other)).values()
    assert value == tighter


def test_a_setting_that_no_layer_mentions_is_not_ours():
    ground = managed([Settings(ban_urls=True), Settings(user_posts_cooldown_seconds=5)])
    assert said(ground) == {"user_posts_cooldown_seconds": 0, "ban_urls": False}
    assert said(DEFAULTS).keys() == said(managed([DEFAULTS])).keys()

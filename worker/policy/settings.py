"""The settings of a chat channel, with Whop's names, and how they are laid on one another."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any


class WhoCanPost(StrEnum):
    """Whop's values for who may write."""

    EVERYONE = "everyone"
    ADMINS = "admins"


class WhoCanReact(StrEnum):
    """Whop's values for who may react to a message."""

    EVERYONE = "everyone"
    NO_ONE = "no_one"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a channel is set to, or should be; None means: not said, leave it as it is.

    A cooldown is in seconds, 0 for none. Words keep the order in which the seller wrote them.
    """

    who_can_post: WhoCanPost | None = None
    who_can_react: WhoCanReact | None = None
    user_posts_cooldown_seconds: int | None = None
    ban_media: bool | None = None
    ban_urls: bool | None = None
    banned_words: tuple[str, ...] | None = None


NAMES = tuple(field.name for field in fields(Settings))

DEFAULTS = Settings(WhoCanPost.EVERYONE, WhoCanReact.EVERYONE, 0, False, False, ())  # noqa: FBT003 - Whop's defaults, in order
"""What Whop gives a new channel: everything allowed."""

TIGHTEST_LAST: dict[str, tuple[str, ...]] = {
    "who_can_post": (WhoCanPost.EVERYONE, WhoCanPost.ADMINS),
    "who_can_react": (WhoCanReact.EVERYONE, WhoCanReact.NO_ONE),
}


def said(settings: Settings) -> dict[str, Any]:
    """Return the fields that a layer says something about."""
    values = {name: getattr(settings, name) for name in NAMES}
    return {name: value for name, value in values.items() if value is not None}


def over(base: Settings, layer: Settings) -> Settings:
    """Return `base` with everything that `layer` says in its place."""
    return replace(base, **said(layer))


def tighten(base: Settings, layer: Settings) -> Settings:
    """Return the tighter of both, field by field: never looser than either.

    The longer cooldown, the narrower right, a ban where either bans, the union of the words. It
    is commutative in effect, associative and idempotent.
    """
    mine = said(base)
    return replace(base, **{n: _tighter(n, mine.get(n), v) for n, v in said(layer).items()})


def _tighter(name: str, one: Any, other: Any) -> Any:
    if one is None:
        return other
    if name in TIGHTEST_LAST:
        return max(one, other, key=TIGHTEST_LAST[name].index)
    if name == "banned_words":
        return tuple(dict.fromkeys((*one, *other)))
    return max(one, other)


def managed(layers: Iterable[Settings]) -> Settings:
    """Return Whop's defaults for just the fields that any layer mentions.

    Usher leaves a setting alone that no layer of a room speaks of: it may be the seller's own.
    """
    names = {name for layer in layers for name in said(layer)}
    return Settings(**{name: getattr(DEFAULTS, name) for name in NAMES if name in names})


def changes(want: Settings, have: Settings) -> dict[str, Any]:
    """Return the fields to PATCH so that a channel that is `have` becomes `want`.

    The order of banned words does not matter to Whop, so it is no difference.
    """
    is_now = said(have)
    return {n: v for n, v in said(want).items() if _comparable(v) != _comparable(is_now.get(n))}


def _comparable(value: Any) -> Any:
    return frozenset(value) if isinstance(value, tuple) else value

"""Ways of giving a seat: Whop makes the membership, or invites, or the member follows a link.

Not every account may use every way: Create Membership is missing from Whop's current API, and
invitations are for accounts that Whop enabled (Whop's OpenAPI of 2026-09-25). What an account is
refused for good is remembered for a day, so that it costs no buyer a second of waiting twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

from worker.policy.rooms import Room


class Way(StrEnum):
    """How somebody gets into a cohort's room, or is told of it."""

    CREATE = "create"
    INVITE = "invite"
    LINK = "link"
    CHAT = "support_chat"
    """Not a seat: how a link is told."""
    MARK = "metadata"
    """Not a seat either: how a grant is marked as Usher's."""


AGAIN: Final = timedelta(days=1)
"""After so long an account is asked again for what it refused."""

BY_WHOP: Final = (Way.CREATE, Way.INVITE)
NAMED: Final = {
    Way.CREATE: "Create Membership",
    Way.INVITE: "invitations",
    Way.CHAT: "support chats",
    Way.MARK: "marks on memberships",
}
GONE: Final = frozenset({404, 410})

DEFAULT_MESSAGE: Final = (
    "Your seat in {name} is ready, at no further cost. Take it with this link, which is for you "
    "alone: {link}"
)
REMINDER: Final = "A reminder, as your seat still waits for you. "


@dataclass(frozen=True, slots=True)
class Refused:
    """What the account is not allowed to use: since when, when it was asked last, Whop's words."""

    since: datetime
    asked: datetime
    why: str


Refusals = Mapping[Way, Refused]


def stands(refused: Refusals, way: Way, now: datetime) -> bool:
    """Say whether a way was refused within the day, so that it is not asked for now."""
    return way in refused and now - refused[way].asked < AGAIN


def to_try(setting: str, refused: Refusals, now: datetime) -> list[Way]:
    """Return the ways of giving a seat in a room, in the order in which they are tried."""
    if setting != "auto":
        return [Way(setting)]
    return [*(way for way in BY_WHOP if not stands(refused, way, now)), Way.LINK]


def in_use(setting: str, refused: Refusals, now: datetime) -> Way:
    """Return the way in which the next seat in a room will be given, as far as is known."""
    return to_try(setting, refused, now)[0]


def is_for_good(status: int, words: str, *, not_available: bool) -> bool:
    """Say whether a refusal is about the endpoint and the account, and not about one buyer.

    Whop says 404 of an endpoint that is not there, and of a user or a plan that is not: who asks
    must know that the plan is there.
    """
    return not_available or (status in GONE and "user" not in words.lower())


def removes_strangers(room: Room, refused: Refusals, now: datetime) -> bool:
    """Say whether who came by a link that was not theirs is put out, or only reported."""
    if room.strangers is not None:
        return room.strangers == "remove"
    return in_use(room.grant, refused, now) is Way.LINK


def message(room: Room, *, name: str, cohort: str, link: str, again: bool) -> str:
    """Return what a member is written of their link; `name` is the room's name on Whop."""
    text = room.link_message or DEFAULT_MESSAGE
    for placeholder, value in (("{name}", name), ("{cohort}", cohort), ("{link}", link)):
        text = text.replace(placeholder, value)
    return REMINDER + text if again else text


def in_words(setting: Literal["auto", "create", "invite", "link"]) -> str:
    """Say how seats are given by the rules alone."""
    return {
        "auto": "Whop makes the membership; where it will not, an invitation, or a link to each",
        "create": "Whop makes the membership",
        "invite": "Whop invites, and the buyer must accept",
        "link": "each buyer is handed a link of their own",
    }[setting]


def why_in_use(setting: str, refused: Refusals, now: datetime) -> str:
    """Say in which way seats are given now, and what Whop refuses, if it is that."""
    way = in_use(setting, refused, now)
    said = {Way.CREATE: "by Create Membership", Way.INVITE: "by invitation", Way.LINK: "by a link"}
    if setting != "auto":
        return f"{said[way]}, as the rules say"
    no = [one for one in BY_WHOP if stands(refused, one, now)]
    if not no:
        return said[way]
    names = " and ".join(NAMED[one] for one in no)
    since = min(refused[one].since for one in no)
    return f"{said[way]}: Whop refuses {names} to this account since {since:%F %H:%M} UTC"

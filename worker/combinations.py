"""What the keys of a table allow each by itself, and do not allow all together."""

import re
import socket
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import httpx

from worker.calendars.web import public
from worker.tables import Check, must

TITLE: Final = 80
"""Whop's limit for the title of a product, which a cohort's room shares with its product."""

LONGEST: Final = {"{cohort}": "week 49 of 2026", "{date}": "Wed 30 Sep 2026, 18:00"}
"""The longest that a name's placeholders become."""

EVENTS_ONLY: Final = {
    "opens",
    "locks",
    "archives",
    "archive_after",
    "lead",
    "seats",
    "plan",
    "one_room_per",
    "messages",
}
GRANTS_ONLY: Final = {
    "grant",
    "grace",
    "link_message",
    "remind",
    "strangers",
}

Wrong = Callable[[str, str], None]
"""Notes a mistake: where it is, and what is wrong there."""

PLACEHOLDER: Final = re.compile(r"\{[^\W\d]\w*\}")
"""What looks like one. Other braces are the seller's own, also `{ word }`."""


def _placeholders(*known: str) -> Callable[[str | None], str | None]:
    """Return the fault of a text with a placeholder that nobody would write out."""
    are = f"known {'are' if len(known) > 1 else 'is'} {' and '.join(known)}"

    def fault(text: str | None) -> str | None:
        strange = dict.fromkeys(one for one in PLACEHOLDER.findall(text or "") if one not in known)
        if not strange:
            return None
        none = "are no placeholders" if len(strange) > 1 else "is no placeholder"
        return f"{' and '.join(strange)} {none} here; {are if known else 'there are none'}"

    return fault


def _local(times: Iterable[datetime]) -> bool:
    return all(time.tzinfo is None for time in times)


def _host(url: str) -> str | None:
    """Return the host of what `worker.calendars.web` takes for an address, if it has no blanks."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return None
    right = parsed.scheme in {"http", "https"} and re.fullmatch(r"[^\s%]+", parsed.host)
    return parsed.host if right else None


def _address(url: str | None) -> str | None:
    """Return what is wrong with a calendar's address. Whether a name is public, only DNS knows."""
    if url is None:
        return None
    host = _host(url)
    if host is None:
        return "expected an address that begins with https:// or http://"
    if not _public(host.rstrip(".")):
        return "is not on the public internet; only public calendars are read"
    return None


def _public(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return public(_written_out(host))
    except ValueError:  # it is a name
        return True


def _written_out(host: str) -> str:
    """Return an address whole, as the resolver reads it: 127.1 is 127.0.0.1."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


NO_OFFSET: Final = "expected a local time without an offset, such as 2026-12-03T18:00:00"

SETTINGS_CHECKS: Final = (
    Check(
        ("user_posts_cooldown_seconds",),
        must(lambda seconds: seconds is None or seconds >= 0, "expected 0 or more seconds"),
    ),
    Check(
        ("banned_words",),
        must(
            lambda words: all(word.strip() for word in words or ()),
            "expected words that are not empty: every message has an empty one",
        ),
    ),
)
WINDOW_CHECKS: Final = (
    Check(("days",), must(bool, "expected at least one day; without `days` it is every day")),
)
ROOM_CHECKS: Final = (
    Check(
        ("name",),
        must(lambda name: name == name.strip(), "expected a text without blanks at its ends"),
    ),
    Check(("name",), _placeholders("{cohort}", "{date}")),
    Check(("welcome",), _placeholders()),
    Check(("link_message",), _placeholders("{name}", "{cohort}", "{link}")),
    Check(
        ("link_message",),
        must(
            lambda text: text is None or "{link}" in text,
            "expected a text with {link} in it: that is what the buyer needs",
        ),
    ),
    Check(
        ("remind",),
        must(lambda remind: remind is None or remind > timedelta(0), "expected more than 0"),
    ),
)
COHORT_CHECKS: Final = (
    Check(
        ("seats", "by"),
        must(
            lambda seats, by: (by == "seats") == (seats > 0),
            'expected a number of seats from 1 on, with by = "seats" only',
        ),
    ),
)
OCCURRENCE_CHECKS: Final = (
    Check(("starts",), must(lambda starts: _local([starts]), NO_OFFSET)),
    Check(("lasts",), must(lambda lasts: lasts > timedelta(0), "expected more than 0")),
    Check(("exdate",), must(_local, NO_OFFSET)),
    Check(("rdate",), must(_local, NO_OFFSET)),
)
CALENDAR_CHECKS: Final = (
    Check(
        ("url", "file"),
        must(
            lambda url, file: (url is None) != (file is None),
            'expected a url or a file, and word = "..." for the entries',
        ),
        of_table=True,
    ),
    Check(("url",), _address),
    Check(
        ("file",),
        must(lambda file: file is None or file.strip(), "expected the path of a file"),
    ),
    Check(("word",), must(str.strip, "expected the word that the room's entries have in them")),
)
MESSAGE_CHECKS: Final = (
    Check(
        ("ahead",),
        must(bool, 'expected more than 0; at the opening is when = "opening"'),
    ),
    Check(("text",), must(str.strip, "expected a text that is not empty")),
    Check(("text",), _placeholders("{starts}", "{ends}")),
)
PACE_CHECKS: Final = (
    Check(
        ("quiet", "busy"),
        must(lambda quiet, busy: 0 < quiet < busy, "expected a number over 0 and below `busy`"),
    ),
    Check(
        ("steps",),
        must(
            lambda steps: steps and all(a < b for a, b in pairwise((0, *steps))),
            "expected seconds that grow, such as [5, 15, 60]",
        ),
    ),
    Check(("changes",), must(lambda changes: changes >= 1, "expected 1 or more changes an hour")),
    Check(("say",), _placeholders("{seconds}")),
)


def together(data: Mapping[str, Any], phases: Iterable[str], where: str, wrong: Wrong) -> None:
    """Name every combination of a room's keys that cannot be."""
    if "cohort" in data:
        why = "a cohort room makes its own rooms, and its seats are those of `cohort`"
        for key in sorted(data.keys() & {"experience", "one_room_per", "seats", "plan", "lead"}):
            wrong(f"{where}.{key}", why)
    else:
        for key in sorted(data.keys() & GRANTS_ONLY):
            why = "is for rooms with a cohort; here the purchase itself opens the room"
            wrong(f"{where}.{key}", why)
        for key in ("on_refund", "on_dispute"):
            if data.get(key) in ("revoke", "keep"):
                why = 'is for the seats of rooms with a cohort; here only "cancel" can be said'
                wrong(f"{where}.{key}", why)
    if data.get("occurrences") == [] and "calendar" not in data:
        why = "without a date the room is always open: add one, or leave this out"
        wrong(f"{where}.occurrences", why)
    if not (data.get("occurrences") or "calendar" in data):
        for key in sorted({*data.keys() & EVENTS_ONLY, *phases}):
            wrong(f"{where}.{key}", "is for event rooms; this room has no occurrences")
    _names(data, where, wrong)
    _making(data, where, wrong)


def _names(data: Mapping[str, Any], where: str, wrong: Wrong) -> None:
    name = str(data.get("name", ""))
    apart = data.get("one_room_per") == "occurrence"
    for placeholder, needed, whose, key in (
        ("{cohort}", "cohort" in data, "a cohort room's", "`cohort`"),
        ("{date}", apart, "an occurrence's own room's", 'one_room_per = "occurrence"'),
    ):
        if not needed and placeholder in name:
            wrong(f"{where}.name", f"{placeholder} is written out with {key} only")
        if needed and "name" in data and placeholder not in name:
            wrong(f"{where}.name", f"{whose} name needs {placeholder} in it")
        if needed and len(name.replace(placeholder, LONGEST[placeholder])) > TITLE:
            wrong(f"{where}.name", f"is over {TITLE} characters with its {placeholder} written out")


def _making(data: Mapping[str, Any], where: str, wrong: Wrong) -> None:
    if data.get("provision") == "on_purchase" and "lead" in data:
        why = 'makes the room ahead, provision = "on_purchase" with the first buyer: leave one out'
        wrong(f"{where}.lead", why)
    if data.get("one_room_per") == "occurrence" and "experience" in data:
        why = "is one room; with a room for each occurrence none is adopted"
        wrong(f"{where}.experience", why)
    if "archives" in data and "archive_after" in data:
        wrong(f"{where}.archive_after", "is another word for `archives`: leave one out")
    if "plan" in data and "seats" not in data:
        wrong(f"{where}.plan", "holds the seats of the room by its stock; `seats` says how many")

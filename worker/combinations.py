"""What the keys of a room allow each by itself, and do not allow all together."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

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
GRANTS_ONLY: Final = {"grant", "grace", "on_refund", "on_dispute"}

Wrong = Callable[[str, str], None]
"""Notes a mistake: where it is, and what is wrong there."""


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

"""A room's key that became another one in the rules: which room is meant by which. Pure.

Usher knows a room by its key. One that is called otherwise without a word would be a new one: a
second chat of the same name for the same buyers. `was` is the word; without it, none is made.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from worker.policy.occurrences import Occurrence
from worker.policy.rooms import Room, dated_title, split, title


class Standing(Protocol):
    """What is known of a room that exists on Whop."""

    name: str
    product: str | None
    experience: str | None
    attached: list[str]
    archived: bool
    occurrence: Occurrence | None


@dataclass(frozen=True, slots=True)
class Renames:
    """What the rules' new keys mean: rooms to take over, and rooms that are not made, with why.

    `taken` is by the new key, with the old one; `refused` are those of which the key that they had
    is gone without a word, by the new key; `both` are those whose old and new key have rooms.
    """

    taken: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    both: Mapping[str, str] = field(default_factory=dict)

    @property
    def said(self) -> dict[str, str]:
        """Say of each room that is not as its rules want it what a person should know."""
        return (
            {
                new: f"{old} becomes {new} when `usher work` starts"
                for new, old in self.taken.items()
            }
            | {new: why_refused(new, old) for new, old in self.refused.items()}
            | {new: why_both(new, old) for new, old in self.both.items()}
        )


def why_refused(new: str, old: str) -> str:
    """Say why a room is not made, and the two ways out."""
    return (
        f"it is not made: {old} exists, has its name and its products, and is no key of the rules "
        f'any more. If it is the same room, write was = "{old}" in [rooms.{new}]; if it is '
        "another one, give it another name"
    )


def why_both(new: str, old: str) -> str:
    """Say why a room that `was` another is not taken over."""
    return (
        f"{old} is not taken over: {new} has rooms, seats or tickets of its own already; "
        f'take was = "{old}" out, or call the room otherwise'
    )


def renames(
    rooms: Sequence[Room], places: Mapping[str, Standing], counted: frozenset[str] = frozenset()
) -> Renames:
    """Find the rooms of the rules that exist under another key.

    `places` are all that exist, and `counted` the keys for which there are seats or tickets.
    """
    ruled, exist = {room.key for room in rooms}, {split(key)[0] for key in places} | counted
    gone = [(*split(key), place) for key, place in places.items() if split(key)[0] not in ruled]
    taken: dict[str, str] = {}
    refused: dict[str, str] = {}
    both: dict[str, str] = {}
    for room in rooms:
        old = next((key for key in room.was if key in exist), None)
        if old:
            (both if room.key in exist else taken)[room.key] = old
        elif room.key not in exist and (twin := _twin(room, gone)):
            refused[room.key] = twin
    return Renames(taken, refused, both)


def _twin(room: Room, gone: Iterable[tuple[str, str | None, Standing]]) -> str | None:
    """Return the key that has gone of a room that is this one, by its name and its products."""
    return next((old for old, part, place in gone if _same(room, part, place)), None)


def _same(room: Room, part: str | None, place: Standing) -> bool:
    if place.archived or not (place.experience or place.product):
        return False
    if room.cohort:  # which products it is sold by, its place does not say
        return bool(part and place.product) and place.name == _cohort_title(room, part or "")
    shared = bool({*room.products} & {*place.attached})
    if room.one_room_per == "occurrence":
        one = place.occurrence
        return shared and one is not None and place.name == dated_title(room, one)
    return shared and part is None and place.name == room.name


def _cohort_title(room: Room, part: str) -> str | None:
    try:
        return title(room, part)
    except ValueError:  # the part of another kind of room
        return None


def ruled_as(rooms: Sequence[Room], found: Renames, *, before: bool) -> tuple[Room, ...]:
    """Return the rooms as they are to be looked at: without those that are not made.

    With `before`, those that are still to be taken over have the key that they exist under.
    """
    there = (room for room in rooms if room.key not in found.refused)
    return tuple(
        replace(room, key=found.taken[room.key], was=(room.key,))
        if before and room.key in found.taken
        else room
        for room in there
    )

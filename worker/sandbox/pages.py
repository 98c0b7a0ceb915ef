"""Cursor pages: `first`/`after` forwards, `last`/`before` backwards (Whop: Pagination).

A cursor is the place of a row in the list's order, not its position, so that rows that come or go
between two pages neither repeat nor hide others. A page has 20 rows where nobody says how many (50
in the delivery log), and 100 at most.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar

import msgspec

from worker.sandbox.refusals import BadRequest
from worker.sandbox.shapes import Json

Row = TypeVar("Row")
Place = Sequence[str | int | float]

DEFAULT_SIZE = 20
MAX_SIZE = 100


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Which page is wanted: so many rows after a place, or so many before one."""

    size: int = DEFAULT_SIZE
    after: Place | None = None
    before: Place | None = None
    backwards: bool = False
    descending: bool = True


class Page(msgspec.Struct, Generic[Row], frozen=True):
    """Some rows of a list, and what lies on either side."""

    rows: list[Row]
    start: Place | None
    end: Place | None
    has_next: bool
    has_previous: bool

    def json(self, shape: Callable[[Row], Json]) -> Json:
        """Write the page with each row in its shape; a page without rows has no cursors."""
        info = {
            "start_cursor": None if self.start is None else cursor(self.start),
            "end_cursor": None if self.end is None else cursor(self.end),
            "has_next_page": self.has_next,
            "has_previous_page": self.has_previous,
        }
        return {"data": [shape(row) for row in self.rows], "page_info": info}


def cursor(place: Place) -> str:
    """Write a place as an opaque cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(place))).decode().rstrip("=")


def place_of(text: str) -> Place:
    """Read a cursor.

    Raises:
        BadRequest: it is none of ours.
    """
    try:
        padded = text.encode() + b"=" * (-len(text) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=list[str | int | float])
    except (msgspec.DecodeError, binascii.Error, UnicodeError) as wrong:
        raise BadRequest("Invalid cursor") from wrong


def window(
    get: Callable[[str], str | None],
    size: int = DEFAULT_SIZE,
    *,
    default_direction: str = "desc",
) -> Window:
    """Read the page parameters of a query.

    Raises:
        BadRequest: a size that is no number, a direction that is none, or a broken cursor.
    """
    direction = get("direction") or default_direction
    if direction not in ("asc", "desc"):
        raise BadRequest("direction: must be asc or desc")
    first, last, after, before = (get(name) for name in ("first", "last", "after", "before"))
    backwards = first is None and (last is not None or (before is not None and after is None))
    return Window(
        size=_size(last if backwards else first, size),
        after=None if after is None else place_of(after),
        before=None if before is None else place_of(before),
        backwards=backwards,
        descending=direction == "desc",
    )


def _size(text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise BadRequest("first and last must be positive numbers")
    return min(int(text), MAX_SIZE)


def paginate(
    rows: Iterable[Row], key: Callable[[Row], Place], wanted: Window, *, ordered: bool = False
) -> Page[Row]:
    """Cut one page out of the rows; `ordered` says that they come in the wanted order already."""
    inside = (row for row in rows if _inside(key(row), wanted))
    if wanted.backwards:
        near_first = sorted(inside, key=_comparable(key), reverse=not wanted.descending)
        return _page(near_first, key, wanted)
    if ordered:
        return _page(inside, key, wanted)
    return _page(sorted(inside, key=_comparable(key), reverse=wanted.descending), key, wanted)


def _comparable(key: Callable[[Row], Place]) -> Callable[[Row], list[str | int | float]]:
    return lambda row: list(key(row))


def _page(rows: Iterable[Row], key: Callable[[Row], Place], wanted: Window) -> Page[Row]:
    """Take the rows that are nearest to where the page begins, and see whether more follow."""
    taken = list(islice(rows, wanted.size + 1))
    more = len(taken) > wanted.size
    del taken[wanted.size :]
    if wanted.backwards:
        taken.reverse()
    behind = wanted.before is not None if wanted.backwards else wanted.after is not None
    return Page(
        rows=taken,
        start=key(taken[0]) if taken else None,
        end=key(taken[-1]) if taken else None,
        has_next=behind if wanted.backwards else more,
        has_previous=more if wanted.backwards else behind,
    )


def _inside(place: Place, wanted: Window) -> bool:
    """Say whether a row lies between the cursors, in the direction of the list."""
    low, high = wanted.after, wanted.before
    if wanted.descending:
        low, high = high, low
    try:
        above = low is None or list(place) > list(low)
        return above and (high is None or list(place) < list(high))
    except TypeError as wrong:
        raise BadRequest("This cursor belongs to another list") from wrong

"""TOML tables into dataclasses, key by key, so that no mistake hides another."""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from datetime import date, datetime, time, timedelta
from enum import EnumType
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)
from zoneinfo import ZoneInfo

import msgspec

UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
DURATION: Final = re.compile(r"(?:\d+[dhms])+")
LONGEST: Final = timedelta(days=3650)
"""The longest duration: no calendar ends before an instant that lies so far off."""

EXPECTED: Final[Mapping[Any, str]] = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    time: "a time such as 22:00:00",
    datetime: "a local date and time such as 2026-12-03T18:00:00",
    timedelta: "a duration such as 90m, 3d or 1h30m, of 3650d at most",
    ZoneInfo: "an IANA zone such as America/New_York",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Check:
    """What the values of some keys must be besides their types.

    `fault` gets the values and says what is wrong with them, if anything is: at the first key, or
    with `of_table` at the table.
    """

    keys: tuple[str, ...]
    fault: Callable[..., str | None]
    of_table: bool = False


def must(holds: Callable[..., object], expected: str) -> Callable[..., str | None]:
    """Return the fault of a check that always says the same."""
    return lambda *values: None if holds(*values) else expected


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """What a table says: the values that are right or left out, and all of it if nothing is wrong.

    What is asked of the values later on goes by `values`, so that one wrong key hides no other.
    """

    values: dict[str, Any]
    whole: T | None


class Tables:
    """Reads tables, and collects what is wrong with them as `table.key: what was expected`."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []

    def wrong(self, where: str, what: str) -> None:
        """Note a mistake."""
        self.mistakes.append(f"{where}: {what}")

    def read(
        self,
        kind: type[T],
        data: Any,
        where: str,
        checks: Iterable[Check] = (),
        *,
        others: Iterable[str] = (),
    ) -> Read[T]:
        """Read a table into a dataclass, and check each of its values that could be read.

        `others` are keys that the table may have and that are read apart from it. A field's name
        may end in `_` where the key is one of Python's words.
        """
        if not isinstance(data, Mapping):
            self.wrong(where, f"expected a table, got {shown(data)}")
            return Read({}, None)
        before = len(self.mistakes)
        values = self._values(kind, data, where, others)
        whole = len(self.mistakes) == before
        wrong = {key for check in checks for key in self._faulty(check, values, where)}
        right = {key: value for key, value in values.items() if key not in wrong}
        return Read(right, kind(**values) if whole and not wrong else None)

    def _values(
        self, kind: type[Any], data: Mapping[str, Any], where: str, others: Iterable[str]
    ) -> dict[str, Any]:
        """Convert the values of a table, with the defaults of what it leaves out."""
        known, hints = _keys(kind)  # type: ignore[arg-type]  # a class is hashable
        values = {}
        for key, value in data.items():
            if key not in known:
                self.wrong(_joined(where, key), _unknown(key, [*known, *others]))
                continue
            try:
                values[known[key].name] = _convert(value, hints[known[key].name])
            except (msgspec.ValidationError, ValueError):
                expected = _expected(hints[known[key].name])
                self.wrong(_joined(where, key), f"expected {expected}, got {shown(value)}")
        for key, f in known.items():
            if key in data:
                continue
            if f.default is not MISSING:
                values[f.name] = f.default
            elif f.default_factory is not MISSING:
                values[f.name] = f.default_factory()
            else:
                expected = _expected(hints[f.name])
                self.wrong(_joined(where, key), f"is missing; expected {expected}")
        return values

    def _faulty(self, check: Check, values: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """Note what is wrong with some values, if they could be read; return the keys of these."""
        if not values.keys() >= {*check.keys}:
            return ()
        fault = check.fault(*(values[key] for key in check.keys))
        if fault is None:
            return ()
        self.wrong(where if check.of_table else _joined(where, check.keys[0]), fault)
        return check.keys if check.of_table else check.keys[:1]


def _joined(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


@cache
def _keys(kind: Any) -> tuple[dict[str, Field[Any]], dict[str, Any]]:
    """Return a dataclass's fields by the keys of its table, and their types: looked up once."""
    return {f.name.rstrip("_"): f for f in fields(kind)}, get_type_hints(kind, include_extras=True)


def duration(text: str) -> timedelta:
    """Return the length that a text such as `90m`, `3d` or `1h30m` names.

    Raises:
        ValueError: the text names none, or one that is too long.
    """
    if not DURATION.fullmatch(text):
        raise ValueError(f"not a duration: {text!r}")
    parts = re.findall(r"(\d+)([dhms])", text)
    try:
        length = sum((timedelta(**{UNITS[unit]: int(n)}) for n, unit in parts), timedelta(0))
    except OverflowError as error:
        raise ValueError(f"too long: {text!r}") from error
    if length > LONGEST:
        raise ValueError(f"too long: {text!r}")
    return length


def shown(value: Any) -> str:
    """Return a value as it may stand in a message: in TOML's words, and not too long."""
    return f"{_toml(value):.60}"


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case date() | time():
            return str(value)
        case list():
            return f"[{', '.join(_toml(one) for one in value)}]"
        case dict() if value:
            return f"{{ {', '.join(f'{key} = {_toml(one)}' for key, one in value.items())} }}"
        case _:
            return repr(value)


def _convert(value: Any, hint: Any) -> Any:
    if timedelta in (hint, *get_args(hint)):
        return duration(value if isinstance(value, str) else "")
    return msgspec.convert(value, hint, dec_hook=_decode)


def _decode(kind: type, value: Any) -> Any:
    """Decode what msgspec does not know: only zones."""
    try:
        return kind(value)
    except (KeyError, OSError, TypeError) as error:  # what zoneinfo raises for what is no zone
        raise ValueError(value) from error


def _unknown(key: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    if near:
        return f"is not a key here; did you mean {near[0]!r}?"
    return f"is not a key here; known are {', '.join(known)}"


def _expected(hint: Any) -> str:
    """Say in a seller's words what a type takes."""
    if isinstance(hint, EnumType):
        return _choice(hint.__members__.values())
    if described := [m.description for m in getattr(hint, "__metadata__", ()) if m.description]:
        return str(described[0])
    hint = getattr(hint, "__origin__", hint) if get_origin(hint) is Annotated else hint
    origin, arguments = get_origin(hint), [a for a in get_args(hint) if a not in (NoneType, ...)]
    if origin is Literal:
        return _choice(arguments)
    if origin in (Union, UnionType):
        return " or ".join(_expected(argument) for argument in arguments)
    if origin in (list, tuple, frozenset):
        return f"a list: each {_expected(arguments[0])}"
    return EXPECTED.get(hint, "a table")


def _choice(words: Iterable[Any]) -> str:
    return " or ".join(f'"{word}"' for word in words)

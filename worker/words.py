"""Instants and settings in words, as a seller reads them and as the rules file has them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec


def local(at: datetime, zone: ZoneInfo) -> str:
    """Write an instant in a room's zone, as people do."""
    return f"{at.astimezone(zone):%a %d %b %Y %H:%M:%S %Z}"


def counted(n: int, noun: str, plural: str = "") -> str:
    """Write how many there are: `1 room`, `2 rooms`."""
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def words(settings: Mapping[str, Any]) -> str:
    """Write settings with Whop's names, as they may stand in the rules file."""
    return ", ".join(f"{name} = {value(said)}" for name, said in settings.items())


def value(said: Any) -> str:
    """Write one value as it may stand in the rules file."""
    if isinstance(said, bool):
        return str(said).lower()
    return str(said) if isinstance(said, int) else msgspec.json.encode(said).decode()

"""`usher open | lock | hold | release`: a person's word on a room, stronger than its plan."""

import asyncio
import difflib
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from webhooks.inbox import Inbox, connect
from worker.admin.reach import reaching
from worker.combinations import SETTINGS_CHECKS
from worker.commands.report import in_words
from worker.leases import Leases
from worker.memory.channels import LONGEST_HOLD
from worker.memory.trail import Step
from worker.policy.overrides import Hold
from worker.policy.rooms import split
from worker.policy.settings import NAMES, Settings
from worker.reasons import RELEASED
from worker.rules import Rules
from worker.store import Store
from worker.subjects import Subjects, milliseconds
from worker.tables import Tables, duration
from worker.words import local

SHORT: Final = {"cooldown": "user_posts_cooldown_seconds"}
WORD: Final = re.compile(r"(?P<name>[a-z_]+)(?P<how>\+=|-=|=)(?P<value>.*)", re.DOTALL)
PATIENCE: Final = 10.0
"""Seconds that a command waits for a worker to do what it says."""


class HoldError(Exception):
    """What was typed cannot be held; the message names every mistake."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The settings that a person typed: said outright, and words to add or to take away."""

    settings: Settings = field(default_factory=Settings)
    add_words: tuple[str, ...] = ()
    remove_words: tuple[str, ...] = ()


def parse(words: Sequence[str]) -> Wish:
    """Read `cooldown=30 banned_words+=refund ban_urls=true`.

    Raises:
        HoldError: with every mistake.
    """
    tables, said = Tables(), dict[str, Any]()
    lists: dict[str, tuple[str, ...]] = {"+=": (), "-=": ()}
    for word in words:
        match = WORD.fullmatch(word)
        if not match:
            tables.wrong(word, "expected NAME=VALUE, or banned_words+=WORD, or banned_words-=WORD")
            continue
        name, how, value = SHORT.get(match["name"], match["name"]), match["how"], match["value"]
        near = difflib.get_close_matches(name, SHORT, 1)
        if near and name not in NAMES:
            tables.wrong(word, f"is no setting; did you mean {near[0]!r}?")
            continue
        if how == "=":
            said[name] = _all_words(value) if name == "banned_words" else _value(value)
        elif name == "banned_words":
            lists[how] += _listed(tables, word, value)
        else:
            tables.wrong(word, f"only banned_words can be added to; write {match['name']}=VALUE")
    settings = tables.read(Settings, said, "", SETTINGS_CHECKS).whole or Settings()
    if not (words or tables.mistakes):
        tables.wrong("nothing to hold", f"name a setting: {', '.join((*SHORT, *NAMES))}")
    if tables.mistakes:
        raise HoldError("\n".join(tables.mistakes))
    return Wish(settings, lists["+="], lists["-="])


def _listed(tables: Tables, word: str, value: str) -> tuple[str, ...]:
    """Return words to add or to take away, as they were typed with a comma between them."""
    listed = tuple(value.split(","))
    if not all(one.strip() for one in listed):
        tables.wrong(word, "expected words that are not empty")
    return listed


def _all_words(value: str) -> list[str]:
    """Return the words that are to be banned and no other; nothing typed is none of them."""
    return value.split(",") if value else []


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def until(now: datetime, for_: str) -> datetime:
    """Return the end of a hold that begins now.

    Raises:
        HoldError: the length is none, or too long.
    """
    try:
        length = duration(for_)
    except ValueError:
        length = timedelta(0)
    if not timedelta(0) < length <= LONGEST_HOLD:
        raise HoldError(f"--for {for_}: expected a length such as 30m or 2h, at most 90d")
    return now + length


async def say(
    rules: Rules,
    redis_url: str,
    name: str,
    *,
    hold: Hold | None,
    now: datetime,
    echo: Callable[[str], None],
) -> None:
    """Lay a hold on a room, or release it of all, and wait a little for a worker to see to it.

    A room that is several on Whop is meant with all of them; one of those has its own key.

    Raises:
        HoldError: there is no such room.
        Unreachable: Redis does not answer.
    """
    redis = connect(redis_url)
    try:
        inbox = Inbox(redis, rules.account)
        store = Store(redis, inbox.prefix)
        subjects = Subjects(redis, inbox.prefix, Leases(redis, inbox.prefix, "usher"))
        with reaching():
            keys = await _keys(rules, store, name)
            for key in keys:
                await _lay(store, key, hold, now)
                await inbox.mark(
                    f"channel:{key}", RELEASED if hold is None else "held", milliseconds(now)
                )
            for key in keys:
                echo(_words(rules, key, hold))
            await _wait(subjects, [f"channel:{key}" for key in keys], now, echo)
    finally:
        await redis.aclose()


async def _keys(rules: Rules, store: Store, name: str) -> list[str]:
    exist = await store.instances()
    keys = [key for key in exist if name in (key, split(key)[0])]
    if keys:
        return keys
    room = rules.room(name)
    if room:
        raise HoldError(f"{name} does not exist on Whop yet, so there is nothing to hold")
    known = ", ".join(exist or [room.key for room in rules.rooms])
    raise HoldError(f"no room is called {name!r}; there are {known}")


async def _lay(store: Store, key: str, hold: Hold | None, now: datetime) -> None:
    if hold is None:
        await store.release(key)
        step = Step(now, "hold.released", room=key)
    else:
        await store.hold(key, hold)
        why = f"{hold.who}: {hold.why or 'said no reason'}; until {hold.until.isoformat()}"
        step = Step(now, "hold.laid", why, room=key)
    await store.trail(f"channel:{key}", [step])


def _words(rules: Rules, key: str, hold: Hold | None) -> str:
    room = rules.room(split(key)[0])
    if hold is None or room is None:
        return f"{key} goes by its plan again."
    said = [f"is {hold.phase}"] if hold.phase else []
    said += [f"has {in_words(hold.settings)}"] if hold.settings != Settings() else []
    said += [f"bans {word!r}" for word in hold.add_words]
    said += [f"allows {word!r}" for word in hold.remove_words]
    end = local(hold.until, room.schedule.zone)
    return f"{key} {', '.join(said)} until {end}, then goes by its plan."


async def _wait(
    subjects: Subjects, channels: Sequence[str], now: datetime, echo: Callable[[str], None]
) -> None:
    """Wait until nobody has anything to do for these channels any more, or say what is amiss."""
    for _ in range(round(PATIENCE / 0.1)):
        due = await subjects.due(channels)
        if all(at > milliseconds(now) for at in due.values()):
            for refused in await subjects.failing(channels):
                echo(f"Whop has not let it happen yet; `usher dead show {refused}` may say why.")
            return
        await asyncio.sleep(0.1)
    echo("No worker has done it yet; it will be done when `usher work` runs.")

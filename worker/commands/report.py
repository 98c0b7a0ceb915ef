"""What `usher check` and `usher rooms` show: rooms in words, and the same as JSON."""

import itertools
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import structs
from rich.console import Console
from rich.markup import escape

from webhooks.inbox import Inbox, connect
from worker.admin.reach import reaching
from worker.brake import Brake
from worker.chatter import Chatter
from worker.commands.outlook import dated, laid
from worker.memory.places import Place
from worker.policy import pace, refunds, ways
from worker.policy.overrides import Hold, Overrides
from worker.policy.pace import State
from worker.policy.rooms import Room, split
from worker.policy.schedule import changes_after, next_change, phase_at, settings_at
from worker.policy.settings import Settings, changes, said
from worker.policy.stock import Stock
from worker.renames import as_it_is
from worker.rules import Rules, doubts
from worker.store import Store
from worker.words import counted, local, words

SHOWN: Final = 5
"""Changes that `usher check` shows of each room."""


@dataclass(frozen=True, slots=True)
class Line:
    """One room as it exists, for `usher rooms --json`; instants are in UTC."""

    room: str
    cohort: str | None
    name: str
    ready: bool
    phase: str
    products: list[str]
    product: str | None
    plan: str | None
    experience: str | None
    channel: str | None
    seats: int | None
    archived: bool
    held: list[dict[str, Any]]
    edited: dict[str, Any]
    settings: dict[str, Any]
    next_change: datetime | None
    next_settings: dict[str, Any] | None
    element: str | None
    members_granted: int | None = None
    sold: int | None = None
    over_the_seats: list[str] = field(default_factory=list)
    busy: dict[str, Any] | None = None
    brake: dict[str, Any] | None = None
    cohort_seats: int | None = None
    way: str | None = None
    stock: str | None = None
    waiting: list[str] = field(default_factory=list)


def check(rules: Rules, now: datetime, said: Mapping[str, str] | None = None) -> None:
    """Print each room of the rules with its next changes.

    `said` is what is known of rooms whose key became another; without it only their rules tell.
    """
    console = Console(highlight=False, soft_wrap=True)
    for room in rules.rooms:
        console.print(f"[bold]{room.key}[/]  {escape(room.name)}  [dim]{_opens_by(room)}[/]")
        was = f"a start takes over {' or '.join(room.was)}, if it is there" if room.was else ""
        if known := (said or {}).get(room.key, "" if said is not None else was):
            console.print(f"  [yellow]{escape(known)}[/]")
        if room.cohort:
            console.print(f"  seats, grant = {room.grant!r}: {ways.in_words(room.grant)}")
        console.print(f"  buyers, {escape(refunds.in_words(room))}")
        schedule = room.schedule
        phase = f"{phase_at(schedule, now)}: " if schedule.eventful else ""
        console.print(f"  now: {phase}{in_words(settings_at(schedule, now))}")
        coming = list(itertools.islice(changes_after(schedule, now), SHOWN))
        before = settings_at(schedule, now)
        for change in coming:
            phase = f"{change.phase}: " if schedule.eventful else ""
            new = _difference(before, change.settings)
            console.print(f"  {local(change.at, schedule.zone)}  {phase}{new}")
            before = change.settings
        if not coming:
            console.print("  [dim]it stays so: nothing changes by itself[/]")
        console.print()
    unsure = doubts(rules)
    for doubt in unsure:
        console.print(f"[yellow]{escape(doubt)}[/]")
    but = ", but see above" if unsure else ""
    console.print(f"{counted(len(rules.rooms), 'room')} of {rules.account}: no mistakes{but}.")


async def rooms(rules: Rules, redis_url: str, now: datetime, *, as_json: bool) -> None:
    """Print every room that exists, and those that wait for their first buyer.

    Raises:
        Unreachable: Redis does not answer.
        ValueError: the URL is none.
    """
    found, said = await lines(rules, redis_url, now)
    if as_json:
        rows = [asdict(line) for line in found]
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
        return
    _print(found, rules, said)


async def lines(rules: Rules, redis_url: str, now: datetime) -> tuple[list[Line], dict[str, str]]:
    """Return every room that exists, and what is to be said of those whose key became another.

    Raises:
        Unreachable: Redis does not answer.
        ValueError: the URL is none.
    """
    redis = connect(redis_url)
    try:
        with reaching():
            prefix = Inbox(redis, rules.account).prefix
            store = Store(redis, prefix)
            ruled, said = await as_it_is(rules, store)
            ruled = await dated(ruled, redis, prefix, now)
            brake = Brake(redis, prefix, lambda: now)
            return await _lines(ruled, store, Chatter(redis, prefix), brake, now), said
    finally:
        await redis.aclose()


async def _lines(
    rules: Rules, store: Store, chatter: Chatter, brake: Brake, now: datetime
) -> list[Line]:
    exist = await store.instances()
    known = dict(zip(exist, await store.standing(*exist), strict=True))
    slowed = await chatter.states(
        [one.place.channel for one in known.values() if one.place and one.place.channel]
    )
    engaged, refused = await brake.engaged(), await store.refusals()
    offered = await store.offered_in(exist)
    granted = await store.count_granted([key for key in exist if split(key)[1]])
    tickets = await store.buyers([room.key for room in rules.rooms if room.seats])
    stocks = await store.stocks([room.key for room in rules.rooms if room.plan])
    lines = []
    for key, standing in known.items():
        room, place = rules.room(split(key)[0]), standing.place
        if not (room and place):
            continue
        state = slowed.get(place.channel or "", State())
        line = _line(room, key, place, laid(room, standing, state), now)
        on = engaged.get(room.key)
        buyers = tickets.get(room.key, [])
        lines.append(
            replace(
                line,
                members_granted=granted.get(key, 0) if room.cohort else None,
                cohort_seats=(room.cohort.seats or None) if room.cohort else None,
                way=ways.why_in_use(room.grant, refused, now) if room.cohort else None,
                waiting=offered.get(key, []),
                sold=len(buyers) if room.seats else None,
                over_the_seats=buyers[room.seats :] if room.seats else [],
                stock=_stock(stocks.get(room.key)),
                busy=_busy(room, place, state),
                brake=structs.asdict(on) if on else None,
            )
        )
    order = {room.key: n for n, room in enumerate(rules.rooms)}
    return sorted(lines, key=lambda line: (order[line.room], _natural(line.cohort)))


def _busy(room: Room, place: Place, state: State) -> dict[str, Any] | None:
    """Return how far a busy chat is slowed down, and what takes it down again; None at rest."""
    if room.pace is None or place.archived or not pace.cooldown(room.pace, state):
        return None
    return {
        "step": min(state.level, len(room.pace.steps)),
        "steps": len(room.pace.steps),
        "seconds": pace.cooldown(room.pace, state),
        "since": state.raised,
        "quiet": room.pace.quiet,
    }


def _natural(cohort: str | None) -> tuple[int, str]:
    """Sort cohort 10 after cohort 9, and months by their names."""
    return (int(cohort), "") if cohort and cohort.isdigit() else (0, cohort or "")


def _line(room: Room, key: str, place: Place, laid: Overrides, now: datetime) -> Line:
    """Return what a room's record, the rules and the time say of it."""
    schedule = room.schedule_of(split(key)[1], place.occurrence)
    coming = next_change(schedule, now, laid)
    edited = laid.edit.settings if laid.edit and laid.edit.holds_at(now) else Settings()
    return Line(
        room=room.key,
        cohort=split(key)[1],
        name=place.name,
        ready=place.ready,
        phase=phase_at(schedule, now, laid),
        products=list(room.products),
        product=place.product,
        plan=place.plan,
        experience=place.experience,
        channel=place.channel,
        seats=room.seats,
        archived=place.archived,
        held=[_held(hold) for hold in laid.holds_at(now)],
        edited=said(edited),
        settings=said(settings_at(schedule, now, laid)),
        next_change=coming.at if coming else None,
        next_settings=said(coming.settings) if coming else None,
        element=element(place.channel),
    )


def _held(hold: Hold) -> dict[str, Any]:
    said_so = {"who": hold.who, "why": hold.why, "until": hold.until, "phase": hold.phase}
    words_changed = {"add_words": hold.add_words, "remove_words": hold.remove_words}
    return {**said_so, "settings": said(hold.settings), **words_changed}


def element(channel: str | None) -> str | None:
    """Return the line that renders a channel on the seller's own site (Whop: Chat element).

    It stands inside Whop's `Elements` and `ChatSession`, whose token the site's server makes.
    """
    return f'<ChatElement options={{{{ channelId: "{channel}" }}}} />' if channel else None


def _print(lines: list[Line], rules: Rules, said: Mapping[str, str]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        room = rules.room(line.room)
        zone = room.schedule.zone if room else ZoneInfo("UTC")
        key = f"{line.room}/{line.cohort}" if line.cohort else line.room
        console.print(f"[bold]{key}[/]  {escape(line.name)}")
        for name, value in _facts(line, zone):
            console.print(f"  [dim]{name:<14}[/]{value}")
        console.print()
    for room in rules.rooms:
        if room.key in said:
            console.print(f"[bold]{room.key}[/]  [yellow]{escape(said[room.key])}[/]")
        elif not any(line.room == room.key for line in lines):
            console.print(f"[bold]{room.key}[/]  [dim]does not exist yet: {_comes(room)}[/]")


def _facts(line: Line, zone: ZoneInfo) -> list[tuple[str, str]]:
    bought = ", ".join(line.products)
    granted = "by purchase" if line.members_granted is None else f"{line.members_granted} granted"
    if line.cohort_seats and line.members_granted is not None:
        over = line.members_granted - line.cohort_seats
        more = f": {over} more than there are seats, see `usher verify`" if over > 0 else ""
        granted += f" of {counted(line.cohort_seats, 'seat')}{more}"
    nothing = "the chat gets faster when it is quiet" if line.busy else "nothing changes by itself"
    facts = [
        ("opened by", bought),
        ("members", granted),
        ("seats", _sold(line)),
        ("given", line.way or ""),
        ("waiting", _waiting(line)),
        ("brake", _braked(line)),
        ("product", " ".join(filter(None, (line.product, line.plan)))),
        ("experience", f"{line.experience or 'not made yet'}  {line.channel or ''}"),
        ("phase", f"{line.phase}, archived" if line.archived else line.phase),
        *[("held", escape(_hold(held, zone))) for held in line.held],
        ("by hand", _words(line.edited)),
        ("busy", _slowed(line.busy, zone) if line.busy else ""),
        ("now", _words(line.settings) or "as it is set on Whop"),
        ("next", _coming(line, zone) if line.next_change else nothing),
        ("on your site", escape(line.element or "") or "when it is made"),
    ]
    return [(name, value) for name, value in facts if value.strip()]


def _sold(line: Line) -> str:
    if line.seats is None:
        return ""
    over = f"; over the seats: {', '.join(line.over_the_seats)}" if line.over_the_seats else ""
    return f"{line.sold} sold of {line.seats}{over}{f'; {line.stock}' if line.stock else ''}"


def _stock(held: Stock | None) -> str | None:
    """Say what is not right with the stock by which Whop holds the seats."""
    if held is None:
        return None
    if held.refused:
        again = f"tried again {held.due:%F %H:%M} UTC" if held.due else "tried again at a restart"
        return f"Whop refuses to hold them by the stock of the plan: {held.why}; {again}"
    if held.unclear is None or held.sense:
        return None
    return (
        "if your checkout says that it is sold out before that, set the stock to "
        f"{held.unclear} on Whop by hand, once"
    )


def _waiting(line: Line) -> str:
    if not line.waiting:
        return ""
    many = counted(len(line.waiting), "member")
    return f"for {many} to take what they were offered; see `usher seat waiting`"


def _braked(line: Line) -> str:
    if line.brake is None:
        return ""
    many = f"{line.brake['takes']} of {line.brake['members']}"
    return f"on: nothing explains why {many} would be put out; see `usher brake show {line.room}`"


def _hold(held: Mapping[str, Any], zone: ZoneInfo) -> str:
    what = f"is {held['phase']}" if held["phase"] else words(held["settings"])
    changed = [f"+{word}" for word in held["add_words"]] + [f"-{w}" for w in held["remove_words"]]
    reason = f" ({held['why']})" if held["why"] else ""
    said_by = f"by {held['who']}{reason}, until {local(held['until'], zone)}"
    return " ".join(filter(None, [what, *changed, said_by]))


def _slowed(busy: Mapping[str, Any], zone: ZoneInfo) -> str:
    """Say since when a busy chat is slowed down, how far, and what takes it down again."""
    since = f", slowed since {local(busy['since'], zone)}" if busy["since"] else ""
    step = f"step {busy['step']} of {busy['steps']}, {counted(busy['seconds'], 'second')}{since}"
    down = f"{pace.CALM} minutes with fewer than {busy['quiet']} messages each take it down a step"
    return f"{step}; {down}"


def _coming(line: Line, zone: ZoneInfo) -> str:
    next_ = line.next_settings or {}
    new = {k: v for k, v in next_.items() if line.settings.get(k) != v}
    own = [f"{name} as it was before" for name in line.settings if name not in next_]
    said = ", ".join(filter(None, [_words(new), *own]))
    return f"{local(line.next_change, zone)}  {said}" if line.next_change else ""


def _opens_by(room: Room) -> str:
    products = ", ".join(room.products)
    if room.calendar:
        products += f"; its dates come from {room.calendar.shown}, see `usher plan`"
    if room.one_room_per == "occurrence":
        return f"a room for each occurrence, opened by {products}"
    if room.cohort is None:
        return f"opened by {products}"
    size = counted(room.cohort.seats, "seat") if room.cohort.seats else f"a {room.cohort.by}"
    return f"a seat in a cohort ({size}) for {products}"


def _comes(room: Room) -> str:
    if room.cohort or room.provision == "on_purchase":
        return "it comes with its first buyer"
    if room.one_room_per == "occurrence" or room.lead is not None:
        return "it comes ahead of its next occurrence, or with its first buyer"
    return "`usher work` makes it when it starts"


def in_words(settings: Settings) -> str:
    """Write what a room sets, or that it sets nothing."""
    return _words(said(settings)) or "as it is set on Whop"


def _difference(before: Settings, after: Settings) -> str:
    return _words(changes(after, before))


def _words(settings: Mapping[str, Any]) -> str:
    """Write settings so that they are safe to print."""
    return escape(words(settings))

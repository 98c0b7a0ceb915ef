"""A room's channel: what it is set to, by the plan, by hand, by a person's word and by its pace.

One subject, `channel:{instance}`, sets a standing room's channel, so that two never do at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from worker import pacing
from worker.announce import announce
from worker.memory.channels import Kept
from worker.memory.places import Place
from worker.memory.trail import Step
from worker.policy.edits import edits, untouched
from worker.policy.messages import next_message
from worker.policy.overrides import Edit, Overrides
from worker.policy.phases import Phase
from worker.policy.rooms import Room, split
from worker.policy.schedule import Change, Schedule, next_change, phase_at, settings_at
from worker.policy.settings import Settings, WhoCanPost, WhoCanReact, changes, over, said
from worker.subjects import milliseconds
from worker.tools import Tools
from worker.whop.quota import Rank
from worker.whop.types import Channel

log = structlog.get_logger()

NONE: Final = Settings()


@dataclass(frozen=True, slots=True)
class _View:
    """One look at a room's channel."""

    room: Room
    key: str
    kept: Kept
    schedule: Schedule
    overrides: Overrides
    now: datetime

    @property
    def plan(self) -> Settings:
        """What the channel should be by the plan alone."""
        return settings_at(self.schedule, self.now)

    @property
    def want(self) -> Settings:
        """What the channel should be, all told."""
        return settings_at(self.schedule, self.now, self.overrides)

    def next_change(self) -> Change | None:
        return next_change(self.schedule, self.now, self.overrides)


async def set_channel(
    tools: Tools, room: Room, key: str, place: Place, *, released: bool = False
) -> datetime | None:
    """Set a room's channel to what it should be now, write what is due, and say when to look again.

    `released` says that a person ends what was changed by hand, too.

    Raises:
        Unavailable, Rejected: Whop did not let a step happen.
    """
    now, schedule = tools.clock(), room.schedule_of(split(key)[1], place.occurrence)
    kept = await _kept(tools, key, place)
    first = place.found and kept.left is None
    archived = phase_at(schedule, now) is Phase.ARCHIVED
    state, slower, pace_look = await pacing.ask(tools, room, kept, now, archived=archived)
    respected = kept.edit and kept.edit.holds_at(now) and _same_plan(kept, schedule, now)
    if kept.edit and (released or not respected):
        log.info("edit.ended", room=key, **said(kept.edit.settings))
        kept.edit = None
    laid = Overrides(slower, kept.edit, await tools.store.holds(key))
    before = kept.aimed
    view = await _settings(tools, _View(room, key, kept, schedule, laid, now))
    if room.pace and state:
        law, want = room.pace, view.want
        await pacing.keep(tools, key, kept, law, state=state, now=now, aimed=before, want=want)
    await announce(tools, room, key, kept, schedule, first=first)
    coming, text = view.next_change(), next_message(schedule, room.messages, now)
    archives = schedule.archived_from
    looks = [pace_look, text, _instant(coming, view.want) if coming else None]
    looks.append(archives if archives and archives > now else None)
    kept.look = min((at for at in looks if at), default=None)
    await tools.store.save_kept(key, kept)
    if place.ready and archived != place.archived:
        await tools.inbox.mark(f"room:{key}", "archives", milliseconds(now))
    return kept.look


async def _kept(tools: Tools, key: str, place: Place) -> Kept:
    kept = await tools.store.kept(key)
    return kept if kept and kept.id == place.channel else Kept(place.channel or "")


async def differences(
    tools: Tools, room: Room, key: str, place: Place, channel: Channel
) -> dict[str, Any]:
    """Return what a look at a channel would send now, and send nothing.

    What somebody changed by hand, and is respected, is no difference; nor is what Whop itself
    made of what was sent.
    """
    now, schedule = tools.clock(), room.schedule_of(split(key)[1], place.occurrence)
    kept = await _kept(tools, key, place)
    archived = phase_at(schedule, now) is Phase.ARCHIVED
    slower = NONE if archived else await pacing.standing(tools, room, kept)
    same = _same_plan(kept, schedule, now)
    edit = kept.edit if kept.edit and kept.edit.holds_at(now) and same else None
    laid = Overrides(slower, edit, await tools.store.holds(key))
    view, have = _View(room, key, kept, schedule, laid, now), settings_of(channel)
    if kept.hidden and kept.left and not have.banned_words:
        have = over(have, Settings(banned_words=kept.left.banned_words))
    own = {n: v for n, v in said(kept.own).items() if n not in said(view.plan)}
    want = over(view.want, Settings(**{n: v for n, v in own.items() if n not in said(view.want)}))
    if untouched(have, kept.left, kept.aimed, want):
        return {}
    respected = same and room.manual_edits == "respect"
    by_hand = said(edits(have, kept.left, kept.aimed, view.want)) if respected else {}
    return {n: v for n, v in changes(want, have).items() if n not in by_hand}


async def _settings(tools: Tools, view: _View) -> _View:
    """Send what differs, but for what somebody changed by hand where that is respected."""
    kept, rank = view.kept, _rank(view.kept.left, view.want)
    have = await _read(tools, kept, await tools.whop.channel(kept.id, rank=rank))
    if _same_plan(kept, view.schedule, view.now):
        view = await _edited(tools, view, have)
    want = await _with_own(tools, view, have)
    different, left = changes(want, have), have
    if different and not untouched(have, kept.left, kept.aimed, want):
        # Written down first: what a broken-off change left there is nobody's edit by hand.
        kept.left, kept.aimed, kept.planned = None, want, view.plan
        kept.seen = view.now
        await tools.store.save_kept(view.key, kept)
        answer = await tools.whop.update_channel(kept.id, different, rank=rank)
        shown = settings_of(answer)  # what somebody else changed meanwhile is not ours
        left = over(have, Settings(**{name: getattr(shown, name) for name in different}))
        phase = phase_at(view.schedule, view.now, view.overrides)
        log.info("channel.changed", room=view.key, phase=phase, **different)
        step = Step(view.now, "channel.changed", str(different), room=view.key, id=kept.id)
        await tools.store.trail(f"channel:{view.key}", [step])
    kept.left, kept.aimed, kept.planned, kept.seen = left, want, view.plan, view.now
    kept.own = Settings(**{n: v for n, v in said(kept.own).items() if n in said(view.want)})
    await tools.store.save_kept(view.key, kept)
    return view


def _same_plan(kept: Kept, schedule: Schedule, now: datetime) -> bool:
    """Say whether the plan wants what it wanted at the last look; a change of it ends edits."""
    passed = next_change(schedule, kept.seen) if kept.seen else None
    return kept.planned == settings_at(schedule, now) and not (passed and passed.at <= now)


async def _edited(tools: Tools, view: _View, have: Settings) -> _View:
    """Take note of what somebody changed by hand; returns the view with it, if it is respected."""
    kept = view.kept
    by_hand = edits(have, kept.left, kept.aimed, view.want)
    if by_hand == NONE:
        return view
    respected = view.room.manual_edits == "respect"
    beaten = _beaten(view, by_hand)
    if respected and beaten:
        log.warning("edit.beaten", room=view.key, by="a hold", **said(by_hand))
        return view
    before = kept.edit.settings if kept.edit else NONE
    coming = next_change(view.schedule, view.now)
    edit = Edit(view.now, coming.at if coming else None, over(before, by_hand))
    what = "edit.respected" if respected else "edit.reverted"
    until = edit.until.isoformat() if edit.until and respected else None
    log.warning(what, room=view.key, until=until, **said(by_hand))
    step = Step(view.now, what, str(said(by_hand)), room=view.key, id=kept.id)
    await tools.store.trail(f"channel:{view.key}", [step])
    if not respected:
        return view
    kept.edit = edit
    laid = Overrides(view.overrides.pace, edit, view.overrides.holds)
    return _View(view.room, view.key, kept, view.schedule, laid, view.now)


def _beaten(view: _View, by_hand: Settings) -> bool:
    """Say whether a person's hold decides on what somebody else changed by hand."""
    laid = Overrides(view.overrides.pace, Edit(view.now, None, by_hand), view.overrides.holds)
    result = settings_at(view.schedule, view.now, laid)
    return not any(getattr(result, name) == value for name, value in said(by_hand).items())


async def _with_own(tools: Tools, view: _View, have: Settings) -> Settings:
    """Return what is wanted, with the seller's own values where a hold has ended.

    What a hold touches and the rules do not speak of is written down before it is changed.
    """
    kept, plan, want = view.kept, said(view.plan), said(view.want)
    own = {name: value for name, value in said(kept.own).items() if name not in plan}
    new = {n: getattr(have, n) for n in want if n not in plan and n not in own}
    kept.own = Settings(**own, **new)
    if new:
        await tools.store.save_kept(view.key, kept)
    merged = over(view.want, Settings(**{n: v for n, v in own.items() if n not in want}))
    if "banned_words" in plan or kept.own.banned_words is None or "banned_words" not in want:
        return merged
    words = Settings(banned_words=kept.own.banned_words)
    for hold in view.overrides.holds_at(view.now):
        words = hold.laid_on(over(words, Settings(banned_words=hold.settings.banned_words)))
    return over(merged, Settings(banned_words=words.banned_words))


async def _read(tools: Tools, kept: Kept, channel: Channel) -> Settings:
    """Read a channel's settings. Words that read empty may be hidden from us: then ours stand."""
    settings = settings_of(channel)
    ours = kept.left.banned_words if kept.left else None
    if settings.banned_words or not ours:
        kept.hidden = False
        return settings
    kept.hidden = "chat:moderate" not in await tools.whop.permitted(["chat:moderate"])
    if not kept.hidden:
        return settings
    log.warning("words.hidden", next="give the API key the permission chat:moderate")
    return over(settings, Settings(banned_words=ours))


def settings_of(channel: Channel) -> Settings:
    """Return a channel's settings as Whop shows them."""
    shown = channel.settings
    return Settings(
        who_can_post=_known(WhoCanPost, shown.get("who_can_post")),
        who_can_react=_known(WhoCanReact, shown.get("who_can_react")),
        user_posts_cooldown_seconds=shown.get("user_posts_cooldown_seconds") or 0,
        ban_media=bool(shown.get("ban_media")),
        ban_urls=bool(shown.get("ban_urls")),
        banned_words=tuple(shown.get("banned_words") or ()),
    )


def _known(kind: Any, value: Any) -> Any:
    """Return a value as ours; one that Usher does not know reads as not said."""
    return kind(value) if value in tuple(kind) else None


def _rank(before: Settings | None, after: Settings) -> Rank:
    """Return how urgent it is to go from one to the other: to close a room comes first."""
    if after.who_can_post is None or (before and before.who_can_post == after.who_can_post):
        return Rank.OTHER
    return Rank.LOCK if after.who_can_post == WhoCanPost.ADMINS else Rank.OPENING


def _instant(change: Change, now: Settings) -> datetime:
    """Return when to wake for a change: among those of one instant, locks are due first."""
    return change.at + timedelta(milliseconds=_rank(now, change.settings))


async def watch(tools: Tools) -> None:
    """Look for channels that are not as Usher left them, or whose look was missed; each minute.

    One call lists a hundred channels with their settings.
    """
    kept, now = await tools.store.all_kept(), tools.clock()
    late = [key for key, k in kept.items() if k.look and k.look < now - timedelta(minutes=1)]
    due = await tools.subjects.due([f"channel:{key}" for key in late])
    soon = milliseconds(now + timedelta(minutes=1))
    reasons = {
        key: "overlooked"
        for key in late
        if _ruled(tools, key) and due.get(f"channel:{key}", soon) >= soon
    }
    by_channel = {k.id: key for key, k in kept.items()}
    async for channel in tools.whop.channels():
        key = by_channel.get(channel.id)
        if key and _ruled(tools, key) and _moved(channel, kept[key]):
            reasons[key] = "edited"
    for key, reason in reasons.items():
        await tools.inbox.mark(f"channel:{key}", reason, milliseconds(now))


def _ruled(tools: Tools, key: str) -> bool:
    return tools.rules.room(split(key)[0]) is not None


def _moved(channel: Channel, kept: Kept) -> bool:
    """Say whether a channel is not as Usher left it."""
    shown = settings_of(channel)
    names: Sequence[str] = list(said(kept.aimed or NONE))
    moved: dict[str, Any] = changes(shown, kept.left or NONE)
    if kept.hidden and not shown.banned_words:
        moved.pop("banned_words", None)
    elif kept.hidden:
        return True  # they are shown again, and the next look takes note
    return any(name in moved for name in names)

"""A room's channel: what it is set to, by the plan, by hand, by a person's word and by its pace.

One subject, `channel:{instance}`, sets a standing room's channel, so that two never do at once.
"""

import asyncio
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

import structlog
from msgspec import UNSET

from worker import pacing
from worker.announce import announce
from worker.memory.channels import Kept, Standing
from worker.memory.places import Place
from worker.memory.trail import Step
from worker.policy import pace
from worker.policy.edits import edits, untouched
from worker.policy.messages import next_message
from worker.policy.overrides import NOTHING, Edit, Overrides
from worker.policy.pace import State
from worker.policy.phases import Phase
from worker.policy.rooms import Room, split
from worker.policy.schedule import Change, Schedule, changed, next_change, phase_at, settings_at
from worker.policy.settings import Settings, WhoCanPost, WhoCanReact, changes, over, said
from worker.subjects import milliseconds
from worker.tools import Tools
from worker.whop.quota import Rank
from worker.whop.types import Channel

log = structlog.get_logger()

NONE: Final = Settings()


@dataclass(frozen=True)
class _View:
    """One look at a room's channel."""

    room: Room
    key: str
    kept: Kept
    schedule: Schedule
    overrides: Overrides
    now: datetime

    @cached_property
    def plan(self) -> Settings:
        """What the channel should be by the plan alone."""
        return settings_at(self.schedule, self.now)

    @cached_property
    def want(self) -> Settings:
        """What the channel should be, all told."""
        return settings_at(self.schedule, self.now, self.overrides)

    @cached_property
    def coming(self) -> Change | None:
        """The plan's next change."""
        return next_change(self.schedule, self.now)

    def next_change(self) -> Change | None:
        """Return the next change, all told."""
        if self.overrides == NOTHING:
            return self.coming
        return next_change(self.schedule, self.now, self.overrides)

    @property
    def same_plan(self) -> bool:
        """Whether the plan wants what it wanted at the last look; a change of it ends edits."""
        kept = self.kept
        if kept.planned != self.plan:
            return False
        if kept.coming is UNSET:  # it was written down before Usher noted when the plan changes
            return not (kept.seen and changed(self.schedule, kept.seen, self.now))
        return kept.coming is None or kept.coming > self.now


async def set_channel(
    tools: Tools,
    room: Room,
    key: str,
    place: Place,
    *,
    released: bool = False,
    standing: Standing | None = None,
) -> datetime | None:
    """Set a room's channel to what it should be now, write what is due, and say when to look again.

    `released` says that a person ends what was changed by hand, too; `standing` is what is
    remembered of the room, where that was read. A look that changes nothing writes nothing.

    Raises:
        Unavailable, Rejected: Whop did not let a step happen.
    """
    now, schedule = tools.clock(), room.schedule_of(split(key)[1], place.occurrence)
    standing = standing or (await tools.store.standing(key))[0]
    kept = _kept(standing, place)
    known = copy(kept)
    first = place.found and kept.left is None
    archived = phase_at(schedule, now) is Phase.ARCHIVED
    asked = await pacing.ask(tools, room, kept, now, archived=archived)
    view = _View(room, key, kept, schedule, Overrides(), now)
    respected = kept.edit and kept.edit.holds_at(now) and view.same_plan
    if kept.edit and (released or not respected):
        log.info("edit.ended", room=key, **said(kept.edit.settings))
        kept.edit = None
    laid = Overrides(asked.slower, kept.edit, standing.holds)
    before = kept.aimed
    view = await _settings(tools, replace(view, overrides=laid))
    if kept != known:
        await _note(tools, view)
        known = copy(kept)
    if room.pace and asked.state:
        law, want = room.pace, view.want
        await pacing.keep(tools, key, kept, law, asked=asked, now=now, aimed=before, want=want)
    await announce(tools, room, key, kept, schedule, first=first)
    coming, text = view.next_change(), next_message(schedule, room.messages, now)
    archives = schedule.archived_from
    looks = [asked.look, text, _instant(coming, view.want) if coming else None]
    looks.append(archives if archives and archives > now else None)
    kept.look = min((at for at in looks if at), default=None)
    if kept != known:
        await tools.store.save_kept(key, kept)
    if place.ready and archived != place.archived:
        await tools.inbox.mark(f"room:{key}", "archives", milliseconds(now))
    return kept.look


async def _note(tools: Tools, view: _View) -> None:
    """Write down what is known of a channel by now."""
    view.kept.seen = view.now
    await tools.store.save_kept(view.key, view.kept)


def _kept(standing: Standing, place: Place) -> Kept:
    kept = standing.kept
    return kept if kept and kept.id == place.channel else Kept(place.channel or "")


def differences(
    room: Room, key: str, standing: Standing, state: State, channel: Channel, *, now: datetime
) -> dict[str, Any]:
    """Return what a look at a channel would send now.

    `standing` is what is remembered of the room, which exists, and `state` is its controller's.
    What somebody changed by hand, and is respected, is no difference; nor is what Whop itself
    made of what was sent.
    """
    place = standing.place or Place(key)
    schedule, kept = room.schedule_of(split(key)[1], place.occurrence), _kept(standing, place)
    paced = room.pace if phase_at(schedule, now) is not Phase.ARCHIVED else None
    slower = pace.settings(paced, state) if paced else NONE
    same = _View(room, key, kept, schedule, Overrides(), now).same_plan
    edit = kept.edit if kept.edit and kept.edit.holds_at(now) and same else None
    laid = Overrides(slower, edit, standing.holds)
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
    if view.same_plan:
        view = await _edited(tools, view, have)
    want = await _with_own(tools, view, have)
    different, left = changes(want, have), have
    kept.coming = view.coming.at if view.coming else None
    if different and not untouched(have, kept.left, kept.aimed, want):
        # Written down first: what a broken-off change left there is nobody's edit by hand.
        kept.left, kept.aimed, kept.planned = None, want, view.plan
        await _note(tools, view)
        answer = await tools.whop.update_channel(kept.id, different, rank=rank)
        shown = settings_of(answer)  # what somebody else changed meanwhile is not ours
        left = over(have, Settings(**{name: getattr(shown, name) for name in different}))
        phase = phase_at(view.schedule, view.now, view.overrides)
        log.info("channel.changed", room=view.key, phase=phase, **different)
        step = Step(view.now, "channel.changed", str(different), room=view.key, id=kept.id)
        await tools.store.trail(f"channel:{view.key}", [step])
    kept.left, kept.aimed, kept.planned = left, want, view.plan
    kept.own = Settings(**{n: v for n, v in said(kept.own).items() if n in said(view.want)})
    return view


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
    edit = Edit(view.now, view.coming.at if view.coming else None, over(before, by_hand))
    what = "edit.respected" if respected else "edit.reverted"
    until = edit.until.isoformat() if edit.until and respected else None
    log.warning(what, room=view.key, until=until, **said(by_hand))
    step = Step(view.now, what, str(said(by_hand)), room=view.key, id=kept.id)
    await tools.store.trail(f"channel:{view.key}", [step])
    if not respected:
        return view
    kept.edit = edit
    return replace(view, overrides=replace(view.overrides, edit=edit))


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
    at = milliseconds(now)
    await asyncio.gather(*(tools.inbox.mark(f"channel:{k}", why, at) for k, why in reasons.items()))


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

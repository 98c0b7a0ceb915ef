"""A person's word, edits by hand, and a busy chat: what lies on a room's plan."""

import asyncio
from datetime import timedelta
from pathlib import Path

import community
import pytest
from click.testing import CliRunner
from community import Clock, at, said, watch
from event_rooms import LOUNGE, NOON, SLOW, hold, members, say

from worker import jobs
from worker.cli import main as cli
from worker.commands import holds
from worker.policy.settings import Settings, WhoCanPost


async def usher(seller: community.Community, tmp_path: Path, *words: str) -> str:
    """Type a command, as a person at a terminal does; their clock is ours."""
    rules = tmp_path / "rooms.toml"
    rules.write_text(community.HEAD + LOUNGE)
    env = {"USHER_RULES": str(rules), "REDIS_URL": seller.settings.redis_url}
    result = await asyncio.to_thread(
        CliRunner(env=env).invoke, cli.main, words, catch_exceptions=False
    )
    await seller.settled()
    return result.output


def test_a_hold_beats_the_plan_and_is_undone_by_itself_at_its_end(redis_url):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, LOUNGE, clock=clock) as seller:
            channel = await seller.channel("lounge")
            channel.ban_media = True  # the seller's own, of which the rules say nothing
            words = ("cooldown=0", "banned_words+=refund", "ban_media=false", "ban_urls=true")
            await say(seller, clock, hold(clock, *words, length="12h"))
            assert channel.user_posts_cooldown_seconds is None
            assert channel.banned_words == ["telegram", "refund"]
            assert (channel.ban_media, channel.ban_urls) == (False, True)
            await at(seller, clock, NOON + timedelta(hours=10))  # quiet hours; the hold wins
            assert channel.user_posts_cooldown_seconds is None
            await at(seller, clock, NOON + timedelta(hours=12))
            assert channel.user_posts_cooldown_seconds == 60
            assert channel.banned_words == ["telegram"]
            assert (channel.ban_media, channel.ban_urls) == (True, False)

    asyncio.run(main())


def test_a_room_is_locked_and_released_by_a_person(redis_url):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, LOUNGE, clock=clock) as seller:
            channel = await seller.channel("lounge")
            (line,) = await say(seller, clock, hold(clock, phase="locked"))
            until = "Wed 04 Dec 2024 14:00:00 EST"
            assert line == f"lounge is locked until {until}, then goes by its plan."
            assert channel.who_can_post == "admins"
            await say(seller, clock, hold(clock, phase="open", length="1h"))  # the later wins
            assert channel.who_can_post == "everyone"
            clock.at += timedelta(seconds=1)
            assert await say(seller, clock, None) == ["lounge goes by its plan again."]
            assert channel.who_can_post == "everyone"
            assert channel.user_posts_cooldown_seconds == 5
            steps = await seller.trail("channel:lounge")
            assert any("ada: a test; until" in why for _, why in steps)

    asyncio.run(main())


def test_a_person_types_a_hold_and_reads_what_holds(redis_url, tmp_path):
    async def main():
        async with community.running(redis_url, LOUNGE) as seller:
            told = await usher(
                seller, tmp_path, "hold", "lounge", "cooldown=30", "banned_words+=refund"
            )
            assert "lounge has user_posts_cooldown_seconds = 30, bans 'refund' until " in told
            assert (await seller.channel("lounge")).user_posts_cooldown_seconds == 30
            rooms = await usher(seller, tmp_path, "rooms")
            assert "held" in rooms
            assert "+refund by " in rooms
            assert "no room is called 'longe'" in await usher(seller, tmp_path, "lock", "longe")
            wrong = await usher(seller, tmp_path, "hold", "lounge", "coldown=3", "ban_urls=perhaps")
            assert "coldown" in wrong
            assert "ban_urls: expected true or false" in wrong

    asyncio.run(main())


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        (["cooldown=soon"], "expected a whole number"),
        (["cooldown=-3"], "expected 0 or more seconds"),
        (["banned"], "expected NAME=VALUE"),
        (["cooldown+=3"], "only banned_words can be added to"),
        ([], "name a setting"),
    ],
)
def test_what_cannot_be_held_is_named(words, mistake):
    with pytest.raises(holds.HoldError, match=mistake.replace("[", "\\[")):
        holds.parse(words)


def test_words_are_said_outright_or_added_or_taken_away():
    wish = holds.parse(["banned_words=a,b", "banned_words-=c", "who_can_post=admins"])
    assert wish.settings == Settings(who_can_post=WhoCanPost.ADMINS, banned_words=("a", "b"))
    assert wish.remove_words == ("c",)


@pytest.mark.parametrize("length", ["", "2", "0h", "91d", "tomorrow"])
def test_a_hold_needs_an_end_within_reach(length):
    with pytest.raises(holds.HoldError, match="expected a length"):
        holds.until(NOON, length)


@pytest.mark.parametrize("how", ["respect", "revert"])
def test_an_edit_by_hand_is_respected_until_the_next_planned_change_or_put_back(redis_url, how):
    clock = Clock(NOON)
    rooms = LOUNGE.replace("banned", f'manual_edits = "{how}"\nbanned', 1)

    async def main():
        async with community.running(redis_url, rooms, clock=clock) as seller:
            channel = await seller.channel("lounge")
            channel.user_posts_cooldown_seconds = 90
            channel.ban_media = True  # not Usher's to look after
            await watch(seller)
            assert channel.user_posts_cooldown_seconds == (90 if how == "respect" else 5)
            assert channel.ban_media is True
            assert f"edit.{how}ed" in dict(await seller.trail("channel:lounge"))
            await at(seller, clock, NOON + timedelta(hours=10))
            assert channel.user_posts_cooldown_seconds == 60
            await at(seller, clock, NOON + timedelta(hours=19))
            assert channel.user_posts_cooldown_seconds == 5
            assert channel.ban_media is True

    asyncio.run(main())


def test_a_release_ends_an_edit_by_hand_too(redis_url):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, LOUNGE, clock=clock) as seller:
            channel = await seller.channel("lounge")
            channel.user_posts_cooldown_seconds = 90
            await watch(seller)
            assert channel.user_posts_cooldown_seconds == 90
            await say(seller, clock, None)
            assert channel.user_posts_cooldown_seconds == 5

    asyncio.run(main())


def test_words_that_read_empty_for_want_of_a_permission_are_no_edit(redis_url):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, LOUNGE, clock=clock) as seller:
            channel = await seller.channel("lounge")
            await seller.rest()  # each call is counted: no worker's cron comes in between
            async with seller.workbench() as tools:

                async def look() -> None:
                    await jobs.watch(tools)
                    await jobs.run(tools, "channel:lounge")

                seller.forbid("chat:moderate")
                changed = seller.calls("chat_channels.update")
                for _ in range(3):
                    await look()
                assert seller.calls("chat_channels.update") == changed
                assert channel.banned_words == ["telegram"]
                asked = seller.calls("permissions.list")
                await look()
                assert seller.calls("permissions.list") == asked  # it is known by now
                seller.allow_everything()
                await look()
                channel.banned_words = []  # by hand, and to be seen
                await look()
                kept = await seller.store.kept("lounge")
                assert kept.edit.settings == Settings(banned_words=())

    asyncio.run(main())


def test_a_busy_chat_slows_down_says_why_and_comes_back(redis_url):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, SLOW, clock=clock) as seller:
            channel = await seller.channel("lounge")
            everybody = await members(seller, 30)
            looks = seller.calls("chat_channels.retrieve")
            for member in everybody[:10]:
                seller.whop.rooms.say(member, channel.id, "hello")
            await seller.settled()
            assert seller.calls("chat_channels.retrieve") == looks  # a quiet chat costs no look
            clock.at += timedelta(seconds=10)
            for member in everybody:
                seller.whop.rooms.say(member, channel.id, "hello again")
            await seller.settled()
            assert channel.user_posts_cooldown_seconds in (15, 30)
            seconds = channel.user_posts_cooldown_seconds
            told = await said(seller, "lounge")
            assert told[-1] == f"It is busy here: {seconds} seconds between two messages."
            for minute in range(1, 14):
                await at(seller, clock, NOON + timedelta(minutes=minute))
            assert channel.user_posts_cooldown_seconds == 5

    asyncio.run(main())


def test_a_hold_wins_over_the_pace_of_a_busy_chat(redis_url):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, SLOW, clock=clock) as seller:
            channel = await seller.channel("lounge")
            everybody = await members(seller, 40)
            await say(seller, clock, hold(clock, "cooldown=0"))
            clock.at += timedelta(seconds=10)
            for member in everybody:
                seller.whop.rooms.say(member, channel.id, "hello")
            await seller.settled()
            assert channel.user_posts_cooldown_seconds is None
            assert not any("busy" in text for text in await said(seller, "lounge"))

    asyncio.run(main())


def test_a_look_that_was_missed_is_made_up_for(redis_url):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, LOUNGE, clock=clock) as seller:
            await seller.redis.zrem(f"{seller.prefix}due", "channel:lounge")
            clock.at = NOON + timedelta(hours=11)
            await watch(seller)
            assert (await seller.channel("lounge")).user_posts_cooldown_seconds == 60

    asyncio.run(main())

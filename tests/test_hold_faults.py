"""Holds, edits by hand and a busy chat where something goes wrong, at Whop or in the rules."""

import asyncio
import json
from datetime import timedelta

import community
from community import Clock, said, watch
from event_rooms import LOUNGE, NOON, SLOW, hold, members, say

from worker import jobs
from worker.commands import report
from worker.sandbox.faults import Failure

LONG = 1_000_000
"""More calls than any test makes."""


def test_a_hold_whose_answer_was_lost_ends_when_it_should(redis_url):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, LOUNGE, clock=clock) as seller:
            seller.whop.faults.failures = [
                Failure(operation="chat_channels.update", times=3, after=True)
            ]
            await say(seller, clock, hold(clock, "cooldown=30", length="30m"))
            channel = await seller.channel("lounge")
            assert channel.user_posts_cooldown_seconds == 30
            seller.whop.faults.failures = []
            await seller.rest()
            clock.at = NOON + timedelta(hours=1)
            await seller.work()
            await seller.settled()
            assert channel.user_posts_cooldown_seconds == 5

    asyncio.run(main())


def test_words_that_a_hold_adds_are_added_to_the_sellers_own(redis_url):
    clock = Clock(NOON)
    rooms = LOUNGE.replace('banned_words = ["telegram"]\n', "")

    async def main():
        async with community.running(redis_url, rooms, clock=clock) as seller:
            channel = await seller.channel("lounge")
            channel.banned_words = ["slur", "scam"]
            await say(seller, clock, hold(clock, "banned_words+=refund"))
            assert channel.banned_words == ["slur", "scam", "refund"]
            clock.at += timedelta(seconds=1)
            await say(seller, clock, None)
            assert channel.banned_words == ["slur", "scam"]

    asyncio.run(main())


def test_a_hold_that_whop_refuses_is_not_said_to_be_done(redis_url):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, LOUNGE, clock=clock) as seller:
            seller.forbid("chat:moderate")
            _, doubt = await say(seller, clock, hold(clock, phase="locked"))
            assert doubt.startswith("Whop has not let it happen yet")
            assert (await seller.channel("lounge")).who_can_post == "everyone"

    asyncio.run(main())


def test_an_edit_that_a_hold_beats_is_not_said_to_be_respected(redis_url):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, LOUNGE, clock=clock) as seller:
            channel = await seller.channel("lounge")
            await say(seller, clock, hold(clock, "cooldown=30"))
            channel.user_posts_cooldown_seconds = 90
            await watch(seller)
            assert channel.user_posts_cooldown_seconds == 30
            assert "edit.respected" not in dict(await seller.trail("channel:lounge"))

    asyncio.run(main())


def test_what_cannot_be_put_back_waits_once_however_often_it_is_seen(redis_url):
    clock = Clock(NOON)
    rooms = LOUNGE.replace("products", 'manual_edits = "revert"\nproducts')

    async def main():
        async with community.running(redis_url, rooms, clock=clock) as seller:
            channel = await seller.channel("lounge")
            seller.whop.faults.failures = [
                Failure(operation="chat_channels.update", status=401, times=LONG)
            ]
            await seller.rest()  # what is asked for while a worker looks would wait once more
            channel.user_posts_cooldown_seconds = 90
            async with seller.workbench() as tools:
                for _ in range(10):
                    clock.at += timedelta(minutes=1)
                    await jobs.watch(tools)
                    await jobs.run(tools, "channel:lounge")
            waiting = await seller.subjects.pending("channel:lounge")
            assert waiting.count("edited") == 1
            assert "channel:lounge" in await seller.dead()

    asyncio.run(main())


def test_a_room_that_left_the_rules_is_left_in_peace(redis_url):
    clock = Clock(NOON)
    other = LOUNGE.replace("lounge", "other").replace("The Lounge", "Other")

    async def main():
        async with community.running(redis_url, LOUNGE, clock=clock) as seller:
            await seller.restart(other)
            clock.at = NOON + timedelta(hours=11)  # past a look that the rules had planned
            await seller.settled()
            (await seller.channel("lounge")).user_posts_cooldown_seconds = 90
            made = await seller.redis.get(f"{seller.prefix}jobs")
            for _ in range(3):
                clock.at += timedelta(minutes=1)
                await watch(seller)
            assert await seller.redis.get(f"{seller.prefix}jobs") == made

    asyncio.run(main())


def test_a_raid_slows_a_chat_that_could_not_be_told_of_the_last_step(redis_url):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, SLOW, clock=clock) as seller:
            channel, everybody = await seller.channel("lounge"), await members(seller, 120)
            clock.at += timedelta(seconds=10)
            seller.whop.faults.failures = [Failure(operation="messages.create", times=LONG)]
            for member in everybody[:22]:
                seller.whop.rooms.say(member, channel.id, "hello")
            await seller.settled()
            assert channel.user_posts_cooldown_seconds == 15
            assert await said(seller, "lounge") == ["hello"] * 22
            seller.whop.faults.failures = []
            for member in everybody[22:]:
                seller.whop.rooms.say(member, channel.id, "hello")
            await seller.until_delivered()  # a look at some of them would be no look at a raid
            clock.at += timedelta(seconds=6)
            await seller.settled()
            assert channel.user_posts_cooldown_seconds == 60

    asyncio.run(main())


def test_the_rooms_that_are_shown_have_the_pace_of_a_busy_chat(redis_url, capsys):
    clock = Clock(NOON)

    async def main():
        async with community.running(redis_url, SLOW, clock=clock) as seller:
            channel, everybody = await seller.channel("lounge"), await members(seller, 30)
            clock.at += timedelta(seconds=10)
            for member in everybody:
                seller.whop.rooms.say(member, channel.id, "hello")
            await seller.settled()
            rules, url = seller.settings.rules, seller.settings.redis_url
            await seller.rest()  # a worker's log would stand among what is shown
            capsys.readouterr()
            await report.rooms(rules, url, clock.at, as_json=True)
            (lounge,) = json.loads(capsys.readouterr().out)
            seconds = channel.user_posts_cooldown_seconds
            assert seconds in (15, 30)
            assert lounge["settings"]["user_posts_cooldown_seconds"] == seconds

    asyncio.run(main())

"""The simulation: the laws hold with any seed, and each of them can be seen to fail."""

import io
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from worker import rules
from worker.sandbox.bodies import ChannelPatch, NewMessage
from worker.sandbox.faults import Failure
from worker.sandbox.state import LocalWhop, SeedProduct, seed
from worker.simulate import laws, report
from worker.simulate.agenda import Clock
from worker.simulate.figures import clock_changes
from worker.simulate.run import run, simulate
from worker.simulate.troubles import Excuses
from worker.simulate.turns import Turns
from worker.simulate.world import MONTH, TAIL, Setting
from worker.subjects import Subjects

START = datetime(2027, 2, 25, tzinfo=UTC)
RULES = """
account = "biz_UsherSimulated"
timezone = "America/New_York"

[rooms.lounge]
name = "Lounge"
products = ["prod_basic", "prod_vip"]
banned_words = ["telegram"]
welcome = "Hello."
manual_edits = "revert"
slow = { busy = 40, quiet = 10, steps = [5, 30, 120], say = "Slower: {seconds} seconds." }

[[rooms.lounge.windows]]
days = ["mon", "wed", "sat"]
from = 22:00:00
to = 02:30:00
user_posts_cooldown_seconds = 60

[rooms.circle]
name = "Circle {cohort}"
products = ["prod_vip"]
cohort = { by = "seats", seats = 4 }
grace = "2d"
on_refund = "revoke"
on_dispute = "revoke"

[rooms.course]
name = "Course {cohort}"
products = ["prod_course"]
cohort = { by = "month" }
grant = "invite"
on_refund = "keep"

[rooms.extra]
name = "Extra"
products = ["prod_course"]
provision = "on_purchase"
ban_media = true

[rooms.ama]
name = "AMA"
products = ["prod_ticket"]
timezone = "Europe/Berlin"
opens = "15m"
locks = "30m"
occurrences = [{ starts = 2027-02-26T18:00:00, lasts = "90m", repeats = "FREQ=WEEKLY;BYDAY=MO,FR" }]

[[rooms.ama.messages]]
when = "before"
ahead = "2h"
text = "We begin at {starts}."

[[rooms.ama.messages]]
when = "lock"
text = "Until next time."
pin = true

[rooms.workshop]
name = "Workshop of {date}"
products = ["prod_ticket", "prod_vip"]
one_room_per = "occurrence"
lead = "2d"
archive_after = "3d"
occurrences = [{ starts = 2027-02-28T17:00:00, lasts = "2h", repeats = "FREQ=WEEKLY" }]

[[rooms.workshop.messages]]
when = "opening"
text = "Come in."

[rooms.night]
name = "Night watch"
products = ["prod_ticket"]
seats = 9
plan = "plan_NightWatch0001"
occurrences = [{ starts = 2027-02-27T02:30:00, lasts = "1h", repeats = "FREQ=DAILY" }]
"""

SHORT = RULES[: RULES.index("[rooms.course]")]
"""The rooms without dates, whose products renew."""


def setting(seed=1, *, days=20, buyers=40, text=RULES):
    return Setting(rules=rules.parse(text), start=START, days=days, buyers=buyers, seed=seed)


def other(old, new, text=RULES):
    """Return the rules with a word of them changed."""
    assert old in text
    return rules.parse(text.replace(old, new))


def broken(found):
    return {breach.law for breach in found.breaches}


def text(found):
    console = Console(file=io.StringIO(), width=200)
    report.show(found, console)
    return console.file.getvalue()


@pytest.mark.parametrize("seed", range(1, 11))
def test_no_law_is_broken_in_twenty_days(redis_url, seed):
    found = run(setting(seed), redis_url)

    assert found.breaches == (), f"seed {seed}:\n{text(found)}"
    assert found.given_up == {}
    assert found.turns["opening"].all >= 24
    assert found.turns["opening"].missed <= 2, "an outage of a day hides one of each room"
    assert found.warnings["job.broke"] == 0


def test_no_law_is_broken_in_four_months_with_both_kinds_of_clocks_changing(redis_url):
    found = run(setting(11, days=120, buyers=100), redis_url)

    assert found.breaches == (), text(found)
    assert {zone for zone, _ in found.clock_changes} == {"America/New_York", "Europe/Berlin"}
    assert found.granted > found.revoked > 0
    wanted = ("purchases", "refunds", "disputes", "failed renewals", "cancelled at once")
    assert all(found.bought[what] for what in wanted), found.bought
    assert found.killed > 0
    assert max(seats.rooms for seats in found.seats) > 1


def test_the_same_seed_is_the_same_run_and_another_seed_another(redis_url):
    import redis

    def again(seed):
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        return run(setting(seed, days=6, buyers=20), redis_url)

    first, second, third = again(5), again(5), again(6)

    assert (first.bought, first.calls, text(first)) == (second.bought, second.calls, text(second))
    assert text(third).splitlines()[1:] != text(first).splitlines()[1:]


def test_a_year_has_a_day_without_whop_and_both_clock_changes(redis_url):
    year = setting(days=365)
    short = run(setting(days=6, buyers=5), redis_url)

    assert max(lasts for _, lasts in short.outages) == timedelta(days=1)
    assert list(clock_changes(year)) == [
        ("America/New_York", datetime(2027, 3, 14, 7, tzinfo=UTC)),
        ("America/New_York", datetime(2027, 11, 7, 6, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2027, 3, 28, 1, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2027, 10, 31, 1, tzinfo=UTC)),
    ]


# --- the laws can fail


def test_a_worker_that_counts_more_seats_sells_one_over(redis_url):
    careless = other("seats = 4", "seats = 5")

    found = run(setting(days=15, buyers=60), redis_url, worker_rules=careless)

    assert laws.SEAT_OVER in broken(found)
    assert "5 members for 4 seats" in text(found)


def test_a_worker_that_keeps_refunded_members_has_a_member_too_many(redis_url):
    lenient = other('on_refund = "revoke"', 'on_refund = "keep"', SHORT)

    found = run(setting(days=20, buyers=60, text=SHORT), redis_url, worker_rules=lenient)

    assert broken(found) == {laws.TOO_MANY}


def test_a_worker_that_forgets_a_product_leaves_members_outside(redis_url):
    forgetful = other('products = ["prod_basic", "prod_vip"]', 'products = ["prod_basic"]')

    found = run(setting(days=6, buyers=20), redis_url, worker_rules=forgetful)

    assert broken(found) == {laws.WITHOUT}
    assert "room lounge" in text(found)


def test_a_worker_without_grace_leaves_members_outside(redis_url):
    strict = other('grace = "2d"', 'grace = "0s"', SHORT)

    found = run(setting(days=30, buyers=60, text=SHORT), redis_url, worker_rules=strict)

    assert broken(found) == {laws.WITHOUT}


def test_a_worker_in_another_zone_has_rooms_in_the_wrong_phase(redis_url):
    elsewhere = other("Europe/Berlin", "Europe/London")

    found = run(setting(days=4, buyers=5), redis_url, worker_rules=elsewhere)

    assert broken(found) == {laws.WRONG_PHASE}
    assert found.turns["opening"].late > 0
    assert "ama" in text(found)


def test_a_worker_that_does_not_know_a_room_leaves_it_missing(redis_url):
    ignorant = rules.parse(RULES[: RULES.index("[rooms.night]")])

    found = run(setting(days=3, buyers=5), redis_url, worker_rules=ignorant)

    assert laws.MISSING in broken(found)


def test_somebody_who_ends_every_grant_leaves_members_outside(redis_url):
    def tamper(world):
        def end(membership):
            if not membership.ended:
                world.whop.memberships.cancel(membership.id)

        def meddle(event, record):
            plan = world.whop.tables.plans.get(getattr(record, "plan_id", ""))
            if event == "membership.activated" and plan is not None and plan.visibility == "hidden":
                world.agenda.at(world.clock.now, lambda: end(record))

        world.whop.core.listeners.append(meddle)

    found = run(setting(days=4, buyers=40), redis_url, tamper=tamper)

    assert laws.WITHOUT in broken(found)


def test_a_change_that_nobody_excuses_is_a_wrong_phase(redis_url):
    def tamper(world):
        def loosen():
            patch = ChannelPatch(user_posts_cooldown_seconds=7)
            for channel in list(world.whop.tables.channels.values()):
                world.whop.rooms.update_channel(channel.id, patch)

        world.agenda.at(START + timedelta(hours=5), loosen)

    found = run(setting(days=2, buyers=3), redis_url, tamper=tamper)

    (breach,) = found.breaches
    assert (breach.law, breach.who) == (laws.WRONG_PHASE, "lounge")
    assert breach.at - breach.since == timedelta(minutes=1)
    assert "user_posts_cooldown_seconds" in breach.what


def test_a_worker_that_comes_to_no_end_is_reported(redis_url):
    class Restless(Subjects):
        async def done(self, claim, now, _look_again):
            await super().done(claim, now, now)

    def tamper(world):
        prefix = world.inbox.prefix
        world.crew.furnish = lambda tools: replace(
            tools, subjects=Restless(world.inbox.redis, prefix, tools.leases)
        )

    found = run(setting(days=1, buyers=1), redis_url, tamper=tamper)

    assert laws.RESTLESS in broken(found)


def test_a_message_that_comes_twice_is_one_too_many(redis_url):
    def tamper(world):
        def echo(event, record):
            if event == "chat.message.created" and record.content == "Hello." and not echoed:
                echoed.append(record)
                again = NewMessage(channel_id=record.channel_id, content=record.content)
                world.agenda.at(world.clock.now, lambda: world.whop.rooms.post(again))

        echoed = []
        world.whop.core.listeners.append(echo)

    found = run(
        setting(days=1, buyers=1, text=SHORT.replace("slow =", "# ")), redis_url, tamper=tamper
    )

    assert broken(found) == {laws.TWICE}


def first_grant(world, act):
    """Have something done, once, when the first member gets into a cohort."""

    def hear(event, record):
        plan = world.whop.tables.plans.get(getattr(record, "plan_id", ""))
        if event == "membership.activated" and plan and plan.visibility == "hidden" and not done:
            done.append(record)
            world.agenda.at(world.clock.now, lambda: act(record))

    done = []
    world.whop.core.listeners.append(hear)


def test_a_grant_that_ends_unheard_is_reported_by_usher_verify_too(redis_url):
    def tamper(world):
        def end_them_in_silence():
            tables, faults = world.whop.tables, world.whop.faults
            hidden = {one.id for one in tables.products.values() if one.visibility == "hidden"}
            faults.drop = 1.0
            for held in list(tables.memberships.values()):
                if held.product_id in hidden and not held.ended:
                    world.whop.memberships.cancel(held.id)
            faults.drop = 0.0

        world.agenda.at(START + timedelta(days=2, hours=-1), end_them_in_silence)

    found = run(setting(days=2, buyers=20, text=SHORT), redis_url, tamper=tamper)

    assert broken(found) == {laws.WITHOUT, laws.DIFFERENT}
    assert "member.shut_out: " in text(found)


def test_a_second_membership_in_a_room_is_seen_by_usher_verify_alone(redis_url):
    def tamper(world):
        def again(grant):
            username = world.whop.tables.users[grant.user_id].username
            world.whop.memberships.buy(grant.product_id, username)

        first_grant(world, again)

    found = run(setting(days=2, buyers=20, text=SHORT), redis_url, tamper=tamper)

    (breach,) = found.breaches
    assert (breach.law, breach.at) == (laws.DIFFERENT, START + timedelta(days=2) + TAIL)
    assert breach.what.startswith("grant.not_ours: ")


def test_usher_verify_is_asked_once_a_month_where_nothing_is_on_its_way(redis_url):
    def tamper(world):
        def again(grant):
            username = world.whop.tables.users[grant.user_id].username
            second = world.whop.memberships.buy(grant.product_id, username)
            after = START + MONTH + timedelta(days=1, hours=1)
            world.agenda.at(after, lambda: world.whop.memberships.cancel(second.id))

        def nobody_works():
            back = world.clock.now + timedelta(hours=5)
            world.troubles.excuses.spans.append((world.clock.now, back))
            world.crew.leave(back)
            world.whop.memberships.buy("prod_vip", "patient")

        first_grant(world, again)
        world.agenda.at(START + MONTH - timedelta(hours=2), nobody_works)

    found = run(setting(days=33, buyers=10, text=SHORT), redis_url, tamper=tamper)

    (breach,) = found.breaches
    assert (breach.law, breach.at) == (laws.DIFFERENT, START + MONTH + timedelta(days=1))
    assert breach.what.startswith("grant.not_ours: ")


def test_a_verification_leaves_the_worker_the_failures_that_wait_for_it(redis_url):
    def tamper(world):
        world.whop.faults.failures.append(failure)

    failure = Failure(operation="payments.list", status=503, times=1000)
    found = run(setting(days=1, buyers=3, text=SHORT), redis_url, tamper=tamper)

    assert found.breaches == ()
    assert failure.times == 1000


def test_what_is_under_way_at_the_end_comes_to_its_end_first(redis_url):
    def tamper(world):
        def nobody_works():
            back = world.clock.now + timedelta(hours=30)
            world.troubles.excuses.spans.append((world.clock.now, back))
            world.crew.leave(back)
            world.whop.memberships.buy("prod_vip", "patient")

        world.agenda.at(START + timedelta(days=2, hours=-1), nobody_works)

    found = run(setting(days=2, buyers=5, text=SHORT), redis_url, tamper=tamper)

    assert found.breaches == (), text(found)


def test_a_date_just_after_the_last_day_is_expected_too(redis_url):
    midnight = "starts = 2027-02-26T00:30:00"
    late = RULES[: RULES.index("[rooms.lounge]")] + RULES[RULES.index("[rooms.ama]") :]
    late = late[: late.index("[[rooms.ama.messages]]")].replace("Europe/Berlin", "UTC")
    late = late.replace("starts = 2027-02-26T18:00:00", midnight).replace(";BYDAY=MO,FR", "")
    late = late.replace("FREQ=WEEKLY", "FREQ=DAILY")

    found = run(setting(days=2, buyers=3, text=late), redis_url)

    assert found.breaches == (), text(found)


# --- the parts


def test_time_in_which_nobody_could_act_does_not_count():
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    excuses = Excuses(spans=[(START, START + hour), (START + hour, START + 2 * hour)])

    assert excuses.stretch(START - 2 * minute, minute) == START - minute
    assert excuses.stretch(START - minute, minute) == START + 2 * hour + minute
    assert excuses.stretch(START + 30 * minute, minute) == START + 2 * hour + minute
    assert excuses.stretch(START + 3 * hour, minute) == START + 3 * hour + minute


def test_the_local_whop_knows_the_next_period_end_of_many_and_of_one_that_revived():
    clock = Clock(START)
    whop = LocalWhop("biz_UsherSimulated", clock=clock, rng=random.Random(1))
    seed(whop, [SeedProduct(id="prod_basic", title="Basic")])
    first = whop.memberships.buy("prod_basic", "ada")
    clock.now += timedelta(days=1)
    second = whop.memberships.buy("prod_basic", "bob")
    whop.memberships.cancel(first.id)

    assert whop.memberships.next_period_end() == second.period_end
    whop.memberships.set_status(first.id, "active")
    assert whop.memberships.next_period_end() == first.period_end == START + timedelta(days=30)
    again = LocalWhop("biz_UsherSimulated", clock=clock, rng=random.Random(2))
    again.restore(whop.snapshot())
    clock.now = START + timedelta(days=95)
    again.tick()
    assert again.memberships.get(first.id).period_end == START + timedelta(days=120)
    assert again.memberships.next_period_end() == START + timedelta(days=120)


def test_turns_are_on_time_late_or_missed():
    turns, second = Turns(), timedelta(seconds=1)
    turns.begin("ama", "opening", START)
    turns.done("ama", START + second)
    turns.begin("ama", "lock", START + 60 * second)
    turns.done("ama", START + 62 * second)
    turns.begin("ama", "opening", START + 90 * second)
    turns.begin("ama", "lock", START + 99 * second)
    turns.end()

    opening, lock = turns.counts["opening"], turns.counts["lock"]
    assert (opening.all, opening.late, opening.missed) == (2, 0, 1)
    assert (lock.all, lock.late, lock.missed, lock.latest) == (2, 1, 1, 2 * second)


def test_the_command_says_what_was_broken_and_how_to_see_it_again(redis_url):
    found = run(setting(days=4), redis_url, worker_rules=other("seats = 4", "seats = 9"))

    said = text(found)
    assert "a seat over: circle/1" in said
    assert "usher simulate --days 4 --buyers 40 --seed 1 --from 2027-02-25T00:00:00Z" in said


def test_a_simulation_brings_its_own_redis_and_ends_with_zero():
    console = Console(file=io.StringIO(), width=200)

    code = simulate(rules.parse(RULES), start=START, days=3, buyers=10, seed=2, console=console)

    said = console.file.getvalue()
    assert code == 0, said
    assert said.startswith("3 days from Thu 25 Feb 2027 00:00:00 UTC, 10 buyers, seed 2")
    assert "No law was broken." in said

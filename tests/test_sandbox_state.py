"""The local Whop as a state machine: no socket, no sleep, a clock that the tests turn."""

import json
import random
from datetime import UTC, datetime, timedelta

import local_whop
import msgspec
import pytest
from local_whop import ACCOUNT, SECRET

from worker.sandbox import bodies
from worker.sandbox.memberships import STATUSES
from worker.sandbox.records import CHAT_APP, Experience
from worker.sandbox.refusals import Conflict, Forbidden, NotFound, Unprocessable
from worker.sandbox.state import LocalWhop, SeedProduct, seed

HOOK = "http://127.0.0.1:1/webhooks/whop"
TICKET = SeedProduct(id="prod_ticket", title="Ticket", plan_type="one_time")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def turn(self, **by: float) -> None:
        self.now += timedelta(**by)


def build(clock: Clock | None = None, *, pin: str | None = "2026-10-15-1") -> LocalWhop:
    return local_whop.build(
        products=["prod_basic", TICKET],
        webhook_url=HOOK,
        api_version_date=pin,
        clock=clock or Clock(),
    )


def sent(whop: LocalWhop) -> list[dict]:
    """Take everything out of the outbox, in order."""
    messages = whop.outbox.take(whop.now() + timedelta(days=1), 1000)
    return [json.loads(bytes(message.body)) for message in messages]


def types(whop: LocalWhop) -> list[str]:
    return [body["type"] for body in sent(whop)]


def lounge(whop: LocalWhop) -> Experience:
    room = whop.rooms.create_experience(
        bodies.NewExperience(account_id=ACCOUNT, app_id=CHAT_APP, name="Lounge")
    )
    return whop.rooms.attach(room.id, "prod_basic")


def free_plan(whop: LocalWhop) -> str:
    return whop.catalog.create_plan(bodies.NewPlan(product_id="prod_ticket")).id


def test_a_purchase_pays_activates_and_updates() -> None:
    whop = build()
    held = whop.memberships.buy("prod_basic", "ada")
    assert held.status == "active"
    assert types(whop) == ["payment.succeeded", "membership.activated", "membership.updated"]


def test_what_is_bought_once_is_completed_and_has_no_period() -> None:
    held = build().memberships.buy("prod_ticket", "ada")
    assert (held.status, held.period_end, held.entitled) == ("completed", None, True)


def test_a_grant_takes_no_payment_and_only_a_free_plan() -> None:
    whop = build()
    user = whop.people.meet("ada")
    plan_id = free_plan(whop)
    held = whop.memberships.grant(plan_id, user.id)
    assert held.status == "completed"
    assert types(whop) == ["membership.activated", "membership.updated"]
    paid = whop.catalog.plans_of("prod_basic")[0]
    with pytest.raises(Unprocessable, match="zero"):
        whop.memberships.grant(paid.id, user.id)
    with pytest.raises(NotFound):
        whop.memberships.grant(plan_id, "user_nobody")


def test_a_trial_pays_only_when_it_ends() -> None:
    clock = Clock()
    whop = build(clock)
    wanted = bodies.NewPlan(
        product_id="prod_basic", plan_type="renewal", renewal_price=9, trial_period_days=7
    )
    plan = whop.catalog.create_plan(wanted)
    held = whop.memberships.buy("prod_basic", "ada", plan_id=plan.id)
    assert held.status == "trialing"
    assert types(whop) == ["membership.activated", "membership.updated"]
    clock.turn(days=7)
    whop.tick()
    assert held.status == "active"
    assert types(whop) == ["payment.succeeded", "membership.updated"]


def test_an_immediate_cancellation_deactivates_and_cannot_be_repeated() -> None:
    whop = build()
    held = whop.memberships.buy("prod_basic", "ada")
    sent(whop)
    whop.memberships.cancel(held.id)
    deactivated, updated = sent(whop)
    assert (deactivated["type"], updated["type"]) == (
        "membership.deactivated",
        "membership.updated",
    )
    assert updated["data"]["status"] == "canceled"
    assert updated["previous_attributes"] == {"status": "active"}
    with pytest.raises(Conflict):
        whop.memberships.cancel(held.id)


def test_a_cancellation_at_period_end_keeps_access_until_then() -> None:
    clock = Clock()
    whop = build(clock)
    held = whop.memberships.buy("prod_basic", "ada")
    sent(whop)
    whop.memberships.cancel(held.id, at_period_end=True)
    assert (held.status, held.entitled) == ("canceling", True)
    assert types(whop) == ["membership.cancel_at_period_end_changed", "membership.updated"]
    whop.memberships.cancel(held.id, at_period_end=True)
    assert types(whop) == []
    clock.turn(days=30)
    whop.tick()
    assert (held.status, held.entitled) == ("canceled", False)
    assert types(whop) == ["membership.deactivated", "membership.updated"]
    whop.tick()
    assert types(whop) == []


def test_a_cancellation_can_be_taken_back_and_then_it_renews() -> None:
    clock = Clock()
    whop = build(clock)
    held = whop.memberships.buy("prod_basic", "ada")
    whop.memberships.cancel(held.id, at_period_end=True)
    whop.memberships.update(held.id, bodies.MembershipPatch(cancel_at_period_end=False))
    sent(whop)
    clock.turn(days=61)
    whop.tick()
    assert held.status == "active"
    assert types(whop) == ["payment.succeeded", "membership.updated"] * 2
    assert held.period_end == START + timedelta(days=90)


def test_a_purchase_that_expires_ends_by_itself() -> None:
    clock = Clock()
    whop = build(clock)
    plan = whop.catalog.create_plan(bodies.NewPlan(product_id="prod_ticket", expiration_days=2))
    held = whop.memberships.buy("prod_ticket", "ada", plan_id=plan.id)
    sent(whop)
    clock.turn(days=2)
    whop.tick()
    assert held.status == "expired"
    assert types(whop) == ["membership.deactivated", "membership.updated"]


def test_a_paused_membership_keeps_access_and_is_not_charged() -> None:
    clock = Clock()
    whop = build(clock)
    held = whop.memberships.buy("prod_basic", "ada")
    whop.memberships.set_paused(held.id, paused=True)
    sent(whop)
    clock.turn(days=30)
    whop.tick()
    assert held.entitled
    assert types(whop) == ["membership.updated"]


def test_a_failed_renewal_is_past_due_and_fails_a_payment() -> None:
    whop = build()
    held = whop.memberships.buy("prod_basic", "ada")
    sent(whop)
    whop.memberships.set_status(held.id, "past_due")
    assert types(whop) == ["payment.failed", "membership.updated"]
    whop.memberships.set_status(held.id, "expired")
    assert types(whop) == ["membership.deactivated", "membership.updated"]
    whop.memberships.set_status(held.id, "active")
    assert types(whop) == ["membership.activated", "membership.updated"]


@pytest.mark.parametrize("status", sorted(STATUSES))
@pytest.mark.parametrize("product", ["prod_basic", "prod_ticket"])
def test_any_status_can_be_reached_from_any_purchase(status: str, product: str) -> None:
    whop = build()
    held = whop.memberships.buy(product, "ada")
    assert whop.memberships.set_status(held.id, status).status == status


def test_refunds_and_disputes_leave_the_membership_as_it_is() -> None:
    whop = build()
    held = whop.memberships.buy("prod_ticket", "ada")
    sent(whop)
    whop.till.refund(held.id)
    created, updated = sent(whop)
    assert (created["type"], updated["type"]) == ("refund.created", "refund.updated")
    assert created["data"]["status"] == "succeeded"
    assert created["data"]["payment"]["user"]["username"] == "ada"
    assert held.status == "completed"
    with pytest.raises(Conflict):
        whop.till.dispute(held.id)

    other = whop.memberships.buy("prod_ticket", "ada")
    sent(whop)
    dispute = whop.till.dispute(other.id)
    assert types(whop) == ["dispute.created", "dispute.updated"]
    assert "membership_id" not in msgspec.json.encode(dispute).decode()
    whop.till.decide(dispute.id, "lost")
    assert types(whop) == ["dispute.updated"]


def test_an_invitation_becomes_a_membership_once_it_is_accepted() -> None:
    whop = build()
    user = whop.people.meet("ada")
    plan_id = free_plan(whop)
    invitation = whop.memberships.invite(bodies.NewInvitation(plan_id=plan_id, user_id=user.id))
    assert whop.index.by_user[user.id] == []
    assert whop.memberships.accept(invitation.id).user_id == user.id
    with pytest.raises(Conflict):
        whop.memberships.accept(invitation.id)
    by_mail = bodies.NewInvitation(plan_id=plan_id, email="grace@example.com")
    stranger = whop.memberships.accept(whop.memberships.invite(by_mail).id)
    assert whop.tables.users[stranger.user_id or ""].username == "grace"


def test_stock_is_enforced_at_purchase() -> None:
    whop = build()
    plan = whop.catalog.create_plan(bodies.NewPlan(product_id="prod_ticket", stock=1))
    whop.memberships.buy("prod_ticket", "ada", plan_id=plan.id)
    with pytest.raises(Unprocessable, match="stock"):
        whop.memberships.buy("prod_ticket", "grace", plan_id=plan.id)


def test_access_follows_the_products_that_contain_the_room() -> None:
    whop = build()
    room = lounge(whop)
    held = whop.memberships.buy("prod_basic", "ada")
    stranger, admin = whop.people.meet("grace"), whop.people.add_admin("root")
    reach = whop.rooms.may_reach
    assert reach(held.user_id, room.id) == reach(held.user_id, "prod_basic") == "customer"
    assert reach(held.user_id, "prod_ticket") == "no_access"
    assert reach(stranger.id, room.id) == reach(stranger.id, ACCOUNT) == "no_access"
    assert reach(admin.id, room.id) == reach(admin.id, "prod_ticket") == "admin"
    whop.rooms.detach(room.id, "prod_basic")
    assert reach(held.user_id, room.id) == "no_access"
    whop.rooms.update_experience(room.id, bodies.ExperiencePatch(access_level="public"))
    assert reach(stranger.id, room.id) == "customer"
    with pytest.raises(NotFound):
        reach(stranger.id, "prod_none")


def test_attaching_twice_says_already_as_whops_own_scripts_expect() -> None:
    whop = build()
    room = lounge(whop)
    with pytest.raises(Unprocessable, match="already"):
        whop.rooms.attach(room.id, "prod_basic")
    whop.rooms.detach(room.id, "prod_basic")
    with pytest.raises(Unprocessable, match="not attached"):
        whop.rooms.detach(room.id, "prod_basic")


def test_a_deleted_room_takes_its_channel_and_messages_along() -> None:
    whop = build()
    room = lounge(whop)
    said = whop.rooms.post(bodies.NewMessage(channel_id=room.id, content="Hello"))
    whop.rooms.delete_experience(room.id)
    for missing in (lambda: whop.rooms.channel(room.id), lambda: whop.rooms.message(said.id)):
        with pytest.raises(NotFound):
            missing()


def test_a_channel_binds_members_by_its_settings_but_not_the_team() -> None:
    clock = Clock()
    whop = build(clock)
    room = lounge(whop)
    ada = whop.memberships.buy("prod_basic", "ada").user_id or ""
    admin = whop.people.add_admin("root").id
    patch = bodies.ChannelPatch(
        banned_words=["Spam"], ban_urls=True, user_posts_cooldown_seconds=60
    )
    whop.rooms.update_channel(room.id, patch)
    with pytest.raises(Forbidden):
        whop.rooms.say(whop.people.meet("grace").id, room.id, "hello")
    with pytest.raises(Unprocessable, match="word"):
        whop.rooms.say(ada, room.id, "no SPAM please")
    with pytest.raises(Unprocessable, match="Links"):
        whop.rooms.say(ada, room.id, "see https://example.com")
    whop.rooms.say(ada, room.id, "hello")
    with pytest.raises(Unprocessable, match="60 seconds"):
        whop.rooms.say(ada, room.id, "hello")
    clock.turn(seconds=60)
    whop.rooms.say(ada, room.id, "hello")
    whop.rooms.update_channel(room.id, bodies.ChannelPatch(who_can_post="admins"))
    with pytest.raises(Forbidden):
        whop.rooms.say(ada, room.id, "hello")
    whop.rooms.say(admin, room.id, "https://spam.example")


def test_a_cooldown_of_zero_is_none() -> None:
    whop = build()
    room = lounge(whop)
    for value in (0, None):
        whop.rooms.update_channel(room.id, bodies.ChannelPatch(user_posts_cooldown_seconds=30))
        patch = bodies.ChannelPatch(user_posts_cooldown_seconds=value)
        assert whop.rooms.update_channel(room.id, patch).user_posts_cooldown_seconds is None


def test_a_product_with_memberships_cannot_be_deleted_and_a_deleted_plan_keeps_its_own() -> None:
    whop = build()
    held = whop.memberships.buy("prod_basic", "ada")
    with pytest.raises(Conflict):
        whop.catalog.delete_product("prod_basic")
    whop.catalog.delete_plan(held.plan_id)
    assert whop.memberships.cancel(held.id).status == "canceled"
    with pytest.raises(Unprocessable):
        whop.memberships.buy("prod_basic", "ada")


def test_metadata_is_merged_and_cleared_by_an_empty_object() -> None:
    whop = build()
    held = whop.memberships.buy("prod_basic", "ada")
    for patch, wanted in (({"a": "1"}, {"a": "1"}), ({"b": "2"}, {"a": "1", "b": "2"}), ({}, {})):
        whop.memberships.update(held.id, bodies.MembershipPatch(metadata=patch))
        assert held.metadata == wanted
    with pytest.raises(Unprocessable):
        whop.memberships.update(held.id, bodies.MembershipPatch(metadata={"a": "x" * 501}))


def test_a_pinned_webhook_gets_flat_ids_and_the_account() -> None:
    whop = build()
    held = whop.memberships.buy("prod_basic", "ada")
    payment, activated, _ = sent(whop)
    assert activated["account_id"] == ACCOUNT
    assert "company_id" not in activated
    assert activated["api_version_date"] == "2026-10-15-1"
    assert activated["data"]["user_id"] == held.user_id
    assert activated["data"]["product_id"] == "prod_basic"
    assert payment["data"]["membership_id"] == held.id
    assert payment["data"]["total"]["amount"] == "29.00"


def test_an_unpinned_webhook_gets_nested_objects_and_the_company() -> None:
    whop = build(pin=None)
    held = whop.memberships.buy("prod_ticket", "ada")
    payment, activated, _ = sent(whop)
    assert activated["company_id"] == ACCOUNT
    assert "account_id" not in activated
    assert activated["data"]["user"]["id"] == held.user_id
    assert activated["data"]["product"]["id"] == "prod_ticket"
    assert "user_id" not in activated["data"]
    assert payment["data"]["membership"] == {"id": held.id, "status": "completed"}
    assert payment["data"]["total"] == 49
    whop.till.dispute(held.id)
    assert sent(whop)[0]["data"]["payment"]["id"] == payment["data"]["id"]


def test_a_membership_without_a_user_is_there_in_both_shapes() -> None:
    for pin, user in (("2026-10-15-1", "user_id"), (None, "user")):
        whop = build(pin=pin)
        whop.memberships.open_unclaimed(free_plan(whop))
        assert sent(whop)[0]["data"][user] is None


def test_ids_have_whops_form_and_the_same_seed_makes_the_same_ones() -> None:
    held = [build().memberships.buy("prod_basic", "ada") for _ in range(2)]
    assert held[0].id == held[1].id
    prefix, _, rest = held[0].id.partition("_")
    assert (prefix, len(rest), rest.isalnum()) == ("mem", 14, True)


def test_seeding_twice_is_seeding_once_and_a_new_secret_replaces_the_old() -> None:
    whop = build()
    before = whop.snapshot()
    seed(whop, [TICKET], webhook_url=HOOK, webhook_secret=SECRET)
    assert whop.snapshot() == before
    seed(whop, webhook_url=HOOK, webhook_secret="ws_other")
    assert [hook.secret for hook in whop.tables.webhooks.values()] == ["ws_other"]


def test_a_snapshot_holds_everything_also_what_is_on_its_way() -> None:
    whop = build()
    lounge(whop)
    held = whop.memberships.buy("prod_basic", "ada")
    [on_its_way] = whop.outbox.take(whop.now(), 1)
    saved = whop.snapshot()

    fresh = LocalWhop(ACCOUNT, clock=Clock(), rng=random.Random(2))
    fresh.restore(saved)
    assert fresh.snapshot() == saved
    assert len(fresh.outbox) == 3
    assert fresh.outbox.take(fresh.now(), 1)[0].message_id == on_its_way.message_id
    assert fresh.memberships.cancel(held.id).status == "canceled"
    assert [one.id for one in fresh.index.by_user[held.user_id or ""]] == [held.id]
    assert fresh.people.meet("ada").id == held.user_id


def test_a_snapshot_of_another_account_is_refused() -> None:
    other = LocalWhop("biz_other", clock=Clock(), rng=random.Random(2))
    with pytest.raises(ValueError, match=ACCOUNT):
        other.restore(build().snapshot())


def test_deliveries_are_dropped_doubled_and_held_back_as_told() -> None:
    whop = build()
    whop.faults.drop = 1.0
    whop.memberships.buy("prod_basic", "ada")
    assert (len(whop.outbox), whop.outbox.dropped) == (0, 3)
    whop.faults.drop, whop.faults.duplicate = 0.0, 1.0
    whop.memberships.buy("prod_basic", "ada")
    ids = [body["id"] for body in sent(whop)]
    assert (len(ids), len(set(ids))) == (6, 3)
    whop.faults.duplicate, whop.faults.reorder = 0.0, 1.0
    for _ in range(5):
        whop.memberships.buy("prod_basic", "ada")
    assert whop.outbox.take(whop.now(), 100) == []
    order = [message.seq for message in whop.outbox.take(whop.now() + timedelta(seconds=1), 100)]
    assert len(order) == 15
    assert order != sorted(order)


def fails(whop: LocalWhop) -> None:
    """Have everything that is due fail."""
    for message in whop.outbox.take(whop.now(), 100):
        whop.outbox.settle(message, local_whop.FAILED, whop.now())


@pytest.mark.parametrize("speed", [1, 600])
def test_a_webhook_is_disabled_after_72_hours_of_failing_if_ten_deliveries_failed(
    speed: float,
) -> None:
    clock = Clock()
    whop = build(clock)
    whop.faults.retry_clock = speed
    [hook] = whop.tables.webhooks.values()
    for _ in range(3):  # three deliveries each
        whop.memberships.buy("prod_basic", "ada")
    fails(whop)
    clock.turn(hours=72.1 / speed)
    fails(whop)
    assert (hook.enabled, hook.consecutive_failures) == (True, 9)  # long enough, and too few
    whop.memberships.buy("prod_basic", "ada")
    fails(whop)
    assert not hook.enabled
    assert hook.disabled_at is not None
    whop.hooks.update(hook.id, bodies.WebhookPatch(enabled=True))
    assert (hook.consecutive_failures, hook.disabled_at) == (0, None)


def test_many_failures_alone_disable_no_webhook() -> None:
    clock = Clock()
    whop = build(clock)
    [hook] = whop.tables.webhooks.values()
    for _ in range(5):
        whop.memberships.buy("prod_basic", "ada")
    fails(whop)
    clock.turn(hours=71.9)
    fails(whop)
    assert (hook.enabled, hook.consecutive_failures) == (True, 15)


def test_a_delivery_is_tried_thirteen_times_and_then_given_up() -> None:
    clock = Clock()
    whop = build(clock)
    whop.memberships.buy("prod_basic", "ada")
    attempts = dict[timedelta, None]()
    while (due := whop.outbox.next_due()) is not None:
        clock.now = due
        attempts[clock.now - START] = None
        fails(whop)
    assert len(attempts) == 13
    assert list(attempts)[:4] == [timedelta(seconds=s) for s in (0, 30, 150, 630)]
    assert list(attempts)[-1] == timedelta(hours=70, minutes=40, seconds=30)


def test_the_next_period_end_is_what_a_virtual_clock_jumps_to() -> None:
    clock = Clock()
    whop = build(clock)
    assert whop.memberships.next_period_end() is None
    held = whop.memberships.buy("prod_basic", "ada")
    assert whop.memberships.next_period_end() == held.period_end == START + timedelta(days=30)
    whop.memberships.cancel(held.id)
    assert whop.memberships.next_period_end() is None


def test_the_catalog_changes_only_what_was_sent() -> None:
    whop = build()
    patch = bodies.ProductPatch(headline="Soon", metadata={"usher": "1"})
    product = whop.catalog.update_product("prod_basic", patch)
    assert (product.title, product.headline, product.metadata) == ("Basic", "Soon", {"usher": "1"})
    plan = whop.catalog.plans_of("prod_basic")[0]
    changed = whop.catalog.update_plan(plan.id, bodies.PlanPatch(title=None, renewal_price=39.0))
    assert (changed.title, changed.renewal_price, changed.billing_period) == (None, 39.0, 30)
    room = lounge(whop)
    made = whop.catalog.create_product(bodies.NewProduct(title="Unsold"))
    sells = whop.catalog.create_plan(bodies.NewPlan(product_id=made.id))
    whop.rooms.attach(room.id, made.id)
    whop.catalog.delete_product(made.id)
    assert room.product_ids == ["prod_basic"]
    with pytest.raises(NotFound):
        whop.catalog.plan(sells.id)

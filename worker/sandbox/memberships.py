"""Memberships and their money: buying, granting, canceling, and what time does to them.

Which events a change fires is Whop's (Webhooks; Memberships guide): `membership.updated` with
every change, `activated` and `deactivated` where access begins and ends. Not documented, and
chosen here: a refund or a dispute alone changes no membership's status, and granting somebody a
plan that they hold already makes a second membership.
"""

from datetime import datetime, timedelta
from typing import Any

from worker.sandbox import bodies
from worker.sandbox.catalog import Catalog, check_metadata
from worker.sandbox.core import Core
from worker.sandbox.people import People
from worker.sandbox.records import ENTITLING, Invitation, Membership, Plan
from worker.sandbox.refusals import Conflict, Unprocessable
from worker.sandbox.shapes import first_charge
from worker.sandbox.tables import find
from worker.sandbox.till import Till

STATUSES = ENTITLING | {"canceled", "expired", "unresolved", "drafted"}


class Memberships:
    """Who holds what."""

    def __init__(self, core: Core, catalog: Catalog, people: People, till: Till) -> None:
        self._core = core
        self._catalog = catalog
        self._people = people
        self._till = till

    def get(self, membership_id: str) -> Membership:
        """Return a membership."""
        return find(self._core.tables.memberships, membership_id, "Membership")

    def buy(self, product_id: str, user: str, *, plan_id: str | None = None) -> Membership:
        """Check out: a payment unless the first charge is nothing, and a membership."""
        plan = self._plan_for_sale(product_id, plan_id)
        self._take(plan)
        held = self._open(plan, self._people.meet(user).id)
        if first_charge(plan):
            recurring = plan.plan_type == "renewal"
            reason = "subscription_create" if recurring else "one_time"
            self._till.charge(held, first_charge(plan), plan.currency, reason)
        self._announce(held)
        return held

    def _plan_for_sale(self, product_id: str, plan_id: str | None) -> Plan:
        """Return the named plan, or the product's first."""
        product = self._catalog.product(product_id)
        plans = self._catalog.plans_of(product.id)
        if plan_id is not None:
            plans = [plan for plan in plans if plan.id == plan_id]
        if not plans:
            raise Unprocessable(f"{product.id} has no such plan to buy")
        return plans[0]

    def grant(
        self, plan_id: str, user_id: str, metadata: dict[str, Any] | None = None
    ) -> Membership:
        """Create a membership on a free plan (Whop: Create membership, 2026-06-09).

        Raises:
            Unprocessable: the plan costs something.
        """
        plan = self._free_plan(plan_id)
        user = find(self._core.tables.users, user_id, "User")
        held = self._open(plan, user.id)
        held.metadata = metadata or {}
        self._announce(held)
        return held

    def _free_plan(self, plan_id: str) -> Plan:
        plan = self._catalog.plan(plan_id)
        if not plan.free:
            raise Unprocessable("plan_id: initial and renewal price must be zero")
        return plan

    def invite(self, wanted: bodies.NewInvitation) -> Invitation:
        """Invite one person to a free plan; the membership begins when they accept."""
        plan = self._free_plan(wanted.plan_id)
        if (wanted.user_id is None) == (wanted.email is None):
            raise Unprocessable("exactly one of user_id and email is required")
        if wanted.user_id is not None:
            find(self._core.tables.users, wanted.user_id, "User")
        invitation = Invitation(
            **self._core.stamp("inv_"),
            plan_id=plan.id,
            user_id=wanted.user_id,
            email=wanted.email,
        )
        self._core.tables.invitations[invitation.id] = invitation
        self._core.touch()
        return invitation

    def accept(self, invitation_id: str) -> Membership:
        """Accept an invitation, as its recipient.

        Raises:
            Conflict: it was accepted before.
        """
        invitation = find(self._core.tables.invitations, invitation_id, "Invitation")
        if invitation.accepted_at is not None:
            raise Conflict("This invitation was accepted already")
        invitation.accepted_at = self._core.now()
        return self.grant(invitation.plan_id, self._recipient(invitation))

    def _recipient(self, invitation: Invitation) -> str:
        if invitation.user_id is not None:
            return invitation.user_id
        email = invitation.email or ""
        known = self._core.index.user_by_email.get(email)
        return (known or self._people.meet(email.partition("@")[0])).id

    def _open(self, plan: Plan, user_id: str | None) -> Membership:
        """Make the membership that a plan gives: `completed` when it is bought once."""
        now = self._core.now()
        member = None if user_id is None else self._people.join(user_id)
        once = plan.plan_type == "one_time"
        expires = _after(now, plan.expiration_days)
        held = Membership(
            **self._core.stamp("mem_"),
            user_id=user_id,
            member_id=None if member is None else member.id,
            plan_id=plan.id,
            product_id=plan.product_id,
            billing="completed" if once else "trialing" if plan.trial_period_days else "active",
            period_start=now,
            period_end=expires if once else _period_end(plan, now),
            expires_at=expires,
        )
        self._core.tables.memberships[held.id] = held
        self._core.index.add(held)
        return held

    def open_unclaimed(self, plan_id: str) -> Membership:
        """Make a membership without a user: unclaimed, or bought by another business."""
        held = self._open(self._catalog.plan(plan_id), None)
        self._announce(held)
        return held

    def _announce(self, held: Membership) -> None:
        """Say that access began; `activated` comes as an `updated` too."""
        self._core.emit("membership.activated", held)
        self._core.emit("membership.updated", held)

    def cancel(
        self, membership_id: str, *, at_period_end: bool = False, reason: str | None = None
    ) -> Membership:
        """Cancel: at once, or when the paid period ends.

        Raises:
            Conflict: it has ended already.
            Unprocessable: it has no period that could end.
        """
        held = self.get(membership_id)
        if held.ended:
            raise Conflict(f"Membership is already {held.status}")
        if reason is not None:
            held.cancellation_reason = reason
        if at_period_end:
            return self._set_cancel_at_period_end(held, wanted=True)
        held.canceled_at = held.canceled_at or self._core.now()
        return self._end(held, "canceled")

    def _set_cancel_at_period_end(self, held: Membership, *, wanted: bool) -> Membership:
        if held.cancel_at_period_end == wanted:
            return held
        if held.ended:
            raise Conflict(f"Membership is already {held.status}")
        if held.period_end is None or held.billing == "completed":
            raise Unprocessable("Only a recurring membership can cancel at its period's end")
        previous = {"cancel_at_period_end": not wanted, "status": held.status}
        held.cancel_at_period_end = wanted
        held.canceled_at = self._core.now() if wanted else None
        self._changed(held, previous, "membership.cancel_at_period_end_changed")
        return held

    def _end(self, held: Membership, billing: str) -> Membership:
        """End access, if it is not ended yet."""
        previous = {"status": held.status}
        held.billing = billing
        self._changed(held, previous, "membership.deactivated")
        return held

    def _changed(self, held: Membership, previous: dict[str, Any], *events: str) -> None:
        """Fire the given events, and `membership.updated` with what was before."""
        self._core.touch(held)
        for event in events:
            self._core.emit(event, held)
        self._core.emit("membership.updated", held, previous=previous)

    def set_status(self, membership_id: str, status: str) -> Membership:
        """Move a membership to any status, as billing would; fire what that change fires."""
        if status not in STATUSES:
            raise Unprocessable(f"status: not one of {', '.join(sorted(STATUSES))}")
        held = self.get(membership_id)
        if status == held.status:
            return held
        if status == "canceling":
            held.billing = "active" if held.billing == "completed" or held.ended else held.billing
            held.period_end = held.period_end or self._core.now() + timedelta(days=30)
            self._core.index.will_end(held)
            return self._set_cancel_at_period_end(held, wanted=True)
        return self._move(held, status)

    def _take(self, plan: Plan) -> None:
        """Take one from the stock, which each purchase lessens (Whop: The plan object)."""
        if plan.unlimited_stock or plan.stock is None:
            return
        if self._core.faults.stock_means == "total":
            if len(self._core.index.by_plan[plan.id]) >= plan.stock:
                raise Unprocessable("This plan is out of stock")
            return
        if plan.stock < 1:
            raise Unprocessable("This plan is out of stock")
        plan.stock -= 1
        self._core.touch(plan)

    def _move(self, held: Membership, status: str) -> Membership:
        previous, entitled = {"status": held.status}, held.entitled
        held.billing, held.cancel_at_period_end = status, False
        self._core.index.will_end(held)
        if status == "canceled":
            held.canceled_at = self._core.now()
        if status == "past_due":
            self._till.decline(held, self._core.tables.plans[held.plan_id])
        event = "membership.activated" if held.entitled else "membership.deactivated"
        self._changed(held, previous, *([event] if entitled != held.entitled else []))
        return held

    def update(self, membership_id: str, patch: bodies.MembershipPatch) -> Membership:
        """Merge metadata, `{}` clears it; schedule a cancellation or take it back."""
        held = self.get(membership_id)
        changes = bodies.sent(patch)
        if "metadata" in changes:
            check_metadata(changes["metadata"])
            previous = {"metadata": held.metadata}
            held.metadata = held.metadata | changes["metadata"] if changes["metadata"] else {}
            self._changed(held, previous)
        if "cancel_at_period_end" in changes:
            self._set_cancel_at_period_end(held, wanted=changes["cancel_at_period_end"])
        return held

    def transfer(self, membership_id: str, user: str) -> Membership:
        """Move a membership to another user, who is made when nobody has the name."""
        held = self.get(membership_id)
        previous, person = {"user_id": held.user_id}, self._people.meet(user)
        self._core.index.move(held, person.id)
        held.user_id, held.member_id = person.id, self._people.join(person.id).id
        self._changed(held, previous)
        return held

    def set_paused(self, membership_id: str, *, paused: bool) -> Membership:
        """Pause or resume billing; access stays. Doing it twice changes nothing.

        Raises:
            Conflict: the membership has ended.
            Unprocessable: it does not renew.
        """
        held = self.get(membership_id)
        if held.ended:
            raise Conflict(f"Membership is already {held.status}")
        if self._core.tables.plans[held.plan_id].plan_type != "renewal":
            raise Unprocessable("Only a recurring membership can be paused")
        if held.paused != paused:
            held.paused = paused
            self._changed(held, {})
        return held

    def next_period_end(self) -> datetime | None:
        """Return when `pass_time` next has something to do."""
        coming = self._core.index.next_end()
        return coming.period_end if coming else None

    def pass_time(self) -> None:
        """Do what is due by now: renew, or end what was canceled or has expired."""
        now = self._core.now()
        while (held := self._core.index.next_end()) and held.period_end and held.period_end <= now:
            self._turn_period(held, held.period_end)

    def _turn_period(self, held: Membership, end: datetime) -> None:
        if held.cancel_at_period_end:
            self._end(held, "canceled")
        elif held.expires_at is not None and held.expires_at <= end:
            self._end(held, "expired")
        else:
            self._renew(held, end)

    def _renew(self, held: Membership, end: datetime) -> None:
        """Begin the next period: charge for it, unless it is free or paused."""
        plan = self._core.tables.plans[held.plan_id]
        previous = {"status": held.status, "current_period_end": end.isoformat()}
        held.period_start, held.period_end = end, end + timedelta(days=plan.billing_period or 30)
        if held.expires_at is not None:
            held.period_end = min(held.period_end, held.expires_at)
        self._core.index.will_end(held)
        held.billing = "active" if held.billing == "trialing" else held.billing
        if plan.renewal_price and not held.paused and held.billing == "active":
            self._till.charge(held, plan.renewal_price, plan.currency, "subscription_cycle")
        self._changed(held, previous)


def _after(now: datetime, days: int | None) -> datetime | None:
    return None if days is None else now + timedelta(days=days)


def _period_end(plan: Plan, now: datetime) -> datetime:
    end = now + timedelta(days=plan.trial_period_days or plan.billing_period or 30)
    return end if plan.expiration_days is None else min(end, now + timedelta(plan.expiration_days))

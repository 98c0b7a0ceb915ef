"""Payments, refunds and disputes."""

from worker.sandbox.core import Core
from worker.sandbox.records import Dispute, Membership, Payment, Plan, Refund
from worker.sandbox.refusals import Conflict
from worker.sandbox.tables import find


class Till:
    """The money."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def payment(self, payment_id: str) -> Payment:
        """Return a payment."""
        return find(self._core.tables.payments, payment_id, "Payment")

    def refund_of(self, refund_id: str) -> Refund:
        """Return a refund."""
        return find(self._core.tables.refunds, refund_id, "Refund")

    def dispute_of(self, dispute_id: str) -> Dispute:
        """Return a dispute."""
        return find(self._core.tables.disputes, dispute_id, "Dispute")

    def charge(self, held: Membership, amount: float, currency: str, reason: str) -> Payment:
        """Take the money for a membership."""
        payment = self._new(held, amount, currency, reason)
        payment.paid_at = payment.created_at
        self._core.emit("payment.succeeded", payment)
        return payment

    def decline(self, held: Membership, plan: Plan) -> Payment:
        """Fail to take the money for the next period."""
        payment = self._new(held, plan.renewal_price, plan.currency, "subscription_cycle")
        payment.status, payment.substatus = "open", "past_due"
        payment.failure_message = "Your card has insufficient funds."
        self._core.emit("payment.failed", payment)
        return payment

    def _new(self, held: Membership, amount: float, currency: str, reason: str) -> Payment:
        payment = Payment(
            **self._core.stamp("pay_"),
            membership_id=held.id,
            member_id=held.member_id,
            user_id=held.user_id,
            plan_id=held.plan_id,
            product_id=held.product_id,
            amount=amount,
            currency=currency,
            billing_reason=reason,
        )
        self._core.tables.payments[payment.id] = payment
        self._core.index.add(payment)
        return payment

    def refund(
        self, membership_id: str, *, payment_id: str | None = None, amount: float | None = None
    ) -> Refund:
        """Give back a payment for a membership, the last one unless it is named, or a part of it.

        The membership stays as it is (seen on Whop's sandbox, 2026-08).
        """
        payment = self.payment(payment_id) if payment_id else self._last_paid(membership_id)
        part = amount is not None and amount < payment.amount
        refund = Refund(
            **self._core.stamp("rf_"),
            payment_id=payment.id,
            amount=payment.amount if amount is None else amount,
            currency=payment.currency,
        )
        self._core.tables.refunds[refund.id] = refund
        payment.substatus = "partially_refunded" if part else "refunded"
        payment.refunded_amount = refund.amount
        payment.refunded_at = refund.created_at
        self._core.touch(payment)
        self._core.emit("refund.created", refund)
        self._core.emit("refund.updated", refund)
        return refund

    def dispute(self, membership_id: str, status: str = "needs_response") -> Dispute:
        """Open a dispute over the last payment for a membership, or an inquiry."""
        payment = self._last_paid(membership_id)
        dispute = Dispute(
            **self._core.stamp("dspt_"),
            payment_id=payment.id,
            amount=payment.amount,
            currency=payment.currency,
            status=status,
        )
        self._core.tables.disputes[dispute.id] = dispute
        payment.substatus = f"dispute_{status}"
        self._core.touch(payment)
        self._core.emit("dispute.created", dispute)
        self._core.emit("dispute.updated", dispute)
        return dispute

    def decide(self, dispute_id: str, status: str) -> Dispute:
        """Move a dispute on: under_review, won, lost, prevented, or an inquiry's warning_closed."""
        dispute = self.dispute_of(dispute_id)
        dispute.status = status
        payment = self.payment(dispute.payment_id)
        payment.substatus = f"dispute_{status}"
        self._core.touch(dispute)
        self._core.touch(payment)
        self._core.emit("dispute.updated", dispute)
        return dispute

    def _last_paid(self, membership_id: str) -> Payment:
        held = find(self._core.tables.memberships, membership_id, "Membership")
        payments = self._core.index.payments_by_membership[held.id]
        paid = [one for one in payments if one.substatus == "succeeded"]
        if not paid:
            raise Conflict("This membership has no payment that could be given back")
        return paid[-1]

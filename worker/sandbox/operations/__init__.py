"""Every operation of the API that the local Whop serves, with the permissions Whop asks for."""

from worker.sandbox.call import Operation
from worker.sandbox.operations import (
    channels,
    experiences,
    members,
    memberships,
    messages,
    payments,
    plans,
    products,
    support,
    webhooks,
)

OPERATIONS: tuple[Operation, ...] = (
    *memberships.OPERATIONS,
    *members.OPERATIONS,
    *experiences.OPERATIONS,
    *channels.OPERATIONS,
    *messages.OPERATIONS,
    *products.OPERATIONS,
    *plans.OPERATIONS,
    *payments.OPERATIONS,
    *webhooks.OPERATIONS,
    *support.OPERATIONS,
)

"""What the API key must be allowed to do, call by call."""

from typing import Final

NEEDS: Final = {
    "GET /memberships": "member:basic:read",
    "GET /memberships/{id}": "member:basic:read",
    "POST /memberships": "membership:create, member:email:read, member:basic:read",
    "POST /memberships/invite": "membership:create",
    "POST /memberships/{id}/cancel": "membership:cancel",
    "PATCH /memberships/{id}": "membership:update",
    "GET /members": "member:basic:read",
    "GET /payments": "payment:basic:read",
    "GET /payments/{id}": "payment:basic:read",
    "GET /products": "access_pass:basic:read",
    "POST /products": "access_pass:create",
    "GET /variants": "plan:basic:read",
    "POST /variants": "plan:create",
    "PATCH /variants/{id}": "plan:update",
    "POST /experiences": "experience:create",
    "PATCH /experiences/{id}": "experience:update",
    "POST /experiences/{id}/attach": "experience:attach",
    "POST /experiences/{id}/detach": "experience:detach",
    "GET /chat_channels": "chat:read",
    "GET /chat_channels/{id}": "chat:read",
    "PATCH /chat_channels/{id}": "chat:moderate",
    "GET /messages": "chat:read",
    "POST /messages": "chat:message:create",
    "PATCH /messages/{id}": "chat:message:create",
    "POST /support_channels": "support_chat:create",
    "GET /webhooks": "developer:manage_webhook",
    "GET /webhooks/{id}": "developer:manage_webhook",
    "PATCH /webhooks/{id}": "developer:manage_webhook",
    "GET /webhooks/{id}/deliveries": "developer:manage_webhook",
}
"""The permissions that Whop documents for each call; what is not here has none documented."""

TO_CUSTOMERS: Final = "support_chat:message:create"
"""What POST /messages needs where the channel is a support chat."""

WELCOME: Final = frozenset({"support_chat:create", TO_CUSTOMERS, "membership:update"})
"""Permissions without which all goes on, and less comfortably."""

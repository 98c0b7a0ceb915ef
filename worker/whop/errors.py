"""What can go wrong with a call to Whop, named for what to do next.

WhopError
    Unavailable     wait and try again: Whop or the way to it is out of order
        Limited     429: the quota is used up; Whop itself is in order
        Blind       the key may not see what is asked for, so the answer proves nothing
        UnexpectedShape  a success that does not say what every such answer says
    Rejected        trying again is of no use: a person must act, or the caller knows better
        Forbidden   401 or 403: the key is wrong or lacks a permission
        NotAvailable  403 though nothing is lacking: the account may not use this endpoint
        Missing     404: there is no such object
        Conflict    409: the object's state forbids it
"""


class WhopError(Exception):
    """A call to Whop did not succeed. `operation` is the method and path that was called."""

    def __init__(self, operation: str, message: str) -> None:
        super().__init__(f"{operation}: {message}")
        self.operation = operation


class Unavailable(WhopError):
    """Whop did not answer, or answered that it cannot now. `after` is its own wish, in seconds."""

    def __init__(self, operation: str, message: str, after: float | None = None) -> None:
        super().__init__(operation, message)
        self.after = after


class Limited(Unavailable):
    """Whop answered that the key's quota is used up."""


class Blind(Unavailable):
    """The key may not see what the call is about, so that its answer means nothing."""


class UnexpectedShape(Unavailable):
    """Whop answered with a success, and not what is needed. `field` is what is missing or wrong."""

    def __init__(self, operation: str, message: str, field: str | None = None) -> None:
        super().__init__(operation, message)
        self.field = field


class Rejected(WhopError):
    """Whop understood the call and refused it. `status` is the HTTP status."""

    def __init__(self, operation: str, message: str, status: int) -> None:
        super().__init__(operation, message)
        self.status = status


class Forbidden(Rejected):
    """The key is not valid, or lacks the permission that this call needs."""


class NotAvailable(Rejected):
    """Whop does not let this account use the endpoint at all; no permission is lacking."""


class Missing(Rejected):
    """Whop knows no object of that id."""


class Conflict(Rejected):
    """The state of the object forbids the call."""

"""One call of the API, as the operations read it."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

import msgspec
from starlette.datastructures import QueryParams

from worker.sandbox.pages import DEFAULT_SIZE, Window, window
from worker.sandbox.records import Delivery, Key, Outgoing, Record
from worker.sandbox.refusals import BadRequest, Forbidden, NotFound, Unprocessable
from worker.sandbox.state import LocalWhop

Method = Literal["GET", "POST", "PATCH", "DELETE"]
Body = TypeVar("Body")
R = TypeVar("R", bound=Record)
Post = Callable[[Outgoing], Awaitable[Delivery]]


class Call(msgspec.Struct, kw_only=True):
    """Who calls, with what, and on which Whop; `post` delivers one webhook at once."""

    whop: LocalWhop
    post: Post
    key: Key | None
    version: str
    path: dict[str, str]
    query: QueryParams
    raw: bytes

    @property
    def id(self) -> str:
        """The object that the path names."""
        return self.path["id"]

    def body(self, kind: type[Body]) -> Body:
        """Read the body; an empty one counts as `{}`.

        Raises:
            BadRequest: it is not JSON.
            Unprocessable: a field is missing or wrong, and is named.
        """
        try:
            return msgspec.json.decode(self.raw or b"{}", type=kind)
        except msgspec.ValidationError as wrong:
            raise Unprocessable(str(wrong)) from wrong
        except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
            raise BadRequest("The request body is not valid JSON") from wrong

    def may(self, action: str) -> bool:
        """Say whether the caller's key is granted an action."""
        return self.key is not None and self.key.may(action)

    def need(self, action: str) -> None:
        """Refuse a key that lacks a permission.

        Raises:
            Forbidden: with the permission's name in the message.
        """
        if not self.may(action):
            raise Forbidden(f"This API key is missing the required permission: {action}")

    def one(self, name: str) -> str | None:
        """Return a query parameter; empty counts as absent."""
        return self.query.get(name) or None

    def many(self, *names: str) -> set[str]:
        """Return all values of the repeated parameters; `key[]` is read like `key`."""
        spellings = [spelling for name in names for spelling in (name, f"{name}[]")]
        return {value for name in spellings for value in self.query.getlist(name) if value}

    def flag(self, name: str) -> bool | None:
        """Return a true or false parameter.

        Raises:
            BadRequest: it is neither.
        """
        text = self.one(name)
        if text not in (None, "true", "false"):
            raise BadRequest(f"{name}: must be true or false")
        return None if text is None else text == "true"

    def listed(self, rows: Iterable[R]) -> Iterable[R]:
        """Return rows as a list shows them: as they were a while ago, where lists are behind."""
        behind = self.whop.faults.stale_lists_seconds
        if not behind:
            return rows
        at = self.whop.core.clock() - timedelta(seconds=behind)
        versions = (self.whop.core.as_of(row, at) for row in rows)
        return (row for row in versions if row is not None)

    def since(self) -> "Span":
        """Read `created_after` and `created_before`."""
        return Span(after=self._moment("created_after"), before=self._moment("created_before"))

    def _moment(self, name: str) -> datetime | None:
        text = self.one(name)
        try:
            moment = None if text is None else datetime.fromisoformat(text)
        except ValueError as wrong:
            raise BadRequest(f"{name}: not an ISO 8601 timestamp") from wrong
        if moment is not None and moment.tzinfo is None:
            raise BadRequest(f"{name}: has no time zone")
        return moment

    def window(self, size: int = DEFAULT_SIZE) -> Window:
        """Read which page is wanted, of so many rows where nothing is said; the newest come first
        unless `direction` says `asc`.
        """
        return window(self.one, size)

    def account(self, name: str = "account_id", *, required: bool = False) -> bool:
        """Say whether the named account, if one is, is this one.

        Raises:
            BadRequest: it is required and missing.
        """
        wanted = self.one(name)
        if wanted is None and required:
            raise BadRequest(f"{name} is required")
        return wanted in (None, self.whop.tables.account.id)

    def own_account(self, wanted: str | None) -> None:
        """Refuse a body that names another account.

        Raises:
            NotFound: it does.
        """
        if wanted not in (None, self.whop.tables.account.id):
            raise NotFound(f"Account not found: {wanted}")


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The moments between which something was created."""

    after: datetime | None
    before: datetime | None

    def __contains__(self, moment: datetime) -> bool:
        late_enough = self.after is None or moment > self.after
        return late_enough and (self.before is None or moment < self.before)


class Operation(msgspec.Struct, frozen=True):
    """One call of the API: its name, its place, the permissions it needs, and what does it.

    An operation that is `only_at` a date is a 404 at every other; a `public` one needs no key.
    The `older` ones say 422 where the native ones say 400: so the SDK's errors of each have it.
    `keyless` ones take no notice of an Idempotency-Key: Whop's OpenAPI names none for experiences
    and messages.
    """

    name: str
    method: Method
    path: str
    needs: tuple[str, ...]
    run: Callable[[Call], Any]
    only_at: str | None = None
    public: bool = False
    older: bool = False
    keyless: bool = False

"""Users of Whop, and the members and team of the account."""

import re

from worker.sandbox.core import Core
from worker.sandbox.records import Member, User
from worker.sandbox.refusals import Unprocessable
from worker.sandbox.tables import find

USERNAME = re.compile(r"[\w.+@-]{1,64}")


class People:
    """Who is there."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def user(self, name: str) -> User:
        """Return a user by `user_` id or by username."""
        named = self._core.index.user_by_name.get(name)
        return named or find(self._core.tables.users, name, "User")

    def meet(self, name: str) -> User:
        """Return a user by id or username; a username that nobody has makes a new one.

        Raises:
            Unprocessable: no such id, and no username either.
        """
        index = self._core.index
        known = index.user_by_name.get(name) or self._core.tables.users.get(name)
        if known is not None:
            return known
        if name.startswith("user_") or not USERNAME.fullmatch(name):
            raise Unprocessable(f"user: neither a known id nor a possible username: {name[:80]!r}")
        return self.sign_up(name)

    def sign_up(self, username: str) -> User:
        """Create a user."""
        user = User(
            **self._core.stamp("user_"),
            username=username,
            name=username.replace("_", " ").replace(".", " ").title(),
            email=f"{username}@example.com",
        )
        self._core.tables.users[user.id] = user
        self._core.index.add(user)
        self._core.touch()
        return user

    def member(self, member_id: str) -> Member:
        """Return a member."""
        return find(self._core.tables.members, member_id, "Member")

    def join(self, user_id: str) -> Member:
        """Return a person's member record, made on their first contact with the account."""
        known = self._core.index.member_by_user.get(user_id)
        if known is not None:
            return known
        member = Member(**self._core.stamp("mber_"), user_id=user_id)
        self._core.tables.members[member.id] = member
        self._core.index.add(member)
        return member

    def add_admin(self, name: str) -> User:
        """Put a person on the team: they read as `admin`, without any membership."""
        user = self.meet(name)
        if user.id not in self._core.tables.team:
            self._core.tables.team.append(user.id)
            self.join(user.id)
            self._core.touch()
        return user

"""Experiences, the chat channels behind them, and the messages in those.

A channel exists exactly as long as its Chat experience: Whop has no call to make or delete one.
"""

import re
from datetime import timedelta

from worker.sandbox import bodies
from worker.sandbox.core import Core
from worker.sandbox.records import CHAT_APP, Channel, Experience, Message, SupportChannel
from worker.sandbox.refusals import Forbidden, NotFound, Unprocessable
from worker.sandbox.shapes import access_level
from worker.sandbox.tables import find

URL = re.compile(r"https?://|www\.", re.IGNORECASE)


class Rooms:
    """Where members meet."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def experience(self, experience_id: str) -> Experience:
        """Return an experience."""
        return find(self._core.tables.experiences, experience_id, "Experience")

    def create_experience(self, wanted: bodies.NewExperience) -> Experience:
        """Create an experience; the Chat app brings a channel with it, at once."""
        if wanted.account_id != self._core.tables.account.id:
            raise NotFound(f"Account not found: {wanted.account_id}")
        room = Experience(
            **self._core.stamp("exp_"),
            app_id=wanted.app_id,
            name=wanted.name or ("Chat" if wanted.app_id == CHAT_APP else "App"),
            is_public=wanted.is_public,
        )
        self._core.tables.experiences[room.id] = room
        if room.app_id == CHAT_APP:
            self._open_channel(room)
        self._core.touch()
        return room

    def _open_channel(self, room: Experience) -> None:
        channel = Channel(**self._core.stamp("chat_feed_"), experience_id=room.id)
        self._core.tables.channels[channel.id] = channel
        self._core.index.add(channel)

    def update_experience(self, experience_id: str, patch: bodies.ExperiencePatch) -> Experience:
        """Change the fields that were sent; `access_level` is another word for `is_public`."""
        room = self.experience(experience_id)
        changes = bodies.sent(patch)
        if "access_level" in changes:
            changes["is_public"] = changes.pop("access_level") == "public"
        for name, value in changes.items():
            setattr(room, name, value)
        self._core.touch(room)
        return room

    def delete_experience(self, experience_id: str) -> None:
        """Delete an experience with its channel and messages."""
        room = self.experience(experience_id)
        tables, index = self._core.tables, self._core.index
        channel = index.channel_by_experience.pop(room.id, None)
        if channel is not None:
            del tables.channels[channel.id]
            for message_id in index.by_channel.pop(channel.id, {}):
                del tables.messages[message_id]
        del tables.experiences[room.id]
        self._core.touch()

    def attach(self, experience_id: str, product_id: str) -> Experience:
        """Let a product open this experience.

        What Whop answers the second time is not documented; its own scripts take an error with
        the word "already" for a success, and so the local Whop answers with one.
        """
        room = self.experience(experience_id)
        find(self._core.tables.products, product_id, "Product")
        if product_id in room.product_ids:
            raise Unprocessable("Experience is already attached to this product")
        room.product_ids = [*room.product_ids, product_id]
        self._core.touch(room)
        return room

    def detach(self, experience_id: str, product_id: str) -> Experience:
        """Let a product open this experience no more; not being attached is an error here."""
        room = self.experience(experience_id)
        if product_id not in room.product_ids:
            raise Unprocessable("Experience is not attached to this product")
        room.product_ids = [other for other in room.product_ids if other != product_id]
        self._core.touch(room)
        return room

    def channel(self, channel_id: str) -> Channel:
        """Return a channel by its own id or by its experience's."""
        by_experience = self._core.index.channel_by_experience.get(channel_id)
        return by_experience or find(self._core.tables.channels, channel_id, "Chat channel")

    def update_channel(self, channel_id: str, patch: bodies.ChannelPatch) -> Channel:
        """Change the settings that were sent."""
        channel = self.channel(channel_id)
        changes = bodies.sent(patch)
        if "user_posts_cooldown_seconds" in changes:
            changes["user_posts_cooldown_seconds"] = changes["user_posts_cooldown_seconds"] or None
        for name, value in changes.items():
            setattr(channel, name, value)
        self._core.touch(channel)
        return channel

    def message(self, message_id: str) -> Message:
        """Return a message."""
        return find(self._core.tables.messages, message_id, "Message")

    def said_in(self, channel_id: str) -> list[Message]:
        """Return the messages of a channel or a support chat, oldest first."""
        if channel_id in self._core.tables.support_channels:
            return list(self._core.index.by_channel[channel_id].values())
        return self.messages_in(self.channel(channel_id))

    def support_channel(self, user_id: str) -> SupportChannel:
        """Return the support chat with a customer; there is one for each, made when asked for."""
        channels = self._core.tables.support_channels
        for one in channels.values():
            if one.user_id == user_id:
                return one
        made = SupportChannel(**self._core.stamp("chat_feed_"), user_id=user_id)
        channels[made.id] = made
        self._core.touch()
        return made

    def messages_in(self, channel: Channel) -> list[Message]:
        """Return a channel's messages, oldest first."""
        return list(self._core.index.by_channel[channel.id].values())

    def post(self, wanted: bodies.NewMessage, *, author_id: str | None = None) -> Message:
        """Write a message, as the account's owner unless an author is named.

        Who signs a message that was posted with an account key is not documented.
        """
        support = wanted.channel_id in self._core.tables.support_channels
        channel_id = wanted.channel_id if support else self.channel(wanted.channel_id).id
        message = Message(
            **self._core.stamp("msg_"),
            channel_id=channel_id,
            user_id=author_id or self._core.tables.account.owner_id,
            content=wanted.content,
            replying_to_message_id=wanted.replying_to_message_id,
        )
        self._core.tables.messages[message.id] = message
        self._core.index.add(message)
        if not support:
            self._core.emit("chat.message.created", message)
        return message

    def update_message(self, message_id: str, patch: bodies.MessagePatch) -> Message:
        """Edit, pin or unpin a message."""
        message = self.message(message_id)
        changes = bodies.sent(patch)
        message.is_edited = message.is_edited or "content" in changes
        for name, value in changes.items():
            setattr(message, name, value)
        self._core.touch(message)
        return message

    def delete_message(self, message_id: str) -> None:
        """Delete a message."""
        message = self._core.tables.messages.pop(self.message(message_id).id)
        del self._core.index.by_channel[message.channel_id][message.id]
        self._core.touch()

    def may_enter(self, user_id: str, room: Experience) -> str:
        """Say with what access level a person comes into a room, `no_access` included.

        Access follows the products that contain the experience (Whop: Channels); a public one is
        open to everybody, who then counts as a customer.
        """
        if user_id in self._core.tables.team:
            return "admin"
        held = self._core.index.by_user[user_id]
        opened = any(one.entitled and one.product_id in room.product_ids for one in held)
        return "customer" if opened or room.is_public else "no_access"

    def may_reach(self, user_id: str, resource_id: str) -> str:
        """Say with what access level a person reaches an account, a product or an experience."""
        tables, index = self._core.tables, self._core.index
        if resource_id.startswith("exp_"):
            return self.may_enter(user_id, self.experience(resource_id))
        level = access_level(tables, index, user_id)
        if resource_id == tables.account.id or level == "admin":
            return level
        product = find(tables.products, resource_id, "Resource")
        held = (one for one in index.by_user[user_id] if one.product_id == product.id)
        return "customer" if any(one.entitled for one in held) else "no_access"

    def say(self, user_id: str, channel_id: str, content: str) -> Message:
        """Write a message as a person, whom the channel's settings bind.

        How Whop matches words is not documented: here a message that contains one, in any case,
        is refused.
        """
        channel = self.channel(channel_id)
        level = self.may_enter(user_id, self.experience(channel.experience_id))
        if level == "no_access" or (level != "admin" and channel.who_can_post == "admins"):
            raise Forbidden("You may not post in this channel")
        if level != "admin":
            self._check_content(channel, content)
            self._check_cooldown(channel, user_id)
        wanted = bodies.NewMessage(channel_id=channel.id, content=content)
        return self.post(wanted, author_id=user_id)

    def _check_content(self, channel: Channel, content: str) -> None:
        if channel.ban_urls and URL.search(content):
            raise Unprocessable("Links are not allowed in this channel")
        if any(word.lower() in content.lower() for word in channel.banned_words):
            raise Unprocessable("The message contains a banned word")

    def _check_cooldown(self, channel: Channel, user_id: str) -> None:
        pause = timedelta(seconds=channel.user_posts_cooldown_seconds or 0)
        said = [one for one in self.messages_in(channel) if one.user_id == user_id]
        if said and self._core.now() < said[-1].created_at + pause:
            raise Unprocessable(f"Wait {pause.total_seconds():.0f} seconds between messages")

"""`usher survey`: what was recorded of a chat, and the numbers that it suggests."""

from datetime import datetime, timedelta
from typing import Final

from webhooks.inbox import Inbox, connect
from worker.chatter import Chatter
from worker.commands.holds import HoldError
from worker.policy.rooms import split
from worker.policy.survey import propose, render
from worker.rules import Rules
from worker.store import Store

RECORDED: Final = timedelta(days=14)


async def survey(rules: Rules, redis_url: str, key: str, now: datetime) -> list[str]:
    """Return, as lines for people, what the last two weeks of a room's chat suggest.

    Raises:
        HoldError: there is no such room.
        RedisError, OSError: Redis does not answer.
    """
    redis = connect(redis_url)
    try:
        prefix = Inbox(redis, rules.account).prefix
        store, room = Store(redis, prefix), rules.room(split(key)[0])
        place = await store.place(key)
        if room is None or place is None or place.channel is None:
            known = ", ".join(await store.instances()) or "none yet"
            raise HoldError(f"no room on Whop is called {key!r}; there are: {known}")
        history = await Chatter(redis, prefix).history(place.channel, now - RECORDED, now)
        found = propose(history, room.schedule.zone, now)
        head, *rest = render(key, found)
        zone = [f"Its hour of the week is that of {room.schedule.zone}."] if found.busiest else []
        return [head, *zone, *rest]
    finally:
        await redis.aclose()

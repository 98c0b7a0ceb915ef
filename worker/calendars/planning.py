"""What a change in a calendar sets going: the rooms are looked at, and all that exists of them."""

from datetime import datetime

from webhooks.inbox import Inbox
from worker.calendars.reading import Rooms
from worker.calendars.refresh import Calendars
from worker.policy.rooms import split
from worker.store import Store
from worker.subjects import milliseconds


async def replan(
    rooms: Rooms, *, calendars: Calendars, inbox: Inbox, store: Store, now: datetime
) -> None:
    """Have rooms looked at whose dates changed; only then is it noted that they are."""
    at = milliseconds(now)
    for key in rooms:
        await inbox.mark(f"room:{key}", "calendar", at)
    for key in await store.instances() if rooms else ():
        if split(key)[0] in rooms:
            await inbox.mark(f"channel:{key}", "calendar", at)
    await calendars.planned(rooms)

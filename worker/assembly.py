"""What a job works with, built once from the settings."""

import hashlib
import random
import secrets
import socket
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx

from webhooks.inbox import Inbox
from worker.brake import Brake
from worker.breaker import Breaker
from worker.calendars.refresh import Calendars
from worker.catchup import CatchUp
from worker.chatter import Chatter
from worker.leases import Leases
from worker.meters import Meters
from worker.roster import Roster
from worker.settings import Settings
from worker.sight import Sight
from worker.store import Store
from worker.strays import Strays
from worker.subjects import Subjects
from worker.tools import Tools
from worker.whop.client import Whop
from worker.whop.quota import Quota, Rank


def assemble(
    settings: Settings,
    redis: Any,
    http: httpx.AsyncClient,
    clock: Callable[[], datetime],
    meters: Meters | None = None,
    *,
    enrolled: bool = False,
) -> Tools:
    """Build what the jobs work with; who is `enrolled` leaves jobs to workers with newer rules."""
    account, mark = settings.rules.account, settings.rules.mark
    inbox = Inbox(redis, account, kept=settings.kept)
    process = f"{socket.gethostname()}/{secrets.token_hex(4)}"
    leases = Leases(redis, inbox.prefix, process)
    key = hashlib.sha256(settings.api_key.encode()).hexdigest()[:12]
    rng = random.Random()  # noqa: S311 - it spreads pauses, it guards nothing
    quota = Quota(
        redis.connection_pool, prefix=f"{inbox.prefix}quota", who=key, quota=settings.quota
    )
    meters = meters or Meters()
    breaker = Breaker(redis, inbox.prefix, clock=clock, listener=meters)
    whop = Whop(http, account=account, quota=quota, rng=rng, listener=breaker, guard=leases.check)
    return Tools(
        rules=settings.rules,
        whop=whop,
        store=Store(redis, inbox.prefix),
        subjects=Subjects(redis, inbox.prefix, leases, mark if enrolled else ""),
        inbox=inbox,
        leases=leases,
        roster=Roster(redis, inbox.prefix, mark, process),
        calendars=Calendars(redis, inbox.prefix, clock=clock),
        chatter=Chatter(redis, inbox.prefix),
        breaker=breaker,
        sight=Sight(inbox, whop, clock=clock, meters=meters),
        brake=Brake(redis, inbox.prefix, clock),
        catch_up=CatchUp(
            inbox,
            whop.at(Rank.BACKGROUND),
            account=account,
            ours=settings.webhook,
            clock=clock,
            spread=settings.quota[1] / settings.quota[0],
        ),
        strays=Strays(redis, inbox.prefix),
        meters=meters,
        clock=clock,
        rng=rng,
    )

"""`usher explain`: why somebody is in a room or is not, on what evidence, and what would end it."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from worker.commands.accounts import Account, gather
from worker.commands.deliveries import Filter
from worker.commands.delivery_report import print_json
from worker.commands.evidence import Echo, Evidence, NotFound, opened
from worker.commands.outlook import dated
from worker.policy.endings import Ending
from worker.policy.rooms import split
from worker.renames import as_it_is
from worker.rules import Rules
from worker.words import local


async def explain(
    rules: Rules,
    redis_url: str,
    who: str,
    room: str | None,
    *,
    now: datetime,
    echo: Echo,
    as_json: bool = False,
) -> None:
    """Print why somebody is in a room, or in each, or is not.

    `who` is Whop's id of a person, or of a membership, a payment or a delivery of theirs.

    Raises:
        NotFound: nobody, or no room, is called so.
        Unreachable: Redis does not answer.
    """
    async with opened(rules, redis_url) as evidence:
        ruled, said = await as_it_is(rules, evidence.store)
        whole = await dated(ruled, evidence.redis, evidence.prefix, now)
        user = await find(evidence, who)
        account = await gather(replace(evidence, rules=whole), user, room, now)
    if as_json:
        print_json(account)
    else:
        for key, why in said.items():
            if room is None or key == split(room)[0]:
                echo(f"{key}: {why}\n")
        _tell(account, whole, echo)


async def find(evidence: Evidence, who: str) -> str:
    """Return the user whom an id of Whop's names: their own, or one of something of theirs.

    Raises:
        NotFound: it is none, or nothing that is kept tells whose it is.
    """
    who = who.removeprefix("member:")
    if who.startswith("user_"):
        return who
    if not who.startswith(("mem_", "pay_", "msg_")):
        raise NotFound(
            f"{who}: expected Whop's id of a person (user_...), or of a membership (mem_...), a "
            "payment (pay_...) or a delivery (msg_...) of theirs; Usher keeps no names"
        )
    async for one in evidence.deliveries.newest(Filter()):
        if one.user and who in (one.id, one.membership, one.payment):
            return one.user
    for kind in ("membership", "payment"):
        for step in await evidence.store.steps(f"{kind}:{who}"):
            if step.what == "subject.passed_on" and step.id:
                return step.id
    raise NotFound(f"{who}: no delivery that is kept tells whose it is; give their user_ id")


def _tell(account: Account, rules: Rules, echo: Echo) -> None:
    """Print an account as a story."""
    zone = rules.zone
    looked = account.last_looked
    echo(f"{account.user}" + (", an admin of the account" if account.team else ""))
    echo(f"  Whop was last asked: {local(looked, zone) if looked else 'never'}")
    own = {room.grant.product: f"{room.room}'s own" for room in account.rooms if room.grant}
    for one in account.memberships:
        until = f", until {local(one.period_end, zone)}" if one.period_end else ""
        ours = f" ({own[one.product]})" if one.product in own else ""
        echo(f"  {one.id} is {one.status}, product {one.product}{ours}{until}")
    for text in account.unshown:
        echo(f"  {text}")
    for room in account.rooms:
        echo("")
        echo(f"{room.room}  {room.name}: {room.verdict}")
        facts = [("because", room.why), ("rule", room.rule), *(("but", t) for t in room.trouble)]
        facts += [("seats", f"are given {room.way}")] if room.way else []
        facts += [("ends", _ends(one, zone)) for one in room.endings]
        for name, text in facts:
            echo(f"  {name:<9}{text}")
    echo("")
    echo(
        "What happened, the newest last:" if account.story else "Nothing is known to have happened."
    )
    for line in account.story:
        named = f"  [{', '.join(line.ids)}]" if line.kind == "delivery" else ""
        echo(f"  {local(line.at, zone)}  {line.text}{named}")
    _tell_next(account, rules, echo)
    echo("")
    echo("Not known here:")
    for text in account.unknown:
        echo(f"  {text}")


def _tell_next(account: Account, rules: Rules, echo: Echo) -> None:
    zone = rules.zone
    if account.dead:
        echo(
            f"  {local(account.dead.at, zone)}  given up at try {account.dead.tries}: "
            f"{account.dead.reason} (`usher dead retry member:{account.user}` tries again)"
        )
    if account.next_look:
        late = " (it is due now)" if account.next_look <= account.asked_at else ""
        waiting = f", for {', '.join(account.waiting)}" if account.waiting else ""
        echo(f"  {local(account.next_look, zone)}  the next look{waiting}{late}")


def _ends(one: Ending, zone: ZoneInfo) -> str:
    return f"{local(one.at, zone)}: {one.why}" if one.at else one.why

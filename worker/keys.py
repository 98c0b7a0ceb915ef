"""Every kind of key that Usher keeps in Redis, and why none of them grows with time alone.

A test lives through many deliveries and compares. What expires does so by itself; what does not is
bounded by the number of members, rooms or subjects, and not by what happens to them.
"""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of key: its name under `usher:{account}:`, or arq's own, and what bounds it.

    The name of arq's is that of a job, which begins with `usher:{account}:`, too.
    """

    name: str
    bound: str
    expires: bool = False

    def matches(self, key: str) -> bool:
        """Say whether a key, without the account's prefix, is of this kind."""
        pattern = re.sub(r"\\\{\w+\\\}", ".+", re.escape(self.name))
        return re.fullmatch(pattern, key) is not None


KINDS: Final = (
    Kind("delivery:{id}", "gone after the retention, 35 days or longer", expires=True),
    Kind("received", "an entry for each delivery that is kept; the sweep takes out the others"),
    Kind("pending:{subject}", "what waits: emptied by the look, each reason once"),
    Kind("due", "an entry for each subject that is to be looked at"),
    Kind("job", "an entry for each subject that has a job"),
    Kind("jobs", "one number"),
    Kind("queue", "an entry for each job; arq's"),
    Kind("queue:health-check", "arq's", expires=True),
    Kind("queue:{lane}:health-check", "arq's", expires=True),
    Kind("queue:{lane}", "an entry for each job; arq's"),
    Kind("tries", "an entry for each subject that fails just now"),
    Kind("since", "an entry for each subject that is tried just now"),
    Kind("dead", "an entry for each subject that failed for good, until it succeeds"),
    Kind("lock:{name}", "15 seconds, renewed while the work goes on", expires=True),
    Kind("looks:{subject}", "the last 30, gone 35 days after the last", expires=True),
    Kind("trail:{subject}", "the last 200 steps, gone 400 days after the last", expires=True),
    Kind("member:{user}", "one for each person who ever bought, until they are forgotten"),
    Kind("holders", "an entry for each membership of theirs, until they are forgotten"),
    Kind("room:{instance}", "one for each room on Whop"),
    Kind("rooms", "an entry for each room on Whop"),
    Kind("hidden", "an entry for each cohort"),
    Kind("recalled", "an entry for each room of the rules"),
    Kind("seats:{room}", "an entry for each person who ever had a seat, until they are forgotten"),
    Kind("filled:{room}", "an entry for each cohort"),
    Kind("granted:{instance}", "an entry for each member of a cohort"),
    Kind("offered:{instance}", "an entry for each member who has a link and has not come"),
    Kind("unmarked", "an entry for each grant that bears no mark of ours on Whop yet"),
    Kind("written", "one number"),
    Kind("places", "one number"),
    Kind("ruled", "one mark"),
    Kind("workers", "an entry for each worker, a minute after its end"),
    Kind("granted_at", "one instant"),
    Kind("grant_ways", "an entry for each way of giving a seat that Whop refuses"),
    Kind("sold:{room}", "an entry for each owner of a ticket"),
    Kind("stock:{room}", "one for each room whose plan's stock is set"),
    Kind("kept:{instance}", "one for each room on Whop"),
    Kind("holds:{instance}", "the last 50, gone a day after the longest", expires=True),
    Kind("posted:{instance}", "gone 90 days after the last message", expires=True),
    Kind("team", "one list of the account's admins"),
    Kind(
        "feed:{feed}", "one for each calendar, gone 60 days after it left the rules", expires=True
    ),
    Kind("fed:{room}", "one for each room with a calendar, gone like it", expires=True),
    Kind("heard:{id}", "minutes", expires=True),
    Kind("chat:{channel}:{hour}", "15 days", expires=True),
    Kind("senders:{channel}:{bucket}", "15 minutes", expires=True),
    Kind("alarm:{channel}", "one for each chat with a pace of its own"),
    Kind("pace:{channel}", "one for each chat with a pace of its own"),
    Kind("permissions", "what the key may do"),
    Kind("blind", "an entry for each subject that waits for the key to see again"),
    Kind("takes:{room}", "an hour after the last take that nothing explains", expires=True),
    Kind("brake:{room}", "an entry for each member who would be put out without an explanation"),
    Kind("brakes", "an entry for each room whose brake is on"),
    Kind("caught_up", "one mark"),
    Kind("verified", "one instant"),
    Kind("webhook", "how our webhook fares, as Whop last said"),
    Kind("breaker", "one state, with the latest outages"),
    Kind("heard", "the last reports of the workers, three hours", expires=True),
    Kind("probing", "half a minute", expires=True),
    Kind("begun:{at}", "gone soon after an outage", expires=True),
    Kind("quota{key}", "a minute", expires=True),
    Kind("forget_salt", "one text"),
    Kind("forgotten:{digest}", "proofs, gone three years after the last", expires=True),
    Kind("arq:job:{job}", "gone when it is done, or 35 days after it was due", expires=True),
    Kind("arq:in-progress:{job}", "as long as a job may take", expires=True),
    Kind("arq:retry:{job}", "arq's count of a job's tries, a day", expires=True),
)


def kind_of(key: str, prefix: str) -> Kind | None:
    """Return the kind of a key as it stands in Redis; None where we know none such."""
    name = key.removeprefix(prefix)
    return next((kind for kind in KINDS if kind.matches(name)), None)

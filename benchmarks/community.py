"""A seller's whole community as processes of their own: Valkey, local Whop, receiver, workers.

    with community.running(folder, RULES) as seller:
        seller.work()
        seller.buy("prod_course", "ada")
        grants = seller.grants()

Everything that is started is ended with the block.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import redis

from worker import embedded, main, rules

ACCOUNT: Final = "biz_Benchmark00001"
COURSE: Final = f"""
account = "{ACCOUNT}"
timezone = "America/New_York"

[rooms.course]
name = "Course, cohort {{cohort}}"
products = ["prod_course"]
cohort = {{ by = "seats", seats = 200 }}
welcome = "Glad you are here."
"""
READY_WITHIN: Final = 20.0
ROOT: Final = Path(__file__).resolve().parent.parent


class Failed(SystemExit):
    """The benchmark could not be run; the message says why."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One buyer's way in, by the local Whop's own timestamps."""

    user: str
    product: str
    bought: datetime
    granted: datetime

    @property
    def seconds(self) -> float:
        """Return how long the buyer waited."""
        return (self.granted - self.bought).total_seconds()


@dataclass
class Community:
    """What a benchmark drives and looks at."""

    folder: Path
    account: str
    environ: dict[str, str]
    whop: httpx.Client
    redis: "redis.Redis"
    stack: contextlib.ExitStack
    children: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Run Python with these arguments until the end of the block; it logs into the folder."""
        with (self.folder / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=self.environ,
                preexec_fn=embedded.end_with_parent,  # noqa: PLW1509 - it calls nothing but prctl
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.children[name] = child
        self.stack.callback(_end, child)
        return child

    def usher(self, command: str, *options: str) -> "subprocess.Popen[bytes]":
        """Run one of Usher's commands."""
        return self.start(command, ["-m", "worker.cli.main", command, *options])

    def work(self, quota: tuple[int, int], name: str) -> "subprocess.Popen[bytes]":
        """Run a worker that counts on another quota than Whop's."""
        return self.start(name, [__file__, *map(str, quota)])

    def until(self, true: Callable[[], object], what: str, seconds: float = READY_WITHIN) -> None:
        """Wait until something is true, as long as all processes run."""
        deadline = time.monotonic() + seconds
        while not true():
            for name, child in self.children.items():
                if child.poll() is not None:
                    raise Failed(f"{name} ended by itself ({child.returncode}): {self.log(name)}")
            if time.monotonic() > deadline:
                raise Failed(f"{what}: not within {seconds:.0f} seconds")
            time.sleep(0.02)

    def log(self, name: str) -> str:
        """Return the last lines of what a process wrote."""
        return (self.folder / f"{name}.log").read_text()[-2000:]

    def switch(self, **faults: object) -> None:
        """Set the local Whop's switches (`worker.sandbox.faults`)."""
        self.whop.patch("/sandbox/faults", json=faults).raise_for_status()

    def buy(self, product: str, user: str) -> None:
        """Buy as a person does at the checkout."""
        sold = self.whop.post("/sandbox/buy", json={"product_id": product, "user": user})
        sold.raise_for_status()

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many calls the local Whop answered, by operation and status."""
        answer = self.whop.get("/sandbox/requests", params={"operation": "none"}).json()
        counts: dict[str, dict[str, int]] = answer["counts"]
        return counts

    def forget_calls(self) -> None:
        """Have the local Whop count from nothing."""
        self.whop.delete("/sandbox/requests").raise_for_status()

    def due(self) -> int:
        """Return how many subjects want a look now."""
        key, now = f"usher:{self.account}:due", time.time() * 1000
        return int(self.redis.zcount(key, "-inf", now))

    def granted(self) -> int:
        """Return how many buyers are in a cohort's room."""
        rooms = self.redis.keys(f"usher:{self.account}:granted:*")
        return sum(int(self.redis.scard(room)) for room in rooms)

    def grants(self) -> list[Grant]:
        """Read from the local Whop's API when each buyer bought and was given their seat."""
        bought: dict[str, datetime] = {}
        given: dict[str, Grant] = {}
        for row in self._memberships():
            user, product = row["user_id"], row["product_id"]
            at = datetime.fromisoformat(row["created_at"])
            if product == "prod_course":
                bought[user] = at
            elif user in given:
                raise Failed(f"{user} was granted twice")
            else:
                given[user] = Grant(user, product, bought[user], at)
        return list(given.values())

    def _memberships(self) -> Iterator[Mapping[str, Any]]:
        """Yield all memberships, the oldest first."""
        query = {"account_id": self.account, "first": "100", "direction": "asc"}
        headers = {"Authorization": f"Bearer {self.environ['WHOP_API_KEY']}"}
        while True:
            answer = self.whop.get("/api/v1/memberships", params=query, headers=headers)
            if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:  # the worker has used it up
                time.sleep(float(answer.headers.get("Retry-After", 1)))
                continue
            page = answer.raise_for_status().json()
            yield from page["data"]
            if not page["page_info"]["has_next_page"]:
                return
            query["after"] = page["page_info"]["end_cursor"]


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a process that we started."""
    child.terminate()
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextlib.contextmanager
def running(folder: Path, text: str) -> Iterator[Community]:
    """Run all but the workers, by the text of the rules."""
    path, whop, receiver = folder / "rooms.toml", embedded.free_port(), embedded.free_port()
    path.write_text(text)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(embedded.running(folder / "valkey", embedded.free_port()))
        environ = {
            **os.environ,
            "WHOP_API_KEY": "apik_benchmark",
            "WHOP_API_URL": f"http://127.0.0.1:{whop}/api/v1",
            "WHOP_WEBHOOK_SECRET": "ws_" + "5" * 64,
            "REDIS_URL": url,
            "USHER_RULES": str(path),
            "USHER_PORT": str(receiver),
            "USHER_LOG": "json",
        }
        seller = Community(
            folder=folder,
            account=rules.parse(text).account,
            environ=environ,
            whop=stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{whop}", timeout=30)),
            redis=stack.enter_context(redis.Redis.from_url(url)),
            stack=stack,
        )
        hook = f"http://127.0.0.1:{receiver}"
        seller.usher("sandbox", "--port", str(whop), "--webhook", f"{hook}/webhooks/whop")
        seller.until(lambda: _answers(f"http://127.0.0.1:{whop}/sandbox/faults"), "local Whop")
        seller.usher("receive")
        seller.until(lambda: _answers(f"{hook}/readyz"), "receiver")
        yield seller


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=2).is_success
    return False


def _work(quota: tuple[int, int]) -> None:
    """Be a worker with a quota of its own."""
    found = main.Settings.from_env(os.environ)
    main.work(
        main.Settings(
            rules=found.rules,
            api_key=found.api_key,
            redis_url=found.redis_url,
            api_url=found.api_url,
            log=found.log,
            quota=quota,
        )
    )


if __name__ == "__main__":
    _work((int(sys.argv[1]), int(sys.argv[2])))

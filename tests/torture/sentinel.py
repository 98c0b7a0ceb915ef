"""A failover by three real sentinels, while 500 deliveries a second arrive.

The primary is killed, or it is cut off from its replicas and the sentinels while the receiver still
reaches it: then two Redis servers believe that they are the primary. What the old one took in
after it was cut off is thrown away when it comes back.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from ports import free_port

from torture import figures
from torture.load import Load
from torture.processes import Process, Sentinel, Valkey, ready
from torture.redis_faults import RATE, asked_for, receiver_for, row
from torture.wire import Gate, Passage

SECONDS = 20.0
CUT_OFF = 12.0
"""Seconds for which the primary is cut off: longer than a failover takes."""


class Network(Gate):
    """The way to the primary; a split lets the receiver through and nobody else."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.split = False
        self.whole = asyncio.Event()
        self.whole.set()

    def passage(self) -> Passage:
        return _Traveller(self)


class _Traveller(Passage):
    """Somebody on their way to the primary; the receiver is known by the library's name."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._receiver = False

    async def asked(self, data: bytes) -> bool:
        self._receiver |= b"redis-py" in data
        return await self._may_pass()

    async def answered(self, _: bytes) -> bool:
        return await self._may_pass()

    async def _may_pass(self) -> bool:
        if self._network.split and not self._receiver:
            await self._network.whole.wait()
            return False
        return True


@dataclass
class Cluster:
    """One primary behind a network, two replicas, three sentinels, a receiver."""

    network: Network
    primary: Valkey
    replicas: list[Valkey]
    sentinels: list[Sentinel]
    receiver: Process
    port: int

    def elected(self) -> int:
        """Return the port of the primary that the sentinels name."""
        with redis.Redis(port=self.sentinels[0].port, decode_responses=True) as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "usher")
            return int(port)

    def replicated(self) -> bool:
        with redis.Redis(port=self.primary.port) as client:
            found = client.info("replication")
        both = [found.get(f"slave{n}", {}).get("state") == "online" for n in range(2)]
        return all(both)

    def known(self) -> bool:
        """Say whether the sentinels know each other and the replicas."""
        with redis.Redis(port=self.sentinels[0].port, decode_responses=True) as client:
            master = client.sentinel_master("usher")
        return int(master["num-slaves"]) >= 2 and int(master["num-other-sentinels"]) >= 2


@contextlib.asynccontextmanager
async def cluster(*, waits: bool, **settings: str) -> AsyncIterator[Cluster]:
    """Run everything; `waits` has the receiver wait for a replica, as Usher's own does."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="usher-torture-")))
        primary_port = free_port()
        network = Network(primary_port)
        shown = await stack.enter_async_context(network.running())
        announced = {"replica_announce_port": str(shown), "replica_announce_ip": "127.0.0.1"}
        primary = Valkey(folder / "primary", primary_port, **announced, **settings)
        copies = {"replicaof": f"127.0.0.1 {shown}", "repl_diskless_sync_delay": "0"}
        replicas = [
            Valkey(folder / f"replica{n}", free_port(), **copies, **settings) for n in range(2)
        ]
        sentinels = [Sentinel(folder / f"sentinel{n}", free_port(), shown) for n in range(3)]
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
        url = f"redis+sentinel://{hosts}/usher/0"
        receiver, port = receiver_for(folder, url, wait=None if waits else "none")
        for process in (primary, *replicas, *sentinels):
            await asyncio.to_thread(process.start)
            stack.callback(process.stop)
        here = Cluster(network, primary, replicas, sentinels, receiver, port)
        await _until(here.replicated)
        await _until(here.known)
        receiver.start()
        stack.callback(receiver.stop)
        await asyncio.to_thread(ready, port)
        yield here


async def _until(true, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110 - others do it
            await asyncio.sleep(0.1)


async def fail_over(
    name: str, *, split: bool, waits: bool = False, seconds: float = SECONDS, **settings: str
) -> dict[str, Any]:
    """Lose the primary in the middle of a load; return what came of it."""
    async with cluster(waits=waits, **settings) as here:
        load = Load(here.port, "s", int(RATE * seconds))
        sending = asyncio.create_task(load.send(RATE))
        await asyncio.sleep(4)
        took = await (_split(here) if split else _killed(here))
        await sending
        elected = here.elected()

        def ask() -> dict[str, Any]:
            with redis.Redis(port=elected) as client:
                return asked_for(client, load)

        found = await asyncio.to_thread(ask)
        return row(name, load, found) | {"failover s": round(took, 1)}


async def _killed(here: Cluster) -> float:
    here.primary.kill()
    here.network.hang_up()
    return await _failed_over(here)


async def _split(here: Cluster) -> float:
    """Cut the primary off, have another elected, and bring the old one back as its replica."""
    before = here.elected()
    here.network.whole.clear()
    here.network.split = True
    began = time.monotonic()
    with redis.Redis(port=here.primary.port) as client:
        took = await _failed_over(here)
        await asyncio.sleep(max(0.0, CUT_OFF - (time.monotonic() - began)))
        assert here.elected() != before
        here.network.split = False
        here.network.whole.set()
        await _until(lambda: client.info("replication")["role"] == "slave")
    return took


async def _failed_over(here: Cluster) -> float:
    before, began = here.elected(), time.monotonic()
    await _until(lambda: here.elected() != before)
    return time.monotonic() - began


async def all_of_them() -> list[dict[str, Any]]:
    """Go through the settings, one after the other."""
    guarded = {"min_replicas_to_write": "1", "min_replicas_max_lag": "2"}
    rows = []
    for split in (False, True):
        how = "primary cut off" if split else "primary, kill -9"
        rows += [
            await fail_over(f"{how}, without WAIT", split=split),
            await fail_over(
                f"{how}, without WAIT, min-replicas-to-write 1, max-lag 2", split=split, **guarded
            ),
            await fail_over(f"{how}, as Usher does it", split=split, waits=True),
        ]
    return rows


def main() -> None:
    rows = asyncio.run(all_of_them())
    figures.write("sentinel", rows, about=f"{RATE:.0f} deliveries a second; a failover")

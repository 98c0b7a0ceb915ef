"""The whole process: it listens, keeps its state in a file, and stops in order."""

import asyncio
import json
import socket
import threading
import time
from pathlib import Path
from typing import BinaryIO

import httpx
import local_whop
import pytest
from local_whop import ACCOUNT, API_KEY, PATIENCE, SECRET

from worker.sandbox.keeper import Keeper, Unreadable
from worker.sandbox.main import serve
from worker.sandbox.state import SeedProduct

BASIC = SeedProduct(id="prod_basic", title="Basic")


class Run:
    """A local Whop served until the block ends."""

    def __init__(
        self, data: Path, webhook_url: str | None = None, retry_clock: float = 1.0
    ) -> None:
        self._data, self._webhook_url = data, webhook_url
        self._retry_clock = retry_clock
        self._stop = asyncio.Event()
        self._urls: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> str:
        self._task = asyncio.create_task(
            serve(
                account=ACCOUNT,
                products=[BASIC],
                api_key=API_KEY,
                port=0,
                data=self._data,
                webhook_url=self._webhook_url,
                webhook_secret=SECRET,
                retry_clock=self._retry_clock,
                ready=self._urls.put_nowait,
                stop=self._stop,
            )
        )
        return await asyncio.wait_for(self._urls.get(), PATIENCE)

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self._task


def test_a_second_start_finds_the_data_again_and_sends_what_was_waiting(tmp_path: Path) -> None:
    data = tmp_path / "sandbox" / "whop.json"

    async def main() -> None:
        endpoint = local_whop.Endpoint()
        async with local_whop.serving(endpoint) as hook:
            async with Run(data, hook) as url, httpx.AsyncClient(base_url=url) as control:
                await control.patch("/sandbox/faults", json={"deliveries_paused": True})
                sold = await control.post(
                    "/sandbox/buy", json={"product_id": "prod_basic", "user": "ada"}
                )
                await local_whop.until(
                    lambda: sold.json()["membership_id"] in data.read_text() if data.exists() else 0
                )
            assert endpoint.heard == []
            async with Run(data, hook) as url, httpx.AsyncClient(base_url=url) as control:
                state = (await control.get("/sandbox/state")).json()
                assert [one["id"] for one in state["memberships"]] == [sold.json()["membership_id"]]
                assert len(state["products"]) == len(state["webhooks"]) == 1
                await local_whop.until(lambda: len(endpoint.heard) == 3)

    asyncio.run(main())
    assert json.loads(data.read_text())["account"]["id"] == ACCOUNT
    assert [path.name for path in data.parent.iterdir()] == ["whop.json"]


def test_a_start_with_a_faster_clock_tries_again_sooner_what_waited_from_before(
    tmp_path: Path,
) -> None:
    data = tmp_path / "whop.json"

    async def main() -> None:
        endpoint = local_whop.Endpoint(answers=[500] * 3)
        async with local_whop.serving(endpoint) as hook:
            async with Run(data, hook) as url, httpx.AsyncClient(base_url=url) as control:
                sold = {"product_id": "prod_basic", "user": "ada"}
                await control.post("/sandbox/buy", json=sold)
                await local_whop.until(lambda: len(endpoint.heard) == 3)
            async with Run(data, hook, retry_clock=600):
                began = time.monotonic()
                await local_whop.until(lambda: len(endpoint.heard) == 6)
                assert time.monotonic() - began < 25  # Whop would take 30 seconds

    asyncio.run(main())


def test_an_end_in_the_middle_of_a_save_waits_for_it_and_saves_once_more(tmp_path: Path) -> None:
    begun, done = threading.Event(), list[str]()

    class Slow(type(tmp_path)):  # type: ignore[misc]  # a path of whatever kind this system has
        def open(self, mode: str) -> BinaryIO:
            done.append("open")
            return super().open(mode)

        def replace(self, target: Path) -> Path:
            if not begun.is_set():
                begun.set()
                time.sleep(0.3)  # a busy disk
            done.append("replace")
            return super().replace(target)

    async def main() -> None:
        whop = local_whop.build()
        keeping = asyncio.create_task(Keeper(whop, Slow(tmp_path / "whop.json")).run())
        await local_whop.until(begun.is_set)
        whop.memberships.buy("prod_basic", "ada")
        keeping.cancel()
        await asyncio.wait([keeping])
        assert keeping.cancelled()

    asyncio.run(main())
    assert done == ["open", "replace"] * 2
    assert "ada" in (tmp_path / "whop.json").read_text()


def test_a_broken_file_is_named_and_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "whop.json"
    data.write_text("{")
    with pytest.raises(Unreadable, match=r"whop\.json"):
        Keeper(local_whop.build(), data).load()
    assert data.read_text() == "{"


def test_a_taken_port_is_an_error_of_the_system() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            asyncio.run(serve(account=ACCOUNT, products=[], api_key=API_KEY, port=port))

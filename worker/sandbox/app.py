"""The whole local Whop as one application: the API, the controls, the page."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from worker.sandbox.api import Desk
from worker.sandbox.control import Control
from worker.sandbox.deliveries import Sender
from worker.sandbox.journal import Journal
from worker.sandbox.state import LocalWhop

TICK_SECONDS = 0.5


def create_app(
    whop: LocalWhop, *, sender: Sender | None = None, journal: Journal | None = None
) -> Starlette:
    """Build the application; while it runs it delivers the webhooks and lets time pass."""
    sender = sender or Sender(whop)
    journal = journal or Journal()
    desk = Desk(whop, post=sender.post, journal=journal)
    page = Route("/", _page, methods=["GET"])
    routes = [page, *Control(whop, journal).routes(), *desk.routes()]

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(sender.run()), asyncio.create_task(_pass_time(whop))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return Starlette(routes=routes, lifespan=lifespan)


async def _pass_time(whop: LocalWhop) -> None:
    while True:
        whop.tick()
        await asyncio.sleep(TICK_SECONDS)


async def _page(_request: Request) -> Response:
    html = files("worker.sandbox").joinpath("page.html").read_text(encoding="utf-8")
    return HTMLResponse(html)

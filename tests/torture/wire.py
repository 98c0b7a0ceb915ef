"""A TCP proxy that sees what passes, and may stop it: the trigger of the tortures."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Gate:
    """Lets bytes through between whoever connects and a port; subclasses look at them."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._met: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Listen; yields the port."""
        server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            while self._met:
                for task in self._met:
                    task.cancel()
                await asyncio.wait(self._met)

    def hang_up(self) -> None:
        """Cut every connection."""
        for writer in list(self._open):
            writer.transport.abort()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._met.add(task)
        try:
            await self._pass_on(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # whoever is cut off hears nothing, and the server's log neither
        finally:
            writer.transport.abort()
            self._met.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self.target)
        passage = self.passage()
        both = [
            asyncio.create_task(self._pump(reader, ours, passage.asked)),
            asyncio.create_task(self._pump(theirs, writer, passage.answered)),
        ]
        self._open |= {writer, ours}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open -= {writer, ours}
            for task in both:
                task.cancel()
            ours.transport.abort()

    async def _pump(self, source, sink, let_through) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 18):
                if not await let_through(data):
                    return
                sink.write(data)
                await sink.drain()

    def passage(self) -> "Passage":
        """Return what looks at one connection."""
        return Passage()


class Passage:
    """What is said on one connection; False ends it, and what was said is not passed on."""

    async def asked(self, _: bytes) -> bool:
        return True

    async def answered(self, _: bytes) -> bool:
        return True

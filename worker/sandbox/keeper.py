"""Keeps the local Whop's state in a file: loaded at the start, saved soon after each change."""

import asyncio
import os
import threading
from pathlib import Path

import msgspec

from worker.sandbox.state import LocalWhop

PAUSE_SECONDS = 0.5


class Unreadable(Exception):
    """The saved state cannot be taken over; the message names the file and says why."""


class Keeper:
    """One local Whop and its file."""

    def __init__(self, whop: LocalWhop, path: Path) -> None:
        self._whop = whop
        self._path = path
        self._saved = -1
        self._writing = threading.Lock()

    def load(self) -> None:
        """Take over the file, if there is one.

        Raises:
            Unreadable: it is broken, or another account's.
        """
        try:
            self._whop.restore(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (msgspec.DecodeError, ValueError) as wrong:
            raise Unreadable(f"{self._path}: {wrong}; move it away to start afresh") from wrong
        self._saved = self._whop.revision

    async def run(self) -> None:
        """Save after changes until canceled, and then once more; quick changes share a save."""
        try:
            while True:
                await asyncio.sleep(PAUSE_SECONDS)
                if self._saved != self._whop.revision:
                    await asyncio.to_thread(self._write, self._snapshot())
        finally:
            self._write(self._snapshot())

    def _snapshot(self) -> bytes:
        self._saved = self._whop.revision
        return self._whop.snapshot()

    def _write(self, content: bytes) -> None:
        """Replace the file as a whole, so that a crash leaves the old one or the new one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        with self._writing:  # at the end a save may be under way in its thread
            with fresh.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)

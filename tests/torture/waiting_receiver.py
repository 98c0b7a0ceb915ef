"""The receiver that waits otherwise before it believes Redis, to be measured beside Usher's own.

`TORTURE_WAIT` is `none` (the primary's word is enough, though Sentinel may fail over) or a command
that goes along with each pipeline, such as `WAITAOF 1 0 3000` (the append-only file is flushed,
within three seconds); less is a 503.
"""

import os
from typing import Any

import webhooks.main
from webhooks.inbox import Inbox, connect
from webhooks.pipelines import Pipelines
from webhooks.settings import Settings


class WaitingPipelines(Pipelines):
    """The way of scripts to a Redis whose replica, or disk, is waited for."""

    command = os.environ["TORTURE_WAIT"].split()

    async def _exchange(self, trip: Any, commands: bytes, expected: int) -> list[Any]:
        if self.command == ["none"]:
            return await super()._exchange(trip, commands, expected)
        parts = "".join(f"${len(part)}\r\n{part}\r\n" for part in self.command)
        wait = f"*{len(self.command)}\r\n{parts}".encode()
        *results, confirmed = await super()._exchange(trip, commands + wait, expected + 1)
        if isinstance(confirmed, Exception):
            raise OSError(str(confirmed))
        if (confirmed[0] if isinstance(confirmed, list) else confirmed) < 1:
            raise OSError("nobody has confirmed it in time")
        return results


def main() -> None:
    settings = Settings.from_env(os.environ)
    redis = connect(settings.redis_url, timeout=None)
    inbox = Inbox(redis, settings.account)
    inbox._pipelines = WaitingPipelines(redis, inbox.prefix)
    build = webhooks.main.build
    webhooks.main.build = lambda given: build(given, store=inbox)
    webhooks.main.serve(settings)


if __name__ == "__main__":
    main()

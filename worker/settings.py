"""What a worker must know before it starts, from the environment and the rules that it names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from webhooks.inbox import REMEMBERED, connect, retention
from worker import rules
from worker.our_webhook import Ours
from worker.whop.quota import DEFAULT

API_URL: Final = "https://api.whop.com/api/v1"
HIGHEST_PORT: Final = 65535


class SettingsError(Exception):
    """The environment lacks something; the message names all of it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker needs to know before it starts. Secrets do not show in its repr."""

    rules: rules.Rules
    api_key: str = field(repr=False)
    redis_url: str = field(repr=False)
    api_url: str = API_URL
    log: str | None = None
    quota: tuple[int, int] = DEFAULT
    kept: int = REMEMBERED
    webhook: Ours = field(default_factory=Ours)
    host: str = "127.0.0.1"
    port: int | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the environment and the rules that it names.

        Raises:
            SettingsError: variables are missing or empty.
            RulesError: the rules file cannot be used.
        """
        given = {name: value.strip() for name, value in environ.items()}
        missing = [name for name in ("WHOP_API_KEY", "REDIS_URL") if not given.get(name)]
        if missing:
            need, them = ("both", "them") if missing[1:] else ("it", "it")
            raise SettingsError(
                f"missing or empty in the environment: {', '.join(missing)}. `usher work`, and "
                f"commands that ask Whop as it does, need {need}; `usher up` prints a line that "
                f"sets {them} for the local Whop"
            )
        if not re.match("https?://[^/]", given.get("WHOP_API_URL") or API_URL):
            raise SettingsError(
                "WHOP_API_URL must be a whole URL, such as http://127.0.0.1:4000/api/v1, "
                f"not {given['WHOP_API_URL']!r}"
            )
        if given.get("USHER_LOG") not in (None, "", "json", "console"):
            raise SettingsError(f"USHER_LOG must be json or console, not {given['USHER_LOG']!r}")
        try:
            connect(given["REDIS_URL"])
        except ValueError:  # the cause is not kept: it may quote a password
            raise SettingsError(
                "REDIS_URL is not a redis://, rediss://, unix:// or redis+sentinel:// URL"
            ) from None
        return cls(
            rules=rules.load(Path(given.get("USHER_RULES") or "rooms.toml")),
            api_key=given["WHOP_API_KEY"],
            redis_url=given["REDIS_URL"],
            api_url=given.get("WHOP_API_URL") or API_URL,
            log=given.get("USHER_LOG") or None,
            webhook=_ours(given),
            kept=_kept(given),
            host=given.get("USHER_HOST") or "127.0.0.1",
            port=_port(given.get("USHER_WORK_PORT") or ""),
        )


def _ours(given: Mapping[str, str]) -> Ours:
    said, enable = given.get("WHOP_WEBHOOK") or None, given.get("USHER_ENABLE_WEBHOOK") or "no"
    if said and not said.startswith(("hook_", "https://", "http://")):
        raise SettingsError("WHOP_WEBHOOK must be a webhook's id (hook_...) or its whole URL")
    if enable not in ("yes", "no"):
        raise SettingsError(f"USHER_ENABLE_WEBHOOK must be yes or no, not {enable!r}")
    return Ours(said, enable == "yes")


def _port(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= HIGHEST_PORT):
        raise SettingsError(f"USHER_WORK_PORT must be a number up to {HIGHEST_PORT}, not {text!r}")
    return int(text)


def _kept(given: Mapping[str, str]) -> int:
    try:
        return retention(given)
    except ValueError as mistake:
        raise SettingsError(str(mistake)) from None

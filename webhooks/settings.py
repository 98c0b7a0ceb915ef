"""What the receiver needs to know before it starts, read from the environment once."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from webhooks.inbox import REMEMBERED, connect, retention
from webhooks.signature import Secrets

_HIGHEST_PORT: Final = 65535


class SettingsError(Exception):
    """The environment or the rules file is not what we need; one line names every mistake."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The receiver's settings; neither repr shows a secret nor a URL that may hold a password."""

    account: str
    secrets: Secrets = field(repr=False)
    redis_url: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    log: str | None = None
    kept: int = REMEMBERED

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the variables and, of the rules file, the account.

        Raises:
            SettingsError: something is missing, empty or wrong.
        """
        values: dict[str, Any] = {}
        mistakes: list[str] = []
        for name, read in _READERS.items():
            try:
                values[name] = read(environ)
            except SettingsError as mistake:
                mistakes.append(str(mistake))
        if mistakes:
            raise SettingsError("; ".join(mistakes))
        return cls(**values)


def _secrets(environ: Mapping[str, str]) -> Secrets:
    text = _required(environ, "WHOP_WEBHOOK_SECRET")
    try:
        return Secrets.parse(text)
    except ValueError as mistake:
        raise SettingsError(f"WHOP_WEBHOOK_SECRET: {mistake}") from mistake


def _redis_url(environ: Mapping[str, str]) -> str:
    url = _required(environ, "REDIS_URL")
    try:
        connect(url)  # opens nothing
    except (ValueError, TypeError):
        # The cause is not kept: it may quote a password.
        raise SettingsError(
            "REDIS_URL is not a redis://, rediss://, unix:// or redis+sentinel:// URL"
        ) from None
    return url


def _account(environ: Mapping[str, str]) -> str:
    """Read one key of the rules; `usher check` looks at the rest of them."""
    path = Path(environ.get("USHER_RULES") or "rooms.toml")
    try:
        account = tomllib.loads(path.read_text(encoding="utf-8")).get("account")
    except OSError as trouble:
        raise SettingsError(f"{path}: {trouble.strerror} (USHER_RULES names it)") from trouble
    except ValueError as trouble:  # not TOML, or not UTF-8
        raise SettingsError(f"{path}: it is not TOML: {trouble}") from trouble
    if not isinstance(account, str) or not account.strip():
        raise SettingsError(f'{path}: the key account must name the account, such as "biz_..."')
    return account.strip()


def _host(environ: Mapping[str, str]) -> str:
    return environ.get("USHER_HOST") or "127.0.0.1"


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get("USHER_PORT") or "8000"
    if not (text.isascii() and text.isdigit()) or int(text) > _HIGHEST_PORT:
        raise SettingsError(f"USHER_PORT must be a number up to {_HIGHEST_PORT}, not {text!r}")
    return int(text)


def _log(environ: Mapping[str, str]) -> str | None:
    style = environ.get("USHER_LOG") or None
    if style not in (None, "json", "console"):
        raise SettingsError(f"USHER_LOG must be json or console, not {style!r}")
    return style


def _kept(environ: Mapping[str, str]) -> int:
    try:
        return retention(environ)
    except ValueError as mistake:
        raise SettingsError(str(mistake)) from None


def _required(environ: Mapping[str, str], name: str) -> str:
    if name not in environ:
        raise SettingsError(f"{name} is missing")
    if not environ[name].strip():
        raise SettingsError(f"{name} is empty")
    return environ[name].strip()


_READERS: Final[dict[str, Callable[[Mapping[str, str]], Any]]] = {
    "secrets": _secrets,
    "redis_url": _redis_url,
    "account": _account,
    "host": _host,
    "port": _port,
    "log": _log,
    "kept": _kept,
}

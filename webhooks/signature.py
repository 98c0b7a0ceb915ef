"""Whop's signatures: who may be believed. Pure: bytes, headers, keys and a time in; an id out.

A signature is HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{raw body}`, in base64, after
the mark of its version: https://github.com/standard-webhooks/standard-webhooks. Whop departs
from that page in one point: the key is the secret as it is shown, prefix and all.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Iterable
from typing import Literal

Reason = Literal["missing", "duplicated", "identifier", "timestamp", "stale", "mismatch"]
Headers = Iterable[tuple[bytes, bytes]]

TOLERANCE = 300
"""Seconds that a timestamp may be off, either way; the last of them is still good."""

_STANDARD = "whsec_"

_IDENTIFIER = re.compile(rb"[!-\-/-~]{1,256}")
"""Printable ASCII, but no space and no dot: a dot would let one signature cover two messages."""

_TIMESTAMP = re.compile(rb"[0-9]{1,15}")


class Forged(Exception):
    """Nobody vouches for this delivery; `reason` is one word of a closed set, fit for a label."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Secrets:
    """The keys of one or more webhook secrets, any of which may have signed.

    Parsed once, for every delivery after. A key never shows in a repr, nor in an error.

    Raises:
        ValueError: there is no secret, one is empty, or a `whsec_` is not base64.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: Iterable[str]) -> None:
        self._keys = tuple(_key(secret) for secret in secrets)
        if not self._keys:
            raise ValueError("there must be at least one webhook secret")

    @classmethod
    def parse(cls, text: str) -> "Secrets":
        """Read the comma-separated form of `WHOP_WEBHOOK_SECRET`."""
        return cls(text.split(","))

    def signatures(self, content: bytes) -> list[bytes]:
        """Return what each key would have signed `content` with."""
        return [_signature(key, content) for key in self._keys]


def sign(
    body: bytes,
    *,
    id: str,  # noqa: A002 - the name that Whop and its header use
    timestamp: int,
    secret: str,
) -> str:
    """Return the `webhook-signature` that Whop would send with this body.

    Raises:
        ValueError: the id or the timestamp is one that `verify` would refuse, or the secret is.
    """
    name, moment = id.encode(), str(timestamp).encode()
    if not _IDENTIFIER.fullmatch(name) or not _TIMESTAMP.fullmatch(moment):
        raise ValueError("this id or timestamp cannot be signed")
    return _signature(_key(secret), _content(name, moment, body)).decode()


def verify(body: bytes, headers: Headers, secrets: Secrets, now: float) -> str:
    """Return the id of the delivery that one of the secrets signed.

    Args:
        body: the raw bytes, as they came.
        headers: all of ASGI's pairs, so that a header that is there twice can be seen.
        secrets: the keys; any may match.
        now: Unix seconds.

    Raises:
        Forged: in every other case, whatever the bytes.
    """
    found = _webhook_headers(headers)
    try:
        name = found[b"webhook-id"]
        moment = found[b"webhook-timestamp"]
        candidates = found[b"webhook-signature"]
    except KeyError:
        raise Forged("missing") from None
    if not _IDENTIFIER.fullmatch(name):
        raise Forged("identifier")
    if not _TIMESTAMP.fullmatch(moment):
        raise Forged("timestamp")
    if abs(now - int(moment)) > TOLERANCE:
        raise Forged("stale")
    if not _any_equal(candidates.split(b" "), secrets.signatures(_content(name, moment, body))):
        raise Forged("mismatch")
    return name.decode()


def _key(secret: str) -> bytes:
    """Return the HMAC key of a secret; an empty one would let anybody sign."""
    secret = secret.strip()
    standard = secret.startswith(_STANDARD)
    key = _decoded(secret.removeprefix(_STANDARD)) if standard else secret.encode()
    if not key:
        raise ValueError("a webhook secret is empty")
    return key


def _decoded(text: str) -> bytes:
    """Decode base64 whose padding may be missing; anything else in it is a mistake of a person."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        # The cause is not kept: it could quote the secret.
        raise ValueError("a webhook secret begins with whsec_ and is not base64") from None


def _webhook_headers(headers: Headers) -> dict[bytes, bytes]:
    """Return the headers that Whop signs with; two of a name may mean two things to two readers."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name.startswith(b"webhook-"):
            if name in found:
                raise Forged("duplicated")
            found[name] = value
    return found


def _content(name: bytes, moment: bytes, body: bytes) -> bytes:
    return b"%b.%b.%b" % (name, moment, body)


def _signature(key: bytes, content: bytes) -> bytes:
    return b"v1," + binascii.b2a_base64(hmac.digest(key, content, "sha256"), newline=False)


def _any_equal(candidates: list[bytes], expected: list[bytes]) -> bool:
    """Compare in constant time; entries of other versions equal nothing that we expect."""
    return any(
        hmac.compare_digest(candidate, signature)
        for signature in expected
        for candidate in candidates
    )

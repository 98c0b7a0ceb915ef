"""Fetching a calendar from the web: bounded in time and size, and from public addresses only.

The address in the rules file is the seller's, but what it leads to is not: a name may point into
the machine's own network, or begin to between two look-ups. So a name is resolved here, all that it
resolves to must be public, and the connection goes to just such an address, with the name only in
the Host header and in TLS. Each redirect is a new address. No proxy is used, since it would resolve
the name by itself. httpx's client is left out: it writes whole URLs into the log, and a calendar's
address is often its only secret.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx

from worker.calendars import Broken

SECONDS: Final = 20.0
"""For everything: names, redirects, and the last byte."""

CONNECT_SECONDS: Final = 5.0
LIMIT: Final = 2 * 2**20
"""Bytes of a calendar. A busy one of many years has a few hundred thousand."""

TOO_LARGE: Final = f"it is larger than {LIMIT // 2**20} MiB"
REDIRECTS: Final = 3
VALIDATOR_LENGTH: Final = 1_000
"""An ETag that is longer is forgotten rather than stored."""

NOT_MODIFIED: Final = 304
GONE: Final = (404, 410)
CLOSED: Final = (401, 403)
TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 seen through NAT64 (RFC 6052): the last four bytes are the address that is reached."""


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server gave us to ask whether anything is new."""

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> dict[str, str]:
        """Return the conditions of a GET."""
        asked = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in asked.items() if value}


NEVER_SEEN: Final = Validators()


@dataclass(frozen=True, slots=True)
class Body:
    """A calendar as it came, not yet read."""

    content: bytes
    validators: Validators = NEVER_SEEN


def public(address: str) -> bool:
    """Say whether an IP address belongs to the public internet, also one that wraps another."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in TRANSLATED:
            inner = ipaddress.IPv4Address(ip.packed[-4:])
        if inner:
            return public(str(inner))
    return ip.is_global and not ip.is_multicast


async def resolve(host: str, port: int) -> list[str]:
    """Return every address of a host, in the order in which to try them.

    Raises:
        OSError: there is none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


@dataclass(frozen=True, slots=True)
class Web:
    """How the web is reached. Tests bring their own names, addresses, certificates and patience."""

    reachable: Callable[[str], bool] = public
    resolve: Callable[[str, int], Awaitable[Sequence[str]]] = resolve
    tls: ssl.SSLContext = field(default_factory=httpx.create_ssl_context)
    seconds: float = SECONDS


async def fetch(url: str, known: Validators, web: Web) -> Body | None:
    """Get a calendar; None where the server says that it is the one of `known`.

    Raises:
        Broken: it cannot be had, for whatever reason.
    """
    try:
        async with asyncio.timeout(web.seconds):
            return await _follow(_parsed(url), known, web)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise Broken(f"it did not come within {web.seconds:g} seconds") from error
    except httpx.HTTPError as error:
        raise Broken(_words(error)) from error


def _parsed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise Broken("its address is not of the form https://host/path")
    return parsed


def _words(error: BaseException) -> str:
    """Say what is wrong with a connection, without a word of the server's: it knows the address."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not valid: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return f"the connection failed ({type(error).__name__})"


async def _follow(url: httpx.URL, known: Validators, web: Web) -> Body | None:
    async with httpx.AsyncHTTPTransport(verify=web.tls, trust_env=False) as transport:
        for _ in range(1 + REDIRECTS):
            async with _answer(transport, url, known, web) as response:
                if not response.has_redirect_location:
                    return await _body(response, known)
                url = _target(url, response.headers["Location"])
    raise Broken(f"it redirects more than {REDIRECTS} times")


def _target(url: httpx.URL, location: str) -> httpx.URL:
    try:
        target = _parsed(str(url.join(location)))
    except httpx.InvalidURL as error:
        raise Broken("it redirects to what is no address") from error
    if url.scheme == "https" and target.scheme != "https":
        raise Broken(f"it redirects from https to {target.scheme}, where anybody may listen")
    return target


@asynccontextmanager
async def _answer(
    transport: httpx.AsyncHTTPTransport, url: httpx.URL, known: Validators, web: Web
) -> AsyncIterator[httpx.Response]:
    """Send the request to the first address that answers."""
    addresses = await _addresses(url, web)
    for n, address in enumerate(addresses, start=1):
        try:
            response = await transport.handle_async_request(_request(url, address, known, web))
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if n == len(addresses):
                raise
        else:
            break
    try:
        yield response
    finally:
        await response.aclose()


async def _addresses(url: httpx.URL, web: Web) -> Sequence[str]:
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        addresses = await web.resolve(url.raw_host.decode("ascii"), port)
    except (OSError, UnicodeError) as error:
        raise Broken(f"no address is known for the name {url.host}") from error
    if not addresses or not all(web.reachable(address) for address in addresses):
        raise Broken(f"{url.host} is not on the public internet; only public calendars are read")
    return addresses


def _request(url: httpx.URL, address: str, known: Validators, web: Web) -> httpx.Request:
    """Ask an address for what the URL names there.

    The answer is wanted as it is: what is compressed may grow beyond all limits in one step.
    """
    patience = dict.fromkeys(("read", "write", "pool"), web.seconds)
    request = httpx.Request(
        "GET",
        url.copy_with(host=address, fragment=None),
        headers={
            "Host": url.netloc.decode("ascii"),
            "User-Agent": "Usher",
            "Accept": "text/calendar, */*;q=0.1",
            "Accept-Encoding": "identity",
            **known.headers(),
        },
        extensions={
            "sni_hostname": url.raw_host.decode("ascii"),
            "timeout": {**patience, "connect": CONNECT_SECONDS},
        },
    )
    if url.username or url.password:
        request = next(httpx.BasicAuth(url.username, url.password).auth_flow(request))
    return request


async def _body(response: httpx.Response, known: Validators) -> Body | None:
    if response.status_code == NOT_MODIFIED and known.headers():
        return None
    _expect(response)
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > LIMIT:
            raise Broken(TOO_LARGE)
    validators = Validators(_kept(response, "ETag"), _kept(response, "Last-Modified"))
    return Body(bytes(content), validators)


def _expect(response: httpx.Response) -> None:
    """Let nothing through but a plain answer of a bearable size."""
    status = response.status_code
    if status in GONE:
        raise Broken(f"it is not there any more: HTTP {status}")
    if status in CLOSED:
        raise Broken(f"it may not be read with this address: HTTP {status}")
    if status != httpx.codes.OK:
        raise Broken(f"the answer was HTTP {status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Broken("it comes compressed, though it was asked for as it is")
    length = response.headers.get("Content-Length", "0")
    if length.isdecimal() and int(length) > LIMIT:
        raise Broken(TOO_LARGE)


def _kept(response: httpx.Response, name: str) -> str | None:
    """Return a header to send back later, unless it is too long or odd for that."""
    value = response.headers.get(name)
    fit = value and len(value) <= VALIDATOR_LENGTH and value.isascii() and value.isprintable()
    return value if fit else None

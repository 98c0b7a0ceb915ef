"""Hostile bytes against the receiver: it answers each, soon, and never with a 500.

Two doors are tried. `whole` gives the application requests that a server would hand it: bodies,
headers and chunks of any kind, judged by an oracle of its own. `raw` writes bytes at a real socket
with uvicorn behind it. With atheris installed, `python -m torture.fuzz` goes on guided by coverage.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import sys
import time
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

from deliveries import ACCOUNT, PATH, SECRET, get, head, request, signed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torture import figures
from webhooks.app import CODES, LARGEST, create_app
from webhooks.events import Delivery, Message
from webhooks.signature import TOLERANCE, Secrets

STANDARD = "whsec_" + base64.b64encode(b"s" * 32).decode()
NOW = 1_800_000_000
SOON = 2.0
"""Seconds of work for one answer; what else the machine has to do does not count."""

MEMORY = 64 * LARGEST
"""Bytes that one request may need at its worst: a body of 1 MiB may be half a million values."""


class Shelf:
    """An inbox that keeps ids; what reaches it was vouched for."""

    def __init__(self) -> None:
        self.kept: list[Delivery | Message] = []

    async def put(self, delivery: Delivery, /) -> bool:
        self.kept.append(delivery)
        return True

    async def hear(self, message: Message, /) -> bool:
        self.kept.append(message)
        return True

    async def ready(self) -> bool:
        return True


@dataclass
class Door:
    """The application, as a server would call it."""

    shelf: Shelf = field(default_factory=Shelf)

    def __post_init__(self) -> None:
        secrets = Secrets([SECRET, STANDARD])
        self._app = create_app(
            inbox=self.shelf, account=ACCOUNT, secrets=secrets, clock=lambda: float(NOW)
        )

    async def knock(
        self, headers: list[tuple[bytes, bytes]], chunks: list[bytes], *, ends: bool = True
    ) -> tuple[int, dict[str, Any]] | None:
        """Return the code and the JSON of the answer; None where the sender hung up."""
        rest = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
        rest.append({"type": "http.request"} if ends else {"type": "http.disconnect"})
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return rest.pop(0)

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "headers": headers,
            "query_string": b"",
            "root_path": "",
        }
        await self._app(scope, receive, send)
        if not said:
            return None
        return said[0]["status"], json.loads(said[1]["body"])


# --- what may come


def scalars() -> st.SearchStrategy[Any]:
    huge = st.integers(-(10**400), 10**400)
    text = st.text() | st.sampled_from(["\u0000", "\ufeff", "\U0010ffff", "user_1", "é" * 300])
    return st.none() | st.booleans() | huge | st.floats() | text


JSON = st.recursive(
    scalars(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
TYPES = st.sampled_from(
    [
        "membership.activated",
        "payment.succeeded",
        "refund.created",
        "dispute.created",
        "chat.message.created",
        "membership.",
        ".",
        "",
        "entry.created",
        "x" * 5000,
    ]
)
FIELDS = st.sampled_from(
    [
        "id",
        "user",
        "user_id",
        "member",
        "payment",
        "product",
        "plan_id",
        "updated_at",
        "status",
        "message",
        "channel",
        "channel_id",
        "created_at",
        "type",
        "message_type",
        "buyer",
    ]
)
DATES = st.sampled_from(
    [
        "2026-10-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999-23:59",
        "2026-W01-1",
        "20261001",
        "-1",
        "1e400",
        "\uff12\uff10\uff12\uff16-10-01",
        "2026-10-01T00:00:00+99:99",
    ]
)


def data() -> st.SearchStrategy[Any]:
    inner = st.dictionaries(FIELDS, scalars() | DATES, max_size=6)
    return st.dictionaries(FIELDS, scalars() | DATES | inner | JSON, max_size=8)


def envelopes() -> st.SearchStrategy[Any]:
    """Envelopes that are nearly right."""
    account = st.sampled_from([ACCOUNT, ACCOUNT, "biz_other", "", None, 1])
    id_ = st.sampled_from(["msg_1"] * 8 + ["msg_2", "", None, 1])
    keys = {"id": id_, "type": TYPES, "data": data() | data() | JSON}
    return st.fixed_dictionaries(keys, optional={"account_id": account, "company_id": account})


def deep(kind: bytes, levels: int) -> bytes:
    close = {b"[": b"]", b'{"a":': b"}"}[kind]
    return b'{"id":"msg_1","type":"payment.failed","data":' + kind * levels + b"1" + close * levels


def encoded(value: Any) -> bytes:
    """Write JSON as Python does: NaN, Infinity and lone surrogates included."""
    return json.dumps(value).encode()


def odd_bodies() -> st.SearchStrategy[bytes]:
    """Bodies that a parser may choke on."""
    envelope = b'{"id":"msg_1","type":"membership.activated","data":%s}'
    return st.one_of(
        st.builds(
            deep, st.sampled_from([b"[", b'{"a":']), st.sampled_from([10, 900, 5000, 100_000])
        ),
        st.sampled_from([10, 5000, 300_000]).map(lambda n: envelope % (b"9" * n)),
        st.sampled_from([b"1e999999999", b"-0", b"1E+9999", b"0x1", b"NaN", b'"\\ud800"']).map(
            lambda number: envelope % (b'{"id":' + number + b"}")
        ),
        st.binary(max_size=40).map(lambda raw: envelope % (b'{"id":"' + raw + b'"}')),
        st.just(
            b'{"id":"msg_1","id":"msg_2","type":"payment.failed","type":"x","data":{},"data":1}'
        ),
        st.integers(0, 400_000).map(lambda n: b'{"a":1' + b',"a":1' * (n // 8) + b"}"),
        st.sampled_from([LARGEST - 1, LARGEST, LARGEST + 1, 2 * LARGEST]).map(lambda n: b" " * n),
        st.binary(max_size=300),
        st.just(b"\xef\xbb\xbf{}"),
        st.just("{}".encode("utf-16")),
    )


BODIES = st.one_of(envelopes().map(encoded), envelopes().map(encoded), odd_bodies())
NAMES = st.sampled_from([b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"webhook-x"])
VALUES = st.binary(max_size=60).filter(lambda v: b"\r" not in v and b"\n" not in v)


@dataclass(frozen=True)
class Attempt:
    """One request: whether it is signed, and what somebody did to it afterwards."""

    body: bytes
    secret: str | None
    moment: int
    more: tuple[tuple[bytes, bytes], ...]
    without: bytes | None
    cuts: tuple[int, ...]
    ends: bool
    announces: bool


ATTEMPTS = st.builds(
    Attempt,
    body=BODIES,
    secret=st.sampled_from([SECRET, SECRET, STANDARD, None, "ws_wrong"]),
    moment=st.sampled_from(
        [0, 0, 0, 0, TOLERANCE, TOLERANCE + 1, -TOLERANCE, -TOLERANCE - 1, -NOW]
    ),
    more=st.just(()) | st.lists(st.tuples(NAMES | VALUES, VALUES), max_size=3).map(tuple),
    without=st.sampled_from([None] * 9 + [b"webhook-id", b"webhook-timestamp"]),
    cuts=st.lists(st.integers(0, 5000), max_size=5).map(tuple),
    ends=st.sampled_from([True, True, True, True, False]),
    announces=st.booleans(),
)


def headers_of(attempt: Attempt) -> list[tuple[bytes, bytes]]:
    moment = NOW + attempt.moment
    pairs = [(b"webhook-id", b"msg_1"), (b"webhook-timestamp", b"%d" % moment)]
    pairs.append((b"webhook-signature", _signature(attempt.body, moment, attempt.secret)))
    pairs = [pair for pair in pairs if pair[0] != attempt.without]
    if attempt.announces:
        pairs.append((b"content-length", b"%d" % len(attempt.body)))
    return [*pairs, *((name.lower(), value) for name, value in attempt.more)]


def _signature(body: bytes, moment: int, secret: str | None) -> bytes:
    """Sign as the Standard Webhooks page says, without a line of ours."""
    if secret is None:
        return b"v1,AAAA v2,zzz v1,"
    key = secret.encode()
    if secret.startswith("whsec_"):
        key = base64.b64decode(secret.removeprefix("whsec_"))
    content = b"msg_1.%d.%b" % (moment, body)
    return b"v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest())


def genuine(attempt: Attempt) -> bool:
    """Say, by rules of our own, whether Whop vouches for it."""
    names = [name for name, _ in headers_of(attempt) if name.startswith(b"webhook-")]
    wanted = {b"webhook-id", b"webhook-timestamp", b"webhook-signature"}
    held = attempt.without not in wanted and len(set(names)) == len(names)
    return held and attempt.secret in (SECRET, STANDARD) and abs(attempt.moment) <= TOLERANCE


def pieces(attempt: Attempt) -> list[bytes]:
    edges = sorted({0, *(cut % (len(attempt.body) + 1) for cut in attempt.cuts), len(attempt.body)})
    return [attempt.body[a:b] for a, b in itertools.pairwise(edges)]


# --- the laws


async def judged(door: Door, attempt: Attempt) -> str:
    """Knock once and hold the answer against the laws; returns the status."""
    before, began = len(door.shelf.kept), time.process_time()
    answer = await door.knock(headers_of(attempt), pieces(attempt), ends=attempt.ends)
    assert time.process_time() - began < SOON
    kept = door.shelf.kept[before:]
    if answer is None:
        assert not attempt.ends
        assert not kept
        return "hung up"
    code, said = answer
    status = said["status"]
    assert code == CODES[status]
    assert code < 500
    too_large = len(attempt.body) > LARGEST
    assert (status == "oversized") == too_large
    if not too_large:
        assert (status == "forged") == (not genuine(attempt))
    assert len(kept) == (status == "accepted")
    if kept:
        assert kept[0].id == "msg_1" == said["id"]
        assert kept[0].account in (None, ACCOUNT)
    return status


def whole(examples: int, *, random: bool) -> dict[str, int]:
    """Knock so many times; returns how often each status was the answer."""
    found: dict[str, int] = {}
    with asyncio.Runner() as runner:
        door = Door()

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=not random,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(ATTEMPTS)
        def law(attempt: Attempt) -> None:
            status = runner.run(judged(door, attempt))
            found[status] = found.get(status, 0) + 1

        law()
    return found


def dearest() -> dict[str, tuple[int, float]]:
    """Return, for the bodies that cost most, the bytes at the peak and the seconds."""
    start = b'{"id":"msg_1","type":"membership.activated","data":{"a":['
    small = {
        "numbers": b"1,",
        "strings": b'"",',
        "lists": b"[],",
        "objects": b"{},",
        "floats": b"1e9,",
        "escapes": b'"\\u00e9",',
    }
    bodies = {k: start + v * ((LARGEST - 200) // len(v)) + b"1]}}" for k, v in small.items()}
    bodies["deep"] = deep(b"[", (LARGEST - 100) // 2)
    bodies["digits"] = start + b"9" * (LARGEST - 200) + b"]}}"
    bodies["keys"] = b"{" + b",".join(b'"%x":1' % n for n in range(100_000)) + b"}"
    found = {}
    with asyncio.Runner() as runner:
        for name, body in bodies.items():
            door = Door()
            attempt = Attempt(body, SECRET, 0, (), None, (), ends=True, announces=True)
            headers = headers_of(attempt)
            began = time.perf_counter()
            runner.run(door.knock(headers, [body]))
            took = time.perf_counter() - began
            tracemalloc.start()
            runner.run(door.knock(headers, [body]))
            found[name] = (tracemalloc.get_traced_memory()[1], took)
            tracemalloc.stop()
    return found


# --- a real socket


def hostile() -> list[bytes]:
    """Return requests that lie about themselves."""
    body = encoded({"id": "msg_1", "type": "x", "data": {}})
    vouched = signed(body)
    post = f"POST {PATH} HTTP/1.1\r\nhost: x\r\n".encode()
    return [
        request(body, vouched, length=len(body) - 5),
        request(body, vouched, length=10**30),
        head([*vouched, ("content-length", "-1")]) + body,
        head([*vouched, ("content-length", "+5")]) + body,
        head([*vouched, ("content-length", "1"), ("content-length", "2")]) + body,
        head([*vouched, ("content-length", "5"), ("transfer-encoding", "chunked")]) + b"0\r\n\r\n",
        head([*vouched, ("transfer-encoding", "chunked")]) + b"FFFFFFFFFFFFFFFFFF\r\n",
        head([*vouched, ("transfer-encoding", "chunked")]) + b"-5\r\nhello\r\n0\r\n\r\n",
        head([*vouched, ("transfer-encoding", "chunked")]) + b"1;" + b"x" * 70_000 + b"\r\na\r\n",
        head([*vouched, ("transfer-encoding", "gzip, chunked")]) + b"0\r\n\r\n",
        head([(f"x-{n}", "y") for n in range(20_000)]),
        head([("x", "y" * 3_000_000)]),
        post + b"a" * 1_000_000,
        post + b"webhook-id: \x00\xff\r\n\r\n",
        post + b"webhook-id : msg_1\r\n\r\n",
        post + b" folded: yes\r\n\r\n",
        b"POST " + b"/" * 300_000 + b" HTTP/1.1\r\n\r\n",
        b"POST http://[::1 HTTP/1.1\r\n\r\n",
        b"POST " + PATH.encode() + b" HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300,
        b"GET /metrics HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        head([("expect", "100-continue"), ("content-length", "5")]) + b"hello",
        b"\r\n" * 50_000,
    ]


async def raw(port: int, bytes_: bytes, *, seconds: float = 0.4) -> list[int]:
    """Write bytes at a socket and hang up; returns the codes that came back meanwhile.

    However busy the server is, it has seen them: it has answered somebody who came later.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = bytearray()
    hearing = asyncio.create_task(_hear(reader, heard))
    writer.write(bytes_)
    await get(port, "/healthz")
    await asyncio.wait([hearing], timeout=seconds)
    hearing.cancel()
    writer.transport.abort()
    starts = [line for line in heard.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    return [int(line[9:12]) for line in starts]


async def _hear(reader: asyncio.StreamReader, heard: bytearray) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            heard += piece


def mutations() -> st.SearchStrategy[bytes]:
    """Requests with some bytes changed, repeated or taken out."""

    def change(whole: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
        for at, length, new in edits:
            begin = at % (len(whole) + 1)
            whole = whole[:begin] + new + whole[begin + length :]
        return whole

    body = encoded({"id": "msg_1", "type": "membership.activated", "data": {"user_id": "u"}})
    edit = st.tuples(st.integers(0, 2000), st.integers(0, 40), st.binary(max_size=20))
    return st.builds(change, st.just(request(body, signed(body))), st.lists(edit, min_size=1))


async def stormed(port: int, requests: list[bytes]) -> dict[str, int]:
    """Write all requests at the server; returns how often each code came."""
    found: dict[str, int] = {}
    for begin in range(0, len(requests), 16):
        storm = (raw(port, one) for one in requests[begin : begin + 16])
        for codes in await asyncio.gather(*storm):
            for code in codes or [0]:
                found[str(code)] = found.get(str(code), 0) + 1
                assert code < 500, "a server error"
    return found


def main(examples: int = 20_000) -> None:
    from torture.redis_faults import site

    began = time.perf_counter()
    rows = [
        {"what": f"requests answered {k}", "count": v}
        for k, v in whole(examples, random=True).items()
    ]
    for name, (peak, took) in dearest().items():
        rows.append({"what": f"1 MiB of {name}: KiB at the peak", "count": peak // 1024})
        rows.append({"what": f"1 MiB of {name}: ms", "count": round(took * 1000)})
    drawn = _draw(mutations(), 600)

    async def over_sockets() -> None:
        async with site() as here:
            await stormed(here.port, hostile())
            before = here.receiver.memory()
            found = await stormed(here.port, [*hostile() * 5, *drawn])
            grown = here.receiver.memory() - before
            rows.extend({"what": f"raw bytes answered {k}", "count": v} for k, v in found.items())
            rows.append({"what": "KiB that the receiver grew by", "count": grown})
            assert here.receiver.alive()
            assert "Traceback" not in here.receiver.log

    asyncio.run(over_sockets())
    seconds = round(time.perf_counter() - began)
    figures.write("fuzz", rows, about=f"{examples} requests by Hypothesis", seconds=seconds)


def _draw(strategy: st.SearchStrategy[bytes], number: int) -> list[bytes]:
    drawn: list[bytes] = []

    @settings(max_examples=number, deadline=None, database=None)
    @given(strategy)
    def draw(one: bytes) -> None:
        drawn.append(one)

    draw()
    return drawn


def guided() -> None:
    """Go on until Ctrl-C, guided by coverage: `pip install atheris` first."""
    import atheris

    with atheris.instrument_imports():
        from webhooks import app, events, signature

        assert app
        assert events
        assert signature
    runner, door = asyncio.Runner(), Door()
    law = given(ATTEMPTS)(lambda attempt: runner.run(judged(door, attempt)) and None)
    atheris.Setup(sys.argv, law.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    guided()

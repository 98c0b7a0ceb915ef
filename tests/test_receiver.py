"""The receiver over HTTP: what it answers, what reaches Redis, and what never does."""

import asyncio
import collections
import json
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog
from deliveries import (
    ACCOUNT,
    PATH,
    PREFIX,
    SECRET,
    Answer,
    answer,
    ask,
    chunked,
    delivery,
    envelope,
    get,
    head,
    nested,
    request,
    serving,
    signed,
)
from ports import free_port

from webhooks.app import LARGEST
from webhooks.signature import sign
from worker import embedded

OTHER = "ws_" + "f" * 64
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_790_000_000


@pytest.fixture
def store(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def told(redis_url: str, *raws: bytes, **options: Any) -> list[Answer]:
    """Send requests one after the other and return the answers."""

    async def send() -> list[Answer]:
        async with serving(redis_url, **options) as port:
            return [await ask(port, raw) for raw in raws]

    return asyncio.run(send())


def posted(redis_url: str, raw: bytes, **options: Any) -> Answer:
    return told(redis_url, raw, **options)[0]


# The contract's table


def test_a_new_delivery_is_accepted_and_stored(redis_url: str, store: "redis.Redis") -> None:
    got = posted(redis_url, delivery())
    assert (got.code, got.json) == (202, {"status": "accepted", "id": "msg_1"})
    assert got.headers["content-type"] == "application/json"
    kept = json.loads(str(store.get(f"{PREFIX}delivery:msg_1")))
    assert (kept["id"], kept["type"]) == ("msg_1", "membership.activated")


def test_a_delivery_seen_before_is_a_duplicate(redis_url: str) -> None:
    first, second = told(redis_url, delivery(), delivery())
    assert (first.code, first.status) == (202, "accepted")
    assert (second.code, second.json) == (200, {"status": "duplicate", "id": "msg_1"})


@pytest.mark.parametrize("kind", ["course.completed", "", "membership.activated ", "x" * 10_000])
def test_a_type_we_do_nothing_with_is_ignored(
    redis_url: str, store: "redis.Redis", kind: str
) -> None:
    got = posted(redis_url, delivery(type=kind))
    assert (got.code, got.status, got.json["id"]) == (200, "ignored", "msg_1")
    assert store.dbsize() == 0


@pytest.mark.parametrize("key", ["account_id", "company_id"])
def test_another_accounts_delivery_is_ignored_and_told_why(
    redis_url: str, store: "redis.Redis", key: str
) -> None:
    changes: dict[str, Any] = {"account_id": None, key: "biz_other"}
    got = posted(redis_url, delivery(**changes))
    assert (got.code, got.status) == (200, "ignored")
    assert "biz_other" in got.json["reason"]
    assert store.dbsize() == 0


def test_a_delivery_that_names_no_account_is_ours(redis_url: str) -> None:
    assert posted(redis_url, delivery(account_id=None)).code == 202


@pytest.mark.parametrize("shape", [envelope(), nested()], ids=["flat", "nested"])
def test_both_payload_shapes_mean_the_same_delivery(
    redis_url: str, store: "redis.Redis", shape: dict[str, Any]
) -> None:
    body = json.dumps(shape).encode()
    assert posted(redis_url, request(body, signed(body))).code == 202
    kept = json.loads(str(store.get(f"{PREFIX}delivery:msg_1")))
    assert kept["subject"] == "member:user_1"
    assert (kept["account"], kept["product"]) == (ACCOUNT, "prod_1")
    assert "email" not in json.dumps(kept)


@pytest.mark.parametrize("secret", [OTHER, STANDARD, SECRET], ids=["literal", "standard", "last"])
def test_any_of_several_secrets_of_either_kind_may_sign(redis_url: str, secret: str) -> None:
    body = json.dumps(envelope()).encode()
    raw = request(body, signed(body, secret=secret))
    assert posted(redis_url, raw, secrets=f"{OTHER}, {STANDARD},{SECRET}").code == 202


@pytest.mark.parametrize(
    ("offset", "code"), [(-301, 401), (-300, 202), (0, 202), (300, 202), (301, 401)]
)
def test_the_clocks_may_differ_by_five_minutes(redis_url: str, offset: int, code: int) -> None:
    body = json.dumps(envelope()).encode()
    raw = request(body, signed(body, timestamp=NOW + offset))
    assert posted(redis_url, raw, clock=lambda: NOW).code == code


def test_the_method_and_the_path_are_fixed(redis_url: str) -> None:
    wrong_method = head([("content-length", "0")], first=f"PUT {PATH} HTTP/1.1")
    wrong_path = head([("content-length", "0")], first="POST /webhooks HTTP/1.1")
    codes = [
        got.code
        for got in told(redis_url, wrong_method, head([], first=f"GET {PATH} HTTP/1.1"), wrong_path)
    ]
    assert codes == [405, 405, 404]


# Size


def filled(size: int) -> bytes:
    """Build an envelope of exactly so many bytes."""
    body = json.dumps(envelope()).encode()
    return body + b" " * (size - len(body))


def announced(body: bytes) -> bytes:
    return request(body, signed(body))


def in_chunks(body: bytes) -> bytes:
    return chunked((body[at : at + 65_536] for at in range(0, len(body), 65_536)), signed(body))


@pytest.mark.parametrize("framed", [announced, in_chunks])
def test_a_body_of_one_mebibyte_is_accepted_and_one_byte_more_is_not(
    redis_url: str, store: "redis.Redis", framed: Callable[[bytes], bytes]
) -> None:
    over = posted(redis_url, framed(filled(LARGEST + 1)))
    assert (over.code, over.status, over.headers["connection"]) == (413, "oversized", "close")
    assert store.dbsize() == 0
    assert posted(redis_url, framed(filled(LARGEST))).code == 202


@pytest.mark.parametrize("length", [LARGEST + 1, 10**12])
def test_a_body_announced_as_too_large_is_refused_before_it_comes(
    redis_url: str, length: int
) -> None:
    assert posted(redis_url, request(b"", [], length=length)).code == 413


def test_a_sender_that_writes_on_hears_that_its_body_is_too_large(redis_url: str) -> None:
    more_than_is_on_the_way = request(bytes(32 * LARGEST), [])
    assert posted(redis_url, more_than_is_on_the_way).code == 413


def test_a_body_that_never_ends_is_refused_at_the_limit(redis_url: str) -> None:
    unfinished = chunked([b"x" * 65_536] * 17, []).removesuffix(b"0\r\n\r\n")
    assert posted(redis_url, unfinished).code == 413


# Messages of a chat: counted, and nothing else


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def message(id_: str = "msg_1", *, written: float | None = None, **changes: Any) -> dict[str, Any]:
    """Build a chat.message.created; `changes` are to its data."""
    at = iso(time.time() if written is None else written)
    data = {
        "audience": {"type": "channel", "user_ids": None},
        "channel": {"id": "chat_feed_1", "type": "chat", "experience_id": "exp_1"},
        "message": {
            "id": "post_1",
            "content": "a word that nobody keeps",
            "created_at": at,
            "message_type": "regular",
            "user": {"id": "user_1", "username": "nobody_keeps_names", "name": "A Member"},
        },
        "reason": "message_created",
    }
    return envelope(id_, type="chat.message.created", data={**data, **changes})


def said(shape: dict[str, Any]) -> bytes:
    body = json.dumps(shape).encode()
    return request(body, signed(body, id_=shape["id"]))


def counts(store: "redis.Redis", channel: str = "chat_feed_1") -> dict[str, int]:
    """Return voices, messages and senders of a channel, over all that is recorded."""
    total: dict[str, int] = collections.Counter()
    for key in store.scan_iter(f"{PREFIX}chat:{channel}:*"):
        for name, number in store.hgetall(key).items():
            total[name[0] if name[0] in "ms" else "v"] += int(number)
    return total


def test_a_message_is_counted_and_leaves_no_delivery_no_job_and_no_word(
    redis_url: str, store: "redis.Redis"
) -> None:
    got = posted(redis_url, said(message()))
    assert (got.code, got.json) == (202, {"status": "accepted", "id": "msg_1"})
    assert counts(store) == {"m": 1, "v": 1, "s": 1}
    kinds = {key.removeprefix(PREFIX).partition(":")[0] for key in store.keys("*")}
    assert kinds == {"heard", "chat", "senders"}
    kept = b"".join(store.dump(key) for key in store.keys("*"))
    assert b"nobody" not in kept
    assert b"user_1" not in kept
    assert all(store.ttl(key) > 0 for key in store.keys("*"))


def test_a_message_counts_once_however_often_it_is_delivered(
    redis_url: str, store: "redis.Redis"
) -> None:
    at = time.time()  # of both: ten seconds may end between them, and who writes is a voice in each
    first, second = said(message(written=at)), said(message("msg_2", written=at))
    answers = told(redis_url, first, first, second)
    assert [(got.code, got.status) for got in answers] == [
        (202, "accepted"),
        (200, "duplicate"),
        (202, "accepted"),
    ]
    assert counts(store) == {"m": 2, "v": 1, "s": 1}


def test_both_payload_shapes_count_the_same(redis_url: str, store: "redis.Redis") -> None:
    at = iso(time.time())
    flat = {"channel_id": "chat_feed_1", "user_id": "user_1", "created_at": at}
    shapes = [
        message("msg_1"),
        {**message("msg_2"), "account_id": None, "company_id": ACCOUNT},
        message("msg_3", channel=None, message=flat),
    ]
    assert {got.code for got in told(redis_url, *map(said, shapes))} == {202}
    assert counts(store)["m"] == 3
    assert counts(store)["s"] <= 2  # a minute may end between the first and the last


def private(kind: str) -> dict[str, Any]:
    return {"channel": {"id": "chat_feed_1", "type": kind, "experience_id": None}}


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (message(**private("direct_message")), "not written in a chat"),
        (message(**private("support")), "not written in a chat"),
        (message(message={"message_type": "system"}), "no member wrote it"),
        (message(message={"message_type": "automated"}), "no member wrote it"),
        (message(channel=None), "names no channel"),
        (message(channel={"id": 7, "type": "chat"}), "names no channel"),
        (message(written=time.time() - 3600), "too old"),
        (message(written=0), "too old"),
        ({**message(), "account_id": "biz_other"}, "biz_other"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_make_a_chat_busy_is_ignored_and_told_why(
    redis_url: str, store: "redis.Redis", shape: dict[str, Any], why: str
) -> None:
    got = posted(redis_url, said(shape))
    assert (got.code, got.status) == (200, "ignored")
    assert why in got.json["reason"]
    assert store.dbsize() == 0


@pytest.mark.parametrize(
    "text",
    [None, 7, "", "yesterday", "9999-12-31T23:59:59Z", "2026-02-30T00:00:00Z"],
)
def test_a_message_whose_time_says_nothing_counts_when_it_is_heard(
    redis_url: str, store: "redis.Redis", text: object
) -> None:
    began = int(time.time()) // 10
    shape = message(message={"created_at": text, "user": {"id": "user_1"}})
    assert posted(redis_url, said(shape)).code == 202
    ended = int(time.time()) // 10
    (key,) = store.keys(f"{PREFIX}chat:chat_feed_1:*")
    buckets = [
        int(key.rpartition(":")[2]) * 360 + int(name) for name in store.hkeys(key) if name.isdigit()
    ]
    assert len(buckets) == 1
    assert began <= buckets[0] <= ended


def test_messages_that_name_nobody_are_not_taken_for_one_loud_member(
    redis_url: str, store: "redis.Redis"
) -> None:
    at = iso(time.time())
    raws = [said(message(f"msg_{n}", message={"created_at": at})) for n in range(5)]
    assert {got.code for got in told(redis_url, *raws)} == {202}
    assert counts(store) == {"m": 5, "v": 5, "s": 5}


def test_a_message_costs_one_round_trip_with_an_alarm_that_goes_off_too(
    redis_url: str, store: "redis.Redis"
) -> None:
    alarm = {"subject": "channel:lounge", "voices": 1, "share": 6, "since": 0}
    store.hset(f"{PREFIX}alarm:chat_feed_1", mapping=alarm)

    async def send(port: int) -> list[Answer]:
        return [await ask(port, said(message(f"msg_{turn}"))) for turn in range(10)]

    trips, answers = counted(redis_url, send)
    assert [got.code for got in answers] == [202] * 10
    assert trips == 10  # what makes the script known goes along
    assert store.lrange(f"{PREFIX}pending:channel:lounge", 0, -1) == ["busy"]


def test_a_thousand_messages_make_one_job(redis_url: str, store: "redis.Redis") -> None:
    alarm = {"subject": "channel:lounge", "voices": 30, "share": 6, "since": 0}
    store.hset(f"{PREFIX}alarm:chat_feed_1", mapping=alarm)

    async def send() -> collections.Counter[str]:
        async with serving(redis_url) as port:
            at, raws = iso(time.time()), []
            for n in range(1000):
                who = {"created_at": at, "user": {"id": f"user_{n}"}}
                raws.append(said(message(f"msg_{n}", message=who)))
            found = [
                await asyncio.gather(*(ask(port, raw) for raw in raws[i::10])) for i in range(10)
            ]
            return collections.Counter(got.status for some in found for got in some)

    assert asyncio.run(send()) == {"accepted": 1000}
    assert store.lrange(f"{PREFIX}pending:channel:lounge", 0, -1) == ["busy"]
    assert len(store.keys("arq:job:*")) == 1
    assert store.keys(f"{PREFIX}delivery:*") == []


def test_while_redis_is_away_a_message_is_not_acknowledged(own_redis: "Own") -> None:
    async def live() -> None:
        async with serving(own_redis.url) as port:
            assert is_unavailable(await ask(port, said(message())))
            own_redis.start()
            assert (await ask(port, said(message()))).code == 202

    asyncio.run(live())


# Hostile input: its 4xx, never a 500, and Redis holds no key


def replaced(name: str, value: str | bytes) -> bytes:
    """Build a signed request in which one header has another value."""
    body = json.dumps(envelope()).encode()
    return request(body, [(key, value if key == name else old) for key, old in signed(body)])


def without(name: str) -> bytes:
    body = json.dumps(envelope()).encode()
    return request(body, [pair for pair in signed(body) if pair[0] != name])


def twice(name: str) -> bytes:
    body = json.dumps(envelope()).encode()
    pairs = signed(body)
    return request(body, pairs + [pair for pair in pairs if pair[0] == name])


def upper_twice() -> bytes:
    body = json.dumps(envelope()).encode()
    return request(body, [*signed(body), ("Webhook-ID", "msg_1")])


def vouched(body: bytes, id_: str = "msg_1") -> bytes:
    return request(body, signed(body, id_=id_))


def other_version() -> bytes:
    body, now = json.dumps(envelope()).encode(), int(time.time())
    true = sign(body, id="msg_1", timestamp=now, secret=SECRET).removeprefix("v1,")
    pairs = [("webhook-id", "msg_1"), ("webhook-timestamp", str(now))]
    return request(body, [*pairs, ("webhook-signature", f"v2,{true} v1a,{true} {true} v1{true}")])


def nested_by(depth: int, text: str) -> bytes:
    return vouched(b'{"id":"msg_1","type":"payment.succeeded","data":' + text.encode() * depth)


def forged() -> dict[str, bytes]:
    return {
        "no headers": request(b"{}", []),
        "no body": request(b"", []),
        "no id": without("webhook-id"),
        "no timestamp": without("webhook-timestamp"),
        "no signature": without("webhook-signature"),
        "two ids": twice("webhook-id"),
        "two timestamps": twice("webhook-timestamp"),
        "two signatures": twice("webhook-signature"),
        "two ids in two cases": upper_twice(),
        "empty id": replaced("webhook-id", ""),
        "other id": replaced("webhook-id", "msg_2"),
        "huge id": replaced("webhook-id", "m" * 100_000),
        "id not ascii": replaced("webhook-id", b"msg_\xff\xfe"),
        "id with a key's separator": replaced("webhook-id", "msg_1 usher:biz_x:"),
        "timestamp not ascii": replaced("webhook-timestamp", "１７９".encode()),  # noqa: RUF001 - meant
        "timestamp negative": replaced("webhook-timestamp", "-1"),
        "timestamp huge": replaced("webhook-timestamp", "9" * 10_000),
        "timestamp a fraction": replaced("webhook-timestamp", f"{time.time()}"),
        "timestamp nan": replaced("webhook-timestamp", "nan"),
        "signature not ascii": replaced("webhook-signature", b"v1,\xc3\xa9\xff"),
        "signature without comma": replaced("webhook-signature", "v1"),
        "signature of commas": replaced("webhook-signature", "v1,,,, , v1, ,v1"),
        "signature not base64": replaced("webhook-signature", "v1,!!!!"),
        "signatures of other versions": other_version(),
        "ten thousand signatures": replaced(
            "webhook-signature", " ".join(["v1," + "A" * 43 + "="] * 10_000)
        ),
        "other secret": request(b"{}", signed(b"{}", secret=OTHER)),
        "body changed": delivery().replace(b"user_1", b"user_2"),
        "deep and unsigned": request(b"[" * 100_000, []),
    }


def malformed() -> dict[str, bytes]:
    return {
        "empty": vouched(b""),
        "not json": vouched(b"hello"),
        "not utf-8": vouched(b'{"id":"msg_1","type":"\xff\xfe","data":{}}'),
        "utf-16": vouched(json.dumps(envelope()).encode("utf-16")),
        "half a surrogate": vouched(b'{"id":"msg_1","type":"\\ud800","data":{}}'),
        "array": vouched(b"[]"),
        "string": vouched(b'"msg_1"'),
        "number": vouched(b"1e999"),
        "null": vouched(b"null"),
        "nan": vouched(b"NaN"),
        "two values": vouched(b"{}{}"),
        "envelope without id": vouched(b'{"type":"payment.succeeded","data":{}}'),
        "envelope without type": vouched(b'{"id":"msg_1","data":{}}'),
        "envelope without data": vouched(b'{"id":"msg_1","type":"payment.succeeded"}'),
        "id a number": vouched(b'{"id":1,"type":"payment.succeeded","data":{}}'),
        "type null": vouched(b'{"id":"msg_1","type":null,"data":{}}'),
        "data a list": vouched(b'{"id":"msg_1","type":"payment.succeeded","data":[]}'),
        "ids differ": vouched(json.dumps(envelope("msg_2")).encode()),
        "huge id inside": vouched(json.dumps(envelope("m" * 500_000)).encode()),
        "deep arrays": nested_by(100_000, "["),
        "deep objects": nested_by(100_000, '{"a":'),
        "deep from the start": vouched(b"[" * 100_000),
        "closed and deep": vouched(b"[" * 100_000 + b"]" * 100_000),
    }


def test_hostile_input_gets_its_4xx_and_never_reaches_redis(
    redis_url: str, store: "redis.Redis"
) -> None:
    # Made now: a signature lives for five minutes.
    unsigned, unread = forged(), malformed()
    cases = {**unsigned, **unread}
    with structlog.testing.capture_logs() as lines:
        answers = dict(zip(cases, told(redis_url, *cases.values()), strict=True))
    assert {name: got.code for name, got in answers.items() if got.code not in (400, 401)} == {}
    assert {name for name, got in answers.items() if got.code == 401} == set(unsigned)
    assert all(answers[name].json["id"] is None for name in unsigned)
    assert all(answers[name].json["id"] == "msg_1" for name in unread)
    assert {got.status for got in answers.values()} == {"forged", "malformed"}
    assert store.dbsize() == 0
    assert [line["event"] for line in lines] == ["webhook.refused"] * len(cases)
    assert not any(SECRET in str(line) or "user_1" in str(line) for line in lines)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        head([("content-length", "5"), ("content-length", "6")]) + b"hello",
        head([("content-length", "-1")]),
        head([("content-length", "9" * 40)]),
        head([("content-length", "5"), ("transfer-encoding", "chunked")]) + b"0\r\n\r\n",
        head([("transfer-encoding", "chunked")]) + b"zz\r\n",
        head([("webhook-id\x00", "x")]),
    ],
    ids=["tls", "two lengths", "negative", "huge length", "both framings", "bad chunk", "nul"],
)
def test_what_is_not_http_is_refused_by_the_server(redis_url: str, raw: bytes) -> None:
    # Some of it is only seen once the door has begun to listen; the server has the last word.
    assert 400 <= posted(redis_url, raw).code < 500


def test_a_sender_that_hangs_up_in_the_middle_is_no_error(
    redis_url: str, store: "redis.Redis"
) -> None:
    async def hang_up() -> Answer:
        async with serving(redis_url) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(delivery()[:-10])
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            assert (await ask(port, delivery("msg_2"))).code == 202
            return await get(port, "/metrics")

    text = asyncio.run(hang_up()).body.decode()
    assert store.exists(f"{PREFIX}delivery:msg_1") == 0
    assert 'answer="accepted",type="membership.activated"} 1.0' in text
    assert "usher_acknowledge_seconds_count 1.0" in text


def test_a_sender_that_waits_for_leave_to_go_on_gets_it(redis_url: str) -> None:
    body = json.dumps(envelope()).encode()
    raw = request(body, [*signed(body), ("expect", "100-continue")])

    async def wait_for_leave() -> bytes:
        async with serving(redis_url) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw.removesuffix(body))
            leave = await reader.readuntil(b"\r\n\r\n")
            writer.write(body)
            line = await reader.readline()
            writer.close()
            return leave + line

    assert (
        asyncio.run(wait_for_leave()) == b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\n"
    )


# Duplicates and batches


def test_of_fifty_equal_deliveries_at_once_exactly_one_is_accepted(
    redis_url: str, store: "redis.Redis"
) -> None:
    async def send() -> list[Answer]:
        async with serving(redis_url) as port:
            return await asyncio.gather(*(ask(port, delivery()) for _ in range(50)))

    statuses = collections.Counter(got.status for got in asyncio.run(send()))
    assert statuses == {"accepted": 1, "duplicate": 49}
    assert store.keys(f"{PREFIX}delivery:*") == [f"{PREFIX}delivery:msg_1"]


class Wire:
    """A relay before Redis that counts round trips: bursts of the client that end in an answer."""

    def __init__(self, redis_url: str) -> None:
        self.trips = 0
        self._target = int(redis_url.rpartition(":")[2].partition("/")[0])
        self._relays: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            await writer.wait_closed()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, up_writer]
        asked = False

        async def up() -> None:
            nonlocal asked
            while data := await reader.read(1 << 20):
                asked = True
                up_writer.write(data)

        async def down() -> None:
            nonlocal asked
            while data := await up_reader.read(1 << 20):
                self.trips += asked
                asked = False
                writer.write(data)

        for way in (up(), down()):
            relay = asyncio.create_task(way)
            self._relays.add(relay)


def counted(
    redis_url: str, send: Callable[[int], Awaitable[list[Answer]]]
) -> tuple[int, list[Answer]]:
    """Run requests and return how many round trips to Redis they took."""

    async def run() -> tuple[int, list[Answer]]:
        wire = Wire(redis_url)
        async with wire as url, serving(url) as port:
            warm = [ask(port, delivery(f"msg_warm{turn}")) for turn in range(50)]
            await asyncio.gather(*warm)  # the connections are open and the scripts are known
            before = wire.trips
            answers = await send(port)
            return wire.trips - before, answers

    return asyncio.run(run())


def test_one_delivery_is_one_round_trip(redis_url: str) -> None:
    async def send(port: int) -> list[Answer]:
        return [await ask(port, delivery(f"msg_{turn}")) for turn in range(10)]

    trips, answers = counted(redis_url, send)
    assert [got.code for got in answers] == [202] * 10
    assert trips == 10


def test_deliveries_that_wait_together_travel_together(redis_url: str) -> None:
    async def send(port: int) -> list[Answer]:
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for turn, (_, writer) in enumerate(connections):
            writer.write(delivery(f"msg_{turn}"))
        answers = [await answer(reader) for reader, _ in connections]
        for _, writer in connections:
            writer.close()
        return answers

    trips, answers = counted(redis_url, send)
    assert [got.code for got in answers] == [202] * 50
    assert trips <= 15


# Redis away


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator["Own"]:
    own = Own(tmp_path / "own")
    yield own
    own.end()


class Own:
    """A server of this test's own, to stop and start."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = embedded.start(self._folder, self.port, fsync="no")

    def end(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            embedded.stop(self.process)
            self.process = None


def is_unavailable(got: Answer) -> bool:
    return (got.code, got.status) == (503, "unavailable") and int(got.headers["retry-after"]) > 0


def test_while_redis_is_away_it_says_so_and_it_recovers_by_itself(own_redis: Own) -> None:
    async def live() -> None:
        async with serving(own_redis.url) as port:
            assert is_unavailable(await ask(port, delivery("msg_1")))
            assert (await get(port, "/readyz")).code == 503
            assert (await get(port, "/healthz")).code == 200
            own_redis.start()
            assert (await ask(port, delivery("msg_1"))).code == 202
            own_redis.end()
            refused = await asyncio.gather(*(ask(port, delivery(f"msg_{n}")) for n in range(20)))
            assert all(is_unavailable(got) for got in refused)
            own_redis.start()
            assert (await ask(port, delivery("msg_1"))).status == "duplicate"
            assert (await ask(port, delivery("msg_2"))).code == 202
            assert (await get(port, "/readyz")).code == 200

    asyncio.run(live())


def test_a_redis_that_does_not_answer_is_not_waited_for_long(own_redis: Own) -> None:
    async def live() -> None:
        own_redis.start()
        assert own_redis.process
        async with serving(own_redis.url) as port:
            assert (await ask(port, delivery("msg_1"))).code == 202
            own_redis.process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            assert is_unavailable(await ask(port, delivery("msg_2")))
            assert time.monotonic() - began < 20
            assert (await get(port, "/readyz")).code == 503
            own_redis.process.send_signal(signal.SIGCONT)
            # It may have run after all: then the second attempt is a duplicate, and not lost.
            again = await ask(port, delivery("msg_2"))
            assert again.status in ("accepted", "duplicate")

    asyncio.run(live())


def test_a_redis_that_is_full_is_never_a_2xx(own_redis: Own) -> None:
    async def live() -> None:
        own_redis.start()
        async with serving(own_redis.url) as port:
            with redis.Redis.from_url(own_redis.url) as client:
                client.config_set("maxmemory", "1mb")
                assert is_unavailable(await ask(port, delivery()))
                client.config_set("maxmemory", "0")
            assert (await ask(port, delivery())).code == 202

    asyncio.run(live())


# What watches over it


def test_health_readiness_and_metrics(redis_url: str) -> None:
    async def look() -> tuple[Answer, Answer, str]:
        async with serving(redis_url) as port:
            for raw in (
                delivery(),
                delivery(),
                delivery("msg_2", type="surprise.invented"),
                delivery("msg_3", type="surprise.again"),
                request(b"{}", []),
                vouched(b"[]", "msg_4"),
                said(message("msg_5")),
            ):
                await ask(port, raw)
            text = (await get(port, "/metrics")).body.decode()
            return await get(port, "/healthz"), await get(port, "/readyz"), text

    health, readiness, text = asyncio.run(look())
    assert (health.code, health.status) == (200, "alive")
    assert (readiness.code, readiness.status) == (200, "ready")
    expected = {
        'usher_deliveries_total{answer="accepted",type="membership.activated"} 1.0',
        'usher_deliveries_total{answer="duplicate",type="membership.activated"} 1.0',
        'usher_deliveries_total{answer="ignored",type="other"} 2.0',
        'usher_deliveries_total{answer="accepted",type="chat.message.created"} 1.0',
        'usher_deliveries_total{answer="forged",type="unread"} 1.0',
        'usher_deliveries_total{answer="malformed",type="unread"} 1.0',
        'usher_forged_deliveries_total{reason="missing"} 1.0',
        "usher_acknowledge_seconds_count 5.0",
    }
    assert expected <= set(text.splitlines())
    assert "surprise" not in text

"""Who is believed: the signature's rules, its judges, and what hostile headers can do."""

import base64
import json
import time
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import assume, given
from hypothesis import strategies as st
from whop_sdk.lib.verify_webhook import WebhookVerificationError, unwrap

from webhooks.signature import TOLERANCE, Forged, Headers, Secrets, sign, verify

SECRET = "ws_" + "0123456789abcdef" * 4
OTHER = "ws_" + "f" * 64
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_790_000_000
BODY = b'{"id": "msg_1", "type": "payment.succeeded", "data": {}}'

identifiers = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="."),
    min_size=1,
    max_size=256,
)
secrets = st.one_of(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1).map("ws_{}".format),
    st.binary(min_size=1).map(lambda key: "whsec_" + base64.b64encode(key).decode()),
)


def headers(
    signature: str, *, id_: str = "msg_1", timestamp: int = NOW
) -> list[tuple[bytes, bytes]]:
    return [
        (b"host", b"usher.example"),
        (b"webhook-id", id_.encode()),
        (b"webhook-timestamp", str(timestamp).encode()),
        (b"webhook-signature", signature.encode()),
    ]


def signed(
    body: bytes = BODY, *, id_: str = "msg_1", timestamp: int = NOW, secret: str = SECRET
) -> list[tuple[bytes, bytes]]:
    signature = sign(body, id=id_, timestamp=timestamp, secret=secret)
    return headers(signature, id_=id_, timestamp=timestamp)


def refusal(body: bytes, pairs: Headers, *, now: float = NOW, secret: str = SECRET) -> str:
    with pytest.raises(Forged) as caught:
        verify(body, pairs, Secrets([secret]), now)
    return caught.value.reason


def test_what_was_signed_is_believed_and_its_id_returned() -> None:
    assert verify(BODY, signed(), Secrets([SECRET]), NOW) == "msg_1"


def test_the_vector_of_standard_webhooks() -> None:
    # From the test suites of github.com/standard-webhooks/standard-webhooks.
    body = b'{"test": 2432232314}'
    pairs = headers(
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        id_="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
    )
    assert verify(body, pairs, Secrets([STANDARD]), 1614265330) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


@given(st.text(), identifiers, st.integers(0, 4_000_000_000), st.binary(min_size=1))
def test_we_sign_as_standard_webhooks_does(text: str, id_: str, moment: int, key: bytes) -> None:
    assume(text.isprintable())
    secret = "whsec_" + base64.b64encode(key).decode()
    judge = standardwebhooks.Webhook(secret)
    at = datetime.fromtimestamp(moment, tz=UTC)
    expected = judge.sign(msg_id=id_, timestamp=at, data=text)
    assert sign(text.encode(), id=id_, timestamp=moment, secret=secret) == expected


@pytest.mark.parametrize("secret", [SECRET, "plain", "ws_ü"], ids=["ws", "no prefix", "not ascii"])
def test_the_sdk_of_whop_accepts_what_we_sign_with_literal_keys(secret: str) -> None:
    now = int(time.time())
    pairs = signed(timestamp=now, secret=secret)
    texts = {name.decode(): value.decode() for name, value in pairs}
    assert unwrap(BODY, headers=texts, key=secret) == json.loads(BODY)
    with pytest.raises(WebhookVerificationError):
        unwrap(BODY + b" ", headers=texts, key=secret)


def test_a_standard_secret_may_lack_its_padding() -> None:
    pairs = signed(secret="whsec_YWI=")
    assert verify(BODY, pairs, Secrets(["whsec_YWI"]), NOW) == "msg_1"


def test_a_standard_secret_is_not_its_literal_bytes() -> None:
    judged = standardwebhooks.Webhook(base64.b64encode(STANDARD.encode()).decode())
    literal = judged.sign("msg_1", datetime.fromtimestamp(NOW, tz=UTC), BODY.decode())
    assert refusal(BODY, headers(literal), secret=STANDARD) == "mismatch"


@pytest.mark.parametrize("secret", [OTHER, SECRET, STANDARD])
def test_any_of_several_secrets_may_have_signed(secret: str) -> None:
    accepted = Secrets.parse(f"{OTHER}, {SECRET},{STANDARD}")
    assert verify(BODY, signed(secret=secret), accepted, NOW) == "msg_1"


@pytest.mark.parametrize("offset", [-TOLERANCE, -1, 0, 1, TOLERANCE])
def test_five_minutes_are_tolerated_either_way(offset: int) -> None:
    assert verify(BODY, signed(timestamp=NOW + offset), Secrets([SECRET]), NOW) == "msg_1"


@pytest.mark.parametrize("offset", [-TOLERANCE - 1, TOLERANCE + 1, -NOW, 10**14])
def test_more_than_five_minutes_are_stale(offset: int) -> None:
    assert refusal(BODY, signed(timestamp=NOW + offset)) == "stale"


def test_a_fraction_over_five_minutes_is_stale() -> None:
    assert refusal(BODY, signed(), now=NOW + TOLERANCE + 0.01) == "stale"


@pytest.mark.parametrize(
    "signature",
    [
        "{0}",
        "v2,{1} {0}",
        "{0} v1a,{1} v2,{1}",
        "v1,AAAA   {0} ",
        "v1, v1 , ,, {0}",
        " ".join(["v1," + "A" * 43 + "="] * 10_000) + " {0}",
    ],
    ids=["alone", "after v2", "before others", "after spaces", "after nonsense", "after 10,000"],
)
def test_a_true_signature_is_found_among_others(signature: str) -> None:
    true = sign(BODY, id="msg_1", timestamp=NOW, secret=SECRET)
    pairs = headers(signature.format(true, true.removeprefix("v1,")))
    assert verify(BODY, pairs, Secrets([SECRET]), NOW) == "msg_1"


@pytest.mark.parametrize("version", ["v1a", "v2", "V1", "v1 ", "1", ""])
def test_a_true_digest_of_another_version_is_a_mismatch(version: str) -> None:
    true = sign(BODY, id="msg_1", timestamp=NOW, secret=SECRET).removeprefix("v1,")
    assert refusal(BODY, headers(f"{version},{true}")) == "mismatch"


def test_ten_thousand_signatures_cost_one_digest() -> None:
    accepted = Secrets([SECRET, OTHER])
    many = headers(" ".join(["v1," + "A" * 43 + "="] * 10_000))
    large = b"x" * 1_000_000
    began = time.perf_counter()
    with pytest.raises(Forged):
        verify(large, many, accepted, NOW)
    assert time.perf_counter() - began < 1.0  # ten thousand digests of this body take ten


@pytest.mark.parametrize("name", [b"webhook-id", b"webhook-timestamp", b"webhook-signature"])
def test_a_header_that_is_missing_or_there_twice_is_forged(name: bytes) -> None:
    pairs = signed()
    assert refusal(BODY, [pair for pair in pairs if pair[0] != name]) == "missing"
    assert refusal(BODY, pairs + [pair for pair in pairs if pair[0] == name]) == "duplicated"


def test_any_webhook_header_that_is_there_twice_is_forged() -> None:
    assert refusal(BODY, [*signed(), (b"webhook-x", b"1"), (b"webhook-x", b"1")]) == "duplicated"


@pytest.mark.parametrize(
    "moment",
    [
        *(b"", b"-1", b"+1790000000", b"1790000000.0", b"1.79e9", b"1_790_000_000", b" 1790000000"),
        *(b"nan", b"inf", b"\xef\xbc\x91", b"\xff", b"\x00", b"9" * 5000),
    ],
)
def test_a_timestamp_is_decimal_digits(moment: bytes) -> None:
    pairs = [(name, moment if name == b"webhook-timestamp" else value) for name, value in signed()]
    assert refusal(BODY, pairs) == "timestamp"


@pytest.mark.parametrize(
    "name", [b"", b"msg 1", b"msg.1", b"msg_\x00", b"msg_\n", "msg_é".encode(), b"\xff", b"m" * 257]
)
def test_an_id_is_short_printable_ascii_without_a_dot(name: bytes) -> None:
    pairs = [(key, name if key == b"webhook-id" else value) for key, value in signed()]
    assert refusal(BODY, pairs) == "identifier"


@pytest.mark.parametrize(("id_", "moment"), [("a.b", 1), ("", 1), ("é", 1), ("a", -1)])
def test_what_would_be_refused_is_not_signed(id_: str, moment: int) -> None:
    with pytest.raises(ValueError, match="cannot be signed"):
        sign(BODY, id=id_, timestamp=moment, secret=SECRET)


@pytest.mark.parametrize(
    "text", ["", " ", ",", "ws_a,", ",ws_a", "ws_a, ,ws_b", "whsec_", "whsec_="]
)
def test_an_empty_secret_refuses_to_start(text: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        Secrets.parse(text)


def test_no_secret_at_all_refuses_to_start() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Secrets([])


@pytest.mark.parametrize("secret", ["whsec_!x", "whsec_q", "whsec_é", "whsec_YWI=x"])
def test_a_broken_secret_is_not_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match="not base64") as caught:
        Secrets([secret])
    assert secret.removeprefix("whsec_") not in str(caught.value)
    assert caught.value.__cause__ is None


def test_keys_do_not_show() -> None:
    assert SECRET not in repr(Secrets([SECRET]))


@given(st.binary(), identifiers, secrets, st.integers(0, 10**12), st.floats(-300, 300))
def test_verify_accepts_all_that_sign_made(
    body: bytes, id_: str, secret: str, moment: int, skew: float
) -> None:
    pairs = signed(body, id_=id_, timestamp=moment, secret=secret)
    now = moment + skew
    assume(abs(now - moment) <= TOLERANCE)
    assert verify(body, pairs, Secrets([secret]), now) == id_


messages = st.tuples(
    st.binary(max_size=40) | st.text("0123456789.", max_size=12).map(str.encode),
    st.text("0123456789a.", min_size=1, max_size=8),
    st.integers(NOW - 9, NOW + 9),
    st.sampled_from([SECRET, OTHER, STANDARD]),
)


@given(messages, messages)
def test_verify_accepts_nothing_else(
    made: tuple[bytes, str, int, str], shown: tuple[bytes, str, int, str]
) -> None:
    assume("." not in made[1] and made != shown)
    signature = sign(made[0], id=made[1], timestamp=made[2], secret=made[3])
    with pytest.raises(Forged):
        verify(
            shown[0], headers(signature, id_=shown[1], timestamp=shown[2]), Secrets([shown[3]]), NOW
        )


names = st.sampled_from([b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"webhook-"])


@given(st.binary(), st.lists(st.tuples(names | st.binary(), st.binary() | st.just(b"1790000000"))))
def test_arbitrary_headers_raise_only_forged(body: bytes, pairs: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Forged):
        verify(body, pairs, Secrets([SECRET]), NOW)


@given(st.binary(max_size=60), st.binary(max_size=20), st.binary(max_size=20))
def test_arbitrary_values_raise_only_forged(signature: bytes, moment: bytes, name: bytes) -> None:
    pairs = [
        (b"webhook-id", name or b"m"),
        (b"webhook-timestamp", moment or b"1790000000"),
        (b"webhook-signature", signature),
    ]
    with pytest.raises(Forged):
        verify(BODY, pairs, Secrets([SECRET]), NOW)

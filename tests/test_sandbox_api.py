"""The API's manners: filters, pages, keys, quota, idempotency, faults."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import local_whop
import pytest
from local_whop import ACCOUNT, API_KEY, Server

from worker.sandbox import bodies
from worker.sandbox.faults import Failure, RateLimit
from worker.sandbox.gate import Answer, Quota, Replays
from worker.sandbox.records import CHAT_APP, Key
from worker.sandbox.refusals import Conflict, TooManyRequests
from worker.sandbox.state import SeedProduct

LATEST = "2026-10-15-1"
CREATE = "2026-06-09"
TICKET = SeedProduct(id="prod_ticket", title="Ticket", plan_type="one_time")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Api:
    """A bare HTTP caller with the headers that Whop wants."""

    def __init__(self, server: Server, key: str = API_KEY) -> None:
        self.server = server
        self.key = key

    async def __call__(
        self, method: str, path: str, *, version: str = LATEST, **settings: Any
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}", "api-version-date": version}
        headers |= settings.pop("headers", {})
        url = f"/api/v1{path}"
        return await self.server.control.request(method, url, headers=headers, **settings)


def with_api(scene: Callable[[Api], Awaitable[None]], *products: str | SeedProduct) -> None:
    async def main() -> None:
        whop = local_whop.build(products=["prod_basic", TICKET, *products])
        async with local_whop.in_process(whop) as server:
            await scene(Api(server))

    asyncio.run(main())


async def ids(api: Api, path: str) -> list[str]:
    answer = await api("GET", path)
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["data"]]


def message(answer: httpx.Response) -> str:
    return answer.json()["error"]["message"]


def test_the_status_filter_speaks_whops_buckets() -> None:
    async def scene(api: Api) -> None:
        desk = api.server.whop.memberships
        plan = api.server.whop.catalog.create_plan(
            bodies.NewPlan(product_id="prod_ticket", expiration_days=3)
        )
        made = {
            "active": desk.buy("prod_basic", "a").id,
            "canceling": desk.cancel(desk.buy("prod_basic", "b").id, at_period_end=True).id,
            "paused": desk.set_paused(desk.buy("prod_basic", "c").id, paused=True).id,
            "past_due": desk.set_status(desk.buy("prod_basic", "d").id, "past_due").id,
            "canceled": desk.cancel(desk.buy("prod_basic", "e").id).id,
            "one_time": desk.buy("prod_ticket", "f").id,
            "expiring": desk.buy("prod_ticket", "g", plan_id=plan.id).id,
            "unclaimed": desk.open_unclaimed(plan.id).id,
        }
        found = {
            "active": {"active", "paused"},
            "trialing": set(),
            "past_due": {"past_due"},
            "canceling": {"canceling"},
            "paused": {"paused"},
            "completed": {"one_time", "expiring", "unclaimed"},
            "one_time": {"one_time"},
            "expiring": {"expiring", "unclaimed"},
            "canceled": {"canceled"},
            "expired": set(),
            "unclaimed": {"unclaimed"},
            "banned": set(),
        }
        for status, names in found.items():
            wanted = {made[name] for name in names}
            assert set(await ids(api, f"/memberships?status={status}")) == wanted, status
        both = await ids(api, "/memberships?status=canceled&statuses=paused&statuses=past_due")
        assert set(both) == {made[name] for name in ("canceled", "paused", "past_due")}
        assert len(await ids(api, "/memberships")) == len(made)

    with_api(scene)


def test_filters_narrow_and_never_fail_for_what_is_out_of_reach() -> None:
    async def scene(api: Api) -> None:
        whop = api.server.whop
        one, two = whop.memberships.buy("prod_basic", "a"), whop.memberships.buy("prod_ticket", "a")
        other = whop.memberships.buy("prod_basic", "b")
        user = f"user_id={one.user_id}"
        assert await ids(api, f"/memberships?{user}") == [two.id, one.id]
        assert await ids(api, f"/memberships?{user}&direction=asc") == [one.id, two.id]
        assert await ids(api, f"/memberships?{user}&product_id=prod_ticket") == [two.id]
        assert await ids(api, f"/memberships?member_id={other.member_id}") == [other.id]
        assert await ids(api, f"/memberships?plan_ids={two.plan_id}") == [two.id]
        assert await ids(api, "/memberships?product_ids[]=prod_basic") == [other.id, one.id]
        later = (whop.now() + timedelta(hours=1)).isoformat().replace("+", "%2B")
        assert await ids(api, f"/memberships?created_after={later}") == []
        for nothing in ("user_id=user_none", "account_id=biz_none", "promo_code_ids=promo_1"):
            assert await ids(api, f"/memberships?{nothing}") == []

    with_api(scene)


def test_pages_go_forwards_and_backwards_and_hold_20_unless_asked() -> None:
    async def scene(api: Api) -> None:
        made = [api.server.whop.memberships.buy("prod_basic", f"u{n}").id for n in range(25)][::-1]
        page = (await api("GET", "/memberships")).json()
        assert [row["id"] for row in page["data"]] == made[:20]
        assert page["page_info"]["has_next_page"] is True
        assert page["page_info"]["has_previous_page"] is False
        after = page["page_info"]["end_cursor"]
        rest = (await api("GET", f"/memberships?first=100&after={after}")).json()
        assert [row["id"] for row in rest["data"]] == made[20:]
        assert rest["page_info"]["has_next_page"] is False
        before = rest["page_info"]["start_cursor"]
        back = (await api("GET", f"/memberships?last=5&before={before}")).json()
        assert [row["id"] for row in back["data"]] == made[15:20]
        assert back["page_info"]["has_previous_page"] is True
        for wrong in ("first=0", "first=x", "after=!!!", "direction=up", "after=WyJ4Il0"):
            assert (await api("GET", f"/memberships?{wrong}")).status_code == 400, wrong

    with_api(scene)


def test_memberships_are_created_at_the_one_documented_date_only() -> None:
    async def scene(api: Api) -> None:
        whop = api.server.whop
        plan = whop.catalog.create_plan(bodies.NewPlan(product_id="prod_ticket"))
        user = whop.people.meet("ada")
        body = {"plan_id": plan.id, "user_id": user.id, "metadata": {"usher_room": "course"}}
        assert (await api("POST", "/memberships", json=body)).status_code == 404
        made = await api("POST", "/memberships", json=body, version=CREATE)
        assert made.status_code == 200
        assert made.json()["status"] == "completed"
        assert made.json()["metadata"] == {"usher_room": "course"}
        paid = whop.catalog.plans_of("prod_basic")[0].id
        refused = await api("POST", "/memberships", json=body | {"plan_id": paid}, version=CREATE)
        assert refused.status_code == 422

    with_api(scene)


def test_an_unknown_version_is_told_which_are_known() -> None:
    async def scene(api: Api) -> None:
        answer = await api("GET", "/memberships", version="2020-01-01")
        assert answer.status_code == 400
        assert LATEST in message(answer)

    with_api(scene)


def test_keys_are_checked_and_missing_permissions_named() -> None:
    async def scene(api: Api) -> None:
        for headers in ({}, {"authorization": "Bearer nobody"}, {"authorization": API_KEY}):
            answer = await api.server.control.get("/api/v1/memberships", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["type"] == "unauthorized"
        api.server.whop.tables.keys["poor"] = Key(secret="poor", permissions=frozenset())
        nobody = await Api(api.server, "poor")("GET", "/memberships")
        assert (nobody.status_code, nobody.json()["data"]) == (200, [])
        answer = await Api(api.server, "poor")("GET", "/memberships/mem_1")
        assert answer.status_code == 403
        assert "member:basic:read" in message(answer)
        assert (await api.server.control.get("/api/v1/products/prod_basic")).status_code == 200
        assert (await api("GET", "/nothing")).status_code == 404

    with_api(scene)


def test_banned_words_read_empty_without_the_right_to_moderate() -> None:
    async def scene(api: Api) -> None:
        room = api.server.whop.rooms.create_experience(
            bodies.NewExperience(account_id=ACCOUNT, app_id=CHAT_APP)
        )
        words = {"banned_words": ["spam"]}
        assert (await api("PATCH", f"/chat_channels/{room.id}", json=words)).status_code == 200
        api.server.whop.tables.keys["reader"] = Key(
            secret="reader", permissions=frozenset({"chat:read"})
        )
        assert (await api("GET", f"/chat_channels/{room.id}")).json()["banned_words"] == ["spam"]
        seen = await Api(api.server, "reader")("GET", f"/chat_channels/{room.id}")
        assert seen.json()["banned_words"] == []
        listed = f"/chat_channels?account_id={ACCOUNT}"
        for key, expected in ((API_KEY, ["spam"]), ("reader", [])):
            rows = (await Api(api.server, key)("GET", listed)).json()["data"]
            assert [row["banned_words"] for row in rows] == [expected]
        asked = await Api(api.server, "reader")("GET", f"/permissions?resource_id={ACCOUNT}")
        granted = [row["action"] for row in asked.json()["data"] if row["granted"]]
        assert granted == ["chat:read"]

    with_api(scene)


def test_a_message_is_pinned_without_being_edited_and_keeps_its_time() -> None:
    async def scene(api: Api) -> None:
        room = api.server.whop.rooms.create_experience(
            bodies.NewExperience(account_id=ACCOUNT, app_id=CHAT_APP)
        )
        said = {"channel_id": room.id, "content": "Hello"}
        posted = (await api("POST", "/messages", json=said)).json()
        assert (posted["is_pinned"], posted["is_edited"]) == (False, False)
        assert datetime.fromisoformat(posted["created_at"]).tzinfo is not None
        for pinned in (True, True, False):
            changed = await api("PATCH", f"/messages/{posted['id']}", json={"is_pinned": pinned})
            assert changed.status_code == 200
            facts = changed.json()
            assert (facts["is_pinned"], facts["is_edited"]) == (pinned, False)
            assert (facts["content"], facts["created_at"]) == ("Hello", posted["created_at"])
        assert (await api("PATCH", "/messages/msg_none", json={})).status_code == 404
        rows = (await api("GET", f"/messages?channel_id={room.id}")).json()["data"]
        assert rows == [facts]

    with_api(scene)


def test_bad_bodies_are_refused_with_the_fields_name() -> None:
    async def scene(api: Api) -> None:
        assert (await api("POST", "/products", content=b"{")).status_code == 400
        missing = await api("POST", "/experiences", json={"app_id": CHAT_APP})
        assert missing.status_code == 422
        assert "account_id" in message(missing)
        wrong = await api("POST", "/webhooks", json={"url": "ftp://x", "events": []})
        assert wrong.status_code == 400
        old = await api("POST", "/webhooks", json={"url": "http://x", "api_version": "v2"})
        assert "api_version" in message(old)
        went = {"url": "http://x", "events": ["membership.went_valid"]}
        assert (await api("POST", "/webhooks", json=went)).status_code == 400

    with_api(scene)


def test_an_idempotency_key_replays_byte_for_byte_and_rejects_another_request() -> None:
    async def scene(api: Api) -> None:
        body = {"title": "Course", "metadata": {"n": 1}}
        once = {"idempotency-key": "course-1"}
        first = await api("POST", "/products", json=body, headers=once)
        again = await api("POST", "/products", json=body, headers=once)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        other = await api("POST", "/products", json=body | {"title": "Other"}, headers=once)
        assert other.status_code == 400
        assert "different request" in message(other)
        assert len(await ids(api, "/products?query=course")) == 1

        wrong = {"idempotency-key": "wrong"}
        for replayed in (None, "true"):
            refused = await api("POST", "/products", json={}, headers=wrong)
            assert refused.status_code == 400
            assert refused.headers.get("idempotent-replayed") == replayed
        long = await api("POST", "/products", json=body, headers={"idempotency-key": "k" * 256})
        assert long.status_code == 400
        twice = [await api("GET", "/products", headers=once) for _ in range(2)]
        assert "idempotent-replayed" not in twice[1].headers

    with_api(scene)


def test_an_idempotency_key_is_kept_a_day_and_not_for_server_errors() -> None:
    replays, request = Replays(), ("POST", "/x")
    assert replays.begin("me", "k", request, NOON) is None
    with pytest.raises(Conflict):
        replays.begin("me", "k", request, NOON)
    replays.end("me", "k", Answer(200, b"1"))
    assert replays.begin("you", "k", request, NOON) is None
    assert replays.begin("me", "k", request, NOON + timedelta(hours=24)) == Answer(200, b"1")
    assert replays.begin("me", "k", request, NOON + timedelta(hours=24, seconds=1)) is None
    replays.end("me", "k", Answer(503, b""))
    assert replays.begin("me", "k", request, NOON + timedelta(hours=25)) is None


def test_the_quota_is_a_sliding_window_per_operation_and_key() -> None:
    quota, limit = Quota(), RateLimit(count=2, seconds=10)
    mine, yours = Key(secret="mine"), Key(secret="yours")
    quota.admit("a", mine, limit, NOON)
    quota.admit("a", mine, limit, NOON + timedelta(seconds=4))
    with pytest.raises(TooManyRequests) as refused:
        quota.admit("a", mine, limit, NOON + timedelta(seconds=7))
    assert refused.value.headers == {"Retry-After": "3"}
    assert "wait 3 seconds" in refused.value.message
    quota.admit("b", mine, limit, NOON + timedelta(seconds=7))
    quota.admit("a", yours, limit, NOON + timedelta(seconds=7))
    quota.admit("a", mine, limit, NOON + timedelta(seconds=10))
    with pytest.raises(TooManyRequests):
        quota.admit("a", mine, limit, NOON + timedelta(seconds=13))


def test_faults_fail_calls_before_or_after_they_take_effect() -> None:
    async def scene(api: Api) -> None:
        faults = api.server.whop.faults
        faults.failures = [Failure(operation="products.create", status=503, times=2)]
        body = {"title": "Course"}
        statuses = [(await api("POST", "/products", json=body)).status_code for _ in range(3)]
        assert statuses == [503, 503, 200]
        assert len(await ids(api, "/products?query=course")) == 1

        change = {"failures": [{"operation": "products.create", "status": 500, "after": True}]}
        await api.server.control.patch("/sandbox/faults", json=change)
        once = {"idempotency-key": "lost-answer"}
        lost = await api("POST", "/products", json=body, headers=once)
        assert lost.status_code == 500
        found = await api("POST", "/products", json=body, headers=once)
        assert (found.status_code, found.headers["idempotent-replayed"]) == (200, "true")
        assert len(await ids(api, "/products?query=course")) == 2

        faults.ignore_idempotency = ["products.create"]
        await api("POST", "/products", json=body, headers=once)
        assert len(await ids(api, "/products?query=course")) == 3

    with_api(scene)


def test_faults_can_be_slow_and_must_be_known() -> None:
    async def scene(api: Api) -> None:
        await api.server.control.patch("/sandbox/faults", json={"latency_seconds": 0.05})
        began = asyncio.get_running_loop().time()
        await api("GET", "/products")
        assert asyncio.get_running_loop().time() - began >= 0.05
        wrong = await api.server.control.patch("/sandbox/faults", json={"latency": 1})
        assert wrong.status_code == 422
        limit = {"rate_limit": {"count": 5, "seconds": 10}}
        shown = (await api.server.control.patch("/sandbox/faults", json=limit)).json()
        assert (shown["rate_limit"], shown["latency_seconds"]) == (limit["rate_limit"], 0.05)

    with_api(scene)


def test_members_and_access_tell_buyers_from_the_team() -> None:
    async def scene(api: Api) -> None:
        whop = api.server.whop
        held = whop.memberships.buy("prod_basic", "ada")
        whop.memberships.cancel(whop.memberships.buy("prod_ticket", "grace").id)
        whop.people.add_admin("root")
        named = {"owner": "admin", "ada": "customer", "grace": "no_access", "root": "admin"}
        rows = (await api("GET", "/members")).json()["data"]
        assert {row["user"]["username"]: row["access_level"] for row in rows} == named
        left = (await api("GET", "/members?status=left")).json()["data"]
        assert [row["user"]["username"] for row in left] == ["grace"]
        for query in (
            f"user_ids={held.user_id}",
            "query=AD",
            "membership_status=active",
            "product_ids=prod_basic",
        ):
            assert await ids(api, f"/members?{query}") == [held.member_id], query
        for user, level in named.items():
            access = (await api("GET", f"/users/{user}/access/{ACCOUNT}")).json()
            assert access == {"has_access": level != "no_access", "access_level": level}
        assert (await api("GET", "/users/nobody/access/prod_basic")).status_code == 404
        assert (await api("GET", "/users/me")).json()["email"] == "owner@example.com"

    with_api(scene)


def test_the_delivery_log_has_the_newest_first_50_on_a_page_unless_asked_and_100_at_most() -> None:
    async def scene(api: Api) -> None:
        whop = api.server.whop
        hook = whop.hooks.create(
            bodies.NewWebhook(url="http://127.0.0.1:1/", events=["membership.activated"])
        )
        for n in range(120):
            whop.memberships.buy("prod_basic", f"u{n}")
        for message in whop.outbox.take(whop.now(), 1000):
            whop.outbox.settle(message, local_whop.FAILED, whop.now())
        path = f"/webhooks/{hook.id}/deliveries"
        newest = [one.id for one in whop.outbox.newest_first(hook.id)]
        for asked, size in (("", 50), ("?first=100", 100), ("?first=120", 100), ("?first=7", 7)):
            page = (await api("GET", path + asked)).json()
            assert [row["id"] for row in page["data"]] == newest[:size]

    with_api(scene)


def test_the_controls_do_what_people_do_on_whops_pages() -> None:
    async def scene(api: Api) -> None:
        async def do(path: str, **body: object) -> dict[str, Any]:
            answer = await api.server.control.post(f"/sandbox/{path}", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        sold = await do("buy", product_id="prod_basic", user="ada")
        assert sold["username"] == "ada"
        assert sold["status"] == "active"
        again = await do("buy", product_id="prod_ticket", user=sold["user_id"])
        assert again["user_id"] == sold["user_id"]
        assert (await do("refund", membership_id=again["membership_id"]))["refund_id"]
        dispute = await do("dispute", membership_id=sold["membership_id"])
        await do("dispute/decide", dispute_id=dispute["dispute_id"], status="won")
        held = {"membership_id": sold["membership_id"]}
        assert (await do("status", **held, status="past_due"))["status"] == "past_due"
        assert (await do("cancel", **held, at_period_end=True))["status"] == "canceling"
        assert (await do("cancel", **held))["status"] == "canceled"

        whop = api.server.whop
        plan = whop.catalog.create_plan(bodies.NewPlan(product_id="prod_ticket"))
        wanted = bodies.NewInvitation(plan_id=plan.id, user_id=sold["user_id"])
        invitation = whop.memberships.invite(wanted)
        assert (await do("accept", invitation_id=invitation.id))["status"] == "completed"
        room = whop.rooms.create_experience(
            bodies.NewExperience(account_id=ACCOUNT, app_id=CHAT_APP, is_public=True)
        )
        await do("say", channel_id=room.id, user="ada", content="hi")
        await do("admin", user="root")

        gone = await api.server.control.post("/sandbox/cancel", json=held)
        assert gone.status_code == 409
        elsewhere = {"origin": "https://elsewhere.example"}
        body = {"product_id": "prod_basic", "user": "mallory"}
        for method, path in (("POST", "buy"), ("PATCH", "faults")):
            refused = await api.server.control.request(
                method, f"/sandbox/{path}", json=body, headers=elsewhere
            )
            assert refused.status_code == 403
        for body in (b"{", b"{}", b'{"product_id":"prod_basic","user":"two words"}'):
            refused = await api.server.control.post("/sandbox/buy", content=body)
            assert refused.status_code in (400, 422)

    with_api(scene)


def test_the_page_needs_nothing_from_elsewhere_and_its_state_names_what_it_draws() -> None:
    async def scene(api: Api) -> None:
        page = await api.server.control.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "innerHTML" not in page.text
        assert "https://" not in page.text
        whop = api.server.whop
        held = whop.memberships.buy("prod_basic", "ada")
        room = whop.rooms.create_experience(
            bodies.NewExperience(account_id=ACCOUNT, app_id=CHAT_APP, name="<b>Lounge</b>")
        )
        whop.rooms.attach(room.id, "prod_basic")
        state = (await api.server.control.get("/sandbox/state")).json()
        assert [one["members"] for one in state["products"]] == [1, 0]
        assert state["rooms"][0]["may_enter"] == {"count": 1, "names": ["ada"]}
        assert state["rooms"][0]["channel"]["who_can_post"] == "everyone"
        assert [one["id"] for one in state["memberships"]] == [held.id]

    with_api(scene)


def test_the_journal_keeps_calls_and_counts_until_it_is_told_to_forget() -> None:
    async def scene(api: Api) -> None:
        await api("POST", "/products", json={"title": "A"}, headers={"idempotency-key": "k"})
        await api("GET", "/memberships/mem_none")
        seen = (await api.server.control.get("/sandbox/requests")).json()
        assert seen["counts"] == {
            "products.create": {"200": 1},
            "memberships.retrieve": {"404": 1},
        }
        one = await api.server.control.get("/sandbox/requests?operation=products.create")
        [entry] = one.json()["requests"]
        assert (entry["method"], entry["path"]) == ("POST", "/api/v1/products")
        assert (entry["idempotency_key"], entry["body"]) == ("k", '{"title":"A"}')
        empty = (await api.server.control.delete("/sandbox/requests")).json()
        assert empty == {"requests": [], "counts": {}}

    with_api(scene)

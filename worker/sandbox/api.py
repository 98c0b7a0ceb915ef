"""The API on the wire: `/api/v1/...`, as the official Python SDK 2.6.0 speaks it."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from worker.sandbox.call import Call, Operation, Post
from worker.sandbox.distortion import distorted, misshapen
from worker.sandbox.faults import Faults
from worker.sandbox.gate import Answer, Quota, Replays, caller, version
from worker.sandbox.journal import Entry, Journal
from worker.sandbox.operations import OPERATIONS
from worker.sandbox.records import Key
from worker.sandbox.refusals import BadRequest, Forbidden, NotFound, Refusal, Unprocessable
from worker.sandbox.state import LocalWhop

PREFIX = "/api/v1"
BODY_IN_JOURNAL = 2000
OK = 200


class Desk:
    """Answers calls: checks who asks and how often, does the operation, notes it in the journal."""

    def __init__(self, whop: LocalWhop, *, post: Post, journal: Journal) -> None:
        self.whop = whop
        self.journal = journal
        self._post = post
        self._quota = Quota()
        self._replays = Replays()

    def routes(self) -> list[Route]:
        """Return a route for every operation, and one that answers whatever else is asked."""
        routes = [
            Route(PREFIX + operation.path, self._endpoint(operation), methods=[operation.method])
            for operation in OPERATIONS
        ]
        return [*routes, Route(PREFIX + "/{rest:path}", _unknown, methods=list(METHODS))]

    def _endpoint(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = await request.body()
            answer = await self._answer(operation, request, body)
            self._note(operation, request, body, answer)
            headers = answer.headers | {"content-type": "application/json"}
            return Response(answer.body, status_code=answer.status, headers=headers)

        return endpoint

    @property
    def _faults(self) -> Faults:
        return self.whop.faults

    async def _answer(self, operation: Operation, request: Request, body: bytes) -> Answer:
        """Answer one call, with the trouble that the faults make."""
        faults = self.whop.faults
        if faults.latency_seconds:
            await asyncio.sleep(faults.latency_seconds)
        if (status := faults.fail(operation.name, after=False)) is not None:
            return _broken(status)
        try:
            answer = await self._admit(operation, request, body)
        except Refusal as refusal:
            return _refused(refusal, older=operation.older)
        lost = faults.fail(operation.name, after=True)
        if lost is not None:
            return _broken(lost)
        shape = faults.misshape(operation.name) if answer.status == OK else None
        return answer if shape is None else misshapen(answer, shape)

    async def _admit(self, operation: Operation, request: Request, body: bytes) -> Answer:
        """Let the call in, and answer a repeated POST as the first one was answered.

        Raises:
            Refusal: the key, the version, the quota or the Idempotency-Key say no.
        """
        authorization = request.headers.get("authorization")
        open_to_all = operation.public and authorization is None
        key = None if open_to_all else caller(self.whop.tables, authorization)
        call = self._call(request, body, key)
        if operation.only_at not in (None, call.version) or operation.name in self._faults.gone:
            raise NotFound("Not found")
        if operation.name in self._faults.unavailable:
            raise Forbidden("This endpoint is not available for your account.")
        if key is not None:
            limit = self.whop.faults.rate_limit
            self._quota.admit(operation.name, key, limit, self.whop.core.clock())
        idempotency_key = request.headers.get("idempotency-key")
        heeded = operation.method == "POST" and key is not None and not operation.keyless
        if not heeded or operation.name in self._faults.ignore_idempotency:
            return await _run(operation, call)
        return await self._once(operation, call, request, idempotency_key)

    def _call(self, request: Request, body: bytes, key: Key | None) -> Call:
        return Call(
            whop=self.whop,
            post=self._post,
            key=key,
            version=version(request.headers.get("api-version-date")),
            path=request.path_params,
            query=request.query_params,
            raw=body,
        )

    async def _once(
        self, operation: Operation, call: Call, request: Request, idempotency_key: str | None
    ) -> Answer:
        if idempotency_key is None or call.key is None:
            return await _run(operation, call)
        url = request.url
        fingerprint = (request.method, url.path, url.query, call.version, call.raw.hex())
        who = call.key.secret
        kept = self._replays.begin(who, idempotency_key, fingerprint, self.whop.now())
        if kept is not None:
            headers = kept.headers | {"Idempotent-Replayed": "true"}
            return Answer(kept.status, kept.body, headers)
        try:
            answer = await _run(operation, call)
        except BaseException:
            self._replays.forget(who, idempotency_key)
            raise
        self._replays.end(who, idempotency_key, answer)
        return answer

    def _note(self, operation: Operation, request: Request, body: bytes, answer: Answer) -> None:
        entry = Entry(
            time=self.whop.core.clock(),
            method=request.method,
            path=request.url.path,
            query=request.url.query,
            operation=operation.name,
            status=answer.status,
            idempotency_key=request.headers.get("idempotency-key"),
            body=body[:BODY_IN_JOURNAL].decode(errors="replace"),
        )
        self.journal.note(entry)


async def _run(operation: Operation, call: Call) -> Answer:
    """Do the operation; a refusal is an answer like any other."""
    try:
        for action in operation.needs if call.key is not None else ():
            call.need(action)
        result: Any = operation.run(call)
        if inspect.isawaitable(result):
            result = await result
        if operation.method == "GET" and isinstance(result, dict) and "page_info" in result:
            result = distorted(operation.name, result, call.whop.faults)
    except Refusal as refusal:
        return _refused(refusal, older=operation.older)
    return Answer(200, msgspec.json.encode(result))


def _refused(refusal: Refusal, *, older: bool = False) -> Answer:
    if isinstance(refusal, Unprocessable) and not older:
        refusal = BadRequest(refusal.message)
    return Answer(refusal.status, msgspec.json.encode(refusal.body()), refusal.headers)


def _broken(status: int) -> Answer:
    message = "The local Whop was told to fail this call"
    body = {"error": {"type": "internal_server_error", "message": message}}
    return Answer(status, msgspec.json.encode(body))


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


async def _unknown(_request: Request) -> Response:
    """Answer what is no operation of the local Whop, in Whop's own error body."""
    answer = _refused(NotFound("Not found"))
    return Response(answer.body, status_code=answer.status, media_type="application/json")

"""Between HTTP and a provider's stand-in: reads the request, applies faults, keeps the request log."""

import asyncio
import json
import time
from dataclasses import replace

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from .broken import ResetResponse, SilentResponse, TruncatedResponse
from .clock import Clock
from .faults import Fault, FaultRule, Faults
from .store import Store
from .wire import Call, Reply, Service

HTML_PAGE = "<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>cloudflare</body></html>"


def as_response(reply: Reply) -> Response:
    if reply.status == 204:
        return Response(status_code=204, headers=reply.headers)
    body = json.dumps(reply.body, ensure_ascii=False, separators=(",", ":")).encode()
    kind = "application/json; charset=utf-8"
    return Response(body, reply.status, headers=reply.headers, media_type=kind)


class Gateway:
    """Serves one provider below its base address."""

    def __init__(self, service: Service, *, store: Store, faults: Faults, clock: Clock) -> None:
        self._service = service
        self._store = store
        self._faults = faults
        self._clock = clock

    async def __call__(self, request: Request) -> Response:
        began = time.perf_counter()
        try:
            call = await self._read(request)
        except ClientDisconnect:
            return Response(status_code=499)
        fault = self._faults.striking(call)
        response = await (self._struck(call, fault) if fault else self._worked(call))
        self._log(call, response, fault, began)
        return response

    async def _read(self, request: Request) -> Call:
        return Call(
            service=self._service.name,
            method=request.method,
            path="/" + request.path_params["path"],
            query=request.query_params.multi_items(),
            headers=request.headers,
            body=await request.body(),
        )

    async def _worked(self, call: Call) -> Response:
        return as_response(await self._service.answer(call))

    async def _struck(self, call: Call, fault: Fault) -> Response:
        rule = fault.rule
        if rule.kind == "delay":
            return await self._worked(replace(call, work_delay=rule.delay))
        reply = await self._service.answer(call) if rule.works_first else None
        if rule.delay and rule.symptom != "silence":
            await asyncio.sleep(rule.delay)
        return self._broken(rule, reply)

    def _broken(self, rule: FaultRule, reply: Reply | None) -> Response:
        match rule.symptom:
            case "reset":
                return ResetResponse()
            case "silence":
                return SilentResponse(rule.delay)
            case "html":
                return Response(HTML_PAGE.format(status=rule.status), rule.status, media_type="text/html")
            case "empty":
                return Response(b"", 200, media_type="application/json")
            case "truncated":
                return _cut(as_response(reply or Reply(200, {"object": "list", "data": []})), rule)
            case _:
                return as_response(self._refusal(rule))

    def _refusal(self, rule: FaultRule) -> Reply:
        reply = self._service.failure(status=rule.status, code=rule.code, message=rule.message)
        return reply if rule.retry_after is None else reply.with_headers({"retry-after": str(rule.retry_after)})

    def _log(self, call: Call, response: Response, fault: Fault | None, began: float) -> None:
        silent = isinstance(response, ResetResponse)
        self._store.log_request(
            {
                "at": self._clock().timestamp(),
                "service": call.service,
                "method": call.method,
                "path": call.path,
                "status": None if silent else response.status_code,
                "idempotency_key": call.headers.get("idempotency-key"),
                "fault": fault and fault.rule.kind,
                "ms": round((time.perf_counter() - began) * 1000, 2),
            }
        )


def _cut(whole: Response, rule: FaultRule) -> Response:
    if rule.cut == "body":
        return TruncatedResponse(bytes(whole.body), whole.status_code, media_type="application/json")
    return Response(whole.body[: len(whole.body) // 2], whole.status_code, media_type="application/json")

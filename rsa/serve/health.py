"""`/health` and `/metrics`: how the server is, for who watches over it.

`/health` is 200 while requests can be answered and 503 while they cannot: an engine has died or could not be opened, or
the server is about to end. An engine that has died is opened again as soon as that is seen here or by a request: who
sends nobody to a server that is ill would otherwise wait for ever.
"""

from __future__ import annotations

import time
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.api import KnowsIfAlive
from rsa.serve.metrics import CONTENT_TYPE
from rsa.serve.service import Service

RETRY_S = 10.0
"""How long a model that could not be opened is left alone before the next attempt."""
_NO_STORE = {"Cache-Control": "no-store"}


async def show_health(request: Request) -> Response:
    """How the server and each of its models is."""
    service: Service = request.app.state.service
    models = {name: await _checked(service, name) for name in service.served.models}
    ill = [name for name, found in models.items() if not found["well"]]
    status = "ending" if service.draining else "ill" if ill else "ok"
    body: dict[str, Any] = {
        "status": status,
        "models": models,
        "working": service.slots.working,
        "waiting": service.slots.waiting,
        "uptime_s": round(time.time() - service.started_at, 1),
    }
    return JSONResponse(body, 200 if status == "ok" else 503, headers=_NO_STORE)


async def show_metrics(request: Request) -> Response:
    """The numbers of the server in Prometheus' text."""
    service: Service = request.app.state.service
    served = service.served
    service.metrics.engines({name: served.state(name)[0] for name in served.models}, served.deaths)
    return Response(service.metrics.text(), media_type=CONTENT_TYPE, headers=_NO_STORE)


async def _checked(service: Service, model: str) -> dict[str, Any]:
    """How a model's engine is. One that is found dead is given up, and one that is ill opened again."""
    served = service.served
    engine = served.opened(model)
    if isinstance(engine, KnowsIfAlive) and not engine.alive:
        with anyio.CancelScope(shield=True):
            await served.lost(model, engine, "its worker has died")
    state, why = served.state(model)
    well = state == "open" or (state in ("closed", "opening") and why is None)
    if not well and state != "opening":
        service.revive(model, not_before_s=RETRY_S if state == "broken" else 0.0)
    return {"state": state, "well": well, "deaths": served.deaths[model], **({"why": why} if why else {})}

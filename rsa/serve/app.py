"""The application: routes, and what every response of theirs has in common."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from engine.errors import EngineError
from rsa.errors import RSAError
from rsa.serve import chat, health, openapi, run_routes
from rsa.serve.errors import answer_error
from rsa.serve.guard import Guard
from rsa.serve.models import Served
from rsa.serve.pages import page_routes
from rsa.serve.responses import door
from rsa.serve.responses.work import Responses
from rsa.serve.service import Service
from rsa.serve.settings import ServeSettings
from rsa.serve.watching import Watched

_ANSWERED = (Exception, RSAError, EngineError, ValidationError, HTTPException)
"""Errors that a client is told of. The first one alone would do, but what it catches is raised again, for the log."""


def create_app(settings: ServeSettings, served: Served | None = None) -> Starlette:
    """The application of a server, for uvicorn or another ASGI server on asyncio. `app.state.service` is its `Service`.

    served   the models, if they are not to be opened as `settings` say; closed with the application.
    """
    service = Service(settings, served)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with service, Responses(service) as responses:
            app.state.responses = responses
            yield

    app = Starlette(
        routes=routes(),
        exception_handlers={**dict.fromkeys(_ANSWERED, answer_error), ClientDisconnect: _nobody},
        lifespan=lifespan,
        middleware=[
            Middleware(Watched, service.metrics, route_of=_route_of, log_prompts=settings.log_prompts),
            guard(settings),
        ],
    )
    app.state.service = service
    return app


def guard(settings: ServeSettings) -> Middleware:
    """What stands before all routes of a server."""
    return Middleware(
        Guard,
        keys=settings.api_keys,
        hosts=(settings.host, *settings.hosts),
        origins=settings.origins,
        body_bytes=settings.body_bytes,
    )


def routes() -> list[BaseRoute]:
    """All that is served."""
    return [
        Route("/openapi.json", openapi.show),
        Route("/health", health.show_health),
        Route("/metrics", health.show_metrics),
        Route("/v1/models", chat.list_models),
        Route("/v1/models/{name:path}", chat.show_model),
        Route("/v1/chat/completions", chat.complete, methods=["POST"]),
        *door.routes(),
        Route("/v1/runs", run_routes.list_runs),
        Route("/v1/runs/{id}", run_routes.show_run),
        Route("/v1/runs/{id}/events", run_routes.follow_run),
        Route("/v1/runs/{id}/cancel", run_routes.cancel_run, methods=["POST"]),
        Route("/v1/runs/{id}/resume", run_routes.resume_run, methods=["POST"]),
        *page_routes(),
    ]


def _route_of(scope: Scope) -> str:
    """What a request is counted under: its route, with the names of its parameters."""
    route = scope.get("route")
    return route.path if isinstance(route, Route) else "other"


async def _nobody(_: Request, error: Exception) -> Response:
    """For a client that has gone: nobody reads it."""
    return Response(status_code=499)

"""Calls of `solve` as tasks: the extension `io.modelcontextprotocol/tasks` (SEP-2663, of the protocol of 2026-07-28).

A client that declares the extension gets a handle at once instead of a result, asks how the run stands (`tasks/get`),
and may end it (`tasks/cancel`). A task is a run of the server and has its id: it goes on when the client goes away, and
is found again by the next process that serves the same folder of runs.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from anyio.abc import TaskGroup
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, CallToolResult, RequestParams
from pydantic import ValidationError

from engine.errors import EngineError
from rsa.errors import RSAError
from rsa.serve.errors import ApiError
from rsa.serve.mcp.solving import Solving, fault, solved
from rsa.serve.mcp.steps import Steps
from rsa.serve.orders import RunState
from rsa.serve.runs import RunHandle, Runs

TASKS = "io.modelcontextprotocol/tasks"
POLL_MS = 2000
_METADATA = {"mcp": "task"}
"""What marks runs that are tasks: no other run of the folder is told of."""
_STATUSES: dict[RunState, str] = {
    "queued": "working",
    "running": "working",
    "finished": "completed",
    "failed": "completed",  # as a result that is an error; `failed` is for errors of the protocol
    "cancelled": "cancelled",
    "interrupted": "cancelled",
}


class TaskParams(RequestParams):
    """Of the extension's methods."""

    task_id: str


class Tasks(Extension):
    """The extension. `group` is where tasks are watched; `tool` is `solve` itself, which knows its arguments."""

    identifier = TASKS

    def __init__(self, runs: Runs, solving: Solving, tool: Tool, group: TaskGroup) -> None:
        self._runs, self._solving, self._tool, self._group = runs, solving, tool, group
        self._said: dict[str, tuple[str, float]] = {}  # of live tasks: the newest line, and when it was said

    def methods(self) -> list[MethodBinding]:
        return [
            MethodBinding("tasks/get", TaskParams, self._get),
            MethodBinding("tasks/update", TaskParams, self._update),
            MethodBinding("tasks/cancel", TaskParams, self._cancel),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Begin a task for who can take one; whoever cannot is answered as ever. What is wrong is said in a line."""
        if params.name != self._tool.name:
            return await call_next(ctx)
        try:
            arguments = self._tool.fn_metadata.validate_arguments(params.arguments or {})
            if not _takes_tasks(ctx):
                return await call_next(ctx)
            handle = self._solving.started(await self._solving.order(arguments, metadata=_METADATA))
        except (ValidationError, RSAError, EngineError) as error:
            return fault(error)
        self._group.start_soon(self._watch, handle)
        return {"resultType": "task", **self._task(handle)}

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        handle = await self._found(params.task_id)
        told = {"resultType": "complete", **self._task(handle)}
        if told["status"] == "completed":
            told["result"] = (await _outcome(handle)).model_dump(mode="json", by_alias=True, exclude_none=True)
        return told

    async def _update(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        """Nothing is ever asked of the client."""
        await self._found(params.task_id)
        return {"resultType": "complete"}

    async def _cancel(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        (await self._found(params.task_id)).cancel()
        return {"resultType": "complete"}

    async def _found(self, task_id: str) -> RunHandle:
        try:
            handle = await self._runs.get(task_id)
        except ApiError:
            handle = None
        if handle is None or handle.summary.metadata != _METADATA:
            raise MCPError(code=INVALID_PARAMS, message=f"there is no task {task_id!r}")
        return handle

    async def _watch(self, handle: RunHandle) -> None:
        """Keep the newest line of a task until it ends."""
        steps = Steps()
        try:
            async for numbered in handle.follow():
                if (step := steps.feed(numbered.event)) is not None and step.line:
                    self._said[handle.id] = step.line, time.time()
        except RSAError:
            pass  # who asks for the task is told
        finally:
            self._said.pop(handle.id, None)

    def _task(self, handle: RunHandle) -> dict[str, Any]:
        summary = handle.summary
        line, said_at = self._said.get(handle.id, (summary.error or summary.state, summary.created_at))
        return {
            "taskId": handle.id,
            "status": _STATUSES[summary.state],
            "statusMessage": line,
            "createdAt": _date(summary.created_at),
            "lastUpdatedAt": _date(summary.finished_at or said_at),
            "ttlMs": None,  # as long as its folder is there
            "pollIntervalMs": POLL_MS,
        }


async def _outcome(handle: RunHandle) -> CallToolResult:
    try:
        return await solved(handle)
    except (RSAError, EngineError) as error:
        return fault(error)


def _takes_tasks(ctx: ServerRequestContext[Any, Any]) -> bool:
    able = ctx.session.client_capabilities
    return able is not None and TASKS in (able.extensions or {})


def _date(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")

"""`rsa mcp`: Markovian RSA as a tool of agents, by the Model Context Protocol."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsa.command.options import HostsFlag, KeysFlag, ServedModelsFlag, folder_flag, with_servers
from rsa.command.terminal import DEFAULT_MODEL, RUNS, bars, errors_for_people, say

if TYPE_CHECKING:
    from rsa.serve.settings import ServeSettings


@with_servers
def mcp(
    *,
    model: ServedModelsFlag = None,
    http: Annotated[bool, typer.Option("--http", help="Serve many clients over HTTP, at /mcp.")] = False,
    host: Annotated[str, typer.Option(help="With --http: where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --http; 0: one that is free.")] = 8001,
    api_key: KeysFlag = None,
    allow_host: HostsFlag = None,
    runs: Annotated[Path, folder_flag("Folder of the runs.", default="runs")] = RUNS,
    servers: dict[str, Any],
) -> None:
    """Let agents call `solve` by the Model Context Protocol.

    Without --http it speaks with the client that started it, on standard input and output.

    Put `rsa mcp` into the client's list of servers; everything else goes to standard error.
    """
    with errors_for_people("host", "port", "runs", "model"):
        import anyio

        from rsa.errors import ConfigError

        if find_spec("mcp") is None:
            raise ConfigError(
                "rsa mcp needs the protocol's SDK, which is not installed: pip install 'markovian-rsa[mcp]'"
            )
        settings = _settings(
            models=model or [DEFAULT_MODEL],
            servers=servers,
            host=host,
            port=port,
            api_keys=tuple(api_key or ()),
            hosts=tuple(allow_host or ()),
            runs=runs,
            # Clients start as many of these as they like in one folder: each leaves the others' runs alone.
            resume="background" if http else "none",
        )
        from rsa.serve.mcp import serving

        if not http:
            anyio.run(serving.serve_stdio, settings)
            return
        ended_by = serving.serve_http(settings, lambda url: say(f"serving solve at {url}"))
    if ended_by is not None:
        raise typer.Exit(128 + ended_by)


def _settings(*, models: list[str], servers: dict[str, Any], **more: Any) -> ServeSettings:
    """Settings, with the models at hand, so that a call waits for none to be fetched."""
    from rsa.compose import fetch_if_missing
    from rsa.serve.settings import ServeSettings, models_served

    settings = ServeSettings(models=models_served(models, servers), **more)
    with bars() as show:
        for each in settings.models:
            fetch_if_missing(each.opens, show)
    return settings

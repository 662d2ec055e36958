"""`rsa serve`: models, and Markovian RSA on them, behind the interfaces that agents speak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from rsa.command.options import HostsFlag, KeysFlag, ServedModelsFlag, folder_flag, with_flags_for, with_servers
from rsa.command.terminal import DEFAULT_MODEL, RUNS, bars, errors_for_people, say

if TYPE_CHECKING:
    from rsa.serve.settings import Resume

_LIMITS = "Limits"


def _limit(help_: str, **options: Any) -> Any:
    return typer.Option(rich_help_panel=_LIMITS, help=help_, **options)


class LimitFlags:
    """Limits of a server, as keys of `rsa.serve.settings.ServeSettings` but for their units."""

    concurrent: Annotated[int, _limit("Requests that are worked on at a time.", min=1)] = 64
    queue: Annotated[int, _limit("Requests that wait for that; more are refused.", min=0)] = 256
    body_bytes: Annotated[int, _limit("The largest request.", min=1)] = 32 * 1024 * 1024
    images: Annotated[int, _limit("Images of a request.", min=0)] = 16
    image_bytes: Annotated[int, _limit("The largest image.", min=1)] = 20 * 1024 * 1024
    fetch_images: Annotated[bool, _limit("Whether images may be at http(s) URLs, of public addresses.")] = True
    grace: Annotated[float, _limit("Seconds that requests may take to end after SIGTERM or Ctrl-C.", min=0)] = 30.0
    keep_alive: Annotated[float, _limit("The longest silence of a stream, in seconds.", min=0.01)] = 10.0


def _with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of `LimitFlags` in place of its parameter `limits`, which gets them as settings."""
    in_seconds = {"grace": "grace_s", "keep_alive": "keep_alive_s"}
    return with_flags_for(
        "limits", LimitFlags, command, lambda values: {in_seconds.get(flag, flag): values[flag] for flag in values}
    )


@with_servers
@_with_limits
def serve(
    *,
    model: ServedModelsFlag = None,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8000,
    runs: Annotated[Path, folder_flag("Folder of the runs.", default="runs")] = RUNS,
    api_key: KeysFlag = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A file with such keys, one a line; # begins a comment.", show_default="none"
        ),
    ] = None,
    allow_host: HostsFlag = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="A web site whose pages may ask from browsers; * is any.", show_default="none"
        ),
    ] = None,
    resume: Annotated[
        str, typer.Option(metavar="WHICH", help="Unfinished runs that go on at the start: background, all or none.")
    ] = "background",
    servers: dict[str, Any],
    limits: dict[str, Any],
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Let logs hold what people wrote.")] = False,
) -> None:
    """Serve models, and Markovian RSA on them, to clients of OpenAI's interfaces.

    MODEL is the model itself, MODEL:rsa and MODEL:rsa-PROFILE are runs on it. The URL is printed on standard error.
    """
    with errors_for_people("host", "port", "runs", "resume", "model", "api_key_file"):
        from engine.paths import path_named
        from rsa.errors import RunFolderError
        from rsa.serve.settings import ServeSettings, keys_of, models_served, open_to_others

        settings = ServeSettings(
            models=models_served(model or [DEFAULT_MODEL], servers),
            host=host,
            port=port,
            runs=path_named(runs, RunFolderError),
            api_keys=keys_of(api_key or (), api_key_file),
            hosts=tuple(allow_host or ()),
            origins=tuple(allow_origin or ()),
            resume=_known(resume),
            log_prompts=log_prompts,
            **limits,
        )
        if open_to_others(settings):
            say(f"warning: no key is asked for, and other machines may reach {host}: set RSA_API_KEY")
        from rsa.compose import fetch_if_missing

        with bars() as show:
            for each in settings.models:
                fetch_if_missing(each.opens, show)
        from rsa.serve import running

        ended_by = running.run(settings, lambda url: say(f"serving {', '.join(_names(settings))} at {url}"))
    if ended_by is not None:
        raise typer.Exit(128 + ended_by)


def _known(resume: str) -> Resume:
    """The word for which runs go on. Raises ConfigError for another one."""
    from rsa.errors import ConfigError, did_you_mean
    from rsa.serve.settings import Resume

    if resume not in get_args(Resume):
        meant = did_you_mean(resume, get_args(Resume)) or "."
        raise ConfigError(f"`resume` {resume!r} is not known{meant} There are {', '.join(get_args(Resume))}")
    return cast("Resume", resume)


def _names(settings: Any) -> list[str]:
    return [model.name for model in settings.models]

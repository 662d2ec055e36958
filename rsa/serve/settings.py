"""What a server serves, where, and within which limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from engine.paths import is_folder, path_named
from rsa.errors import ConfigError
from rsa.results import Record

Resume = Literal["background", "all", "none"]
"""Which unfinished runs go on when a server starts: those that nobody had to wait for, all that were not cancelled, or
none."""
_NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)=(.+)", re.DOTALL)


class ServedModel(Record):
    """A model of a server.

    name     what clients call it.
    opens    what opens it, as `rsa solve --model` takes it.
    options  for what opens it: see `rsa.compose.open_engine`.
    """

    name: str
    opens: str
    options: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, text: str, options: Mapping[str, Any]) -> ServedModel:
        """A model as people give it: what opens it, or NAME=WHAT. A folder is called by its own name."""
        named = _NAMED.fullmatch(text)
        name, opens = (named[1], named[2]) if named else (text, text)
        if named is None and is_folder(text):
            name = path_named(text, ConfigError).resolve().name
        return cls(name=name, opens=opens, options=dict(options))


class ServeSettings(Record):
    """Settings of a server; each is a flag of `rsa serve`.

    runs           the folder of runs; every run has a folder of its own there.
    api_keys       one of them must come with each request; none: whoever reaches the port is served.
    hosts          names that the server is reached under, besides addresses and localhost; `*`: any. With keys, all are
                   good.
    origins        web sites whose pages may ask from browsers; `*`: all.
    resume         which unfinished runs go on at the start.
    body_bytes     the largest request.
    images         of one request at most, and `image_bytes` is the largest of them; `fetch_images`: whether they may be
                   at http(s) URLs.
    concurrent     requests that are worked on at a time, and `queue`: that wait; more are refused.
    grace_s        how long running requests may take to end when the server is asked to.
    keep_alive_s   the longest silence of a stream: a comment breaks it.
    first_byte_s   the longest that a stream's first byte waits for faults, which are an HTTP status until then, and an
                   event of the stream afterwards.
    log_prompts    whether logs may hold what people wrote.
    """

    models: tuple[ServedModel, ...] = (ServedModel(name="nano", opens="nano"),)
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, lt=2**16)
    runs: Path = Path("runs")
    api_keys: tuple[str, ...] = Field((), repr=False)
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    resume: Resume = "background"
    body_bytes: int = Field(32 * 1024 * 1024, ge=1)
    images: int = Field(16, ge=0)
    image_bytes: int = Field(20 * 1024 * 1024, ge=1)
    fetch_images: bool = True
    concurrent: int = Field(64, ge=1)
    queue: int = Field(256, ge=0)
    grace_s: float = Field(30.0, ge=0)
    keep_alive_s: float = Field(10.0, gt=0)
    first_byte_s: float = Field(0.05, ge=0)
    log_prompts: bool = False


def models_served(given: Sequence[str], servers: Mapping[str, Any]) -> tuple[ServedModel, ...]:
    """The models that people name, for a server. `servers`: options of those that run behind one.

    Raises ConfigError for an unknown model and for two of one name, engine.errors.RequestError for an unknown kind.
    """
    from rsa.compose import is_remote, model_spec

    models = [ServedModel.of(text, {}) for text in given]
    for model in models:
        model_spec(model.opens)
    remote = [is_remote(model.opens) for model in models]
    if servers and not any(remote):
        raise ConfigError(f"`{next(iter(servers))}` is for openai:MODEL, and there is none: leave it out")
    named: dict[str, ServedModel] = {}
    for model, behind_server in zip(models, remote, strict=True):
        if (other := named.get(model.name)) is not None:
            raise ConfigError(
                f"two models are called {model.name!r} ({other.opens} and {model.opens}): give one another name, NAME="
                f"{model.opens}"
            )
        named[model.name] = model.model_copy(update={"options": dict(servers)}) if behind_server else model
    return tuple(named.values())


def keys_of(given: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """The keys that are given, and those in a file, one a line, without comments. Raises ConfigError, also for a key
    that is blank: who means to ask for one must not be left without."""
    if not all(key.strip() for key in given):
        raise ConfigError("`api_key` is blank: give a key, or leave it out")
    return (*(key.strip() for key in given), *(_keys_in(file) if file is not None else ()))


def open_to_others(settings: ServeSettings) -> bool:
    """Whether other machines may reach the server, and no key is asked for."""
    try:
        local = ip_address(settings.host).is_loopback
    except ValueError:
        local = settings.host == "localhost"
    return not local and not settings.api_keys


def _keys_in(file: Path) -> tuple[str, ...]:
    file = path_named(file, ConfigError)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8"
        raise ConfigError(f"`api_key_file` {file} cannot be read: {why}") from None
    keys = tuple(key for line in lines if (key := line.partition("#")[0].strip()))
    if not keys:
        raise ConfigError(f"`api_key_file` {file} has no keys: write one a line")
    return keys

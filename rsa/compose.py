"""The composition root: the one module that builds engines, and only when asked to.

A model is a name from configs/models, the path of a folder, a hub id (`owner/name`), or KIND:NAME for an engine of
another kind (see `engine.registry`); the others are of the kind `mlx`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from engine import registry
from engine.api import Engine, ModelInfo
from engine.documents import read_toml
from engine.paths import is_folder
from rsa.answers.checking import Checker, find_checker
from rsa.errors import ConfigError, did_you_mean
from rsa.results import Record
from rsa.settings import resources
from rsa.settings.config import in_plain_words
from rsa.words import shown

if TYPE_CHECKING:
    from engine.files.checkpoint import OnProgress
    from engine.files.conversion import Conversion
    from engine.files.hub import Fetched
    from engine.files.inspection import ModelReport


_MLX = "mlx"
"""The kind of engine that runs what is called without a kind."""
_OPENAI = "openai"
"""The kind of engine that has a server run it."""
_KEPT_OPTIONS = {"base_url": "base_url", "tokenizer": "tokenizer_source", "api_key_env": "api_key_env"}
"""Options of that kind, and the facts of a model's details that keep them for a run that goes on."""
_DECISIVE = {"kv_bits": "kv_bits"}
"""The same of a model that runs here."""


class ModelSpec(Record):
    """A file of configs/models.

    path         what the engine loads: `nano` (built in), a folder, a hub id, or KIND:NAME.
    description  one line for people.
    note         what people should know before they trust its answers, told when a run starts.
    checker      the name of what checks its answers; see `rsa.answers.checking`.
    aggregates   whether rounds of aggregation help it; None: nobody has vouched for it.
    smoke        problems by name that show whether it is in order, for `rsa doctor --smoke`; the checker judges them.
    rsa          settings that suit the model, keys as in `RSAConfig`; they count where no profile is asked for.
    """

    name: str
    path: str
    description: str = ""
    note: str = ""
    checker: str = ""
    aggregates: bool | None = None
    smoke: dict[str, str] = Field(default_factory=dict)
    rsa: dict[str, Any] = Field(default_factory=dict)


def model_names() -> list[str]:
    """Names of the models that come with the package."""
    return resources.names("models")


def model_to_open(model: ModelInfo) -> str:
    """What to open to go on with a run: the model's name if it is one of ours, else where it was loaded from."""
    return model.name if model.name in model_names() else str(model.details.get("source") or model.name)


def options_to_open(model: ModelInfo) -> dict[str, Any]:
    """What to open it with besides its name: of a model behind a server, how that is reached; of one here, what decides
    on its tokens."""
    facts, kept = (_KEPT_OPTIONS, {"max_rows": model.max_rows}) if is_remote(model_to_open(model)) else (_DECISIVE, {})
    options: dict[str, Any] = {**{name: model.details.get(fact) for name, fact in facts.items()}, **kept}
    return {name: value for name, value in options.items() if value is not None}


def is_remote(model: str) -> bool:
    """Whether a model runs behind a server; False for one that does not exist."""
    path = model_spec(model).path if model in model_names() else model
    return _kind_and_name(path)[0] == _OPENAI


def model_spec(model: str) -> ModelSpec:
    """What a model's name stands for.

    Raises ConfigError for an unknown one and engine.errors.RequestError for an unknown kind, naming the nearest.
    """
    if not isinstance(model, str):
        raise ConfigError(f"model = {shown(model)}: should be the name of one")
    if model in model_names():
        table = read_toml(resources.find("models", model), ConfigError)
        unknown = [key for key in table if key not in ModelSpec.model_fields or key == "name"]
        if unknown or "path" not in table:
            raise ConfigError(
                f"configs/models/{model}.toml: {f'unknown key {unknown[0]!r}' if unknown else 'path is missing'}"
            )
        try:
            return ModelSpec(name=model, **table)
        except ValidationError as error:
            raise ConfigError(f"configs/models/{model}.toml: {in_plain_words(error)}") from None
    kind, name = _kind_and_name(model)
    if kind != _MLX:
        registry.check_kind(kind)
        return ModelSpec(name=model, path=model)
    if name != model:
        return model_spec(name)
    if "/" in model or is_folder(model):
        return ModelSpec(name=model, path=model)
    raise ConfigError(
        f"no model is called {shown(model)}{did_you_mean(model, model_names()) or '.'} There are "
        f"{', '.join(model_names())}; or give a hub id (owner/name), a folder, or KIND:NAME"
    )


def _kind_and_name(path: str) -> tuple[str, str]:
    """The kind of engine that opens a model, and what it is called there; a folder may have a colon in its name."""
    found = None if is_folder(path) else registry.split(path)
    return found or (_MLX, path)


def _files_of(model: str) -> str:
    """What the MLX engine loads for a model. Raises as `model_spec`, and ConfigError for a model of another kind."""
    path = model_spec(model).path
    kind, _ = _kind_and_name(path)
    if kind != _MLX:
        raise ConfigError(f"{model} has no files here: it is opened by the kind of engine {kind!r}")
    return path


def model_settings(model: str) -> Mapping[str, Any]:
    """The settings that suit a model; none for one that is not in configs/models. Raises ConfigError."""
    return model_spec(model).rsa


def checker_of(model: ModelInfo) -> Checker | None:
    """What checks the answers of a model that an engine runs; None for one that is not in configs/models, or has no
    checker."""
    spec = card_of(model)
    return find_checker(spec.checker) if spec is not None and spec.checker else None


def smoke_problems(model: ModelInfo) -> Mapping[str, str]:
    """Problems by name on which a model that an engine runs is to be judged; none for most."""
    spec = card_of(model)
    return {} if spec is None else spec.smoke


def card_of(model: ModelInfo) -> ModelSpec | None:
    """What configs/models says of a model that an engine runs; None for one that is not there."""
    if model.name not in model_names():
        return None
    spec = model_spec(model.name)
    # A folder may have the name of a model of ours and hold another.
    return spec if model.details.get("source") == spec.path else None


def fetch_model(model: str, *, to: Path | None = None, on_progress: OnProgress | None = None) -> Fetched:
    """Bring a model of the hub here, in its newest version; on_progress is called from other threads.

    Raises ConfigError for a model that is no hub's, engine.errors.ModelError if it cannot be had.
    """
    path = _files_of(model)
    from engine.files import hub

    if path == "nano" or is_folder(path) or not hub.is_hub_id(path):
        where = "is part of the package" if path == "nano" else "is a folder"
        raise ConfigError(f"{model} {where}: there is nothing to pull")
    return hub.fetch(path, to=to, on_progress=on_progress)


def fetch_if_missing(model: str, on_progress: OnProgress) -> None:
    """Fetch a model if it is one of the hub's and not on this machine yet, so that `open_engine` finds it.

    Raises what `open_engine` raises.
    """
    path = model_spec(model).path
    if _kind_and_name(path)[0] != _MLX:
        return
    from engine.loader import resolve

    resolve(path, on_progress)


def model_report(model: str) -> ModelReport:
    """What the files of a model on this machine are and lack. Raises ConfigError, engine.errors.ModelError."""
    path = _files_of(model)
    from engine.loader import inspect_model

    return inspect_model(path)


def convert_model(model: str, target: Path, **options: Any) -> Conversion:
    """Quantise a model into a folder; `options` go to `engine.loader.convert_model`, which says what is raised.

    Raises ConfigError besides, for an unknown name.
    """
    path = _files_of(model)
    from engine import loader

    return loader.convert_model(path, target, **options)


def open_engine(model: str, **options: Any) -> Engine:
    """Build the engine of a model; `options` go to what opens its kind (`engine.loader.load_engine` for most). Blocks
    until it is ready.

    Raises ConfigError for an unknown name, engine.errors.EngineError if the model cannot be loaded.
    """
    spec = model_spec(model)
    kind, name = _kind_and_name(spec.path)
    facts: dict[str, Any] = {}
    if spec.name in model_names():  # a folder is called by its own name, wherever it is seen from
        facts["name"] = spec.name
    if spec.note:
        facts["notes"] = (spec.note,)
    return registry.open_engine(kind, name, **{**facts, **options})


async def open_in_thread(model: str, **options: Any) -> Engine:
    """`open_engine`, while others go on. A local model is loaded to the end, for its threads must not be left behind;
    who is cancelled does not wait for a server that does not answer, and neither does the process that ends."""
    import anyio.to_thread

    opening = partial(open_engine, model, **options)
    if not is_remote(model):
        return await anyio.to_thread.run_sync(opening)
    from engine.bridge import Mailbox

    ended: Mailbox[Engine | BaseException] = Mailbox()
    threading.Thread(target=_tell, args=(opening, ended.put), name="asking-servers", daemon=True).start()
    found = await ended.get()
    if isinstance(found, BaseException):
        raise found
    return found


def _tell(opening: Callable[[], Engine], put: Callable[[Engine | BaseException], None]) -> None:
    try:
        put(opening())
    except BaseException as error:
        put(error)

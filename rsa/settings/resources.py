"""Where the files of `configs/` are: beside the packages in a checkout, inside `rsa` when installed."""

from __future__ import annotations

from pathlib import Path

from engine.paths import path_named
from rsa.errors import ConfigError, did_you_mean
from rsa.words import shown


def configs_folder() -> Path:
    """The folder that holds models/, profiles/, prompts/. Raises ConfigError if the installation lacks it."""
    package = Path(__file__).resolve().parent.parent
    # The wheel's build puts configs/ at rsa/_configs; a checkout (or an editable install) has it beside rsa/.
    for folder in (package / "_configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise ConfigError(f"no configs folder beside {package}: the installation is incomplete; install it again")


def names(kind: str) -> list[str]:
    """Names of the files of one kind (`models`, `profiles`, `prompts`), without their ending, sorted."""
    return sorted(path.stem for path in (configs_folder() / kind).glob("*.toml"))


def find(kind: str, name: str | Path) -> Path:
    """The file of that name, or `name` itself if it is the path of a TOML file.

    Raises ConfigError if there is neither, naming the nearest match and all names.
    """
    known = names(kind)
    if isinstance(name, str) and name in known:
        return configs_folder() / kind / f"{name}.toml"
    if isinstance(name, str | Path) and str(name).endswith(".toml"):
        path = path_named(name, ConfigError)
        if path.is_file():
            return path
        raise ConfigError(f"no {kind.removesuffix('s')} file at {path}")
    raise ConfigError(
        f"no {kind.removesuffix('s')} is called {shown(name)}{did_you_mean(name, known) or '.'} "
        f"There are {', '.join(known) or 'none'}; or give the path of a .toml file"
    )

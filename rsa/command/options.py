"""Flags of the command line that several commands have: the settings of a run, models and their servers, folders.

What a flag does that is not given stands in its help, in words: the values themselves come from profiles and models.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from engine.paths import path_named
from rsa.settings import resources

_LIMITS = {"total_tokens": "total_tokens", "deadline": "deadline_s", "prompt_tokens": "prompt_tokens"}
"""Flags that are keys of `rsa.settings.config.Limits`."""
_REFUSED = re.compile(r"(?:^|(?<=; ))[a-z]+_[a-z_]+(?= = |: )")
"""A setting of several words whose value is refused, as `rsa.settings.config.in_plain_words` begins to say it."""


def one_of(kind: str) -> Callable[[], list[str]]:
    """For tab completion: the names of the files of a kind that come with the package."""
    return lambda: resources.names(kind)


def folder_flag(help_: str, *, default: str | bool = False) -> Any:
    """A flag that names a folder. An empty name (a variable that is not set) would be the folder we are in."""
    return typer.Option(parser=_folder, metavar="DIR", help=help_, show_default=default)


def folder_argument(help_: str, metavar: str = "DIR") -> Any:
    """An argument that names a folder."""
    return typer.Argument(parser=_folder, metavar=metavar, help=help_)


def _folder(named: str | Path) -> Path:
    if not str(named).strip():
        raise typer.BadParameter("it is empty: name a folder")
    return path_named(named, typer.BadParameter)


TrustFlag = Annotated[
    bool,
    typer.Option("--trust", help="Take what was changed in the folder since it was written as it is, and say so."),
]
ModelFlag = Annotated[
    str | None,
    typer.Option(
        envvar="RSA_MODEL",
        help="A name (`rsa models list`), a folder, a hub id, or KIND:NAME.",
        show_default="nano",
        autocompletion=one_of("models"),
    ),
]
ServedModelsFlag = Annotated[
    list[str] | None,
    typer.Option(
        envvar="RSA_MODEL",
        metavar="[NAME=]MODEL",
        help="As of rsa solve, or with a name for clients; repeat it for several.",
        show_default="nano",
    ),
]
KeysFlag = Annotated[
    list[str] | None,
    typer.Option(
        envvar="RSA_API_KEY",
        help="A key that requests must bring; repeat it for several. Better in the environment: others see flags.",
        show_default="none is asked for",
    ),
]
HostsFlag = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A name that the server is reached under, where no key is asked for.",
        show_default="this machine's own",
    ),
]
DEFAULT_METHOD = "rsa"
"""The method of a measurement, unless another one is asked for."""


def _methods() -> list[str]:
    from rsa.settings.methods import Method

    return list(get_args(Method))


def method_flag(default: str) -> Any:
    """The option of a method, of which nobody has to be given."""
    return typer.Option(
        help="auto, single, vote, rsa, markovian or full-rsa.", show_default=default, autocompletion=_methods
    )


MethodFlag = Annotated[str | None, method_flag("auto, unless a profile, t, stop or select is given")]
ProfileFlag = Annotated[
    str | None,
    typer.Option(
        help="Settings by name, or a TOML file.",
        show_default="paper-16k, but for what the model brings",
        autocompletion=one_of("profiles"),
    ),
]


def _flag(*names: str, default: str, **options: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Settings of a run", show_default=default, **options)


def _server_flag(*, default: str, **options: Any) -> Any:
    return typer.Option(rich_help_panel="A model behind a server", show_default=default, **options)


FROM_THE_MODEL = "from the model"


def _policies(kind: Any) -> Callable[[], list[str]]:
    def complete() -> list[str]:
        from rsa.policies.registry import names

        return names(kind)

    return complete


class SettingFlags:
    """A flag for each setting of `RSAConfig`, in the order of the help. A test checks what they say of defaults."""

    n: Annotated[int | None, _flag("--n", default="16", help="Candidates a round.")]
    c: Annotated[int | None, _flag("--c", default="4, at most n", help="Tails in an aggregation prompt.")]
    t: Annotated[int | None, _flag("--t", default="2", help="Aggregation rounds after round 0.")]
    beta: Annotated[
        str | None, _flag(default="16k; nano: 1k", metavar="TOKENS", help="Reasoning budget of a candidate.")
    ]
    tau: Annotated[str | None, _flag(default="4k, at most beta; nano: 256", metavar="TOKENS", help="Length of a tail.")]
    answer_budget: Annotated[
        str | None, _flag(default="40k; nano: 64", metavar="TOKENS", help="For the answer after the reasoning.")
    ]
    temperature: Annotated[float | None, _flag(default=FROM_THE_MODEL)]
    top_p: Annotated[float | None, _flag(default=FROM_THE_MODEL)]
    top_k: Annotated[int | None, _flag(default=FROM_THE_MODEL)]
    min_p: Annotated[float | None, _flag(default=FROM_THE_MODEL)]
    seed: Annotated[int | None, _flag(default="0", help="Fixes every subset and every draw.")]
    select: Annotated[
        str | None,
        _flag(
            default="vote",
            metavar="POLICY",
            help="The one answer: vote, weighted[:TEMPERATURE], pooled, tournament[:ROUNDS], aggregate, first.",
            autocompletion=_policies("select"),
        ),
    ]
    carry: Annotated[
        str | None,
        _flag(
            default="reasoning",
            help="reasoning, answer_or_reasoning or full.",
            autocompletion=lambda: ["reasoning", "answer_or_reasoning", "full"],
        ),
    ]
    task: Annotated[
        str | None,
        _flag(
            default="math, with images vision; rsa eval: the benchmark's",
            help="Prompts: aime, choice, code, general, math, vision, vqa, or a TOML file.",
            autocompletion=one_of("prompts"),
        ),
    ]
    total_tokens: Annotated[str | None, _flag(default="none", metavar="TOKENS", help="Limit on all tokens.")]
    deadline: Annotated[float | None, _flag(default="none", metavar="SECONDS", help="Limit on the wall clock.")]
    prompt_tokens: Annotated[str | None, _flag(default="none", metavar="TOKENS", help="Limit on each prompt.")]
    stop: Annotated[
        str | None,
        _flag(
            default="never early",
            metavar="POLICY[,...]",
            help="End a round (decided, beta:P, quorum:K) or the run (consensus:SHARE, bayes:P, answered) early.",
            autocompletion=_policies("stop"),
        ),
    ]
    waves: Annotated[
        str | None,
        _flag(default="all at once", metavar="N[,...]", help="Candidates of a round that begin together: 4,4,8."),
    ]
    parents: Annotated[
        str | None,
        _flag(
            default="uniform",
            metavar="POLICY",
            help="Whose tails are read: uniform, confident[:TEMPERATURE] or distinct.",
            autocompletion=_policies("parents"),
        ),
    ]
    strict: Annotated[
        bool | None,
        _flag("--strict", default="lower them", help="Refuse budgets over the context instead of lowering them."),
    ]
    force_answer: Annotated[
        bool | None,
        _flag(
            "--force-answer/--no-force-answer", default="force-answer", help="At beta, ask for an answer all the same."
        ),
    ]
    confidence: Annotated[
        str | None,
        _flag(
            default="summary, where the engine can",
            help="How likely the tokens were: none, summary or tokens.",
            autocompletion=lambda: ["none", "summary", "tokens"],
        ),
    ]


class ServerFlags:
    """A flag for each option of what opens a model: of how its servers are reached, see
    `engine.openai.opening.open_openai`, or of how it runs here, see `engine.loader.load_engine`."""

    base_url: Annotated[
        list[str] | None,
        _server_flag(
            metavar="URL", default="OPENAI_BASE_URL", help="Of a server that runs openai:MODEL; repeat it for several."
        ),
    ]
    tokenizer: Annotated[
        str | None,
        _server_flag(
            metavar="FOLDER", default="the server's, else estimates", help="With the model's tokenizer: exact counts."
        ),
    ]
    api_key_env: Annotated[
        str | None,
        _server_flag(metavar="NAME", default="OPENAI_API_KEY", help="The environment variable that holds the key."),
    ]
    max_rows: Annotated[int | None, _server_flag(default="256", help="Requests at once, over all servers.")]
    kv_bits: Annotated[
        int | None,
        typer.Option(
            rich_help_panel="A model on this machine",
            show_default="16",
            help="8: caches half as large, for more candidates at once; ZAYA1.",
        ),
    ]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of `SettingFlags` in place of its parameter `settings`, but for those it has itself.

    The command gets there a mapping of the settings that were given, keys as in `RSAConfig`.
    """
    return with_flags_for("settings", SettingFlags, command, _settings)


def with_servers(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of `ServerFlags` in place of its parameter `servers`.

    The command gets there a mapping of the options that were given, for `rsa.compose.open_engine`.
    """
    return with_flags_for("servers", ServerFlags, command, _options)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flags that were given, by their names."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def with_flags_for(
    name: str,
    kind_of_flags: type,
    command: Callable[..., None],
    read: Callable[[Mapping[str, Any]], dict[str, Any]] = _given,
) -> Callable[..., None]:
    """Give a command the flags that a class annotates in place of its parameter `name`, but for those it has itself.

    The command gets there a mapping of those that were given or have a default, the value of the annotated name, as
    `read` has it; without it, by their names.
    """
    own = inspect.signature(command).parameters
    hints = get_type_hints(kind_of_flags, include_extras=True)
    flags = {flag: hint for flag, hint in hints.items() if flag not in own}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        values = {flag: given.pop(flag) for flag in flags}
        command(**given, **{name: read(values)})

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name == name:
            parameters += [
                inspect.Parameter(flag, kind, default=getattr(kind_of_flags, flag, None), annotation=hint)
                for flag, hint in flags.items()
            ]
        else:
            parameters.append(parameter.replace(kind=kind))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def flag_of(setting: str, value: object) -> str:
    """The flag that gave a setting; `value` tells which limit it was."""
    if setting == "limits" and isinstance(value, Mapping):
        setting = next(flag for flag, limit in _LIMITS.items() if limit in value)
    return f"--{setting.replace('_', '-')}"


def with_flags(message: str, own: Iterable[str] = ()) -> str:
    """A message of the library, which names settings (`answer_budget`), with the flags that give them.

    Settings stand between backticks there, and what else does stays as it is; but where a value is refused, names of
    several words stand before it as nobody writes them (`top_p = 2`). `own` are names that the running command has
    beside the settings of a run and `trust`.
    """
    from rsa.settings.config import RSAConfig

    names = {*RSAConfig.model_fields, *_LIMITS, *ServerFlags.__annotations__, "trust", *own}
    flags = {name: flag_of(name, None) for name in names} | {key: flag_of(flag, None) for flag, key in _LIMITS.items()}
    named = re.sub(r"`(\w+)`", lambda found: flags.get(found[1], found[0]), message)
    return _REFUSED.sub(lambda found: flags.get(found[0], found[0]), named)


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flags that were given as settings; those of limits together under `limits`."""
    given = _given(values)
    limits = {_LIMITS[name]: given.pop(name) for name in _LIMITS if name in given}
    return {**given, **({"limits": limits} if limits else {})}


def _options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flags that were given as options of an engine; a flag that was repeated, or holds several, as a list."""
    given = _given(values)
    if "base_url" in given:
        given["base_url"] = [url for value in given["base_url"] for url in value.replace(",", " ").split()]
    return given
